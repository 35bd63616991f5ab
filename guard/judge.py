"""Attempts and successes -> bans and findings."""

from __future__ import annotations

from typing import Final, cast

from guard import addresses, bans, report
from guard.attacked import Targets
from guard.bans import Bans
from guard.model import Action, Attempt, Ban, Finding, Policy, Success, finding_id, readable
from guard.notices import REVOKED, Notices
from guard.reader import when
from guard.rules._window import Window
from guard.rules.bad_neighbourhood import BadNeighbourhood
from guard.rules.brute_force import BruteForce
from guard.rules.login_after_failures import LoginAfterFailures
from guard.sessions._client import Client
from guard.stats import Stats
from guard.tally import Source, Tally

_FINDINGS: Final = 10_000
_SPARED: Final = 1000
_ROLES: Final = ("client", "trusted", "own", "allowed")


class Judge:
    """Decides on what the ledger counted.  Enforces nothing."""

    __slots__ = (
        "_allow", "_bans", "_brute", "_deny", "_entries", "_findings", "_logins", "_neighbourhood", "_newly_spared", "_policy", "_spared", "_tally",
        "attacked", "findings", "newest", "notices", "stats",
    )  # fmt: skip

    def __init__(self, policy: Policy, stats: Stats, *, keep: bool) -> None:
        self.stats = stats
        self.newest = -1.0  # the newest time that any line or the wall clock has shown
        self.findings: list[Finding] = []
        self.notices: Notices | None = None  # for the other nodes of a fleet; None where there are none
        self._policy = policy
        self._tally = Tally(policy.max_addresses, keep=keep)
        self.attacked = Targets()
        self._brute = BruteForce(policy, keep=keep)
        self._logins = LoginAfterFailures(policy)
        self._neighbourhood = BadNeighbourhood(policy)
        self._bans = Bans(policy, keep=keep)
        self._allow: set[str] = set()  # added by hand
        self._deny: set[str] = set()
        self._entries: dict[
            str, bool
        ] = {}  # what changed in the two since the last save: "allow NET" -> is it there
        self._findings: list[Finding] = []  # since the last call of take_findings
        self._spared: set[str] = set()  # addresses of Policy.own that have failed
        self._newly_spared: list[str] = []  # since the last call of take_spared

    def _entry(self, key: str, net: str, *, there: bool) -> None:
        """Put a net into a list by hand, or take it out."""
        nets = self._allow if key == "allow" else self._deny
        if there:
            nets.add(net)
        else:
            nets.discard(net)
        self._entries[f"{key} {net}"] = there

    def _source(self, ip: str, at: float) -> Source | None:
        """Return the record of a client address; None for one that is no client."""
        source = self._tally.sources.get(ip)
        if source is None or source.epoch != self._bans.epoch:
            role, net = self._bans.role(ip)
            if role == bans.TRUSTED or role == bans.OWN:  # noqa: PLR1714
                self.stats.ignored.add((_ROLES[role],))
                return None
            if source is None:
                source = self._tally.add(ip, at)
            source.role, source.net, source.epoch = role, net, self._bans.epoch
        return source

    def attempt(self, attempt: Attempt, done: list[Action]) -> None:
        """Take one attempt, or one taken back.  What is to be done goes to `done`."""
        client = cast("Client", attempt.client)
        known = client.source
        if (
            known is None
            or not self._tally.sources.fresh(known)
            or cast("Source", known).epoch != self._bans.epoch
        ):
            known = client.source = self._source(attempt.ip, attempt.at)
            if known is None:
                self._spare(attempt.ip)
                return
        source = cast("Source", known)
        source.seen(attempt.at)
        self._tally.sources.touch(attempt.ip)
        stats = self.stats
        source.failed(attempt.protocol, attempt.n)
        if attempt.n > 0:
            stats.auth_failures.add((attempt.service, attempt.protocol, attempt.reason))
        else:
            stats.auth_revoked.add((attempt.service, attempt.protocol))
        if attempt.user is not None and source.named(attempt.user, attempt.n):
            self._tally.sources.accounts += 1
        if source.role == bans.ALLOWED:
            stats.ignored.add(("allowed",))
            return
        if attempt.user is not None and attempt.n > 0:
            self.attacked.failed(attempt.user, attempt.ip, attempt.at)
        net = source.net
        notices = self.notices
        if notices is not None and (attempt.n < 0 or attempt.at > self.newest - self._policy.window):
            notices.attempt(attempt.ip, attempt.at, attempt.n, attempt.line, self._policy.window)
        active = self._bans.covering(net, attempt.at)
        if attempt.n < 0:
            if notices is not None:
                notices.took_back(net, attempt.at)
            if not self._brute.take_back(net, attempt.at) and active is not None:
                fallen = self._take_back(net, attempt.at, done)
                if notices is not None and fallen is not None:
                    now = max(attempt.at, self.newest)
                    notices.lift(fallen.net, now, fallen.until, REVOKED, inside=False)
            return
        if active is not None:
            self._bans.failed_again(active, attempt.at)
            return
        held = source.window
        if held is None or not self._brute.windows.fresh(held):
            held = source.window = self._brute.window(net, attempt.at)
        window = cast("Window", held)
        if not self._brute.feed(net, window, attempt.at, attempt.line):
            return
        is_open = None if attempt.open < 0 else attempt.open == 1
        self._impose(net, window, attempt.at, is_open, done)

    def _impose(self, net: str, window: Window, at: float, is_open: bool | None, done: list[Action]) -> None:
        """Ban a net for the attempts in its window."""
        times = [time for time, _ in window.attempts()]
        lines = [readable(line) for _, line in window.attempts()]
        notices = self.notices
        if notices is not None:
            at = max(at, times[-1])  # the others' attempts come late: all nodes are to find the same end
        ban = self._bans.impose(net, at, BruteForce.name, times, lines, is_open)
        id_ = finding_id(ban.rule, net, ban.at)
        self.stats.found(ban.rule, id_, ban.at)
        self.stats.banned(ban.rule, addresses.family(net), id_, ban.at)
        done.append(ban)
        if notices is not None and ban.until > self.newest:
            notices.ban(ban, times, lines, self._bans.number(net))
        self._fold(ban, done)

    def _spare(self, ip: str) -> None:
        if ip not in self._spared and len(self._spared) < _SPARED and self._bans.role(ip)[0] == bans.OWN:
            self._spared.add(ip)
            self._newly_spared.append(ip)

    def _take_back(self, net: str, at: float, done: list[Action]) -> Ban | None:
        """Take back an attempt that a ban may rest on; return the ban if it falls."""
        now = max(at, self.newest)
        active = self._bans.covering(net, at)
        if active is None or not self._bans.stands(active, now) or not self._bans.take_back(active, at):
            return None
        net = active.ban.net
        window = self._brute.window(net, at)
        for time, text in zip(active.times, active.lines, strict=True):
            self._brute.feed(net, window, time, text)
        self._revoke(net, now, done)
        return active.ban

    def _revoke(self, net: str, now: float, done: list[Action]) -> None:
        """Lift a ban that should not have been, and the nets around it that are not bad without it."""
        around = self._bans.collective_around(net, now)
        self._count(self._bans.revoke(net, now), done)
        for wide in around:
            if not self._neighbourhood.grounds(wide.net, self._bans.resting(wide.net, wide.at), wide.at):
                self._count(self._bans.revoke(wide.net, now), done)

    def _fold(self, ban: Ban, done: list[Action]) -> None:
        """Ban the net around a ban in its place, if it is one too many there."""
        for net in self._neighbourhood.around(ban.net):
            if self._bans.is_split(net) or self._bans.refusal(net, force=False) is not None:
                continue
            now = max(ban.at, self.newest)  # an attempt may show late: what is over by now is over
            members = self._neighbourhood.grounds(net, self._bans.resting(net, now), ban.at)
            if members:
                name = BadNeighbourhood.name
                self.stats.found(name, finding_id(name, net, ban.at), ban.at)
                self._count(self._bans.impose_around(net, ban, now, name, members), done)
                return

    def _count(self, actions: list[Action], done: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Ban):
                by_hand = action.rule in bans.BY_HAND  # nothing was found
                id_ = "" if by_hand else finding_id(action.rule, action.net, action.at)
                self.stats.banned(action.rule, addresses.family(action.net), id_, action.at)
            else:
                self.stats.unbans.add((action.cause,))
        done += actions

    def move(self, ip: str, reason: str, protocol: str, n: int) -> None:
        """Take `n` attempts of Dovecot that were counted before their protocol showed."""
        role, _ = self._bans.role(ip)
        if role == bans.TRUSTED or role == bans.OWN:  # noqa: PLR1714
            return
        self.stats.auth_revoked.add(("dovecot", "unknown"), n)
        self.stats.auth_failures.add(("dovecot", protocol, reason), n)
        self._tally.move(ip, protocol, n)

    def success(self, success: Success) -> None:
        """Take one login that went through."""
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
        if source.forgive(user):
            self._tally.sources.accounts += 1
        if finding is not None:
            self.stats.found(finding.rule, finding_id(finding.rule, finding.ip, finding.at), finding.at)
            self._findings.append(finding)
            if len(self.findings) < _FINDINGS:
                self.findings.append(finding)

    def take_findings(self) -> list[Finding]:
        """Return the findings since the last call."""
        found = self._findings
        self._findings = []
        return found

    def take_spared(self) -> list[str]:
        """Return the addresses of `Policy.own` that have failed to log in and were not returned before."""
        fresh = self._newly_spared
        self._newly_spared = []
        return fresh

    def explain_address(self, ip: str) -> dict[str, object]:
        """Return everything known of one address: what it did, its window, its ban."""
        role, net = self._bans.role(ip)
        source = self._tally.sources.peek(ip)
        window = self._brute.windows.peek(net)
        active = self._bans.enforced(net, self.newest)
        offender = self._bans.offenders.peek(net)
        return {
            "ip": ip,
            "net": net,
            "role": _ROLES[role],
            "source": None if source is None else report.source_values(ip, source),
            "window": [] if window is None else [
                {"at": when(at), "line": readable(line)} for at, line in window.attempts()
            ],
            "needed": self._policy.failures,
            "seconds": self._policy.window,
            "ban": None if active is None else report.active_values(active, net),
            "bans": 0 if offender is None else offender.bans,
            "findings": [report.finding_values(finding) for finding in self.findings if finding.ip == ip],
        }  # fmt: skip

    def standing(self, ip: str, now: float) -> int:
        """Return -1 for a client address that is banned at `now`, else how many failures it has in the window."""
        role, net = self._bans.role(ip)
        if role != bans.CLIENT:
            return 0
        if self._bans.covering(net, now) is not None:
            return -1
        window = self._brute.windows.peek(net)
        if window is None:
            return 0
        return sum(at > now - self._policy.window for at, _ in window.attempts())

    def active_bans(self) -> list[Ban]:
        """Return the bans in force."""
        return [active.ban for active in self._bans.active.values() if not active.folded]

    def wanted(self) -> dict[str, int]:
        """Return how many bans are wanted, by family."""
        return report.bans_by_family(self._bans)
