"""A proxy before a server's unix socket, on a unix socket and a port, that stops answering, or loses an answer."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Self


class Proxy:
    """`deaf`: takes what is sent and answers nothing.  `lose()`: the next request is executed, its answer is lost."""

    def __init__(self, server: Path, socket: Path) -> None:
        self.deaf = False
        self.port = 0
        self._server = server
        self._socket = socket
        self._lose = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []

    @property
    def url(self) -> str:
        return f"redis+unix://{self._socket}"

    def lose(self) -> None:
        self._lose = True

    async def __aenter__(self) -> Self:
        self._listeners = [
            await asyncio.start_unix_server(self._serve, self._socket),
            await asyncio.start_server(self._serve, "127.0.0.1", 0),
        ]
        self.port = self._listeners[1].sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_unix_connection(self._server)
            with contextlib.closing(up_writer), contextlib.closing(writer):
                pumps = [
                    asyncio.ensure_future(self._pump(reader, up_writer)),
                    asyncio.ensure_future(self._pump(up_reader, writer, answers=True)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if answers and self._lose:
                    self._lose = False
                    return
                if answers and self.deaf:
                    continue
                writer.write(data)
                await writer.drain()
