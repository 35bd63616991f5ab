"""Joins the pure stages: bytes of a log in, decisions out.  Replay and daemon share it, line by line."""

from __future__ import annotations

import math
from typing import Final

from guard import addresses, bans
from guard.bans import Bans
from guard.clock import Clock
from guard.model import CANCELLED, REFUSED, Action, AuthEvent, Attempt, Finding, Policy, Success
from guard.reader import Reader, Reading, describe, redact, when
from guard.rules.brute_force import BruteForce
from guard.rules.login_after_failures import LoginAfterFailures
from guard.sessions import Sessions
from guard.stats import Stats
from guard.tally import Source, Tally

_LONGEST: Final = 1 << 20  # bytes of a line; the rest of a longer one is dropped
_FINDINGS: Final = 10_000
_ROLE_NAMES: Final = ("client", "trusted", "own", "allowed")


class Engine:
    """The guard without the world: no clock, no socket, no log call."""

    __slots__ = (
        "_allow", "_bans", "_brute", "_deny", "_failures", "_findings", "_first", "_halves", "_keep", "_kinds", "_last", "_logins",
        "_now", "_oversize", "_policy", "_reader", "_relevant", "_sessions", "_tally", "findings", "lines_read", "stats", "unparsed",
    )  # fmt: skip

    def __init__(self, policy: Policy, *, clock: Clock, keep: bool = False) -> None:
        self.stats = Stats()
        self._policy = policy
        self._keep = keep
        self._reader = Reader(clock, self.stats)
        self._sessions = Sessions(
            self.stats, max_sessions=policy.max_sessions, max_clients=policy.max_addresses, keep=keep
        )
        self._tally = Tally(policy.max_addresses, keep=keep)
        self._brute = BruteForce(policy, keep=keep)
        self._logins = LoginAfterFailures(policy, keep=keep)
        self._bans = Bans(policy, keep=keep)
        self._allow: set[str] = set()  # added by hand
        self._deny: set[str] = set()
        self._halves: dict[str, bytes] = {}
        self._oversize: set[str] = set()
        self._failures: dict[tuple[str, str], int] = {}  # (service, protocol) -> counted minus taken back
        self._kinds: dict[str, int] = {}
        self._findings: list[Finding] = []
        self.findings: list[Finding] = []
        self._first = -1.0
        self._last = -1.0
        self._now = -1.0
        self._relevant = 0
        self.lines_read = 0
        self.unparsed = 0

    # -- the stream ------------------------------------------------------------------------------------------------

    def feed(self, source: str, data: bytes, now: float | None = None) -> list[Action]:
        """Take any piece of a source's bytes; return what is to be done.  The unfinished line is held."""
        half = self._halves.pop(source, b"")
        if source in self._oversize:
            cut = data.find(b"\n")
            if cut < 0:
                return []
            self._oversize.discard(source)
            data = data[cut + 1 :]
        elif half:
            data = half + data
        end = data.rfind(b"\n") + 1
        if end < len(data):
            if len(data) - end > _LONGEST:
                self.stats.ignored.add(("anomaly",))
                self._oversize.add(source)
            else:
                self._halves[source] = data[end:]
        return self._lines(source, data[:end], -1.0 if now is None else now)

    def pending(self, source: str) -> int:
        """Return how many bytes of an unfinished line are held."""
        return len(self._halves.get(source, b""))

    def drop(self, source: str) -> None:
        """Forget the unfinished line: its file was truncated or taken away."""
        self._halves.pop(source, None)
        self._oversize.discard(source)

    def finish(self, source: str, now: float | None = None) -> list[Action]:
        """Take the end of the stream: an unfinished last line is a line."""
        half = self._halves.pop(source, b"")
        self._oversize.discard(source)
        return self._lines(source, half, -1.0 if now is None else now) if half else []

    def _lines(self, source: str, data: bytes, now: float) -> list[Action]:
        done: list[Action] = []
        if not data:
            return done
        reader = self._reader
        if now >= 0:
            self._now = now
            reader.clock.advance(now)
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        if not lines[-1]:
            lines.pop()
        self.lines_read += len(lines)
        for line in lines:
            reading = reader.read(line, now)
            while reading is not None:
                if reading.event is not None:
                    self._event(reading.event, source, line, done)
                elif reading.unparsed:
                    self.unparsed += 1
                    self._relevant += 1
                if not reading.rest:
                    break
                reading = reader.read(reading.rest, now)
        self.stats.lines.add((source, "all"), len(lines))
        return done

    def _event(self, event: AuthEvent, source: str, line: str, done: list[Action]) -> None:
        self._relevant += 1
        at = event.at
        if self._first < 0:
            self._first = at
        if at > self._last:
            self._last = at
        kind = event.kind
        if kind == REFUSED or kind == CANCELLED or kind == "unjudged":  # noqa: PLR1714
            self._kinds[kind] = self._kinds.get(kind, 0) + 1
        self._sessions.feed(event, source)
        ledger = self._sessions.ledger
        if ledger.out or ledger.successes or ledger.moves:
            self._drain(line, done)

    def _drain(self, line: str, done: list[Action]) -> None:
        ledger = self._sessions.ledger
        for ip, reason, protocol, n in ledger.moves:
            self._move(ip, reason, protocol, n)
        ledger.moves.clear()
        for attempt in ledger.out:
            self._attempt(attempt, line, done)
        ledger.out.clear()
        for success in ledger.successes:
            self._success(success)
        ledger.successes.clear()

    # -- what was counted ------------------------------------------------------------------------------------------

    def _attempt(self, attempt: Attempt, line: str, done: list[Action]) -> None:
        role, net = self._bans.role(attempt.ip)
        stats = self.stats
        if role == bans.TRUSTED or role == bans.OWN:  # noqa: PLR1714
            stats.ignored.add((_ROLE_NAMES[role],))
            return
        key = (attempt.service, attempt.protocol)
        self._failures[key] = self._failures.get(key, 0) + attempt.n
        if attempt.n > 0:
            stats.auth_failures.add((attempt.service, attempt.protocol, attempt.reason))
        else:
            stats.auth_revoked.add(key)
        self._tally.attempt(attempt)
        if attempt.user is not None:
            self._logins.failed(attempt.ip, attempt.user, attempt.at, attempt.n)
        if role == bans.ALLOWED:
            stats.ignored.add(("allowed",))
            return
        active = self._bans.covering(net, attempt.at)
        if attempt.n < 0:
            if not self._brute.take_back(net, attempt.at) and active is not None:
                self._take_back(net, attempt.at, done)
            return
        if active is not None:
            self._bans.failed_again(active, attempt.at)
            return
        window = self._brute.feed(net, attempt.at, line)
        if window is None:
            return
        is_open = None if attempt.open < 0 else attempt.open == 1
        ban = self._bans.impose(net, attempt.at, BruteForce.name, window.times, [redact(text) for text in window.lines], is_open)
        stats.findings.add((BruteForce.name,))
        stats.bans.add((ban.rule, addresses.family(net)))
        done.append(ban)

    def _take_back(self, net: str, at: float, done: list[Action]) -> None:
        active = self._bans.covering(net, at)
        if active is None or not self._bans.take_back(active, at):
            return
        window = self._brute.windows.peek(net)
        for time, text in zip(active.times, active.lines, strict=True):
            window = self._brute.feed(net, time, text)
        done.append(self._bans.revoke(net, max(at, self._last)))
        self.stats.unbans.add(("revoked",))

    def _move(self, ip: str, reason: str, protocol: str, n: int) -> None:
        role, _ = self._bans.role(ip)
        if role == bans.TRUSTED or role == bans.OWN:  # noqa: PLR1714
            return
        before, after = ("dovecot", "unknown"), ("dovecot", protocol)
        self._failures[before] = self._failures.get(before, 0) - n
        self._failures[after] = self._failures.get(after, 0) + n
        self.stats.auth_revoked.add(before, n)
        self.stats.auth_failures.add(("dovecot", protocol, reason), n)
        self._tally.move(ip, protocol, n)

    def _success(self, success: Success) -> None:
        self.stats.auth_successes.add((success.service, success.protocol), success.count)
        role, _ = self._bans.role(success.ip)
        if role == bans.TRUSTED or role == bans.OWN:  # noqa: PLR1714
            return
        self._tally.success(success)
        if success.user is None:
            return
        finding = self._logins.succeeded(success.ip, success.user, success.at)
        if finding is not None:
            self.stats.findings.add((finding.rule,))
            self._findings.append(finding)
            if len(self.findings) < _FINDINGS:
                self.findings.append(finding)

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        """Let time pass: what waited counts, what is over ends."""
        done: list[Action] = []
        self._sessions.tick(now)
        self._drain("", done)
        for unban in self._bans.expire(now):
            self.stats.unbans.add(("expired",))
            done.append(unban)
        return done

    def take_findings(self) -> list[Finding]:
        """Return the findings since the last call."""
        found = self._findings
        self._findings = []
        return found

    # -- looking ---------------------------------------------------------------------------------------------------

    def read_line(self, line: bytes) -> Reading | None:
        """Return what one line means, counting nothing against anybody."""
        return self._reader.read(line.decode("utf-8", "surrogateescape").rstrip("\r\n"), -1.0)

    def report(self) -> dict[str, object]:
        """Return everything counted so far, as `mailward replay --format json` shows it."""
        by_service: dict[str, int] = {}
        by_protocol: dict[str, int] = {}
        for (service, protocol), n in sorted(self._failures.items()):
            if n:
                by_service[service] = by_service.get(service, 0) + n
                by_protocol[protocol] = by_protocol.get(protocol, 0) + n
        sources = sorted(self._tally.sources.items(), key=_by_failures)
        return {
            "lines": {"read": self.lines_read, "relevant": self._relevant, "unparsed": self.unparsed},
            "period": {
                "first": None if self._first < 0 else when(self._first),
                "last": None if self._last < 0 else when(self._last),
            },
            "failures": {"total": sum(by_service.values()), "by_service": by_service, "by_protocol": by_protocol},
            "unjudged": self.stats.auth_unjudged.total(),
            "refused": self._kinds.get("refused", 0),
            "cancelled": self._kinds.get("cancelled", 0),
            "sources": [_source(ip, source) for ip, source in sources],
            "bans": [
                {
                    "at": when(ban.at),
                    "net": ban.net,
                    "rule": ban.rule,
                    "failures": ban.failures,
                    "seconds": None if math.isinf(ban.until) else round(ban.seconds),
                    "session_open": ban.session_open,
                    "evidence": list(ban.evidence),
                }
                for ban in self._bans.history
            ],
            "findings": [
                {"at": when(f.at), "rule": f.rule, "ip": f.ip, "user": f.user, "text": f.text} for f in self.findings
            ],
        }


def _by_failures(item: tuple[str, Source]) -> tuple[int, str]:
    return -item[1].failures, item[0]


def _source(ip: str, source: Source) -> dict[str, object]:
    return {
        "ip": ip,
        "failures": source.failures,
        "successes": source.successes,
        "users": source.user_count(),
        "by_protocol": source.by_protocol(),
        "first": when(source.first),
        "last": when(source.last),
    }


__all__ = ["Engine", "describe"]
