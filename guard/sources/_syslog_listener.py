"""One address that syslog messages are sent to: what datagrams and streams have in common."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from guard.sources import Chunk, Note, Put
from guard.sources._backoff import Backoff
from guard.sources._cursor import Cursor
from guard.sources._syslog_socket import Address, Tls, forget, listening

READ: Final = 64 * 1024  # bytes of one connection that make one chunk
FAREWELL: Final = 20.0  # the most seconds in which senders can end what they have begun when we stop, and in which what they sent is handed on
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
    """One address; `host` stands in headers that name none.  What arrives there `_take` knows to read."""

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
        self._socket: socket.socket | None = None
        self._lost = 0
        self._stalled: dict[object, float] = {}  # since when a chunk has waited to be taken

    # -- how it does -----------------------------------------------------------------------------------------------

    def lost(self) -> int:
        """Return how many messages could not be delivered."""
        return self._lost

    def waiting(self) -> float:
        """Return for how many seconds the oldest chunk has waited for the engine."""
        return max(0.0, time.monotonic() - min(self._stalled.values())) if self._stalled else 0.0

    def detail(self) -> str:
        """Return what is listened at, in words."""
        return self._address.url

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
            self.trouble, self.up = "", True
            backoff.reset()
            try:
                await self._take(self._socket, put)
            except OSError as error:  # the socket itself failed: made again
                self._tell("failed", error.strerror or str(error))
            finally:
                self.up = False
                self._lost = self.lost()
                made, self._socket = self._socket, None
                forget(self._address, made)

    async def _take(self, made: socket.socket, put: Put) -> None:
        """Read the socket until cancelled; OSError where it fails."""
        raise NotImplementedError

    async def _deliver(self, data: bytes, put: Put) -> None:
        """Hand on lines; cancelled, it has handed on nothing."""
        if not data:
            return
        key = object()
        self._stalled[key] = time.monotonic()
        try:
            await put(Chunk(self._name, self._stream, data, self._place(), written=time.time()))
        finally:
            del self._stalled[key]

    def _place(self) -> Cursor | None:
        """Return what is to be saved beside a chunk."""
        return None

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


async def readable(made: socket.socket) -> None:
    """Wait until there is something to read, and watch for it no longer than that."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(made, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(made)
