"""What our table looks like, and the commands that make and change it: text for libnftables, no effects.

    table inet mailward
      chain prerouting   filter hook prerouting priority raw: before Docker's DNAT, where the destination is still
                         the public port, and before conntrack, so that established connections die as well
      chain banned       a lookup for each width in use, by a masked key, in the hash set of that width
      set ban4_32 ...    elements with their own timeout: a ban ends without us
      counter dropped4, dropped6

There is no interval set.  It would hold every width in one lookup, but refuses overlaps, so that nets inside nets would
have to be cut into pieces and put together again at each end of a ban; and libnftables reads it whole at each change
(0.94 s a ban at 50,000).  A hash set for each width that is in use, made with the first ban of that width, costs a
packet one masked look-up, and every ban is one element: nets may lie inside each other, and none opens another.

Text rather than JSON, because it is a third faster (10,000 elements: 30 ms against 48 ms).
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from guard.firewall.nft_outline import TIMEOUT
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from guard.firewall.nets import Net
    from guard.firewall.nft_outline import Outline, Set
    from guard.model import Unban

CHAIN: Final = "banned"
HOOK: Final = "prerouting"
WIDTHS: Final = ((4, 32), (4, 24), (6, 128), (6, 64), (6, 56), (6, 48))
HASH_SIZE: Final = 1 << 20
LONGEST: Final = 36_500 * 86_400  # seconds; the kernel takes 584 years at most (2^64 ns)

_FULL: Final = {4: 32, 6: 128}
_FIELD: Final = {4: "ip saddr", 6: "ip6 saddr"}
_KEY: Final = {4: (7, 4), 6: (8, 16)}  # libnftables' numbers of ipv4_addr and ipv6_addr, bytes
_COUNTERS: Final = ("dropped4", "dropped6")
_HASH_SET: Final = re.compile(r"ban([46])_([0-9]{1,3})\Z")
_TABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,30}\Z")


class Width(NamedTuple):
    """A family (4, 6) and a prefix length."""

    family: int
    length: int


def hash_set(width: tuple[int, int]) -> str:
    """Return the name of the set that holds nets of this width."""
    return f"ban{width[0]}_{width[1]}"


def width_of(name: str) -> Width | None:
    """Return the width that a set's name stands for; None where it is no set of ours."""
    match = _HASH_SET.match(name)
    if match is None:
        return None
    width = Width(int(match[1]), int(match[2]))
    return width if 1 <= width.length <= _FULL[width.family] and hash_set(width) == name else None


def sets_of(outline: Outline | None) -> Iterator[tuple[Width, Set]]:
    """Yield the sets in an outline that have the name of one of ours, whatever they are, by width."""
    for name, made in outline.sets.items() if outline else ():
        width = width_of(name)
        if width is not None:
            yield width, made


class Ruleset:
    """The names and commands of one table.  `widths` are those that have a set; `always` of them have one unasked."""

    __slots__ = ("_ports", "always", "size", "table", "widths")

    def __init__(
        self,
        table: str,
        ports: Sequence[int] | None,
        widths: Iterable[tuple[int, int]],
        size: int = HASH_SIZE,
    ) -> None:
        """Take the table's name, the ports that a ban closes (None: all), the widths and the size of a set.

        Raises ValueError where one is unfit.
        """
        if _TABLE.match(table) is None:
            raise ValueError(f"{table!r} cannot name a table: use lower-case letters, digits and _")
        if ports is not None and (not ports or not all(1 <= port <= 65535 for port in ports)):
            raise ValueError(f"ports must name at least one of 1 to 65535, or be 'all': {ports!r}")
        self.table = table
        self.size = size
        self._ports = None if ports is None else sorted(set(ports))
        for family, length in widths:
            if width_of(hash_set((family, length))) is None:
                raise ValueError(f"/{length} is no prefix length of IPv{family}")
        self.always = frozenset(Width(*width) for width in widths)
        self.widths = set(self.always)

    def structure(self) -> list[str]:
        """Return the commands that make table, sets, counters and rules, and leave every element where it is.

        The rules are taken away and made again: in one transaction, or packets meet a table without them.
        """
        table = f"inet {self.table}"
        lines = [f"add table {table}"]
        for width in sorted(self.widths):
            # Not `type ipv4_addr`: a set that nftables 1.1 declared so crashes whoever lists it with 1.0.6 (Debian 12).
            kind = f"typeof {_FIELD[width.family]}; flags timeout; size {self.size};"
            lines.append(f"add set {table} {hash_set(width)} {{ {kind} }}")
        lines += [f"add counter {table} {name}" for name in _COUNTERS]
        match = ""
        if self._ports is not None:
            match = f"tcp dport {{ {', '.join(map(str, self._ports))} }} "
        return [
            *lines,
            f"add chain {table} {CHAIN}",
            f"add chain {table} {HOOK} {{ type filter hook prerouting priority raw; policy accept; }}",
            f"flush chain {table} {HOOK}",
            f"flush chain {table} {CHAIN}",
            f"add rule {table} {HOOK} iif lo accept",
            f"add rule {table} {HOOK} {match}jump {CHAIN}",
            *[f"add rule {table} {CHAIN} {rule}" for rule in self._lookups()],
        ]

    def _lookups(self) -> Iterable[str]:
        for width in sorted(self.widths, reverse=True):
            field = _FIELD[width.family]
            if width.length < _FULL[width.family]:
                field += f" & {_mask(width)}"
            yield f"{field} @{hash_set(width)} counter name dropped{width.family} drop"

    def deletions(self, names: Iterable[str]) -> list[str]:
        """Return the commands that take sets away, once no rule names them."""
        return [f"delete set inet {self.table} {name}" for name in names]

    def replacement(self) -> list[str]:
        """Return the commands that take the table away, whatever it is; the structure is to follow at once."""
        return [f"add table inet {self.table}", f"delete table inet {self.table}"]

    def shape(self, outline: Outline | None) -> dict[str, object]:
        """Return what of our structure an outline shows, part by part, to be compared with another outline's.

        What others have put beside it is left out.
        """
        if outline is None:
            return {}
        parts: dict[str, object] = {"table": outline.flags}
        for chain in (HOOK, CHAIN):
            if chain in outline.chains:
                parts[f"chain {chain}"] = outline.chains[chain]
            if chain in outline.rules:
                parts[f"rules of {chain}"] = outline.rules[chain]
        for name in map(hash_set, self.widths):
            if name in outline.sets:
                parts[f"set {name}"] = outline.sets[name]
        return parts | {f"counter {name}": True for name in _COUNTERS if name in outline.counters}

    def fits(self, outline: Outline | None) -> bool:
        """Tell whether the sets in an outline can hold our bans: `add set` would not say so on kernels before 6.2."""
        return all(
            (made.key_type, made.key_size, made.flags, made.timeout) == (*_KEY[width.family], TIMEOUT, 0)
            for width, made in sets_of(outline)
        )

    def additions(self, wanted: Sequence[tuple[Net, Ban | Unban]], now: float) -> list[str]:
        """Return the commands that add bans which are known not to be there."""
        keys: dict[str, list[str]] = {}
        for net, action in wanted:
            if isinstance(action, Ban):
                home = f"ban{net.family}_{net.width}"
                keys.setdefault(home, []).append(net.address + timeout(action.until - now))
        return [self._elements("add", home, those) for home, those in keys.items()]

    def changes(self, wanted: Sequence[tuple[Net, Ban | Unban]], now: float) -> list[str]:
        """Return the commands that make `wanted` true, for one transaction; no net may stand in it twice.

        Each net is added, deleted and, when it is a ban, added again: deleting an absent element would fail
        the transaction, and on kernels older than 6.18 adding a present one may leave its old timeout.
        A net whose width has no set is not banned, and needs no end.
        """
        sets: dict[str, tuple[list[str], list[str], list[str]]] = {}
        for net, action in wanted:
            if (net.family, net.width) not in self.widths:
                continue
            first, gone, last = sets.setdefault(hash_set((net.family, net.width)), ([], [], []))
            key = net.address
            gone.append(key)
            if isinstance(action, Ban):
                key += timeout(action.until - now)
                last.append(key)
            first.append(key)
        return [
            self._elements(verb, home, keys)
            for home, (first, gone, last) in sets.items()
            for verb, keys in (("add", first), ("delete", gone), ("add", last))
            if keys
        ]

    def _elements(self, verb: str, home: str, keys: Sequence[str]) -> str:
        return f"{verb} element inet {self.table} {home} {{ {', '.join(keys)} }}"


def timeout(seconds: float) -> str:
    """Return the element's timeout for a ban of `seconds`, "" for one without end.

    In whole seconds, rounded up, at least one: the kernel counts in jiffies and would round milliseconds down.
    """
    if seconds == math.inf:
        return ""
    days, rest = divmod(max(1, min(math.ceil(seconds), LONGEST)), 86_400)
    return f" timeout {days}d{rest}s" if days else f" timeout {rest}s"


def _mask(width: Width) -> str:
    """Return the netmask of a width as an address, as a rule wants it."""
    if width.family == 4:
        return str(ipaddress.IPv4Network((0, width.length)).netmask)
    return str(ipaddress.IPv6Network((0, width.length)).netmask)
