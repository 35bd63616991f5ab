"""The addresses of this host, asked of the kernel.

One RTM_GETADDR dump over rtnetlink (rtnetlink(7), linux/if_addr.h): it needs no right, knows both families and
is cheap enough to ask at each batch, so that an address that came up a second ago is known.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final

from guard.firewall import netlink

_ADDRESS: Final = struct.Struct("=BBBBL")  # struct ifaddrmsg: family, prefix length, flags, scope, interface
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
# On a point-to-point link IFA_ADDRESS is the far end: IFA_LOCAL wins where both stand.
_IFA_ADDRESS, _IFA_LOCAL = 1, 2

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def own_addresses() -> list[IPAddress]:
    """Return every address of the calling thread's network namespace; raises OSError on refusal."""
    found: dict[IPAddress, None] = {}
    for kind, message in netlink.dump(
        netlink.ROUTE, _GET_ADDRESS, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    ):
        if kind == _NEW_ADDRESS:
            values = dict(netlink.attributes(message, _ADDRESS.size))
            packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if packed:
                found[ipaddress.ip_address(packed)] = None
    return list(found)
