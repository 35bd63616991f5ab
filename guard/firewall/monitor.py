"""Who else changes our table: the kernel tells it, transaction by transaction.

After each transaction nf_tables multicasts what was made and deleted, every message with the table's name, and then
one NFT_MSG_NEWGEN with the name of the thread that did it (linux/netfilter/nf_tables.h).  Process numbers differ between
pid namespaces, so that our own transactions are known by the name of the threads that make them: `own_thread`.

Nothing here is trusted further than for a reason to look: a change that is missed is found half a minute later.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import secrets
import socket
import struct
from typing import Final

from guard.firewall import netlink
from guard.firewall.nft_dump import NETFILTER, SUBSYSTEM

_NAME: Final = f"mw-{secrets.token_hex(4)}"  # at most 15 bytes
_GROUP: Final = 7  # NFNLGRP_NFTABLES
_NEW_GENERATION: Final = SUBSYSTEM << 8 | 15  # NFT_MSG_NEWGEN
_PROCESS_NAME: Final = 3  # NFTA_GEN_PROC_NAME
_HEADER: Final = 20  # struct nlmsghdr and struct nfgenmsg
_BUFFER: Final = 4 << 20  # bytes, so that 20,000 elements at once do not run over
_READ: Final = 1 << 16
_AT_ONCE: Final = 200  # messages in one go: the loop has other work
_SET_NAME: Final = 15  # PR_SET_NAME


def own_thread() -> None:
    """Give the calling thread the name by which its transactions are known as ours."""
    ctypes.CDLL(None).prctl(_SET_NAME, _NAME.encode(), 0, 0, 0)


class Monitor:
    """Listens to the changes of one table.  Raises OSError where the kernel does not let us: CAP_NET_ADMIN."""

    def __init__(self, table: str = "mailward") -> None:
        name = table.encode() + b"\0"
        self._mark = netlink.attribute(1, name)  # NFTA_*_TABLE are all 1, and stand first or near it
        self._touched = False
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETFILTER
        )
        try:
            with contextlib.suppress(OSError):  # a smaller buffer runs over sooner, and then we look
                self._socket.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
            self._socket.bind((0, 1 << _GROUP - 1))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is news."""
        return self._socket.fileno()

    def foreign(self) -> bool:
        """Read what has come; tell whether others changed our table, or may have."""
        foreign = False
        for _ in range(_AT_ONCE):
            try:
                data = self._socket.recv(_READ)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                foreign = True  # more came than the buffer holds: whose it was nobody knows
                continue
            foreign = self._read(data) or foreign
        return foreign

    def _read(self, data: bytes) -> bool:
        """Take one datagram: many messages of one transaction, or its end."""
        if len(data) < _HEADER or struct.unpack_from("=H", data, 4)[0] != _NEW_GENERATION:
            self._touched = self._touched or self._mark in data
            return False
        touched, self._touched = self._touched, False
        who = dict(netlink.attributes(data, _HEADER)).get(_PROCESS_NAME, b"").rstrip(b"\0")
        return touched and who != _NAME.encode()

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()
