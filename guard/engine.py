"""Joins the pure stages: bytes of a log in, decisions out.  Replay and daemon share it, line by line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, cast

from guard import addresses, bans, report
from guard.bans import Bans
from guard.clock import Clock
from guard.model import CANCELLED, REFUSED, UNJUDGED, Action, Attempt, AuthEvent, Ban, Finding, Policy, Success
from guard.reader import NAMES, Reader, describe, redact, when
from guard.rules._window import Window
from guard.rules.brute_force import BruteForce
from guard.rules.login_after_failures import LoginAfterFailures
from guard.sessions import Sessions
from guard.sessions._ledger import Client
from guard.state import Keeper, Row
from guard.stats import Stats
from guard.tally import Source, Tally

_LONGEST: Final = 1 << 20  # bytes of a line; the rest of a longer one is dropped
_FINDINGS: Final = 10_000
_ROLE_NAMES: Final = ("client", "trusted", "own", "allowed")


class Engine:
    """The guard without the world: no clock, no socket, no log call."""

    __slots__ = (
        "_allow", "_bans", "_brute", "_deny", "_findings", "_first", "_halves", "_keeper", "_kinds", "_last", "_logins",
        "_now", "_oversize", "_policy", "_reader", "_relevant", "_sessions", "_tally", "findings", "lines_read", "stats", "unparsed",
    )  # fmt: skip

    def __init__(self, policy: Policy, *, clock: Clock, keep: bool = False) -> None:
        self.stats = Stats()
        self._policy = policy
        self._reader = Reader(clock, self.stats)
        self._sessions = Sessions(
            self.stats, max_sessions=policy.max_sessions, max_clients=policy.max_addresses, keep=keep
        )
        self._tally = Tally(policy.max_addresses, keep=keep)
        self._brute = BruteForce(policy, keep=keep)
        self._logins = LoginAfterFailures(policy)
        self._bans = Bans(policy, keep=keep)
        self._keeper = Keeper(self._sessions, self._tally, self._brute, self._bans, self.stats)
        self._allow: set[str] = set()  # added by hand
        self._deny: set[str] = set()
        self._halves: dict[str, bytes] = {}
        self._oversize: set[str] = set()
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
            rest = line
            while rest:
                event = reader.read(rest, now)
                rest = reader.rest
                if event is not None:
                    self._event(event, source, line, done)
                elif reader.unparsed:
                    self.unparsed += 1
                    self._relevant += 1
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
        if kind == REFUSED or kind == CANCELLED or kind == UNJUDGED:  # noqa: PLR1714
            self._kinds[kind] = self._kinds.get(kind, 0) + 1
        self._sessions.feed(event, source)
        ledger = self._sessions.ledger
        if ledger.out or ledger.successes or ledger.moves:
            self._drain(line, done)

    def _drain(self, line: str, done: list[Action]) -> None:
        ledger = self._sessions.ledger
        if "given password: " in line:  # it is kept with the windows and saved: never with the password
            line = redact(line)
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

    def _source(self, ip: str, at: float) -> Source | None:
        """Return the record of a client address; None for one that is no client."""
        source = self._tally.sources.get(ip)
        if source is None or source.epoch != self._bans.epoch:
            role, net = self._bans.role(ip)
            if role == bans.TRUSTED or role == bans.OWN:  # noqa: PLR1714
                self.stats.ignored.add((_ROLE_NAMES[role],))
                return None
            if source is None:
                source = self._tally.add(ip, at)
            source.role, source.net, source.epoch = role, net, self._bans.epoch
        return source

    def _attempt(self, attempt: Attempt, line: str, done: list[Action]) -> None:
        client = cast("Client", attempt.client)
        known = client.source
        if known is None or not self._tally.sources.fresh(known):
            known = self._source(attempt.ip, attempt.at)
            if known is None:
                return
            client.source = known
        source = cast("Source", known)
        if source.epoch != self._bans.epoch:
            self._source(attempt.ip, attempt.at)
        source.seen(attempt.at)
        self._tally.sources.touch(attempt.ip)
        stats = self.stats
        source.failed(attempt.protocol, attempt.n)
        if attempt.n > 0:
            stats.auth_failures.add((attempt.service, attempt.protocol, attempt.reason))
        else:
            stats.auth_revoked.add((attempt.service, attempt.protocol))
        if attempt.user is not None:
            source.named(attempt.user, attempt.n)
        if source.role == bans.ALLOWED:
            stats.ignored.add(("allowed",))
            return
        net = source.net
        active = self._bans.covering(net, attempt.at)
        if attempt.n < 0:
            if not self._brute.take_back(net, attempt.at) and active is not None:
                self._take_back(net, attempt.at, done)
            return
        if active is not None:
            self._bans.failed_again(active, attempt.at)
            return
        held = source.window
        if held is None or not self._brute.windows.fresh(held):
            held = source.window = self._brute.window(net, attempt.at)
        window = cast("Window", held)
        if not self._brute.feed(net, window, attempt.at, line):
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
        window = self._brute.window(net, at)
        for time, text in zip(active.times, active.lines, strict=True):
            self._brute.feed(net, window, time, text)
        done.append(self._bans.revoke(net, max(at, self._last)))
        self.stats.unbans.add(("revoked",))

    def _move(self, ip: str, reason: str, protocol: str, n: int) -> None:
        role, _ = self._bans.role(ip)
        if role == bans.TRUSTED or role == bans.OWN:  # noqa: PLR1714
            return
        self.stats.auth_revoked.add(("dovecot", "unknown"), n)
        self.stats.auth_failures.add(("dovecot", protocol, reason), n)
        self._tally.move(ip, protocol, n)

    def _success(self, success: Success) -> None:
        self.stats.auth_successes.add((success.service, success.protocol), success.count)
        source = self._source(success.ip, success.at)
        if source is None:
            return
        source.seen(success.at)
        self._tally.sources.touch(success.ip)
        source.successes += success.count
        user = success.user
        if user is None:
            return
        finding = self._logins.judge(success.at, success.ip, user, source.failures_for(user))
        source.named(user, -source.failures_for(user))
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

    def explain_address(self, ip: str) -> dict[str, object]:
        """Return everything known of one address: what it did, its window, its ban."""
        role, net = self._bans.role(ip)
        source = self._tally.sources.peek(ip)
        window = self._brute.windows.peek(net)
        active = self._bans.covering(net, max(self._now, self._last))
        offender = self._bans.offenders.peek(net)
        return {
            "ip": ip,
            "net": net,
            "role": _ROLE_NAMES[role],
            "source": None if source is None else report.source_values(ip, source),
            "window": [] if window is None else [
                {"at": when(at), "line": redact(line)} for at, line in zip(window.times, window.lines, strict=True)
            ],
            "needed": self._policy.failures,
            "seconds": self._policy.window,
            "ban": None if active is None else report.active_values(active, net),
            "bans": 0 if offender is None else offender.bans,
        }  # fmt: skip

    def active_bans(self) -> list[Ban]:
        """Return the bans in force."""
        return [active.ban for active in self._bans.active.values()]

    def wanted(self) -> dict[str, int]:
        """Return how many bans are wanted, by family."""
        return report.bans_by_family(self._bans)

    def tracked(self) -> dict[str, int]:
        """Return how much is remembered, by kind: the gauges `tracked`; brings `evicted` up to date."""
        hosts = self._sessions.ledger.hosts.values()
        evicted = self.stats.evicted.values
        evicted["address",] = self._tally.sources.evicted + self._brute.windows.evicted
        evicted["session",] = sum(host.sessions.evicted for host in hosts)
        self._reader.flush()
        return {
            "address": len(self._tally.sources),
            "session": sum(len(host.sessions) for host in hosts),
            "account": self._tally.accounts,
        }

    def recognised(self) -> int:
        """Return how many lines had an envelope that a log has, or were read without one."""
        return self._reader.stamped or self._relevant

    def report(self) -> dict[str, object]:
        """Return everything counted so far, as `mailward replay --format json` shows it."""
        return {
            "lines": {"read": self.lines_read, "relevant": self._relevant, "unparsed": self.unparsed},
            "period": {
                "first": None if self._first < 0 else when(self._first),
                "last": None if self._last < 0 else when(self._last),
            },
            "failures": report.failures_values(self.stats),
            "unjudged": self.stats.auth_unjudged.total(),
            "refused": self._kinds.get(REFUSED, 0),
            "cancelled": self._kinds.get(CANCELLED, 0),
            "sources": report.sources_values(self._tally),
            "bans": [report.ban_values(ban) for ban in self._bans.history],
            "findings": [report.finding_values(finding) for finding in self.findings],
        }

    # -- the operator's hand ---------------------------------------------------------------------------------------

    def ban(self, net: str, seconds: float, now: float, *, force: bool = False) -> list[Action]:
        """Ban a net (canonical CIDR) by hand; ValueError says why it may not be."""
        refusal = self._bans.refusal(net, force=force)
        if refusal is not None:
            raise ValueError(refusal)
        ban = self._bans.by_hand(net, now, now + seconds, "manual")
        self.stats.bans.add(("manual", addresses.family(net)))
        return [ban]

    def unban(self, net: str, now: float) -> list[Action]:
        """End the bans of a net and of every net inside it; [] when there were none."""
        inside = addresses.NetSet((net,))
        return self._lift([n for n in self._bans.active if inside.holds(n)], now, "manual")

    def allow(self, net: str, now: float) -> list[Action]:
        """Add a net to the allow list; the bans that touch it end at once."""
        self._allow.add(net)
        self._relist()
        allowed = addresses.NetSet((net,))
        return self._lift([n for n in self._bans.active if allowed.touches(n)], now, "allowed")

    def disallow(self, net: str) -> bool:
        """Take a net that was added by hand from the allow list; whether it was there."""
        there = net in self._allow
        self._allow.discard(net)
        self._relist()
        return there

    def deny(self, net: str, now: float, *, force: bool = False) -> list[Action]:
        """Add a net to the deny list: a ban without end.  ValueError says why it may not be."""
        refusal = self._bans.refusal(net, force=force)
        if refusal is not None:
            raise ValueError(refusal)
        self._deny.add(net)
        self.stats.bans.add(("deny", addresses.family(net)))
        return [self._bans.by_hand(net, now, math.inf, "deny")]

    def undeny(self, net: str, now: float) -> list[Action]:
        """Take a net that was added by hand from the deny list; [] when it was not there."""
        if net not in self._deny:
            return []
        self._deny.discard(net)
        return self._lift([net], now, "manual")

    def lists(self) -> dict[str, list[str]]:
        """Return both lists, configured and added by hand."""
        return {
            "allow": sorted({*self._policy.allow, *self._allow}),
            "deny": sorted({*self._policy.deny, *self._deny}),
        }

    def configure(self, policy: Policy, now: float) -> list[Action]:
        """Take a configuration (also the first one: its deny list is enforced here); return what it changes."""
        self._policy = policy
        self._brute.reconfigure(policy)
        self._logins.reconfigure(policy)
        self._relist()
        listed = {*policy.deny, *self._deny}
        done = self._lift(
            [n for n, a in self._bans.active.items() if a.ban.rule == "deny" and n not in listed], now, "manual"
        )
        allowed = addresses.NetSet((*policy.allow, *self._allow))
        done += self._lift([n for n in self._bans.active if allowed.touches(n)], now, "allowed")
        for net in sorted(listed):
            active = self._bans.active.get(net)
            if (active is None or active.ban.rule != "deny") and self._bans.refusal(net, force=True) is None:
                done.append(self._bans.by_hand(net, now, math.inf, "deny"))
        return done

    def _relist(self) -> None:
        self._bans.reconfigure(self._policy, (*self._policy.allow, *self._allow))

    def _lift(self, nets: list[str], now: float, cause: str) -> list[Action]:
        done: list[Action] = []
        for net in nets:
            if net in self._bans.active:
                done.append(self._bans.lift(net, now, cause))
                self.stats.unbans.add((cause,))
        return done

    # -- state -----------------------------------------------------------------------------------------------------

    def changes(self) -> list[Row]:
        """Return what changed since the last call, to be saved in one transaction with the sources' positions."""
        self._reader.flush()
        return self._keeper.changes(
            {
                "kinds": self._kinds,
                "lines": [self.lines_read, self._relevant, self.unparsed],
                "period": [self._first, self._last, self._reader.last],
                "findings": [list(finding) for finding in self.findings],
                "lists": [sorted(self._allow), sorted(self._deny)],
            }
        )

    def restore(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Take a saved state into a fresh engine."""
        own = self._keeper.restore(rows)
        self._kinds = own.get("kinds", {})
        self.lines_read, self._relevant, self.unparsed = own.get("lines", [0, 0, 0])
        self._first, self._last, self._reader.last = own.get("period", [-1.0, -1.0, 0.0])
        self.findings = [Finding(*values) for values in own.get("findings", [])]
        allow, deny = own.get("lists", [[], []])
        self._allow, self._deny = set(allow), set(deny)
        self._relist()
