"""Addresses and nets: read, unwrap, widen, look up in lists.

An address is canonical text; `::ffff:a.b.c.d` is a.b.c.d (RFC 4291, 2.5.5.2).  What does not parse is None.
"""

from __future__ import annotations

import ipaddress
import re
from binascii import a2b_base64
from bisect import bisect_left
from typing import Final

_CACHE: Final = 1 << 17
_IPV4: Final = re.compile(
    r"\A(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}\Z"
)

_read: dict[str, str | None] = {}


def read(text: str) -> str | None:
    """Return the canonical address that `text` names, or None when it names none.  Remembers what it read."""
    known = _read.get(text, "")
    if known != "":
        return known
    address: str | None
    if _IPV4.match(text):
        address = text
    else:
        address = _read_slowly(text)
    if len(_read) >= _CACHE:
        _read.clear()
    _read[text] = address
    return address


def _read_slowly(text: str) -> str | None:
    if len(text) > 45 or "%" in text or not text.isascii():  # noqa: PLR2004 - the longest textual IPv6 address
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def widen(address: str, prefix4: int, prefix6: int) -> str:
    """Return the net of the given width that holds the canonical `address`, as canonical CIDR."""
    if ":" not in address:
        if prefix4 == 32:  # noqa: PLR2004
            return address + "/32"
        return str(ipaddress.ip_network(f"{address}/{prefix4}", strict=False))
    return str(ipaddress.ip_network(f"{address}/{prefix6}", strict=False))


def family(net: str) -> str:
    """Return "ipv4" or "ipv6", the metrics' label."""
    return "ipv6" if ":" in net else "ipv4"


def network(text: str) -> str:
    """Return `text` (an address or a net, host bits allowed) as canonical CIDR; ValueError says what is wrong."""
    net = ipaddress.ip_network(text.strip(), strict=False)
    if isinstance(net, ipaddress.IPv6Network) and net.prefixlen >= 96:  # noqa: PLR2004
        mapped = net.network_address.ipv4_mapped
        if mapped is not None:
            return f"{mapped}/{net.prefixlen - 96}"
    return str(net)


class NetSet:
    """A set of nets with O(widths) membership and O(log n) overlap."""

    __slots__ = ("_starts", "_widths", "nets")

    def __init__(self, nets: tuple[str, ...] = ()) -> None:
        self.nets = frozenset(nets)
        self._widths: dict[tuple[int, int], set[int]] = {}
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        for text in self.nets:
            net = ipaddress.ip_network(text, strict=False)
            start = int(net.network_address)
            self._widths.setdefault((net.version, net.prefixlen), set()).add(start)
            self._starts[net.version].append(start)
        for starts in self._starts.values():
            starts.sort()

    def holds(self, net: str) -> bool:
        """Whether one of the nets covers the whole of `net` (an address or a net)."""
        if not self.nets:
            return False
        what = ipaddress.ip_network(net, strict=False)
        value, bits = int(what.network_address), what.max_prefixlen
        return any(
            version == what.version and width <= what.prefixlen and (value >> (bits - width)) << (bits - width) in starts
            for (version, width), starts in self._widths.items()
        )

    def touches(self, net: str) -> bool:
        """Whether `net` and one of the nets have an address in common."""
        if not self.nets:
            return False
        what = ipaddress.ip_network(net, strict=False)
        starts = self._starts[what.version]
        i = bisect_left(starts, int(what.network_address))
        return (i < len(starts) and starts[i] <= int(what.broadcast_address)) or self.holds(net)


def of_session(session: str) -> str | None:
    """Return the client address inside a Dovecot session id, or None where the id holds none.

    lib/connection id of Dovecot (login-common/client-common.c, client_get_session_id): base64 without padding of 6
    bytes of time, 2 bytes of client port (little endian) and 4 or 16 bytes of client address.
    """
    try:
        if len(session) == 16:  # noqa: PLR2004
            raw = a2b_base64(session)
            return f"{raw[8]}.{raw[9]}.{raw[10]}.{raw[11]}"
        if len(session) == 32:  # noqa: PLR2004
            raw = a2b_base64(session)
            address = ipaddress.IPv6Address(raw[8:24])
            return str(address.ipv4_mapped or address)
    except (ValueError, IndexError):
        pass
    return None
