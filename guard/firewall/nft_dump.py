"""What nf_tables holds, asked of the kernel itself: the elements of a set, the counters, the generation.

A dump over netlink (linux/netfilter/nf_tables.h) is read piece by piece, a few KB at a time, without the GIL while the
kernel works: 100,000 elements take a third of a second beside everything else, where libnftables lists them as JSON in
1.2 s, all at once and most of it with the GIL.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import struct
from typing import TYPE_CHECKING, Final

from guard.firewall import Drops, netlink

if TYPE_CHECKING:
    from collections.abc import Iterator

NETFILTER: Final = 12  # NETLINK_NETFILTER
SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES, the upper byte of a message's type
_GET_ELEMENTS, _GET_GENERATION, _GET_OBJECTS = 13, 16, 19  # NFT_MSG_GETSETELEM, _GETGEN, _GETOBJ
INET: Final = struct.pack("=BBH", 1, 0, 0)  # struct nfgenmsg: NFPROTOINET, version, resource
_ELEMENTS: Final = 3  # NFTA_SET_ELEM_LIST_ELEMENTS; 1 is the table, 2 the set
_KEY, _TIMEOUT, _EXPIRATION = 1, 4, 5  # NFTA_SET_ELEM_KEY, _TIMEOUT, _EXPIRATION (what is left, in ms)
_NAME, _DATA = 2, 4  # NFTA_OBJ_NAME, NFTA_OBJ_DATA
_BYTES, _PACKETS = 1, 2  # NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS
_U64: Final = struct.Struct(">Q")
_LENGTH: Final = struct.Struct("=H")
_TYPE: Final = 0x3FFF  # NLA_TYPE_MASK
_REQUEST: Final = struct.Struct("=LHHLL")
# An element with a timeout as every kernel writes it: length, type; key, value; timeout; expiration.
_LAYOUT: Final = {size: struct.Struct(f"=HHHHHH{size}sHH8sHH8s") for size in (4, 16)}


def elements(table: str, name: str) -> Iterator[tuple[bytes, float]]:
    """Yield key and seconds left of every element of a set, `math.inf` for one without end; one may come twice.

    While others change the set one may be left out.  Raises FileNotFoundError where there is no such set, OSError for
    any other refusal.
    """
    where = netlink.attribute(1, table.encode() + b"\0") + netlink.attribute(2, name.encode() + b"\0")
    for _, message in netlink.dump(NETFILTER, SUBSYSTEM << 8 | _GET_ELEMENTS, INET + where):
        for kind, value in netlink.attributes(message, len(INET)):
            if kind == _ELEMENTS:
                yield from _elements(value)


def _elements(data: bytes) -> Iterator[tuple[bytes, float]]:
    offset, end = 0, len(data)
    while offset + 12 <= end:
        (length,) = _LENGTH.unpack_from(data, offset)
        layout = _LAYOUT.get(length - 36)
        if layout is not None and offset + length <= end:
            _, _, _, key, _, _, value, _, timeout, _, _, expiration, left = layout.unpack_from(data, offset)
            if key & _TYPE == _KEY and timeout & _TYPE == _TIMEOUT and expiration & _TYPE == _EXPIRATION:
                yield value, _U64.unpack(left)[0] / 1000
                offset += length
                continue
        yield _slowly(data[offset + 4 : offset + length])
        offset += max(length, 4) + 3 & ~3


def _slowly(element: bytes) -> tuple[bytes, float]:
    """Read an element of any other form: without end, with a comment, with a counter of its own."""
    key, left = b"", math.inf
    for kind, value in netlink.attributes(element, 0):
        if kind == _KEY:
            key = value[4:]
        elif kind == _EXPIRATION:
            left = _U64.unpack(value)[0] / 1000
    return key, left


def counters(table: str) -> dict[str, Drops]:
    """Return the named counters of a table; none where there is no such table."""
    found: dict[str, Drops] = {}
    where = netlink.attribute(1, table.encode() + b"\0")
    for _, message in netlink.dump(NETFILTER, SUBSYSTEM << 8 | _GET_OBJECTS, INET + where):
        parts = dict(netlink.attributes(message, len(INET)))
        numbers = dict(netlink.attributes(parts.get(_DATA, b""), 0))
        if _BYTES in numbers and _PACKETS in numbers:
            name = parts[_NAME].rstrip(b"\0").decode("utf-8", "replace")
            found[name] = Drops(_U64.unpack(numbers[_PACKETS])[0], _U64.unpack(numbers[_BYTES])[0])
    return found


def generation() -> int:
    """Return the number of the ruleset's latest transaction, whoever made it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER) as link:
        link.settimeout(5)
        body = struct.pack("=BBH", 0, 0, 0)
        link.send(_REQUEST.pack(_REQUEST.size + len(body), SUBSYSTEM << 8 | _GET_GENERATION, 1, 1, 0) + body)
        parts = dict(netlink.attributes(link.recv(1 << 13), _REQUEST.size + len(body)))
    return int.from_bytes(parts.get(1, b""), "big")  # NFTA_GEN_ID


def address(key: bytes) -> str:
    """Return a set's key as canonical address text."""
    if len(key) == 4:
        return socket.inet_ntop(socket.AF_INET, key)
    if not any(key[:12]):  # inet_ntop(3) writes the last four bytes of these as an IPv4 address
        return str(ipaddress.IPv6Address(key))
    return socket.inet_ntop(socket.AF_INET6, key)
