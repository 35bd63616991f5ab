"""The addresses of this host, asked of the kernel.

One RTM_GETADDR dump over rtnetlink (rtnetlink(7), linux/if_addr.h): it needs no right, knows both families and
is cheap enough to ask at each batch, so that an address that came up a second ago is known.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final

_HEADER: Final = struct.Struct("=LHHLL")  # struct nlmsghdr: length, type, flags, sequence, port
_ADDRESS: Final = struct.Struct("=BBBBL")  # struct ifaddrmsg: family, prefix length, flags, scope, interface
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct rtattr: length, type
_DONE, _ERROR, _NEW_ADDRESS, _GET_ADDRESS = 3, 2, 20, 22
_REQUEST_DUMP: Final = 0x001 | 0x300
# On a point-to-point link IFA_ADDRESS is the far end: IFA_LOCAL wins where both stand.
_IFA_ADDRESS, _IFA_LOCAL = 1, 2

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def own_addresses() -> list[IPAddress]:
    """Return every address of the calling thread's network namespace; raises OSError on refusal."""
    request = _HEADER.pack(_HEADER.size + _ADDRESS.size, _GET_ADDRESS, _REQUEST_DUMP, 1, 0)
    found: list[IPAddress] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as rtnetlink:
        rtnetlink.bind((0, 0))
        rtnetlink.settimeout(5)
        rtnetlink.send(request + _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        while True:
            data = rtnetlink.recv(1 << 18)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, offset)
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                    raise OSError(code, "the kernel does not tell this host's addresses (RTM_GETADDR)")
                if kind == _NEW_ADDRESS:
                    address = _local_address(data[offset + _HEADER.size : offset + length])
                    if address is not None:
                        found.append(address)
                offset += _aligned(length)


def _local_address(message: bytes) -> IPAddress | None:
    """Return the host's own end out of one ifaddrmsg with its attributes."""
    attributes: dict[int, bytes] = {}
    offset = _ADDRESS.size
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = message[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    return ipaddress.ip_address(packed) if packed else None


def _aligned(length: int) -> int:
    """Round up to netlink's four bytes; a length of 0 would never end, so it counts as a header."""
    return (max(length, _ATTRIBUTE.size) + 3) & ~3
