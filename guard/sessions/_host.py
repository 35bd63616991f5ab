"""What has been learned of one host's daemons, and what its lines left unexplained.

Several hosts can share one log: process ids, sessions and habits belong to a host, never to the log as a whole.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Final

from guard.bounded import Bounded, Entry
from guard.sessions._session import Session

_POOL: Final = 4096
_SMTPD: Final = 1 << 14
_HORIZON: Final = 240.0  # a login session may last 180 s; its anonymous lines are of no use to anybody else
VISIBLE: Final = 600.0  # Postfix speaks for an address this long after its last line
_NAMES: Final = 64


class Worker:
    """The request that one worker is busy with."""

    __slots__ = ("kind", "literal", "user")

    def __init__(self, kind: str, literal: str, user: str | None) -> None:
        self.kind = kind  # page | page_success | dav | broken | dav_broken
        self.literal = literal
        self.user = user


class Sogo(Entry):
    """The workers that one source shows, and its quarantine.  By source: in a forged line the host is forged too."""

    __slots__ = ("left", "literal", "pid", "workers")

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.pid = ""  # of the broken record; "" where there is no quarantine
        self.literal = ""
        self.left = 0

    def dump(self) -> list[object]:
        """Return the book as JSON values."""
        return [
            self.pid, self.literal, self.left,
            {pid: [worker.kind, worker.literal, worker.user] for pid, worker in self.workers.items()},
        ]  # fmt: skip


class Smtpd:
    """One connection of a smtpd process."""

    __slots__ = ("counted", "ip", "ok", "socket_error")

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.counted = 0
        self.ok = 0
        self.socket_error = False


class Host(Entry):
    """The habits and the loose ends of one host."""

    __slots__ = (
        "chained",
        "claims",
        "faceless",
        "has_dovecot",
        "has_postfix",
        "held",
        "lines_per_attempt",
        "name",
        "pool",
        "sessions",
        "smtpd",
        "verbose",
        "visible",
        "visible_old",
        "visible_since",
    )

    def __init__(self, name: str, sessions: Bounded[Session]) -> None:
        self.name = name
        self.sessions = sessions
        self.has_dovecot = False
        self.has_postfix = False
        self.verbose = False  # Dovecot writes a line for each attempt
        self.faceless = False  # and some of them name nobody (2.3, auth_cache_verify_password_with_worker)
        self.chained = False  # several passdbs write a line each for one attempt
        self.lines_per_attempt: dict[str, int] = {}  # by passdb, where it is not one
        self.held: list[tuple[float, str, str]] = []  # (until, session, passdb): lines that a success may explain
        self.pool: list[float] = []  # times of anonymous failure lines that no Postfix failure has claimed
        self.claims: list[tuple[float, str]] = []  # (time, address) of Postfix failures without their auth line
        self.visible: dict[str, float] = {}  # address -> last line of Postfix about it
        self.visible_old: dict[str, float] = {}
        self.visible_since = 0.0
        self.smtpd: dict[str, Smtpd] = {}  # by tag and pid

    def see(self, ip: str, at: float) -> None:
        """Note that Postfix shows a connection of `ip`."""
        if at - self.visible_since > VISIBLE or len(self.visible) >= _SMTPD * 8:
            self.visible_old = self.visible
            self.visible = {}
            self.visible_since = at
        self.visible[ip] = at

    def sees(self, ip: str, at: float) -> bool:
        """Whether Postfix speaks for `ip` at time `at`."""
        seen = self.visible.get(ip)
        if seen is None:
            seen = self.visible_old.get(ip, -1e18)
        return at - seen <= VISIBLE

    def connection(self, process: str, ip: str) -> Smtpd:
        """Return the connection that a smtpd process serves, a new one where its `connect from` was not seen."""
        served = self.smtpd.get(process)
        if served is None:
            if len(self.smtpd) >= _SMTPD:
                del self.smtpd[next(iter(self.smtpd))]
            served = self.smtpd[process] = Smtpd(ip)
        return served

    def leave(self, at: float) -> None:
        """Put an anonymous failure line into the pool."""
        if len(self.pool) >= _POOL:
            del self.pool[: _POOL // 4]
        insort(self.pool, at)

    def claim(self, since: float, until: float) -> bool:
        """Take the earliest anonymous line of [since, until] for a Postfix failure; whether there was one."""
        self._expire(until)
        first = bisect_left(self.pool, since)
        if first < len(self.pool) and self.pool[first] <= until:
            del self.pool[first]
            return True
        return False

    def anonymous(self, since: float, until: float, most: int) -> int:
        """Return how many anonymous lines of [since, until], at most `most`, may be a session's own.

        Sessions do not take them from each other: N also counts cancelled exchanges, and a short session with some of
        those would starve a long one of its real failures.
        """
        self._expire(until)
        return min(most, bisect_right(self.pool, until) - bisect_left(self.pool, since))

    def _expire(self, at: float) -> None:
        stale = bisect_left(self.pool, at - _HORIZON)
        if stale:
            del self.pool[:stale]

    def learn(self, passdb: str, lines: int) -> None:
        """Note that one attempt writes `lines` lines of one passdb."""
        if lines > 1:
            if len(self.lines_per_attempt) < _NAMES:
                self.lines_per_attempt[passdb] = lines
        else:
            self.lines_per_attempt.pop(passdb, None)
