"""What Dovecot reported of one address's SMTP attempts, which have no session: paired with Postfix's lines by time.

Three witnesses speak of one attempt, in any order and seconds apart: the report (first, mostly), Dovecot's auth line
and Postfix's answer.  Each list is in the order of arrival; the oldest that fits is taken.
"""

from __future__ import annotations

from typing import Any, Final

from mypy_extensions import mypyc_attr

from guard.bounded import Entry

# What became of an attempt.
FAILED: Final = 0
VAGUE: Final = 1  # 2.3: failed, or the backend could not judge
REFUSED: Final = 2  # the policy server said no
INTERNAL: Final = 3  # the backend could not judge

# Who has spoken of it.
POSTFIX: Final = 1
DOVECOT: Final = 2  # a line
REPORT: Final = 4
BY_POSTFIX: Final = 8  # its line was first, and counts

_MOST: Final = 64
_BEFORE: Final = 12.0  # Postfix gives up on Dovecot after 10 s
_LATE: Final = 2.0
_KEPT: Final = 60.0
_LOGIN: Final = 3600.0  # a login shows in Postfix's log with its first message, or when the connection ends


@mypyc_attr(acyclic=True)
class Reports(Entry):
    """One address's SMTP attempts that were reported, and what waits for a report."""

    __slots__ = ("attempts", "logged", "passed", "waiting")

    def __init__(self) -> None:
        self.attempts: list[tuple[float, int, int]] = []  # time, what became of it, who has spoken
        self.waiting: list[
            tuple[float, str, bool]
        ] = []  # Postfix's without a report: time, protocol, counted
        self.passed: list[float] = []  # reported logins that no line of Postfix has shown
        self.logged: list[float] = []  # Postfix's logins that no report has shown

    def add(self, at: float, kind: int, who: int) -> None:
        """Note an attempt."""
        attempts = self.attempts
        while attempts and (len(attempts) >= _MOST or attempts[0][0] < at - _KEPT):
            attempts.pop(0)
        attempts.append((at, kind, who))

    def find(self, who: int, kinds: tuple[int, ...], at: float) -> int:
        """Return the place of the oldest attempt about `at` that `who` has not spoken of; -1 where there is none."""
        for n, (when, kind, spoken) in enumerate(self.attempts):
            if not spoken & who and kind in kinds and at - _BEFORE <= when <= at + _LATE:
                return n
        return -1

    def speaks(self, n: int, who: int, kind: int = -1) -> None:
        """Note that `who` has spoken of an attempt, and what is known of it now."""
        at, known, spoken = self.attempts[n]
        self.attempts[n] = (at, known if kind < 0 else kind, spoken | who)

    def answered(self, at: float) -> int:
        """Take the attempt that Postfix's answer at `at` belongs to; return what became of it, -1 where none was reported."""
        n = self.find(POSTFIX, (FAILED, VAGUE, REFUSED, INTERNAL), at)
        if n < 0:
            return -1
        self.speaks(n, POSTFIX)
        return self.attempts[n][1]

    def wait(self, at: float, protocol: str, *, counted: bool) -> None:
        """Note an answer of Postfix that no report has come for."""
        waiting = self.waiting
        while waiting and (len(waiting) >= _MOST or waiting[0][0] < at - _KEPT):
            waiting.pop(0)
        waiting.append((at, protocol, counted))

    def take(self, at: float) -> tuple[float, str, bool] | None:
        """Take the oldest answer of Postfix that a report at `at` may belong to."""
        for n, (when, _, _) in enumerate(self.waiting):
            if at - _BEFORE <= when <= at + _BEFORE:
                return self.waiting.pop(n)
        return None

    def confirmed(self) -> None:
        """Note that the oldest answer of Postfix that did not count does now."""
        for n, (at, protocol, counted) in enumerate(self.waiting):
            if not counted:
                self.waiting[n] = (at, protocol, True)
                return

    def passes(self, at: float) -> bool:
        """Take a reported login; whether it is new."""
        return not _taken(self.logged, at - _BEFORE) and _added(self.passed, at)

    def logs_in(self, at: float) -> bool:
        """Take a login that Postfix shows; whether it is new."""
        return not _taken(self.passed, at - _LOGIN) and _added(self.logged, at)

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("attempts", "waiting", "passed", "logged")

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        values[0] = [(at, kind, who) for at, kind, who in values[0]]
        values[1] = [(at, protocol, counted) for at, protocol, counted in values[1]]
        super().load(values)


def _taken(times: list[float], since: float) -> bool:
    while times and times[0] < since:
        times.pop(0)
    if not times:
        return False
    times.pop(0)
    return True


def _added(times: list[float], at: float) -> bool:
    if len(times) >= _MOST:
        times.pop(0)
    times.append(at)
    return True
