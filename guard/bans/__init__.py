"""Finding -> Action: what is banned, for how long, and when a ban ends."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Final

from guard.bans._active import BY_HAND, Active, Offender, dump_ban, load_ban
from guard.bans._lists import ALLOWED, CLIENT, OWN, TRUSTED, Lists
from guard.bounded import Bounded
from guard.model import Action, Ban, Policy, Unban
from guard.nets import NetSet, width

__all__ = [
    "ALLOWED",
    "BY_HAND",
    "CLIENT",
    "OWN",
    "TRUSTED",
    "Active",
    "Bans",
    "Offender",
    "dump_ban",
    "load_ban",
]

_HISTORY: Final = 10_000
_NO_TIMES: Final[list[float]] = []
_NO_LINES: Final[list[str]] = []


class Bans(Lists):
    """Decides; enforces nothing."""

    __slots__ = (
        "_ends",
        "_nets",
        "active",
        "changed",
        "history",
        "offenders",
        "wanted",
    )

    def __init__(self, policy: Policy, *, keep: bool) -> None:
        super().__init__(policy)
        self.active: dict[str, Active] = {}
        self.changed: set[str] = set()
        self.history: list[Ban] = []
        self.offenders: Bounded[Offender] = Bounded(
            "offender", policy.max_addresses, policy.forget, keep=keep
        )
        self._ends: list[tuple[float, str]] = []
        self._nets = NetSet()  # of the active bans
        self.wanted = [0, 0]  # how many bans are to be enforced: IPv4, IPv6

    def covering(self, net: str, at: float) -> Active | None:
        """Return the ban in force at `at` that shuts `net` out, if any: its own, else the narrowest around it."""
        active = self.active.get(net)
        if active is not None and at < active.ban.until:
            return active
        for wide in self._nets.above(net):
            around = self.active[wide]
            if at < around.ban.until:
                return around
        return None

    def enforced(self, net: str, at: float) -> Active | None:
        """Return the same, but in the place of a folded ban the one that is enforced for it."""
        active = self.covering(net, at)
        if active is not None and active.folded:
            for ban in self.collective_around(active.ban.net, at):
                if not self.active[ban.net].folded:
                    return self.active[ban.net]
        return active

    def inside(self, net: str) -> list[str]:
        """Return the banned nets that lie within `net`."""
        return self._nets.inside(net)

    def touching(self, net: str) -> list[str]:
        """Return the banned nets that have an address in common with `net`."""
        return self._nets.touching(net)

    def impose(
        self, net: str, at: float, rule: str, times: list[float], lines: list[str], session_open: bool | None
    ) -> Ban:
        """Ban a net that a rule has found, longer each time until it is forgotten."""
        ban = Ban(net, at, self._sentence(net, at), rule, len(times), session_open, tuple(lines))
        self._enter(ban, times, lines)
        return ban

    def _sentence(self, net: str, at: float) -> float:
        """Return when a ban of `net` from `at` ends, and remember the offender."""
        policy = self._policy
        offender = self.offenders.get(net)
        before = 0 if offender is None or at - offender.last > policy.forget else offender.bans
        until = at + min(policy.ban * 2.0 ** min(before, 40), max(policy.ban, policy.ban_max))
        if offender is None:
            self.offenders.put(net, Offender(before + 1, until), at)
        else:
            offender.bans = before + 1
            offender.last = until
        self.offenders.touch(net)
        return until

    def _enter(self, ban: Ban, times: list[float], lines: list[str]) -> list[Action]:
        """Put a ban in force; return the bans that come back because it takes the place of a collective one."""
        before = self.active.get(ban.net)
        if before is not None:
            self._want(before, -1)
        active = Active(ban, times, lines)
        self.active[ban.net] = active
        self._want(active, 1)
        self._nets.add(ban.net)
        self.changed.add(ban.net)
        if not math.isinf(ban.until):
            heappush(self._ends, (ban.until, ban.net))
        if len(self.history) < _HISTORY * 10:
            self.history.append(ban)
        return self._surface(ban.net, ban.at) if before is not None and before.collective() else []

    def _want(self, active: Active, n: int) -> None:
        """Count a ban that comes into force (1) or goes (-1), unless another is enforced for it."""
        if not active.folded:
            self.wanted[1 if ":" in active.ban.net else 0] += n

    def _fold(self, active: Active, *, folded: bool) -> None:
        """Have a ban enforced by the one around it, or by itself again."""
        self._want(active, -1)
        active.folded = folded
        self._want(active, 1)

    # -- told by others --------------------------------------------------------------------------------------------

    def number(self, net: str) -> int:
        """Return how often a net was banned by a rule and not yet forgotten."""
        offender = self.offenders.peek(net)
        return 0 if offender is None else offender.bans

    def remember(self, net: str, number: int, at: float, until: float) -> None:
        """Note that a net was banned for the `number`-th time, from `at`, whoever decided it."""
        offender = self.offenders.get(net)
        if offender is None:
            self.offenders.put(net, Offender(number, until), at)
        else:
            known = 0 if at - offender.last > self._policy.forget else offender.bans
            offender.bans = max(known, number)
            offender.last = max(offender.last, until)
        self.offenders.touch(net)

    def enter(self, ban: Ban, times: list[float], lines: list[str]) -> list[Action]:
        """Put a ban in force, folded where a collective one around outlasts it; return what is to be done."""
        done = self._enter(ban, times, lines)
        active = self.active[ban.net]
        if times and self._folds(active):
            self._fold(active, folded=True)
        else:
            done.append(ban)
        return done

    def extend(self, active: Active, at: float, until: float) -> bool:
        """Have a ban last longer; whether that is to be enforced."""
        active.ban = active.ban._replace(at=max(at, active.ban.at), until=until)
        if not math.isinf(until):
            heappush(self._ends, (until, active.ban.net))
        if active.folded and not self._folds(active):
            self._fold(active, folded=False)
        self.changed.add(active.ban.net)
        return not active.folded

    # -- collective bans -------------------------------------------------------------------------------------------

    def resting(self, net: str, at: float) -> list[Ban]:
        """Return the bans inside `net` that rest on attempts and last beyond `at`, folded or not."""
        inside = [self.active[inner] for inner in self._nets.inside(net)]
        return [active.ban for active in inside if active.times and active.ban.until > at]

    def collective_around(self, net: str, at: float) -> list[Ban]:
        """Return the collective bans in force around `net`, narrow ones first."""
        around = [self.active[wide] for wide in self._nets.above(net)]
        return [active.ban for active in around if active.collective() and at < active.ban.until]

    def impose_around(self, net: str, last: Ban, now: float, rule: str, members: list[Ban]) -> list[Action]:
        """Ban a net for what its members did, `last` the latest, and fold into it what a rule banned inside.

        Whoever is banned for longer than the net keeps his own ban, so that nobody goes free when the net does.
        A folded ban stays what it was in all but enforcement: it may be revoked, and its offender is remembered.
        """
        lines = [member.evidence[-1] for member in members if member.evidence]
        failures = sum([member.failures for member in members])
        until = self._sentence(net, last.at)
        ban = Ban(net, last.at, until, rule, failures, last.session_open, tuple(lines))
        done: list[Action] = [ban]
        done += self._enter(ban, _NO_TIMES, _NO_LINES)
        for inner in self._nets.inside(net):
            active = self.active[inner]
            if inner == net or active.folded or active.ban.rule in BY_HAND:
                continue
            if now < active.ban.until <= until:
                self._fold(active, folded=True)
                self.changed.add(inner)
                done.append(Unban(inner, last.at, "folded"))
        return done

    def _surface(self, net: str, at: float) -> list[Action]:
        """Return the bans that were folded into `net` and come back, for the rest of their time, now that it is over."""
        done: list[Action] = []
        for inner in sorted(self._nets.inside(net), key=width):
            active = self.active[inner]
            if not active.folded or self._folds(active):
                continue
            if active.ban.until <= at:
                self._remove(inner)
                continue
            self._fold(active, folded=False)
            self.changed.add(inner)
            heappush(self._ends, (active.ban.until, inner))
            done.append(active.ban)
        return done

    def stands(self, active: Active, now: float) -> bool:
        """Whether a ban, or one around it that rests on it, is in force at `now`."""
        return active.ban.until > now or (
            active.folded and len(self.collective_around(active.ban.net, now)) > 0
        )

    def _folds(self, active: Active) -> bool:
        """Whether a collective ban around this one outlasts it: what folded that one folds this one too."""
        for wide in self._nets.above(active.ban.net):
            around = self.active[wide]
            if around.collective() and around.ban.until >= active.ban.until:
                return True
        return False

    # -- what follows ----------------------------------------------------------------------------------------------

    def failed_again(self, active: Active, at: float) -> None:
        """Note a failure of a banned net: it neither extends nor escalates the ban, but it may carry it."""
        if active.times and len(active.spare) < self._policy.failures:
            active.spare.append(at)
            self.changed.add(active.ban.net)

    def take_back(self, active: Active, at: float) -> bool:
        """Take back one attempt that a ban rested on; whether the ban falls with it."""
        if at in active.spare:
            active.spare.remove(at)
            return False
        if at not in active.times:
            return False
        i = active.times.index(at)
        del active.times[i]
        del active.lines[i]
        self.changed.add(active.ban.net)
        if active.spare:
            active.times.append(active.spare.pop(0))
            active.lines.append("")
        return len(active.times) < self._policy.failures

    def revoke(self, net: str, at: float) -> list[Action]:
        """Lift a ban that should not have been: it does not count as one."""
        offender = self.offenders.get(net)
        if offender is not None:
            offender.bans -= 1
            self.offenders.touch(net)
            if offender.bans <= 0:
                self.offenders.discard(net)
        return self.lift(net, at, "revoked")

    def lift(self, net: str, at: float, cause: str) -> list[Action]:
        """End a ban; what was folded into it comes back first.  Nothing is to be done for one that was itself folded."""
        active = self._remove(net)
        if active is None:
            return []
        done = self._surface(net, at) if active.collective() else []
        if not active.folded:
            done.append(Unban(net, at, cause))
        return done

    def _remove(self, net: str) -> Active | None:
        active = self.active.pop(net, None)
        if active is not None:
            self._want(active, -1)
            self._nets.discard(net)
            self.changed.add(net)
        return active

    def expire(self, now: float) -> list[Action]:
        """End the bans whose time is over.  What is folded ends with the ban it was folded into."""
        ended: list[Action] = []
        while self._ends and self._ends[0][0] <= now:
            _, net = heappop(self._ends)
            active = self.active.get(net)
            if active is not None and active.ban.until <= now and not active.folded:
                ended += self.lift(net, now, "expired")
        return ended

    def by_hand(self, net: str, at: float, until: float, rule: str) -> list[Action]:
        """Ban a net because the administrator says so."""
        ban = Ban(net, at, until, rule)
        back = self._enter(ban, _NO_TIMES, _NO_LINES)
        back.append(ban)
        return back

    def restore(self, active: Active) -> None:
        """Take a ban from the saved state."""
        ban = active.ban
        self.active[ban.net] = active
        self._want(active, 1)
        self._nets.add(ban.net)
        if not math.isinf(ban.until):
            heappush(self._ends, (ban.until, ban.net))
