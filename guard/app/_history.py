"""The last hour in numbers: where the counters stood at the beginning of each minute, for the page at `/`.

Bounded: 61 marks of a few numbers each.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import pairwise
from typing import Final, NamedTuple

from guard.http.page import MINUTES, Hour, Minute
from guard.stats import Stats

_MINUTE: Final = 60.0


class _Mark(NamedTuple):
    at: float  # when its minute began
    failures: dict[str, int]  # by protocol, without those taken back
    bans: int
    unparsed: int
    logins: int


class History:
    """Reads `stats`; changes nothing."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._marks: deque[_Mark] = deque(maxlen=MINUTES + 1)

    def sample(self, now: float | None = None) -> None:
        """Note where the counters stand, once a minute; to be called about every second."""
        at = (time.time() if now is None else now) // _MINUTE * _MINUTE
        if self._marks and at < self._marks[-1].at:  # the clock was set back
            self._marks.clear()
        if not self._marks or at > self._marks[-1].at:
            self._marks.append(self._mark(at))

    def _mark(self, at: float) -> _Mark:
        stats = self._stats
        failures: dict[str, int] = {}
        for (_, protocol, _), n in stats.auth_failures.values.items():
            failures[protocol] = failures.get(protocol, 0) + n
        for (_, protocol), n in stats.auth_revoked.values.items():
            failures[protocol] = failures.get(protocol, 0) - n
        bans = sum(n for (rule, _), n in stats.bans.values.items() if rule != "deny")
        logins = stats.findings.values.get(("login_after_failures",), 0)
        return _Mark(at, failures, bans, stats.unparsed.total(), logins)

    def hour(self, now: float | None = None) -> Hour:
        """Return what was counted in each of the last `MINUTES` minutes, this one among them, and over them."""
        now = time.time() if now is None else now
        self.sample(now)
        end = now // _MINUTE * _MINUTE
        marks = [mark for mark in self._marks if mark.at > end - MINUTES * _MINUTE]
        last = self._mark(now)
        steps = [*marks, last]
        minutes = [
            Minute(
                before.at,
                max(0, sum(after.failures.values()) - sum(before.failures.values())),
                max(0, after.bans - before.bans),
            )
            for before, after in pairwise(steps)
        ]
        first = marks[0]
        failures = {name: max(0, n - first.failures.get(name, 0)) for name, n in last.failures.items()}
        return Hour(minutes, failures, last.unparsed - first.unparsed, last.logins - first.logins)
