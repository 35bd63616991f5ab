"""The machines through which this host reaches the world: its gateways and its resolvers.

Gateways: every next hop of every routing table, the default ones among them (RTM_GETROUTE and RTM_GETNEXTHOP of
rtnetlink(7); linux/rtnetlink.h, linux/nexthop.h).  Resolvers: resolv.conf(5), and where systemd-resolved stands in
between, the servers behind it, which it writes to a file of its own.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from guard.firewall import netlink
from guard.firewall.own_addresses import IPAddress

RESOLV_CONF: Final = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")

_ROUTE: Final = struct.Struct(
    "=BBBBBBBBL"
)  # struct rtmsg: family, lengths, tos, table, protocol, scope, type, flags
_NEXT_HOP: Final = struct.Struct(
    "=HBBi"
)  # struct rtnexthop: length, flags, hops, interface; attributes follow
_OBJECT: Final = struct.Struct("=BBBBL")  # struct nhmsg: family, scope, protocol, reserved, flags
_NEW_ROUTE, _GET_ROUTE, _NEW_OBJECT, _GET_OBJECT = 24, 26, 104, 106
_GATEWAY, _MULTIPATH, _VIA = 5, 9, 18  # RTA_*
_OBJECT_GATEWAY: Final = 6  # NHA_GATEWAY
_LARGEST: Final = 1 << 16  # bytes read of a resolv.conf


def gateways() -> set[IPAddress]:
    """Return every next hop of the calling thread's network namespace; raises OSError on refusal."""
    found: set[bytes] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for kind, message in netlink.dump(netlink.ROUTE, _GET_ROUTE, request):
            if kind == _NEW_ROUTE:
                found.update(_hops(message, _ROUTE.size))
    # A route may name an object in place of its next hop (net.ipv4.nexthop_compat_mode = 0).
    try:
        for kind, message in netlink.dump(netlink.ROUTE, _GET_OBJECT, _OBJECT.pack(0, 0, 0, 0, 0)):
            if kind == _NEW_OBJECT:
                values = dict(netlink.attributes(message, _OBJECT.size))
                found.add(values.get(_OBJECT_GATEWAY, b""))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # Linux before 5.3 has none
            raise
    return {ipaddress.ip_address(packed) for packed in found if any(packed)}


def _hops(message: bytes, offset: int) -> Iterator[bytes]:
    for kind, value in netlink.attributes(message, offset):
        if kind == _GATEWAY:
            yield value
        elif kind == _VIA:  # struct rtvia: an IPv4 route by way of an IPv6 neighbour
            yield value[2:]
        elif kind == _MULTIPATH:
            at = 0
            while at + _NEXT_HOP.size <= len(value):
                length = max(_NEXT_HOP.unpack_from(value, at)[0], _NEXT_HOP.size)
                yield from _hops(value[at : at + length], _NEXT_HOP.size)
                at += (length + 3) & ~3


def resolvers(files: Sequence[str] = RESOLV_CONF) -> set[IPAddress]:
    """Return the addresses behind `nameserver` in those `files` that are there."""
    found: set[IPAddress] = set()
    for file in files:
        with contextlib.suppress(OSError), Path(file).open("rb") as text:
            for line in text.read(_LARGEST).decode("ascii", "replace").splitlines():
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver":
                    with contextlib.suppress(ValueError):
                        found.add(ipaddress.ip_address(words[1].partition("%")[0]))
    return found
