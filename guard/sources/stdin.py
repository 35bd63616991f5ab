"""The source `stdin`: what another program writes into ours.  Ends with its input; can deliver nothing twice."""

from __future__ import annotations

import asyncio
import os
import time

from guard.sources import CHUNK_BYTES, Chunk, Health, Put


class StdinSource:
    """Reads a descriptor (default: standard input) until its end."""

    def __init__(self, name: str = "stdin", fd: int = 0) -> None:
        self._name = name
        self._fd = fd
        self._ended = False

    @property
    def name(self) -> str:
        """The label in metrics."""
        return self._name

    def health(self) -> Health:
        """Up until the input ends."""
        detail = "standard input has ended" if self._ended else "standard input"
        return Health(self._name, not self._ended, 0.0, 0, detail)

    async def run(self, put: Put) -> None:
        """Deliver chunks until the input ends; the last one says so.  Raises OSError when it cannot be read."""
        data = b"-"
        while data:
            await self._readable()
            data = os.read(self._fd, CHUNK_BYTES)
            self._ended = not data
            written = time.time() if data else None
            await put(Chunk(self._name, self._name, data, end=self._ended, written=written))
            await asyncio.sleep(0)

    async def _readable(self) -> None:
        """Wait until a read does not block; O_NONBLOCK would change the descriptor for other programs too."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._fd, ready.set)
        except PermissionError:  # a regular file: epoll does not take it, it never blocks
            return
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)
