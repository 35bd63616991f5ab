"""Who may be banned, and how wide: the allow list, the trusted nets, this host's own addresses."""

from __future__ import annotations

from typing import Final

from guard import addresses
from guard.model import Policy
from guard.nets import NetSet

CLIENT: Final = 0
TRUSTED: Final = 1
OWN: Final = 2
ALLOWED: Final = 3

_ROLES: Final = 1 << 17
_SPLIT: Final = 1000
# Fewer bits than this need --force by hand: IPv4 nets wider than /8, IPv6 nets of /32 and wider.
_NARROW4: Final = 8
_NARROW6: Final = 33


class Lists:
    """Knows what an address is; knows of no ban."""

    __slots__ = ("_allowed", "_lists", "_own", "_policy", "_roles", "_split", "_trusted", "epoch")

    def __init__(self, policy: Policy) -> None:
        self.epoch = 0  # of the lists: what was found of an address under an older one is void
        self._allowed = self._trusted = self._own = NetSet()
        self._lists: tuple[tuple[str, ...], ...] = ()  # that the three were made of
        self._roles: dict[str, tuple[int, str]] = {}
        self._split: set[str] = (
            set()
        )  # nets whose addresses stand for themselves, whatever the width of a ban
        self.reconfigure(policy, policy.allow)

    def reconfigure(self, policy: Policy, allow: tuple[str, ...]) -> None:
        """Take another configuration, and the allow list with what was added by hand."""
        self._policy = policy
        lists = (allow, policy.trusted, policy.own)
        if lists != self._lists:
            self._lists = lists
            self._allowed = NetSet(allow)
            self._trusted = NetSet(policy.trusted)
            self._own = NetSet(policy.own)
        self._roles.clear()
        self.epoch += 1

    def allow(self, net: str) -> None:
        """Add one net to the allow list."""
        self._lists = ()
        self._allowed.add(net)
        self._roles.clear()
        self.epoch += 1

    def disallow(self, net: str) -> None:
        """Take one net from the allow list."""
        self._lists = ()
        self._allowed.discard(net)
        self._roles.clear()
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

    def is_split(self, net: str) -> bool:
        """Whether a net was found to hold somebody whom a rule may not ban."""
        return net in self._split

    def allows(self, net: str) -> bool:
        """Whether the allow list has an address in common with `net`."""
        return self._allowed.touches(net)

    def refusal(self, net: str, *, force: bool) -> str | None:
        """Return why a net may not be banned, or None.  `force` opens the width and nothing else."""
        start, prefix = addresses.parts(net)
        v6 = ":" in net
        if self._own.touches_near(net, start, prefix) or (start == 1 if v6 else start >> 24 == 127):
            return f"{net} holds an address of this host"
        if self._trusted.touches_near(net, start, prefix):
            return f"{net} touches lists.trusted: take it out of that list first"
        if self._allowed.touches_near(net, start, prefix):
            return f"{net} holds an address of the allow list: remove that entry first"
        if prefix < (_NARROW6 if v6 else _NARROW4) and not force:
            return f"{net} is {'/32 or wider' if v6 else 'wider than /8'}: use --force if you mean it"
        return None
