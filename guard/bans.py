"""Finding -> Action: who may be banned, how wide, for how long, and when a ban ends."""

from __future__ import annotations

import ipaddress
import math
from heapq import heappop, heappush
from typing import Any, Final

from mypy_extensions import mypyc_attr

from guard import addresses
from guard.bounded import Bounded, Entry
from guard.model import Action, Ban, Policy, Unban

CLIENT: Final = 0
TRUSTED: Final = 1
OWN: Final = 2
ALLOWED: Final = 3

_ROLES: Final = 1 << 17
_HISTORY: Final = 10_000
_SPLIT: Final = 1000
# Fewer bits than this need --force by hand: IPv4 nets wider than /8, IPv6 nets of /32 and wider.
_NARROW: Final = {4: 8, 6: 33}
_WIDE: Final = {4: "wider than /8", 6: "/32 or wider"}


def dump_ban(ban: Ban) -> list[object]:
    """Return a ban as JSON values."""
    until = None if math.isinf(ban.until) else ban.until
    return [ban.net, ban.at, until, ban.rule, ban.failures, ban.session_open, list(ban.evidence)]


def load_ban(values: list[Any]) -> Ban:
    """Return the ban that `dump_ban` gave."""
    net, at, until, rule, failures, session_open, evidence = values
    return Ban(net, at, math.inf if until is None else until, rule, failures, session_open, tuple(evidence))


@mypyc_attr(acyclic=True)
class Active(Entry):
    """A ban in force: the attempts that it rests on, and those since that could take their place."""

    __slots__ = ("ban", "lines", "spare", "times")

    def __init__(self, ban: Ban, times: list[float], lines: list[str]) -> None:
        self.ban = ban
        self.times = times
        self.lines = lines
        self.spare: list[float] = []

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("ban", "times", "lines", "spare")

    def dump(self) -> list[object]:
        """Return the ban as JSON values."""
        values = super().dump()
        values[0] = dump_ban(self.ban)
        return values

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        values[0] = load_ban(values[0])
        super().load(values)


@mypyc_attr(acyclic=True)
class Offender(Entry):
    """How often a net was banned, until when it is remembered."""

    __slots__ = ("bans", "last")

    def __init__(self, bans: int, last: float) -> None:
        self.bans = bans
        self.last = last  # end of the latest ban

    def worth_keeping(self, at: float) -> bool:
        """Repeat offenders outlive a flood of new ones."""
        return self.bans > 1

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("bans", "last")


class Bans:
    """Decides; enforces nothing."""

    __slots__ = (
        "_allowed",
        "_ends",
        "_own",
        "_policy",
        "_roles",
        "_split",
        "_trusted",
        "_wide",
        "active",
        "changed",
        "epoch",
        "history",
        "offenders",
    )

    def __init__(self, policy: Policy, *, keep: bool) -> None:
        self.active: dict[str, Active] = {}
        self.changed: set[str] = set()
        self.history: list[Ban] = []
        self.offenders: Bounded[Offender] = Bounded(
            "offender", policy.max_addresses, policy.forget, keep=keep
        )
        self._ends: list[tuple[float, str]] = []
        self._wide = addresses.NetSet()
        self._split: set[str] = (
            set()
        )  # nets whose addresses stand for themselves, whatever the width of a ban
        self.epoch = 0  # of the lists: what was found of an address under an older one is void
        self.reconfigure(policy, policy.allow)

    def reconfigure(self, policy: Policy, allow: tuple[str, ...]) -> None:
        """Take another configuration, and the allow list with what was added by hand."""
        self._policy = policy
        self._allowed = addresses.NetSet(allow)
        self._trusted = addresses.NetSet(policy.trusted)
        self._own = addresses.NetSet(policy.own)
        self._roles: dict[str, tuple[int, str]] = {}
        self.epoch += 1

    def role(self, ip: str) -> tuple[int, str]:
        """Return what an address is (CLIENT, TRUSTED, OWN, ALLOWED) and the net that stands for it in counts and bans.

        If the widened net holds an allowed, trusted or own address, or was split, the address stands for itself.
        """
        known = self._roles.get(ip)
        if known is not None:
            return known
        value = addresses.number(ip)
        if self._own.has(ip, value):
            role = OWN
        elif self._trusted.has(ip, value):
            role = TRUSTED
        elif self._allowed.has(ip, value):
            role = ALLOWED
        else:
            role = CLIENT
        net = addresses.widen(ip, self._policy.prefix4, self._policy.prefix6)
        width, whole = (self._policy.prefix6, 128) if ":" in ip else (self._policy.prefix4, 32)
        if width != whole and (
            net in self._split
            or self._trusted.touches_near(ip, value, width)
            or self._allowed.touches_near(ip, value, width)
            or self._own.touches_near(ip, value, width)
        ):
            net = addresses.widen(ip, 32, 128)
        if len(self._roles) >= _ROLES:
            self._roles.clear()
        self._roles[ip] = (role, net)
        return role, net

    def split(self, net: str) -> None:
        """Have the addresses of a net that a rule may not ban stand for themselves: one of them is somebody else."""
        if net not in self._split:
            if len(self._split) >= _SPLIT:
                self._split.clear()
            self._split.add(net)
            self._roles.clear()
            self.epoch += 1

    def covering(self, net: str, at: float) -> Active | None:
        """Return the ban in force at `at` that shuts `net` out, if any."""
        active = self.active.get(net)
        if active is not None:
            return active if at < active.ban.until else None
        if self._wide.nets and self._wide.holds(net):
            for wide in self._wide.nets:
                if addresses.NetSet((wide,)).holds(net) and self.active[wide].ban.until > at:
                    return self.active[wide]
        return None

    def impose(
        self, net: str, at: float, rule: str, times: list[float], lines: list[str], session_open: bool | None
    ) -> Ban:
        """Ban a net that a rule has found, longer each time until it is forgotten."""
        policy = self._policy
        offender = self.offenders.get(net)
        before = 0 if offender is None or at - offender.last > policy.forget else offender.bans
        seconds = min(policy.ban * 2.0 ** min(before, 40), max(policy.ban, policy.ban_max))
        ban = Ban(net, at, at + seconds, rule, len(times), session_open, tuple(lines))
        if offender is None:
            self.offenders.put(net, Offender(before + 1, ban.until), at)
        else:
            offender.bans = before + 1
            offender.last = ban.until
        self.offenders.touch(net)
        self._enter(ban, times, lines)
        return ban

    def _enter(self, ban: Ban, times: list[float], lines: list[str]) -> None:
        self.active[ban.net] = Active(ban, times, lines)
        self.changed.add(ban.net)
        if not math.isinf(ban.until):
            heappush(self._ends, (ban.until, ban.net))
        if ban.rule in ("manual", "deny"):
            self._widen()
        if len(self.history) < _HISTORY * 10:
            self.history.append(ban)

    def _widen(self) -> None:
        self._wide = addresses.NetSet(
            tuple(n for n, a in self.active.items() if a.ban.rule in ("manual", "deny"))
        )

    def failed_again(self, active: Active, at: float) -> None:
        """Note a failure of a banned net: it neither extends nor escalates the ban, but it may carry it."""
        if len(active.spare) < self._policy.failures:
            active.spare.append(at)
            self.changed.add(active.ban.net)

    def take_back(self, active: Active, at: float) -> bool:
        """Take back one attempt that a ban rested on; whether the ban falls with it."""
        if at in active.spare:
            active.spare.remove(at)
            return False
        if at not in active.times or active.ban.rule in ("manual", "deny"):
            return False
        i = active.times.index(at)
        del active.times[i]
        del active.lines[i]
        self.changed.add(active.ban.net)
        if active.spare:
            active.times.append(active.spare.pop(0))
            active.lines.append("")
        return len(active.times) < self._policy.failures

    def revoke(self, net: str, at: float) -> Unban:
        """Lift a ban that should not have been: it does not count as one."""
        offender = self.offenders.get(net)
        if offender is not None:
            offender.bans -= 1
            self.offenders.touch(net)
            if offender.bans <= 0:
                self.offenders.discard(net)
        return self.lift(net, at, "revoked")

    def lift(self, net: str, at: float, cause: str) -> Unban:
        """End a ban."""
        active = self.active.pop(net, None)
        self.changed.add(net)
        if active is not None and active.ban.rule in ("manual", "deny"):
            self._widen()
        return Unban(net, at, cause)

    def expire(self, now: float) -> list[Action]:
        """End the bans whose time is over."""
        ended: list[Action] = []
        while self._ends and self._ends[0][0] <= now:
            _, net = heappop(self._ends)
            active = self.active.get(net)
            if active is not None and active.ban.until <= now:
                ended.append(self.lift(net, now, "expired"))
        return ended

    def refusal(self, net: str, *, force: bool) -> str | None:
        """Return why a net may not be banned by hand, or None.  `force` opens the width and nothing else."""
        what = ipaddress.ip_network(net)
        if self._own.touches(net) or what.network_address.is_loopback:
            return f"{net} holds an address of this host"
        if self._trusted.touches(net):
            return f"{net} touches lists.trusted: take it out of that list first"
        if self.allows(net):
            return f"{net} holds an address of the allow list: remove that entry first"
        if what.prefixlen < _NARROW[what.version] and not force:
            return f"{net} is {_WIDE[what.version]}: use --force if you mean it"
        return None

    def allows(self, net: str) -> bool:
        """Whether the allow list has an address in common with `net`."""
        return self._allowed.touches(net)

    def by_hand(self, net: str, at: float, until: float, rule: str) -> Ban:
        """Ban a net because the administrator says so."""
        ban = Ban(net, at, until, rule)
        self._enter(ban, [], [])
        return ban

    def restore(self, active: Active) -> None:
        """Take a ban from the saved state."""
        ban = active.ban
        self.active[ban.net] = active
        if not math.isinf(ban.until):
            heappush(self._ends, (ban.until, ban.net))
        if ban.rule in ("manual", "deny"):
            self._widen()
