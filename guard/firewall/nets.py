"""Nets as the kernel takes them: read strictly, and asked whether they overlap."""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple


class Net(NamedTuple):
    """A net that was read and found well-formed; `address` and `text` are canonical and safe in a command."""

    text: str  # in CIDR notation
    address: str
    width: int
    family: int  # 4 or 6
    first: int
    last: int


def read_net(text: str) -> Net:
    """Read CIDR text or a bare address; raises ValueError with the reason, host bits and zones included.

    inet_pton(3) is as strict as the kernel and takes a tenth of ipaddress's time: it counts when 100,000 bans
    come back after a restart.  The net's text is made anew from the bits, so that nothing of `text` gets further.
    """
    address, slash, length = text.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    try:
        packed = socket.inet_pton(family, address)
    except (OSError, ValueError):
        raise ValueError(f"not an address: {address!r}") from None
    if not slash:
        width = bits
    elif length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits:
        width = int(length)
    else:
        raise ValueError(f"not a prefix length: {length!r}")
    first = int.from_bytes(packed, "big")
    last = first | (1 << (bits - width)) - 1
    if first & (1 << (bits - width)) - 1:
        raise ValueError(f"bits are set beyond the prefix: {text!r}")
    canonical = socket.inet_ntop(family, packed)
    return Net(f"{canonical}/{width}", canonical, width, 4 if bits == 32 else 6, first, last)


class Ranges:
    """A set of nets, asked whether anything in it overlaps a net; O(log n) a question."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, nets: Iterable[Net]) -> None:
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[int]] = {4: [], 6: []}
        for net in sorted(nets, key=lambda net: net.first):
            ends = self._ends[net.family]
            if ends and net.first <= ends[-1]:
                ends[-1] = max(ends[-1], net.last)
            else:
                self._starts[net.family].append(net.first)
                ends.append(net.last)

    def overlaps(self, net: Net) -> bool:
        """Tell whether any address of `net` is in here."""
        at = bisect_right(self._starts[net.family], net.last) - 1
        return at >= 0 and self._ends[net.family][at] >= net.first
