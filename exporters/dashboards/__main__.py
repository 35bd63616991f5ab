"""`python -m exporters.dashboards`: write every dashboard anew."""

from __future__ import annotations

from exporters.dashboards.written import FOLDER, generated

for name, text in generated().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"exporters/dashboards/{name}")
