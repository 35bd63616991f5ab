"""What has been learned of one host's daemons, and what its lines left unexplained.

Several hosts can share one log: process ids, sessions and habits belong to a host, never to the log as a whole.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from typing import Any, Final

from mypy_extensions import mypyc_attr

from guard.bounded import Bounded, Entry
from guard.sessions._session import Session

_POOL: Final = 4096
_SMTPD: Final = 1 << 14
_CONNECTION: Final = 3600.0
_HORIZON: Final = 240.0  # a login session may last 180 s; its anonymous lines are of no use to anybody else
_NAMES: Final = 64
_BACKEND: Final = 5.0  # the refusal follows at once; a log may be seconds late


class Worker:
    """The request that one worker is busy with."""

    __slots__ = ("kind", "literal", "user")

    def __init__(self, kind: str, literal: str, user: str | None) -> None:
        self.kind = kind  # page | page_success | dav | broken | dav_broken | away | page_away | dav_away
        self.literal = literal
        self.user = user


class Sogo(Entry):
    """The workers that one source shows, and its quarantine.  By source: in a forged line the host is forged too."""

    __slots__ = ("left", "literal", "own", "pid", "workers")

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.pid = ""  # of the broken record; "" where there is no quarantine
        self.literal = ""
        self.left = 0
        self.own = False  # SOGo's own file: no other daemon writes there

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("workers", "pid", "literal", "left", "own")

    def dump(self) -> list[object]:
        """Return the book as JSON values."""
        values = super().dump()
        values[0] = {pid: [worker.kind, worker.literal, worker.user] for pid, worker in self.workers.items()}
        return values

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        values[0] = {pid: Worker(kind, literal, user) for pid, (kind, literal, user) in values[0].items()}
        super().load(values)


@mypyc_attr(acyclic=True)
class Smtpd(Entry):
    """One connection of a smtpd process."""

    __slots__ = ("counted", "ip", "ok", "serving", "socket_error")

    def __init__(self, ip: str) -> None:
        self.begin(ip)

    def begin(self, ip: str) -> None:
        """Begin another connection: one process serves up to 100, one after the other."""
        self.ip = ip
        self.counted = 0
        self.ok = 0
        self.serving = True
        self.socket_error = False

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("counted", "ip", "ok", "serving", "socket_error")

    def worth_keeping(self, at: float) -> bool:
        """An open connection is not pushed out by others; the map is bounded all the same."""
        return self.counted > 0


class Host(Entry):
    """The habits and the loose ends of one host."""

    __slots__ = (
        "broken",
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
    )

    def __init__(self, name: str, sessions: Bounded[Session]) -> None:
        self.name = name
        self.sessions = sessions
        self.has_dovecot = False
        self.has_postfix = False
        self.verbose = False  # Dovecot writes a line for each attempt
        self.faceless = False  # and some of them name nobody (2.3, auth_cache_verify_password_with_worker)
        self.broken: dict[str, float] = {}  # user -> when the backend could not judge him
        self.chained = False  # several passdbs write a line each for one attempt
        self.lines_per_attempt: dict[str, int] = {}  # by passdb, where it is not one
        # (until, session, passdb, line): auth lines that a success may explain
        self.held: list[tuple[float, str, str, str]] = []
        self.pool: list[int] = []  # seconds of anonymous failure lines that no Postfix failure has claimed
        self.claims: list[
            tuple[float, str]
        ] = []  # (time, address) of Postfix failures without their auth line
        self.smtpd: Bounded[Smtpd] = Bounded(f"smtpd {name}", _SMTPD, _CONNECTION, keep=sessions.keep)

    def connects(self, process: str, ip: str, at: float) -> None:
        """Note that a smtpd process serves a new connection."""
        served = self.smtpd.get(process)
        if served is None:
            served = Smtpd(ip)
            self.smtpd.put(process, served, at)
        else:
            served.begin(ip)
        self.smtpd.touch(process)

    def connection(self, process: str, ip: str, at: float) -> Smtpd:
        """Return the connection that a smtpd process serves, a new one where its `connect from` was not seen."""
        served = self.smtpd.get(process)
        if served is None:
            served = Smtpd(ip)
            self.smtpd.put(process, served, at)
        elif not served.serving:
            served.begin(ip)
        self.smtpd.touch(process)
        return served

    def hangs_up(self, process: str) -> Smtpd | None:
        """Return the connection that a smtpd process served, which is over."""
        served = self.smtpd.get(process)
        if served is None or not served.serving:
            return None
        served.serving = False
        self.smtpd.touch(process)
        return served

    def fields(self) -> tuple[str, ...]:
        """Return what is saved; the maps save themselves."""
        return (
            "has_dovecot",
            "has_postfix",
            "verbose",
            "faceless",
            "chained",
            "lines_per_attempt",
            "held",
            "pool",
            "claims",
            "broken",
        )

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        values[6] = [(until, key, passdb, line) for until, key, passdb, line in values[6]]
        values[8] = [(at, ip) for at, ip in values[8]]
        super().load(values)

    def breaks_for(self, user: str, at: float) -> None:
        """Note that the backend could not judge an attempt of `user`."""
        if len(self.broken) >= _NAMES:
            self.broken.clear()
        self.broken[user.lower()] = at

    def broken_for(self, user: str | None, at: float) -> bool:
        """Whether a refusal of `user` at time `at` only means that the backend could not judge."""
        if not self.broken or user is None:
            return False
        return abs(at - self.broken.pop(user.lower(), -1e18)) <= _BACKEND

    def leave(self, at: float) -> None:
        """Put an anonymous failure line into the pool, by the second: RFC 3164 knows no more."""
        if len(self.pool) >= _POOL:
            del self.pool[: _POOL // 4]
        insort(self.pool, math.floor(at))

    def claim(self, since: float, until: float) -> bool:
        """Take the earliest anonymous line of [since, until] for a Postfix failure; whether there was one."""
        self._expire(until)
        first = bisect_left(self.pool, math.floor(since))
        if first < len(self.pool) and self.pool[first] <= math.floor(until):
            del self.pool[first]
            return True
        return False

    def anonymous(self, since: float, until: float, most: int) -> int:
        """Return how many anonymous lines of [since, until], at most `most`, may be a session's own.

        Sessions do not take them from each other: N also counts cancelled exchanges, and a short session with some of
        those would starve a long one of its real failures.
        """
        self._expire(until)
        return min(
            most, bisect_right(self.pool, math.floor(until)) - bisect_left(self.pool, math.floor(since))
        )

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
