"""A socket of streams: a task for each connection, and a farewell that lets the senders notice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from guard.sources import Put
from guard.sources._syslog_listener import FAREWELL, READ, Listener, readable
from guard.sources._syslog_messages import LONGEST, Frames
from guard.sources._syslog_socket import BACKLOG, keep_alive

HANDSHAKE: Final = 10.0  # seconds
HOLD: Final = (
    0.25  # seconds without reading when we stop: a sender at full speed then fills all there is to fill
)
SILENCE: Final = 2.0  # when none of them has sent anything for so long, they have ended it


class _Reading(asyncio.StreamReaderProtocol):
    """Keeps how a connection broke until what had arrived before is read: asyncio's own reader would drop it."""

    broke: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end for one in good order."""
        self.broke = exc
        super().connection_lost(None)


class Streams(Listener):
    """Serves up to `terms.connections` senders at once; more wait, and with them nothing is lost."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._served: dict[asyncio.Task[None], asyncio.Transport | None] = {}
        self._reading = asyncio.Event()
        self._reading.set()
        self._heard = 0.0  # when a stream brought something last, monotonic

    def detail(self) -> str:
        """Return what is listened at, in words."""
        return f"{self._address.url} ({len(self._served)} connected)"

    async def _take(self, made: socket.socket, put: Put) -> None:
        async with asyncio.TaskGroup() as group:

            def begin(connection: socket.socket) -> None:
                task = group.create_task(self._serve(connection, put))
                self._served[task] = None
                task.add_done_callback(self._served.pop)

            try:
                while True:
                    await readable(made)
                    room = self._terms.connections - len(self._served)
                    if room <= 0:
                        text = f"{self._terms.connections} are connected: other senders wait until one of them ends"
                        self._tell("many", text)
                        await asyncio.wait(self._served, return_when=asyncio.FIRST_COMPLETED)
                    elif not self._accept(made, begin, room):
                        await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                self._accept(made, begin, BACKLOG)  # who is connected has begun to send
                made.close()
                await asyncio.sleep(0)  # they begin
                await self._part()
                raise

    def _accept(self, made: socket.socket, begin: Callable[[socket.socket], None], room: int) -> bool:
        """Begin with `room` of the connections that wait; False when the kernel gives none for now."""
        for _ in range(room):
            try:
                connection, peer = made.accept()
            except BlockingIOError:
                return True
            except OSError as error:  # no descriptor is free, or the peer has gone again
                self._tell("accept", f"a connection is not taken: {error.strerror or error}")
                return False
            if not self._address.path and not self._may(peer[0]):
                connection.close()
            else:
                begin(connection)
        return True

    async def _part(self) -> None:
        """Tell the senders that we go, and take what they have sent; rsyslog and syslog-ng keep the rest for our successor.

        Who sends without a pause looks for our farewell only where it cannot go on: so nothing is read for a moment.
        """
        self._reading.clear()
        for transport in self._served.values():
            if transport is not None and not transport.is_closing():
                connection = transport.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)  # below TLS, which has no such thing
        await asyncio.sleep(HOLD)
        self._reading.set()
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
            protocol = _Reading(reader)
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
            while data := await self._read(reader):
                self._heard = time.monotonic()
                lines = frames.feed(data)
                self._lose_long(frames)
                await self._deliver(lines, put)
                lines = b""
                await asyncio.sleep(0)  # others have their turn
            if protocol.broke is not None:
                raise protocol.broke
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

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        await self._reading.wait()
        return await reader.read(READ)

    def _lose_long(self, frames: Frames) -> None:
        self._lose("long", f"a message of over {LONGEST} bytes is dropped", frames.too_long)
        frames.too_long = 0
