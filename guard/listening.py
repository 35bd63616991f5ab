"""Where our servers listen: `HOST:PORT`, or `ADDRESS%INTERFACE:PORT` for what comes in by that interface alone.

A host takes what is sent to any of its addresses on each of its interfaces (the weak host model, RFC 1122, 3.3.4.2):
to listen on a container network's gateway keeps nobody out who has a route to it.  SO_BINDTODEVICE does (socket(7));
since Linux 5.7 it needs no privilege.
"""

from __future__ import annotations

import socket
from typing import Any

_BACKLOG = 128


def parts(address: str) -> tuple[str, str, int]:
    """Return host (IPv6 without brackets), interface ("" for any) and port of an address as the configuration has it."""
    host, _, port = address.rpartition(":")
    host, _, interface = host.rpartition("%") if "%" in host else (host, "", "")
    return host.strip("[]"), interface, int(port)


def place(address: str) -> dict[str, Any]:
    """Return `address` as asyncio's servers take it: host and port, or a socket that is bound to the interface.

    Raises OSError where the interface or the address is not there, or the port is taken.
    """
    host, interface, port = parts(address)
    if not interface:
        return {"host": host, "port": port}
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return {"sock": bound}
