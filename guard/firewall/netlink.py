"""Netlink through a plain socket: one question, all of its answer (netlink(7), linux/netlink.h)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

ROUTE: Final = 0  # NETLINK_ROUTE
SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG

_HEADER: Final = struct.Struct("=LHHLL")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr, struct rtattr: length, type
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_INTERRUPTED: Final = 0x010  # NLM_F_DUMP_INTR: what is dumped changed meanwhile, something may be missing
_TRIES: Final = 3
_TYPE: Final = 0x3FFF  # NLA_TYPE_MASK: the two bits above are flags
_ANSWER: Final = 1 << 16  # bytes; the kernel fills at most 32 KiB at once
_PATIENCE: Final = 5.0  # seconds; the kernel answers in the call itself

Message = tuple[int, bytes]  # type, what follows the header


def dump(protocol: int, kind: int, body: bytes) -> Iterator[Message]:
    """Yield every message that the kernel has for a request; one may come twice where the dump was interrupted.

    It asks about the calling thread's network namespace.  Raises OSError with what the kernel answers.
    """
    with _opened(protocol) as link:
        for _ in range(_TRIES):
            link.send(_message(kind, _REQUEST | _DUMP, body))
            whole = True
            for flags, message in _answer(link):
                whole = whole and not flags & _INTERRUPTED
                if message is not None:
                    yield message
            if whole:
                return


def _answer(link: socket.socket) -> Iterator[tuple[int, Message | None]]:
    while True:
        data = link.recv(_ANSWER)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, *_ = _HEADER.unpack_from(data, offset)
            if kind == _DONE:
                yield flags, None
                return
            if kind == _ERROR:
                code = _code(data, offset)
                raise OSError(code, os.strerror(code))
            yield flags, (kind, data[offset + _HEADER.size : offset + length])
            offset += _aligned(length)


def command(protocol: int, kind: int, bodies: Iterator[bytes]) -> Iterator[int]:
    """Have the kernel do one thing for each body; yield the errno of each, 0 where it is done."""
    with _opened(protocol) as link:
        for body in bodies:
            link.send(_message(kind, _REQUEST | _ACK, body))
            yield _code(link.recv(_ANSWER), 0)


def attributes(message: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of the attributes that stand in `message` from `offset` on."""
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE, message[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute as a request carries it."""
    length = _ATTRIBUTE.size + len(value)
    return (_ATTRIBUTE.pack(length, kind) + value).ljust(_aligned(length), b"\0")


def _opened(protocol: int) -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    link.settimeout(_PATIENCE)
    return link


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _code(data: bytes, offset: int) -> int:
    """Return the errno in a struct nlmsgerr; the kernel writes it negative, 0 for an acknowledgement."""
    return -int(struct.unpack_from("=i", data, offset + _HEADER.size)[0])


def _aligned(length: int) -> int:
    """Round up to netlink's four bytes; a length of 0 would never end, so it counts as a header."""
    return (max(length, _ATTRIBUTE.size) + 3) & ~3
