"""Each rule of counting, alone: a few lines that say what is counted, revoked, refused or banned, and exactly how much."""

from __future__ import annotations

from typing import Any

import pytest

from tests.replay.cases import RULES, counted, expected, play


def holds(want: Any, found: Any) -> bool:
    """Whether `found` has what is wanted of it: keys that are not named do not matter, a list's length does."""
    if isinstance(want, dict):
        return isinstance(found, dict) and all(holds(value, found.get(key)) for key, value in want.items())
    if isinstance(want, list):
        return isinstance(found, list) and len(want) == len(found) and all(map(holds, want, found))
    return bool(want == found)


@pytest.mark.parametrize("case", RULES)
def test_a_rule_counts_as_it_says(case):
    report = play(case, expected(case)["logs"])
    says = expected(case)["says"]
    counts = counted(report)
    assert {ip: n for ip, n in counts.items() if n} == {
        ip: n for ip, n in expected(case)["sources"].items() if n
    }, says
    for key, want in expected(case).get("report", {}).items():
        assert holds(want, report[key]), (says, report[key])
    assert report["lines"]["unparsed"] == 0
