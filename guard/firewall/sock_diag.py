"""TCP sockets of this network namespace, seen and closed from outside (sock_diag(7), linux/inet_diag.h).

The kernel filters, by local port or by a small program over the peer's address (INET_DIAG_REQ_BYTECODE), so that
of 100,000 connections only those asked for are told.  Looking needs no right; closing (SOCK_DESTROY) needs
CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY.  Sockets of other namespaces, those of containers, are
out of reach.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from guard.firewall import netlink
from guard.firewall.nets import Net, Ranges, read_net

ESTABLISHED: Final = 1 << 1
# Where a program or the kernel still waits for the peer: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING.
OPEN: Final = ESTABLISHED | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11

# The older question, for TCP alone, has both families told in one walk over all sockets: half the time.
_GET_TCP, _DESTROY = 18, 21  # TCPDIAG_GETSOCK, SOCK_DESTROY
_LOOK: Final = struct.Struct("=BBBB48sLL")  # struct inet_diag_req: family, lengths, extensions, id, states, -
_CLOSE: Final = struct.Struct(
    "=BBBBL48s"
)  # struct inet_diag_req_v2: family, protocol, extensions, -, states, id
_ID: Final = struct.Struct("!HH16s16s12s")  # struct inet_diag_sockid: ports, addresses, interface and cookie
_STATE: Final = 4  # bytes of struct inet_diag_msg before its id: family, state, timer, retransmits
_BYTECODE: Final = 1  # INET_DIAG_REQ_BYTECODE
_STEP: Final = struct.Struct(
    "=BBH"
)  # struct inet_diag_bc_op: code, bytes onwards if so, bytes onwards if not
_JUMP, _PEER_IN = 1, 8  # INET_DIAG_BC_JMP, INET_DIAG_BC_D_COND
_HOST: Final = struct.Struct("=BBxxi")  # struct inet_diag_hostcond: family, prefix length, port; an address
_MAPPED: Final = bytes(10) + b"\xff\xff"
NETS_AT_ONCE: Final = 128  # in one program, which the kernel runs for each socket


class Socket(NamedTuple):
    """One TCP socket; `id` is what the kernel knows it by, its last 8 bytes belong to no other socket ever."""

    family: int
    port: int  # our side
    peer: str  # the other side's address; IPv4 where it is mapped
    id: bytes


def sockets(states: int, *, port: int = 0, nets: Sequence[Net] | None = None) -> Iterator[Socket]:
    """Yield the TCP sockets in `states`, on a local port, with a peer in one of `nets` (NETS_AT_ONCE at most).

    A port of 0 is every port, None as nets every peer; no nets are no peer.

    Raises OSError where the kernel does not tell.
    """
    wanted = _ID.pack(port, 0, bytes(16), bytes(16), bytes(4) + b"\xff" * 8)  # any cookie
    if nets is not None and not nets:
        return  # an empty program would pass every socket
    program = b"" if nets is None else netlink.attribute(_BYTECODE, _program(nets))
    request = _LOOK.pack(socket.AF_UNSPEC, 0, 0, 0, wanted, states, 0) + program
    for kind, message in netlink.dump(netlink.SOCK_DIAG, _GET_TCP, request):
        if kind == _GET_TCP:
            yield _socket(message)


def _socket(message: bytes) -> Socket:
    family = message[0]
    identity = message[_STATE : _STATE + _ID.size]
    port, _, _, peer, _ = _ID.unpack(identity)
    if family == socket.AF_INET6 and not peer.startswith(_MAPPED):
        return Socket(family, port, socket.inet_ntop(socket.AF_INET6, peer), identity)
    return Socket(
        family,
        port,
        socket.inet_ntop(socket.AF_INET, peer[12:] if family == socket.AF_INET6 else peer[:4]),
        identity,
    )


def _program(nets: Sequence[Net]) -> bytes:
    """Return the program that passes a socket whose peer is in one of `nets`.

    A step goes on to the next where it holds, and past itself where not.  What ends exactly at the program's end
    passes; what goes 4 bytes beyond does not.  A condition on an IPv4 net holds for mapped peers of IPv6 sockets too.
    """
    left, program = 0, b""
    for net in reversed(nets):  # from the end, because a step counts the bytes to there
        family, bits = (socket.AF_INET, 32) if net.family == 4 else (socket.AF_INET6, 128)
        host = _HOST.pack(family, net.width, -1) + net.first.to_bytes(bits // 8, "big")
        size = _STEP.size + len(host)
        if left:
            step = _STEP.pack(_PEER_IN, size, size + _STEP.size) + host
            step += _STEP.pack(_JUMP, _STEP.size, _STEP.size + left)
        else:
            step = _STEP.pack(_PEER_IN, size, size + 4) + host
        program = step + program
        left = len(program)
    return program


def destroy(nets: Sequence[Net], on: Callable[[int], bool]) -> int:
    """Close our side of every open TCP connection with a peer in `nets` and a local port that `on` holds for.

    Whoever waits on one gets ECONNABORTED at once; the peer is told by a reset.  Returns how many were closed.
    Raises OSError where the kernel refuses.
    """
    if len(nets) <= NETS_AT_ONCE:
        found = [one for one in sockets(OPEN, nets=nets) if on(one.port)]
    else:
        ranges = Ranges(nets)
        found = [one for one in sockets(OPEN) if on(one.port) and ranges.overlaps(read_net(one.peer))]
    requests = (_CLOSE.pack(one.family, socket.IPPROTO_TCP, 0, 0, 0, one.id) for one in found)
    # One that is gone or in TIME_WAIT meanwhile is an error of its own (ENOENT, EOPNOTSUPP), and no matter.
    codes = list(netlink.command(netlink.SOCK_DIAG, _DESTROY, requests))
    if errno.EPERM in codes:
        raise PermissionError(errno.EPERM, "closing sockets needs CAP_NET_ADMIN")
    return codes.count(0)


def cannot_destroy() -> str | None:
    """Return why this kernel cannot close sockets, None where it can: asks it to close one that cannot be there.

    Whether we have the right is not asked: the kernel looks for the socket first.
    """
    request = _CLOSE.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0, bytes(_ID.size))
    try:
        [code] = netlink.command(netlink.SOCK_DIAG, _DESTROY, iter([request]))
    except OSError as error:
        return f"the kernel does not tell of sockets ({error.strerror})"
    if code == errno.ENOENT:
        return None
    return f"the kernel lacks CONFIG_INET_DIAG_DESTROY ({os.strerror(code)})"
