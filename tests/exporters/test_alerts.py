"""The alerts without a server: linked, documented, with a case that fires and one that does not, as promtool judges."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
RULES = sorted((ROOT / "exporters/alerts").glob("*.yml"))
CASES = sorted((ROOT / "tests/exporters/alerts").glob("*.test.yml"))


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


ALERTS = [
    rule for path in RULES for group in loaded(path)["groups"] for rule in group["rules"] if "alert" in rule
]


def panels(screen: dict[str, Any]) -> set[int]:
    return {panel["id"] for at in screen["panels"] for panel in (at, *at.get("panels", ()))}


SCREENS = {
    screen["uid"]: panels(screen)
    for path in (ROOT / "exporters/dashboards").glob("*.json")
    for screen in [json.loads(path.read_text(encoding="utf-8"))]
}


def promtool(*arguments: str | Path) -> None:
    if shutil.which("promtool") is None:
        reason = "NOT RUN: promtool not found; apt-get install prometheus"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_its_panel_and_its_runbook(rule):
    said = rule["annotations"]
    assert said["summary"]
    assert said["description"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    link = re.fullmatch(r"/d/([a-z-]+)\?viewPanel=(\d+)", said["dashboard"])
    assert link
    assert int(link[2]) in SCREENS[link[1]]
    page, _, anchor = said["runbook_url"].partition("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert anchor == rule["alert"].lower()
    assert f"\n## {rule['alert']}\n" in text
    assert said["runbook"] in text


def test_every_alert_has_a_case_that_fires_and_one_that_does_not():
    proved = set()
    for path in CASES:
        for case in loaded(path)["tests"]:
            for asked in case["promql_expr_test"]:
                name, kind = case["name"].split()
                assert f'"{name}"' in asked["expr"]
                assert bool(asked["exp_samples"]) == (kind == "fires")
                proved.add((name, kind))
    assert proved == set(itertools.product([rule["alert"] for rule in ALERTS], ("fires", "silent")))


def test_promtool_takes_the_rules():
    promtool("check", "rules", *RULES)


def test_every_case_is_as_promtool_sees_it():
    promtool("test", "rules", *CASES)


def test_promtool_takes_the_scrape_configuration(tmp_path):
    text = (ROOT / "stack/prometheus/prometheus.yml.template").read_text(encoding="utf-8")
    for name, value in {
        "$MAIL_HOSTNAME": "mx.example.org",
        "$GUARD_METRICS": "192.0.2.1:9780",
        "/run/prometheus/guard_metrics": str(tmp_path / "token"),
        "/etc/prometheus/alerts": str(ROOT / "exporters/alerts"),
    }.items():
        assert name in text
        text = text.replace(name, value)
    (tmp_path / "token").touch()
    (tmp_path / "prometheus.yml").write_text(text)
    promtool("check", "config", tmp_path / "prometheus.yml")
