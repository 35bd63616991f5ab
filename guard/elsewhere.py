"""What the other nodes of a fleet tell: it is counted and decided on as if it had been seen here.

Every node sees the attempts of all, in any order, and decides by itself; so what a decision needs is in one place, and
an outage of what carries the news holds up nobody.  What is told is never told on.  Roles, widths and thresholds are
this node's own, and whom this node never bans it does not ban for others.

The law: when everything was exchanged, the nodes have the same windows (the attempts in (newest - window, newest]
that no ban has covered) and the same bans, counted as often and ended at the same time: the latest that a node found.
Attempts that all lie in one window ban exactly as in one engine that saw them all, and for at most as long more as
the attempts were apart.  What comes later than a window after newer attempts counts no more; of bans that two nodes
decided one after the other without knowing of each other, the larger number stands, not their sum.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container
from typing import Any, Final, cast

from guard import addresses, bans
from guard.bans import Active
from guard.model import Action, Ban, finding_id, readable
from guard.notices import ALLOWED, MANUAL, REVOKED, Notices
from guard.orders import Orders
from guard.rules.brute_force import BruteForce

AHEAD: Final = 60.0  # seconds that a node's clock may be ahead of ours
_TAKEN: Final = "taken"  # as against what was known before, is over, or may not be here
_PASSED: Final = "passed"


class Elsewhere(Orders):
    """Takes what other nodes tell.  Enforces nothing."""

    __slots__ = ()

    def share(self) -> None:
        """Collect from now on what the others are to be told; before the state is restored."""
        self.notices = Notices()

    def join(self, found: Container[str], now: float) -> None:
        """Tell what is in force here and not among the registers `found`: decided before, or lost there."""
        notices = cast("Notices", self.notices)
        for key, nets in (("allow", self._allow), ("deny", self._deny)):
            for net in sorted(nets):
                if f"{key} {net}" not in notices.entries:
                    notices.entry(key, net, True, now)
        notices.again(found)
        for net, active in self._bans.active.items():
            by_hand = active.ban.rule == MANUAL
            if f"ban {net}" not in found and active.ban.until > now and (active.times or by_hand):
                notices.ban(active.ban, active.times, active.lines, 0 if by_hand else self._bans.number(net))

    def is_banned(self, net: str) -> bool:
        """Whether a net itself is banned, folded or not."""
        return net in self._bans.active

    def told(
        self, net: str, register: str, live: bool, at: float, ends: float, body: str, now: float
    ) -> list[Action]:
        """Take one event of another node, as guard/notices.py makes them; return what is to be done.

        ValueError: it is none, or its node's clock is wrong.
        """
        if not at <= now + AHEAD or math.isnan(ends):
            raise ValueError(f"{register or 'attempt'}: its time lies {at - now:.0f} s ahead: set the clocks")
        values = json.loads(body)
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object")  # noqa: TRY004 - one kind of error for what others send
        kind, _, named = register.partition(" ")
        if named != (addresses.network(net) if kind else ""):
            raise ValueError(f"{register!r} is not about {net}")
        done: list[Action] = []
        try:
            if not kind:
                taken = self._attempt_told(net, at, values["n"] == -1, readable(str(values["line"])), done)
            elif kind == "ban" and live:
                taken = self._ban_told(named, at, ends, values, now, done)
            elif kind == "ban":
                taken = self._lift_told(named, at, ends, values, now, done)
            elif kind in ("allow", "deny"):
                taken = self._entry_told(kind, named, live, at, now, done)
            else:
                raise ValueError(f"{register!r} is nothing that this release knows")
        except (KeyError, TypeError) as error:
            raise ValueError(f"{register or 'attempt'}: {error!r} in what was told") from None
        self.stats.told.add((kind or "attempt", _TAKEN if taken else _PASSED))
        return done

    def _attempt_told(self, net: str, at: float, is_back: bool, line: str, done: list[Action]) -> bool:
        ip = addresses.read(net)
        if ip is None:
            raise ValueError(f"{net!r}: expected an address")
        notices = cast("Notices", self.notices)
        role, net = self._bans.role(ip)
        if role != bans.CLIENT or notices.is_lifted(net, at, counts=True):
            return False
        active = self._bans.covering(net, at)
        if is_back:
            notices.took_back(net, at)
            if not self._brute.take_back(net, at) and active is not None:
                self._take_back(net, at, done)
            return True
        if notices.was_owed(net, at):
            return True
        if active is not None:
            self._bans.failed_again(active, at)
            return True
        window = self._brute.window(net, at)
        if self._brute.feed(net, window, at, line):
            self._impose(net, window, at, None, done)
        return True

    def _ban_told(
        self, net: str, at: float, until: float, values: dict[str, Any], now: float, done: list[Action]
    ) -> bool:
        notices = cast("Notices", self.notices)
        by_hand = values["rule"] == MANUAL
        failures, number = int(values["failures"]), int(values["number"])
        is_open = values["open"]
        pairs = [
            (float(time), readable(str(line)))
            for time, line in zip(values["times"], values["lines"], strict=True)
        ]
        if by_hand != (not pairs) or (not by_hand and values["rule"] != BruteForce.name) or number < 0:
            raise ValueError("expected a ban")
        if not until > at or notices.is_lifted(net, at):
            return False
        refused = self._bans.refusal(net, force=True) is not None
        if refused or (not by_hand and self._bans.is_split(net)):
            return False
        rule = MANUAL if by_hand else BruteForce.name
        active = self._bans.active.get(net)
        same = active is not None and active.ban.until > now and active.ban.rule == rule
        standing = [pair for pair in pairs if not notices.was_taken_back(net, pair[0])]
        if len(standing) < len(pairs) and len(standing) < failures and not same:
            return False  # who told it will learn that it falls
        times = [time for time, _ in standing]
        if not by_hand:
            self._bans.remember(net, number, at, until)
        spare = self._known_of(net, until, active if same else None, times)
        if until <= now:
            return False
        if active is not None and same:
            for time in spare:
                self._bans.failed_again(active, time)
            if until <= active.ban.until:
                return False
            if self._bans.extend(active, at, until):
                done.append(active.ban)
            return True
        if active is not None and active.ban.until >= until:
            return False
        lines = [line for _, line in standing]
        evidence = tuple([line for line in lines if line])
        ban = Ban(net, at, until, rule, failures, is_open if isinstance(is_open, bool) else None, evidence)
        self._count(self._bans.enter(ban, times, lines), done)
        active = self._bans.active[net]
        for time in spare:
            self._bans.failed_again(active, time)
        if active.folded:
            self.stats.banned(rule, addresses.family(net), finding_id(rule, net, at), at)
        if not by_hand:
            self._fold(ban, done)
        return True

    def _known_of(self, net: str, until: float, active: Active | None, times: list[float]) -> list[float]:
        """Hand the window of a net over to a ban until `until` that names `times`; return what else is its own.

        Of these times, those that were not seen here yet are owed: they count with the ban, and no more when they come.
        """
        seen = [time for time, _ in self._brute.shed(net, until)]
        known = list(seen)
        if active is not None:
            known += active.times
            known += active.spare
        new: list[float] = []
        for time in times:
            if time in known:
                known.remove(time)
                if time in seen:
                    seen.remove(time)
                    if active is not None:
                        new.append(time)
            else:
                cast("Notices", self.notices).owe(net, time)
                new.append(time)
        return seen + (new if active is not None else [])

    def _lift_told(
        self, net: str, at: float, ends: float, values: dict[str, Any], now: float, done: list[Action]
    ) -> bool:
        cause, inside = values["cause"], values["inside"] is True
        if cause not in (MANUAL, ALLOWED, REVOKED):
            raise ValueError("expected a cause")
        active = self._bans.active.get(net)
        revoked = cause == REVOKED
        cast("Notices", self.notices).remember(net, at, ends, inside=inside, revoked=revoked)
        if revoked:
            if active is None or not active.times or active.ban.at > at:
                return False
            window = self._brute.window(net, at)
            for time, line in zip(active.times, active.lines, strict=True):
                window.add(time, line, self._policy.window)
            for time in active.spare:
                window.add(time, "", self._policy.window)
            self._brute.windows.touch(net)
            self._revoke(net, max(now, self.newest), done)
            return True
        self._brute.shed(net, at)
        nets = [net]
        if inside:
            nets = self._bans.inside(net) + [ban.net for ban in self._bans.collective_around(net, now)]
        lifted: list[str] = []
        for other in nets:
            found = self._bans.active.get(other)
            if found is not None and found.ban.at <= at and found.ban.rule != "deny":
                lifted.append(other)
        done += self._lift(lifted, now, cause)
        return bool(lifted)

    def _entry_told(self, key: str, net: str, live: bool, at: float, now: float, done: list[Action]) -> bool:
        if not cast("Notices", self.notices).newer(f"{key} {net}", at, live):
            return False
        if key == "allow":
            if live:
                self._entry("allow", net, there=True)
                self._bans.allow(net)
                done += self._lift(self._bans.touching(net), now, ALLOWED)
            elif self._allowed_no_more(net):
                done += self.configure(self._policy, now)  # a deny entry that it kept out comes into force
        elif live:
            self._entry("deny", net, there=True)
            active = self._bans.active.get(net)
            denied = active is not None and active.ban.rule == "deny"
            if not denied and self._bans.refusal(net, force=True) is None:
                self._count(self._bans.by_hand(net, now, math.inf, "deny"), done)
        elif net in self._deny:
            self._entry("deny", net, there=False)
            done += self._denied_no_more(net, now)
        return True
