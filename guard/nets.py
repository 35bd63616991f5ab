"""Sets of nets that change and grow: which nets hold an address, lie within a net, or touch it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

from guard.addresses import parts

_ALL: Final = 1 << 62
_FEW: Final = 32  # that are put into their places one by one; more are sorted in


def width(net: str) -> int:
    """Return the width of a net in CIDR notation."""
    value, unit, i = 0, 1, len(net) - 1
    while i >= 0:
        c = ord(net[i])
        if c == 47:  # "/"
            break
        value += (c - 48) * unit
        unit *= 10
        i -= 1
    return value


class _Family:
    """The nets of IPv4 or of IPv6, by width and in order."""

    __slots__ = ("_fresh", "_stale", "_starts", "bits", "rows", "widths")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.rows: dict[int, dict[int, str]] = {}  # width -> start shifted to it -> the net's text
        self.widths: list[int] = []  # in use, narrow nets first
        self._starts: list[int] = []  # sorted, but for ...
        self._fresh: list[int] = []  # ... those that came since; a start whose net has gone may linger,
        self._stale = 0  # so many do

    def add(self, start: int, width: int, net: str) -> None:
        row = self.rows.get(width)
        if row is None:
            row = self.rows[width] = {}
            self.widths = sorted(self.rows, reverse=True)
        key = start >> (self.bits - width)
        if key not in row:
            self._fresh.append(start)
        row[key] = net

    def discard(self, start: int, width: int) -> None:
        row = self.rows.get(width)
        if row is None or row.pop(start >> (self.bits - width), None) is None:
            return
        self._stale += 1
        if not row:
            del self.rows[width]
            self.widths.remove(width)

    def covers(self, start: int, width: int) -> bool:
        """Whether a net holds all of the net given: O(widths)."""
        for wide in self.widths:  # noqa: SIM110 - a closure is what mypyc is slow at
            if wide <= width and (start >> (self.bits - wide)) in self.rows[wide]:
                return True
        return False

    def covering(self, start: int, width: int) -> list[str]:
        found: list[str] = []
        for wide in self.widths:
            if wide <= width:
                net = self.rows[wide].get(start >> (self.bits - wide))
                if net is not None:
                    found.append(net)
        return found

    def inside(self, start: int, width: int, most: int) -> list[str]:
        """Return at most `most` nets that lie within the net given: O(log n) and what is found."""
        starts = self._order()
        end = start + (1 << (self.bits - width))
        found: list[str] = []
        before = -1
        i = bisect_left(starts, start)
        while i < len(starts) and starts[i] < end and len(found) < most:
            if starts[i] != before:
                before = starts[i]
                for narrow in self.widths:
                    shift = self.bits - narrow
                    if narrow < width or before >> shift << shift != before:
                        break
                    net = self.rows[narrow].get(before >> shift)
                    if net is not None:
                        found.append(net)
            i += 1
        return found

    def overlaps(self, start: int, width: int) -> bool:
        """Whether a net has an address in common with the net given: O(widths + log n)."""
        starts = self._order()
        i = bisect_left(starts, start)
        near = i < len(starts) and (starts[i] - start) >> (self.bits - width) == 0  # or was
        if near and (self._stale == 0 or self.inside(start, width, 1)):
            return True
        return self.covers(start, width)

    def _order(self) -> list[int]:
        if self._stale * 8 > len(self._starts) + len(self._fresh):
            self._starts = [key << (self.bits - width) for width, row in self.rows.items() for key in row]
            self._starts.sort()
            self._fresh.clear()
            self._stale = 0
        elif len(self._fresh) > _FEW:
            self._starts += self._fresh
            self._starts.sort()
            self._fresh.clear()
        elif self._fresh:
            for start in self._fresh:
                insort(self._starts, start)
            self._fresh.clear()
        return self._starts


class NetSet:
    """A set of nets: one comes or goes in O(1), a look-up costs O(widths in use), an overlap O(log n) more."""

    __slots__ = ("_new", "_old")

    def __init__(self, nets: Iterable[str] = ()) -> None:
        self._old = _Family(32)
        self._new = _Family(128)
        for net in nets:
            self.add(net)

    def __len__(self) -> int:
        return sum([len(row) for row in self._old.rows.values()]) + sum(
            [len(row) for row in self._new.rows.values()]
        )

    def add(self, net: str) -> None:
        """Add a net; ValueError where it is none."""
        start, prefix = parts(net)
        self._family(net).add(start, prefix, net)

    def discard(self, net: str) -> None:
        """Take a net out, if it is there."""
        start, prefix = parts(net)
        self._family(net).discard(start, prefix)

    def has(self, address: str, value: int) -> bool:
        """Whether one of the nets holds the canonical `address`, whose number is `value`."""
        family = self._family(address)
        return family.covers(value, family.bits)

    def holds(self, net: str) -> bool:
        """Whether one of the nets covers the whole of `net` (an address or a net)."""
        family = self._family(net)
        if not family.widths:
            return False
        start, prefix = parts(net)
        return family.covers(start, prefix)

    def touches(self, net: str) -> bool:
        """Whether `net` and one of the nets have an address in common."""
        if not self._family(net).widths:
            return False
        start, prefix = parts(net)
        return self.touches_near(net, start, prefix)

    def touches_near(self, address: str, value: int, prefix: int) -> bool:
        """Whether the net of width `prefix` around a canonical address has an address in common with one of the nets."""
        family = self._family(address)
        if not family.widths:
            return False
        shift = family.bits - prefix
        return family.overlaps(value >> shift << shift, prefix)

    def around(self, net: str) -> list[str]:
        """Return the nets that cover the whole of `net`, narrow ones first."""
        family = self._family(net)
        if not family.widths:
            return []
        start, prefix = parts(net)
        return family.covering(start, prefix)

    def above(self, net: str) -> list[str]:
        """Return the nets wider than `net` (a net) that cover it, narrow ones first."""
        family = self._family(net)
        if not family.widths:
            return []
        own = width(net)
        if family.widths[-1] >= own:
            return []
        start, _ = parts(net)
        return family.covering(start, own - 1)

    def inside(self, net: str) -> list[str]:
        """Return the nets that lie within `net`, in the order of addresses, of equal starts narrow ones first."""
        family = self._family(net)
        if not family.widths:
            return []
        start, prefix = parts(net)
        return family.inside(start, prefix, _ALL)

    def touching(self, net: str) -> list[str]:
        """Return the nets that have an address in common with `net`: those within it, then those around it."""
        return self.inside(net) + [other for other in self.around(net) if other != net]

    def _family(self, net: str) -> _Family:
        return self._new if ":" in net else self._old
