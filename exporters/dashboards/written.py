"""All dashboards, as the text of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from exporters.dashboards import attack, geography, internals, mail, overview, stack

FOLDER: Final = Path(__file__).parent
SCREENS: Final = (overview, attack, mail, stack, internals, geography)


def generated() -> dict[str, str]:
    """Return the text of each file by its name."""
    texts = {}
    for module in SCREENS:
        board = module.SCREEN.dashboard()
        file = module.__name__.rpartition(".")[2] + ".json"
        texts[file] = json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
    return texts
