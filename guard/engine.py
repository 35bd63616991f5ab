"""Joins the pure stages: bytes of a log in, decisions out.  Replay and daemon share it, line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from guard import report
from guard.clock import Clock
from guard.elsewhere import Elsewhere
from guard.model import CANCELLED, REFUSED, UNJUDGED, Action, AuthEvent, Finding, Policy
from guard.reader import KNOWN, NAMES, NEW, Reader, describe, when
from guard.sessions import Sessions
from guard.state import Keeper, Row
from guard.stats import Stats
from guard.traffic import Traffic

_NOTED: Final = frozenset((REFUSED, CANCELLED, UNJUDGED))
_LONGEST: Final = 1 << 20  # bytes of a line; a longer one is dropped


class Engine(Elsewhere):
    """The guard without the world: no clock, no socket, no log call."""

    __slots__ = (
        "_first", "_halves", "_keeper", "_kinds", "_last", "_oversize", "_reader", "_relevant", "_saved", "_sessions", "lines_read", "traffic", "unparsed",
    )  # fmt: skip

    def __init__(
        self,
        policy: Policy,
        *,
        clock: Clock,
        keep: bool = False,
        reports: bool = False,
        traffic: Traffic | None = None,
    ) -> None:
        """`keep`: remember what changed, for `changes`.  `reports`: there will be some, so that lines wait for theirs.

        `traffic`: counts the mail flow on the way; it decides nothing, and without it nothing is spent on it.
        """
        super().__init__(policy, Stats(), keep=keep)
        self.traffic = traffic
        self._reader = Reader(clock, self.stats, traffic)
        self._sessions = Sessions(
            self.stats, max_sessions=policy.max_sessions, max_clients=policy.max_addresses, keep=keep
        )
        if reports:
            self._sessions.ledger.reporting()
        self._keeper = Keeper(self._sessions, self._tally, self._brute, self._bans, self.stats)
        self._halves: dict[str, bytes] = {}  # by source: the unfinished line
        self._oversize: dict[str, int] = {}  # by source: bytes dropped of a line that is too long
        self._kinds: dict[str, int] = {}
        self._first = -1.0
        self._last = -1.0
        self._relevant = 0
        self._saved = 0  # how many findings the state has
        self.lines_read = 0
        self.unparsed = 0

    # -- the stream ------------------------------------------------------------------------------------------------

    def feed(
        self, source: str, data: bytes, now: float | None = None, label: str = "", *, reports: bool = False
    ) -> list[Action]:
        """Take any piece of a source's bytes; return what is to be done.  The unfinished line is held.

        `now`: the wall clock, to which a daemon clamps the lines' times; None in replay.  `label`: the name of the
        source in the metrics, where `source` is one of its files.  `reports`: its lines are Dovecot's auth policy
        reports, which no line of a log can be.
        """
        half = self._halves.pop(source, b"")
        if source in self._oversize:
            cut = data.find(b"\n")
            if cut < 0:
                self._oversize[source] += len(data)
                return []
            del self._oversize[source]
            data = data[cut + 1 :]
        elif half:
            data = half + data
        end = data.rfind(b"\n") + 1
        left = len(data) - end
        if left > _LONGEST:
            self.stats.ignored.add(("anomaly",))
            self._oversize[source] = left
        elif left:
            self._halves[source] = data[end:]
        return self._lines(source, data[:end], -1.0 if now is None else now, label or source, reports=reports)

    def pending(self, source: str) -> int:
        """Return how many bytes of an unfinished line were taken: a saved position stands that much before them."""
        return len(self._halves.get(source, b"")) + self._oversize.get(source, 0)

    def drop(self, source: str) -> None:
        """Forget the unfinished line: its file was truncated or taken away."""
        self._halves.pop(source, None)
        self._oversize.pop(source, None)

    def finish(
        self, source: str, now: float | None = None, label: str = "", *, reports: bool = False
    ) -> list[Action]:
        """Take the end of the stream: an unfinished last line is a line."""
        half = self._halves.pop(source, b"")
        self._oversize.pop(source, None)
        if not half:
            return []
        return self._lines(source, half, -1.0 if now is None else now, label or source, reports=reports)

    def _lines(self, source: str, data: bytes, now: float, label: str, *, reports: bool) -> list[Action]:
        done: list[Action] = []
        if not data:
            return done
        reader = self._reader
        if reader.mail is not None:
            reader.mail.now = now
        if now >= 0:
            self.newest = max(self.newest, now)
            reader.clock.advance(now)
        text = data.decode("utf-8", "surrogateescape")
        if "\r" in text:
            text = text.replace("\r\n", "\n").removesuffix("\r")
        if reports:
            self._reports(text, now, done)
        start, size = 0, 0 if reports else len(text)
        while start < size:
            end = text.find("\n", start)
            if end < 0:
                end = size
            self.lines_read += 1
            known = reader.look(text, start, end)
            rest = text[start:end] if known else ""
            start = end + 1
            at = -1.0
            while rest:
                event = reader.read(rest, now, known=known == KNOWN)
                known = NEW
                rest = reader.rest
                if event is not None:
                    if at >= 0:  # a second record on the line was written with the first, whatever it says
                        event.at = at
                    self._event(event, source, done)
                elif reader.unparsed:
                    self.unparsed += 1
                    self._relevant += 1
                at = reader.at
        for service, n in reader.services():
            self.stats.lines.add((label, service), n)
        return done

    def _reports(self, text: str, now: float, done: list[Action]) -> None:
        for line in text.split("\n"):
            if not line:
                continue
            self.lines_read += 1
            event = self._reader.report(line, now)
            if event is None:
                self.unparsed += 1
                self._relevant += 1
            else:
                self._event(event, "", done, report=True)

    def _event(self, event: AuthEvent, source: str, done: list[Action], *, report: bool = False) -> None:
        self._relevant += 1
        at = event.at
        if self._first < 0:
            self._first = at
        if at > self._last:
            self._last = at
            self.newest = max(self.newest, at)
        ledger = self._sessions.ledger
        ledger.again = False
        if report:
            self._sessions.report(event)
        else:
            self._sessions.feed(event, source)
        kind = event.kind
        if kind in _NOTED and not ledger.again:
            self._kinds[kind] = self._kinds.get(kind, 0) + 1
        if ledger.out or ledger.successes or ledger.moves:
            self._drain(done)

    def _drain(self, done: list[Action]) -> None:
        ledger = self._sessions.ledger
        for ip, reason, protocol, n in ledger.moves:
            self.move(ip, reason, protocol, n)
        ledger.moves.clear()
        for attempt in ledger.out:
            self.attempt(attempt, done)
        ledger.out.clear()
        for success in ledger.successes:
            self.success(success)
        ledger.successes.clear()

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        """Let time pass: bans that are over end.  Counts change with lines alone."""
        done: list[Action] = []
        self.newest = max(self.newest, now)
        for unban in self._bans.expire(now):
            self.stats.unbans.add(("expired",))
            done.append(unban)
        if self.notices is not None:
            self.notices.prune(now)
        return done

    # -- looking ---------------------------------------------------------------------------------------------------

    def read_line(self, line: bytes) -> tuple[AuthEvent | None, str, bool]:
        """Return what one line means, its parser ("" for a line that cannot matter), and whether it is unparsed.

        Nothing is counted against anybody.
        """
        event = self._reader.read(line.decode("utf-8", "surrogateescape").rstrip("\r\n"), -1.0)
        return event, NAMES[self._reader.parser], self._reader.unparsed

    def explain_line(self, line: bytes) -> dict[str, object] | None:
        """Return what one line means as `mailward parse` shows it, with the parser's name; None for a foreign line."""
        event, parser, _ = self.read_line(line)
        return None if event is None else {"parser": parser, **describe(event, self._policy.secret)}

    def tracked(self) -> dict[str, int]:
        """Return how much is remembered, by kind: the gauges `tracked`; brings `evicted` up to date."""
        hosts = [host for _, host in self._sessions.ledger.books()]
        evicted = self.stats.evicted.values
        evicted["address",] = self._tally.sources.evicted + self._brute.windows.evicted
        evicted["attacked",] = self.attacked.accounts.evicted
        evicted["session",] = sum(host.sessions.evicted for host in hosts)
        self._reader.flush()
        return {
            "address": len(self._tally.sources),
            "session": sum(len(host.sessions) for host in hosts),
            "account": self._tally.sources.accounts,
        }

    def recognised(self) -> int:
        """Return how many lines had an envelope that a log has, or were read without one."""
        return self._reader.stamped or self._relevant

    def report(self) -> dict[str, object]:
        """Return everything counted so far, as `mailward replay --format json` shows it."""
        values: dict[str, object] = json.loads(self.report_text())
        return values

    def report_text(self) -> str:
        """Return the report as JSON text; its many addresses never become objects."""
        head = {
            "lines": {"read": self.lines_read, "relevant": self._relevant, "unparsed": self.unparsed},
            "period": {
                "first": None if self._first < 0 else when(self._first),
                "last": None if self._last < 0 else when(self._last),
            },
            "failures": report.failures_values(self.stats),
            "unjudged": self.stats.auth_unjudged.total(),
            "refused": self._kinds.get(REFUSED, 0),
            "cancelled": self._kinds.get(CANCELLED, 0),
        }
        tail = {
            "bans": [report.ban_values(ban) for ban in self._bans.history],
            "findings": [report.finding_values(finding) for finding in self.findings],
        }
        first = json.dumps(head, ensure_ascii=False)
        last = json.dumps(tail, ensure_ascii=False)
        return f'{first[:-1]}, "sources": {report.sources_text(self._tally)}, {last[1:]}'

    # -- state -----------------------------------------------------------------------------------------------------

    def changes(self) -> list[Row]:
        """Return what changed since the last call, to be saved in one transaction with the sources' positions."""
        self._reader.flush()
        own: dict[str, object] = {
            "kinds": self._kinds,
            "lines": [self.lines_read, self._relevant, self.unparsed],
            "period": [self._first, self._last, self._reader.last],
        }
        if self.notices is not None:
            own["notices"] = self.notices.dump()
        rows = self._keeper.changes(own)
        for entry, there in self._entries.items():
            rows.append(("listed", entry, "1" if there else None))
        self._entries.clear()
        for n in range(self._saved, len(self.findings)):
            rows.append(("finding", str(n), json.dumps(list(self.findings[n]))))
        self._saved = len(self.findings)
        return rows

    def restore(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Take a saved state into a fresh engine."""
        own = self._keeper.restore(rows)
        self._kinds = own.get("kinds", {})
        self.lines_read, self._relevant, self.unparsed = own.get("lines", [0, 0, 0])
        self._first, self._last, self._reader.last = own.get("period", [-1.0, -1.0, 0.0])
        found: dict[int, Finding] = own["finding"]
        self.findings = [found[n] for n in sorted(found)]
        self._saved = len(self.findings)
        for entry in own["listed"]:
            key, _, net = entry.partition(" ")
            self._entry(key, net, there=True)
        self._entries.clear()
        if self.notices is not None and "notices" in own:
            self.notices.load(own["notices"])
        self._relist()
