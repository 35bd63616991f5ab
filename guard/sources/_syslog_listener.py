"""One address that syslog messages are sent to: datagrams in batches, streams a task each."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from guard.sources import Chunk, Note, Put
from guard.sources._backoff import Backoff
from guard.sources._syslog_messages import LONGEST, Frames, lines_of
from guard.sources._syslog_socket import BACKLOG, Address, Tls, dropped, forget, keep_alive, listening

READ: Final = 64 * 1024  # bytes of one connection that make one chunk
BATCH: Final = 512  # datagrams that make one chunk
HANDSHAKE: Final = 10.0  # seconds
FAREWELL: Final = 5.0  # the most seconds in which senders can end what they have begun when we stop ...
SILENCE: Final = 0.5  # ... and when none of them has sent anything for so long, they have ended it
QUIET: Final = 60.0  # seconds between two notes of one kind
_PEERS: Final = 1024

Net = ipaddress.IPv4Network | ipaddress.IPv6Network


class Terms(NamedTuple):
    """On which terms somebody may send."""

    nets: Sequence[Net] | None  # from where; None: from anywhere
    mode: int  # of a unix socket
    connections: int  # at once
    tls: Tls | None


class Listener:
    """One address; `host` stands in headers that name none."""

    def __init__(self, name: str, address: Address, terms: Terms, host: bytes, note: Note) -> None:
        self.trouble = ""  # what is in the way, in words
        self.up = False
        self._name = name
        self._address = address
        self._stream = f"{name}/{address.url}"
        self._terms = terms
        self._host = host
        self._note = note
        self._noted: dict[str, float] = {}
        self._peers: dict[str, bool] = {}
        self._served: dict[asyncio.Task[None], asyncio.Transport | None] = {}
        self._socket: socket.socket | None = None
        self._lost = 0
        self._heard = 0.0  # when a stream brought something last, monotonic
        self._drops = 0  # of this socket, as far as they were told
        self._stalled: dict[object, float] = {}  # since when a chunk has waited to be taken

    # -- how it does -----------------------------------------------------------------------------------------------

    def lost(self) -> int:
        """Return how many messages could not be delivered."""
        return self._lost + (dropped(self._socket) if self._socket and self._address.datagrams else 0)

    def waiting(self) -> float:
        """Return for how many seconds the oldest chunk has waited for the engine."""
        return max(0.0, time.monotonic() - min(self._stalled.values())) if self._stalled else 0.0

    def detail(self) -> str:
        """Return what is listened at, in words."""
        return self._address.url + ("" if self._address.datagrams else f" ({len(self._served)} connected)")

    def _tell(self, kind: str, text: str) -> None:
        """Note something, but what happens at every message only once a minute."""
        now = time.monotonic()
        if now - self._noted.get(kind, -QUIET) >= QUIET:
            self._noted[kind] = now
            self._note(f"{self._address.url}: {text}")

    def _lose(self, kind: str, text: str, count: int = 1) -> None:
        if count:
            self._lost += count
            self._tell(kind, text)

    # -- work ------------------------------------------------------------------------------------------------------

    async def run(self, put: Put) -> None:
        """Listen until cancelled."""
        backoff = Backoff()
        while True:
            try:
                if self._terms.tls:
                    self._terms.tls.context()
                self._socket = listening(self._address, self._terms.mode)
            except OSError as error:
                text = f"{self._address.url}: {error.strerror or error}"
                if text != self.trouble:
                    self.trouble = text
                    self._note(text)
                await asyncio.sleep(backoff.pause())
                continue
            if self.trouble:
                self._note(f"{self._address.url}: is listened at now")
            self.trouble, self.up, self._drops = "", True, 0
            backoff.reset()
            try:
                if self._address.datagrams:
                    await self._datagrams(self._socket, put)
                else:
                    await self._streams(self._socket, put)
            except OSError as error:  # the socket itself failed: made again
                self._tell("failed", error.strerror or str(error))
            finally:
                self.up = False
                self._lost = self.lost()
                made, self._socket = self._socket, None
                forget(self._address, made)

    async def _deliver(self, data: bytes, put: Put) -> None:
        """Hand on lines; cancelled, it has handed on nothing."""
        if not data:
            return
        key = object()
        self._stalled[key] = time.monotonic()
        try:
            await put(Chunk(self._name, self._stream, data, written=time.time()))
        finally:
            del self._stalled[key]

    def _may(self, peer: str) -> bool:
        """May the sender at this address be believed?"""
        if self._terms.nets is None:
            return True
        known = self._peers.get(peer)
        if known is None:
            address = ipaddress.ip_address(peer.partition("%")[0])
            known = any(address in net for net in self._terms.nets)
            if len(self._peers) >= _PEERS:
                self._peers.clear()
            self._peers[peer] = known
        if not known:
            self._tell("stranger", f"somebody sends from {peer}, which is not in from_nets: refused")
        return known

    # -- datagrams -------------------------------------------------------------------------------------------------

    async def _datagrams(self, made: socket.socket, put: Put) -> None:
        data = b""
        try:
            while True:
                await _readable(made)
                while batch := self._batch(made):
                    data = lines_of(batch, self._host)
                    await self._deliver(data, put)
                    data = b""
                    self._tell_drops(made)
                    await asyncio.sleep(0)  # a queue that has room does not let others run
        except asyncio.CancelledError:
            # A timeout within a cancelled task is told as a CancelledError, up to Python 3.12.
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(FAREWELL):
                    await self._deliver(data, put)
                    while data := lines_of(self._batch(made), self._host):
                        await self._deliver(data, put)
                        data = b""
                        await asyncio.sleep(0)  # or the time would not pass
            self._lost += data.count(b"\n")
            raise

    def _tell_drops(self, made: socket.socket) -> None:
        drops = dropped(made)
        if drops > self._drops:
            self._tell("room", f"the kernel had no room for {drops - self._drops} datagrams: they are lost")
        self._drops = drops

    def _batch(self, made: socket.socket) -> list[bytes]:
        """Return the datagrams that are there, some of them."""
        messages: list[bytes] = []
        size = 0
        checked = self._terms.nets is not None
        try:
            while len(messages) < BATCH and size < READ:
                if checked:
                    message, peer = made.recvfrom(LONGEST + 1)
                    if not self._may(peer[0]):
                        size += 256  # others are to have their turn
                        continue
                else:
                    message = made.recv(LONGEST + 1)
                size += len(message)
                if len(message) > LONGEST:
                    self._lose("long", f"a message of over {LONGEST} bytes is dropped")
                else:
                    messages.append(message)
        except BlockingIOError:
            pass
        return messages

    # -- streams ---------------------------------------------------------------------------------------------------

    async def _streams(self, made: socket.socket, put: Put) -> None:
        async with asyncio.TaskGroup() as group:

            def begin(connection: socket.socket) -> None:
                task = group.create_task(self._serve(connection, put))
                self._served[task] = None
                task.add_done_callback(self._served.pop)

            try:
                while True:
                    await _readable(made)
                    if not self._accept(made, begin):
                        await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                self._accept(made, begin)  # who is connected has begun to send
                made.close()
                await asyncio.sleep(0)  # they begin
                await self._part()
                raise

    def _accept(self, made: socket.socket, begin: Callable[[socket.socket], None]) -> bool:
        """Begin with the connections that wait, or turn them away; False when the kernel gives none for now."""
        for _ in range(BACKLOG):
            try:
                connection, peer = made.accept()
            except BlockingIOError:
                return True
            except OSError as error:  # no descriptor is free, or the peer has gone again
                self._tell("accept", f"a connection is not taken: {error.strerror or error}")
                return False
            if not self._address.path and not self._may(peer[0]):
                connection.close()
            elif len(self._served) >= self._terms.connections:
                self._tell("many", f"{self._terms.connections} are connected: another sender is turned away")
                connection.close()
            else:
                begin(connection)
        return True

    async def _part(self) -> None:
        """Tell the senders that we go, and take what they have sent; rsyslog and syslog-ng keep the rest for our successor."""
        for transport in self._served.values():
            if transport is not None and not transport.is_closing():
                connection = transport.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)  # below TLS, which has no such thing
        self._heard = began = time.monotonic()
        while self._served and time.monotonic() - began < FAREWELL:
            if time.monotonic() - self._heard > SILENCE and not self._stalled:
                break  # Docker's driver, for one, never looks; what it had sent is read
            await asyncio.wait(self._served, timeout=SILENCE / 10)

    async def _serve(self, connection: socket.socket, put: Put) -> None:
        """Read one connection to its end; its trouble is its own."""
        frames = Frames(self._host)
        lines = b""
        transport: asyncio.Transport | None = None
        try:
            keep_alive(connection)
            reader = asyncio.StreamReader(limit=READ)
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._terms.tls.context() if self._terms.tls else None,
                ssl_handshake_timeout=HANDSHAKE if self._terms.tls else None,
                ssl_shutdown_timeout=HANDSHAKE if self._terms.tls else None,
            )
            task = asyncio.current_task()
            if task is not None:
                self._served[task] = transport
            while data := await reader.read(READ):
                self._heard = time.monotonic()
                lines = frames.feed(data)
                self._lose_long(frames)
                await self._deliver(lines, put)
                lines = b""
                await asyncio.sleep(0)  # others have their turn
        except OSError as error:
            self._tell("broken", f"a connection broke: {error.strerror or error}")
        finally:
            self._lost += lines.count(b"\n")  # cancelled: nobody took them
            if frames.unfinished:
                self._lose("unfinished", "a connection ended within a message: it is lost")
            if transport is not None:
                transport.close()
            else:
                connection.close()

    def _lose_long(self, frames: Frames) -> None:
        self._lose("long", f"a message of over {LONGEST} bytes is dropped", frames.too_long)
        frames.too_long = 0


async def _readable(made: socket.socket) -> None:
    """Wait until there is something to read, and watch for it no longer than that."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(made, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(made)
