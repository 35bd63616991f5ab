"""Which nets may become bans at all, and what a batch of actions comes to.

The decision layer has its own never-ban list; this is the last door before the kernel, and it stands against
what would cut the host off from itself or smuggle text into a command.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from guard.firewall import Refused
from guard.firewall.own_addresses import own_addresses
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from guard.model import Unban

_NEVER: Final = ("127.0.0.0/8", "::/127", "::ffff:0:0/96")


class Net(NamedTuple):
    """A net that was read and found well-formed; `address` is canonical text and safe in a command."""

    address: str
    width: int
    family: int  # 4 or 6
    first: int
    last: int

    @property
    def text(self) -> str:
        """The net in CIDR notation."""
        return f"{self.address}/{self.width}"


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
    return Net(socket.inet_ntop(family, packed), width, 4 if bits == 32 else 6, first, last)


class _Ranges:
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


class Admission:
    """Admits a net as a ban, or says why not: this host, loopback, everybody and `trusted` are never banned."""

    __slots__ = ("_never", "_trusted")

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        """Take the nets of `lists.trusted`; raises ValueError for one that is no net."""
        self._never = _Ranges(map(read_net, _NEVER))
        self._trusted = _Ranges(map(read_net, trusted))

    def sort_out(
        self, actions: Sequence[Ban | Unban], now: float
    ) -> tuple[list[tuple[Net, Ban | Unban]], list[Refused]]:
        """Return the last action on each net, without bans that ended by `now`; and the refused actions."""
        own = _Ranges(read_net(str(address)) for address in own_addresses())
        last: dict[str, tuple[Net, Ban | Unban]] = {}
        refused: list[Refused] = []
        for action in actions:
            try:
                net = read_net(action.net)
            except ValueError as error:
                refused.append(Refused(action, str(error)))
                continue
            if isinstance(action, Ban):
                reason = self._objection(net, own)
                if reason is not None:
                    refused.append(Refused(action, reason))
                    continue
                if not action.until > now:
                    continue
            last[net.text] = net, action
        return list(last.values()), refused

    def _objection(self, net: Net, own: _Ranges) -> str | None:
        if net.width == 0:
            return "this is every address there is"
        if self._never.overlaps(net):
            return "loopback, the unspecified address and IPv4-mapped IPv6 are never clients"
        if own.overlaps(net):
            return "one of this host's own addresses is in it: ban a narrower net"
        if self._trusted.overlaps(net):
            return "it overlaps a net in lists.trusted, which are never clients"
        return None
