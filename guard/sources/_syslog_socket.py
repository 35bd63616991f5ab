"""The sockets that syslog messages arrive at: what an address asks for, made and measured."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import stat
import struct
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

BACKLOG: Final = 64
RECEIVE_BYTES: Final = 16 * 1024 * 1024  # of a datagram socket: what comes while the engine is busy

# asm-generic/socket.h; Python has no names for them.
_SO_RCVBUFFORCE: Final = 33  # needs CAP_NET_ADMIN, which the guard has
_SO_MEMINFO: Final = 55
_DROPS: Final = 8  # SK_MEMINFO_DROPS of linux/sock_diag.h: datagrams that found no room
# A peer that vanished without a word is noticed after 60 + 4 * 15 seconds.
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


class Address(NamedTuple):
    """Where to listen."""

    url: str
    kind: str  # udp | tcp | tls | unix | unix-stream
    path: str = ""  # of a unix socket
    host: str = ""
    port: int = 0

    @property
    def datagrams(self) -> bool:
        """Is one datagram one message?  Otherwise it is a stream."""
        return self.kind in {"udp", "unix"}


def address_of(url: str) -> Address:
    """Return what `url` asks for; guard.config has seen that it makes sense."""
    parts = urlsplit(url)
    if parts.scheme in {"unix", "unix-stream"}:
        return Address(url, parts.scheme, path=parts.path)
    return Address(url, parts.scheme, host=parts.hostname or "", port=parts.port or 0)


def listening(address: Address, mode: int) -> socket.socket:
    """Return a socket that listens at `address`, not blocking; a unix socket gets `mode`.  Raises OSError."""
    made = socket.socket(
        socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET,
        socket.SOCK_DGRAM if address.datagrams else socket.SOCK_STREAM,
    )
    try:
        made.setblocking(False)
        if address.path:
            _clear(Path(address.path), made.type)
            mask = os.umask(0o177)  # nobody gets in before the mode is set
            try:
                made.bind(address.path)
            finally:
                os.umask(mask)
            Path(address.path).chmod(mode)
        else:
            if made.family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] is not 0.0.0.0 as well
            if not address.datagrams:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address.host, address.port))
        if address.datagrams:
            _widen(made)
        else:
            made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _clear(path: Path, kind: int) -> None:
    """Take away a socket that nobody listens on.  Raises OSError where somebody does, or it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "something that is no socket stands there; remove it")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # of the other kind, or busy: alive
    raise OSError(errno.EADDRINUSE, "another program listens there")


def forget(address: Address, made: socket.socket) -> None:
    """Close a socket that listens, and take its path away."""
    if address.path:
        with contextlib.suppress(OSError):
            Path(address.path).unlink()
    made.close()


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel notice a peer that is gone."""
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _widen(made: socket.socket) -> None:
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
    except OSError:
        made.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES
        )  # as far as net.core.rmem_max goes


def dropped(made: socket.socket) -> int:
    """Return how many datagrams the kernel dropped for want of room since the socket was made."""
    try:
        info = made.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS + 1))
    except OSError:  # closed, or a kernel before 4.12
        return 0
    return int(struct.unpack_from("=I", info, 4 * _DROPS)[0]) if len(info) > 4 * _DROPS else 0


class Tls:
    """What a `tls://` address proves itself with; a renewed certificate is taken at the next connection."""

    def __init__(self, certificate: str, key: str, client_ca: str = "") -> None:
        self._files = [Path(file) for file in (certificate, key, client_ca) if file]
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self.asks = bool(client_ca)  # for a certificate
        self._stamps: list[tuple[int, int]] = []
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context of now.  Raises OSError (ssl.SSLError is one) where the files are of no use."""
        infos = [file.stat() for file in self._files]
        stamps = [(info.st_mtime_ns, info.st_ino) for info in infos]
        if self._context is None or stamps != self._stamps:
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            # A sender never reads: tickets would lie in its socket for good, hide our farewell from it, and make of its
            # close() a reset, which throws away what we have not read yet.
            made.num_tickets = 0
            made.load_cert_chain(self._certificate, self._key)
            if self._client_ca:
                made.load_verify_locations(self._client_ca)
                made.verify_mode = ssl.CERT_REQUIRED
            self._context, self._stamps = made, stamps
        return self._context
