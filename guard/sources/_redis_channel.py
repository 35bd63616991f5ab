"""A pub/sub channel: what is published while nobody listens is gone, and Redis tells nobody how much that was.

Each connection that ends is counted as one loss at least.  Redis also ends the connection of a listener that is too
slow for `client-output-buffer-limit pubsub` (32 MB at once, 8 MB for a minute): counted likewise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from redis.exceptions import ResponseError

from guard.sources import CHUNK_BYTES, Chunk, Put
from guard.sources._redis_lines import LONGEST, bare, one_line
from guard.sources._redis_link import Link, LinkError, RefusedError, Standing

PING: Final = 15.0  # seconds of silence after which the server is asked whether it is there


class ChannelReader:
    """Follows `channel`; holds at most two chunks.

    `heads`: messages may begin with a time, host and program, or be JSON.  `only`: messages that begin so.
    """

    def __init__(
        self, name: str, channel: str, standing: Standing, *, heads: bool, only: Sequence[str]
    ) -> None:
        self._name = name
        self._channel = channel
        self._standing = standing
        self._line = one_line if heads else bare
        self._only = tuple(text.encode() for text in only)
        self._stream = f"{name}/{channel}"
        self._lines: list[bytes] = []
        self._bytes = 0
        self._fresh = asyncio.Event()
        self._room = asyncio.Event()
        self._heard = 0.0
        self._ended: LinkError | None = None

    async def follow(self, link: Link, put: Put) -> None:
        """Deliver what is published until the connection ends.  Raises `LinkError`."""
        await link.call(["SUBSCRIBE", self._channel])
        self._standing.well()
        self._heard = time.monotonic()
        self._ended = None
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(link))
            asking = group.create_task(self._ask(link))
            try:
                ended = await self._deliver(put)
            finally:
                asking.cancel()
                listening.cancel()
        place = f"{link.place}: channel {self._channel}"
        self._standing.lose(
            f"{place}: the connection has ended: what is published until the next one is lost"
        )
        raise ended

    async def _listen(self, link: Link) -> None:
        """Gather messages.  It is not asked for the next chunk while one waits: Redis keeps what comes."""
        try:
            while True:
                answer = await link.read()
                self._heard = time.monotonic()
                if isinstance(answer, list) and answer[0] == b"message":
                    self._take(answer[2])
                    if self._bytes >= CHUNK_BYTES - LONGEST:
                        self._room.clear()
                        await self._room.wait()
        except ResponseError as error:
            self._ended = RefusedError(f"{link.place}: {error}")
        except LinkError as error:
            self._ended = error
        self._fresh.set()

    def _take(self, message: bytes) -> None:
        if self._only and not message.startswith(self._only):
            return
        line = self._line(message)
        if len(line) > LONGEST:
            self._standing.lose(f"{self._channel}: a message of {len(message)} bytes is too long")
            return
        self._lines.append(line)
        self._bytes += len(line)
        self._fresh.set()

    async def _deliver(self, put: Put) -> LinkError:
        """Deliver what is gathered; return why nothing more comes."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            if self._lines:
                self._standing.waits()
                data, self._lines, self._bytes = b"".join(self._lines), [], 0
                self._room.set()
                await put(Chunk(self._name, self._stream, data, written=time.time()))
                await asyncio.sleep(0)
            if not self._lines:
                self._standing.caught_up()
                if self._ended is not None:
                    return self._ended
            else:
                self._fresh.set()

    async def _ask(self, link: Link) -> None:
        """Find out when a server has gone without a word."""
        while True:
            await asyncio.sleep(PING)
            silent = time.monotonic() - self._heard
            if silent > 3 * PING and not self._standing.health().lag:
                await link.close()
            elif silent > PING:
                try:
                    await link.send(["PING"])
                except LinkError:  # the listener learns it too
                    return
