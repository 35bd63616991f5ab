"""A socket of datagrams: each is a message, taken in batches; what is lost is counted as far as the kernel tells."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any, Final

from guard.sources import Put, _udp_gap
from guard.sources._cursor import Cursor
from guard.sources._syslog_listener import FAREWELL, READ, Listener, readable
from guard.sources._syslog_messages import LONGEST, lines_of
from guard.sources._syslog_socket import dropped

BATCH: Final = 512  # datagrams that make one chunk
MARKED: Final = 1.0  # seconds between two marks of what came while nobody listened


class Datagrams(Listener):
    """`mark` is what was saved of its stream: where the kernel's count of unheard datagrams stood (`_udp_gap`)."""

    def __init__(self, *arguments: Any, mark: str = "") -> None:
        super().__init__(*arguments)
        self._mark = mark
        self._marked = 0.0  # monotonic
        self._drops = 0  # of this socket, as far as they were told

    def lost(self) -> int:
        """Return how many messages could not be delivered."""
        return self._lost + (dropped(self._socket) if self._socket else 0)

    async def _take(self, made: socket.socket, put: Put) -> None:
        self._drops = 0
        if self._address.kind == "udp":
            self._lose_unheard()
        data = b""
        try:
            while True:
                await readable(made)
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

    def _lose_unheard(self) -> None:
        """Count what came since the last mark, while nobody listened."""
        unheard = _udp_gap.missed(self._mark)
        text = f"up to {unheard} datagrams came while nobody listened: they are lost"
        self._lose("unheard", text, unheard)
        self._mark = _udp_gap.mark()
        self._marked = time.monotonic()

    def _place(self) -> Cursor | None:
        """Return what is to be saved beside a chunk: what others' closed ports get must not count against us later."""
        if self._address.kind != "udp":
            return None
        now = time.monotonic()
        if now - self._marked >= MARKED:
            self._mark, self._marked = _udp_gap.mark(), now
        return Cursor(self._mark) if self._mark else None
