"""What a check of the doctor says."""

from __future__ import annotations

from typing import Final, NamedTuple

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"


class Verdict(NamedTuple):
    """One sentence, and what to do about it ("" where all is well)."""

    result: str
    text: str
    remedy: str = ""


class Diagnosis(NamedTuple):
    """A verdict with the name of its check."""

    check: str
    result: str
    text: str
    remedy: str
