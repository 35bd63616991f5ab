"""The source `auth_policy`: Dovecot asks before each login, and reports after it, over HTTP.

`?command=allow` is answered at once from the bans in force; `?command=report` is answered at once too, and delivered
as a line of a stream of its own (`Chunk.reports`): the time of its receipt, a blank, the JSON.  At most `REPORTS`
reports wait; one too many is lost, and counted.  A report cannot be asked for again: what came within the last second
before the guard was killed is only in Dovecot's log, where it counts then.

Any trouble of ours answers {"status": 0}: a guard that is broken locks nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from guard import addresses
from guard.listening import place
from guard.sources import CHUNK_BYTES, Chunk, Health, Note, Put
from guard.sources._backoff import Backoff
from guard.sources._policy_requests import Connection, Request

REPORTS: Final = 20_000  # that wait for the guard: some seconds of the fastest attack, at most 160 MiB
_WAITING_BYTES: Final = 16 * 1024 * 1024
_SWEEP: Final = 1.0  # seconds between two looks for slow clients
_FAREWELL: Final = 5.0  # seconds in which what was answered can be delivered when we stop
_REFUSE: Final = b'{"status": -1}'
_PASS: Final = b'{"status": 0}'

# Of an address: -1 it is banned, else how many failures it has in the window.
Standing = Callable[[str], int]


class AuthPolicySource:
    """Listens on `listen` (`host:port` or `unix:///path`) until cancelled.

    `key` is what Dovecot's `auth_policy_server_api_header` says: `Header: value`, or the value of `X-API-Key`; "" for
    none.  An address with failures in the window is told to wait `delay` seconds.
    """

    def __init__(
        self, name: str, listen: str, standing: Standing, *, key: str = "", delay: int = 0, note: Note
    ) -> None:
        self._name = name
        self._listen = listen
        self._standing = standing
        self._delay = delay
        self._note = note
        header, colon, value = key.partition(":")
        self._header = header.strip().lower() if colon else "x-api-key" if key else ""
        self._secret = (value if colon else key).strip().encode()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._fresh = asyncio.Event()
        self._connections: set[Connection] = set()
        self._trouble = "not listening yet"
        self._lost = 0
        self._full = False
        self._failing = False
        self._under_way = 0.0  # when the oldest report that is being delivered came; 0.0: none is

    @property
    def name(self) -> str:
        """The label in metrics."""
        return self._name

    def health(self) -> Health:
        """Up while it listens; the lag is the age of the oldest report that was not delivered."""
        oldest = self._under_way or (self._waiting[0][0] if self._waiting else 0.0)
        lag = max(0.0, time.time() - oldest) if oldest else 0.0
        detail = self._trouble or f"{self._listen}, {len(self._connections)} connections"
        return Health(self._name, not self._trouble, lag, self._lost, detail)

    async def run(self, put: Put) -> None:
        """Answer and deliver until cancelled; an address that cannot be listened on is tried again."""
        backoff = Backoff()
        while True:
            try:
                server = await self._open()
            except OSError as error:
                text = f"{self._listen}: {error.strerror or error}"
                if text != self._trouble:
                    self._note(f"{text}; Dovecot's reports are not heard until it can be listened on")
                self._trouble = text
                await asyncio.sleep(backoff.pause())
                continue
            self._trouble = ""
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._sweep())
                    group.create_task(self._deliver(put))
            finally:
                self._trouble = "stopped"
                server.close()
                for connection in list(self._connections):
                    connection.close()
                # What was answered Dovecot never sends again.
                with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                    async with asyncio.timeout(_FAREWELL):
                        await self._drain(put)
                if self._waiting:
                    self._lost += len(self._waiting)
                    self._note(f"{len(self._waiting)} reports were not counted when it was stopped")

    async def _open(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()

        def connected() -> Connection:
            return Connection(self._answer, self._connections, self._header, self._secret)

        if not self._listen.startswith("unix://"):
            return await loop.create_server(connected, **place(self._listen))
        path = self._listen.removeprefix("unix://")
        _clear(path)
        mask = os.umask(0o117)  # mode 0660: the proxy's group
        try:
            return await loop.create_unix_server(connected, path)
        finally:
            os.umask(mask)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.expire(now)

    async def _deliver(self, put: Put) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            await self._drain(put)

    async def _drain(self, put: Put) -> None:
        while self._waiting:
            taken: list[tuple[float, bytes]] = []
            size = 0
            while self._waiting and size + len(self._waiting[0][1]) <= CHUNK_BYTES:
                taken.append(self._waiting.popleft())
                size += len(taken[-1][1])
            self._under_way = taken[0][0]
            self._bytes -= size
            data = b"".join(line for _, line in taken)
            try:
                await put(
                    Chunk(self._name, f"{self._name}/reports", data, written=taken[-1][0], reports=True)
                )
            except asyncio.CancelledError:  # nobody took them
                self._waiting.extendleft(reversed(taken))
                self._bytes += size
                raise
            self._under_way = 0.0
        self._full = False

    def _answer(self, request: Request) -> bytes:
        """Return the JSON that answers one request."""
        if request.command == "report":
            self._take(request.body)
            return _PASS
        if request.command != "allow":
            return _PASS
        try:
            remote = json.loads(request.body)["remote"]
            ip = addresses.read(remote) if isinstance(remote, str) else None
            standing = self._standing(ip) if ip is not None else 0
        except Exception as error:  # noqa: BLE001 - whatever it is: a guard that is broken locks nobody out
            if not self._failing:
                self._failing = True
                self._note(f"a question could not be judged, and was answered with 0: {error!r}")
            return _PASS
        self._failing = False
        if standing < 0:
            return _REFUSE
        return b'{"status": %d}' % self._delay if standing and self._delay else _PASS

    def _take(self, body: bytes) -> None:
        """Hold one report until it is delivered; one record stays one line."""
        now = time.time()
        at = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()
        line = at + body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
        if len(self._waiting) >= REPORTS or self._bytes + len(line) > _WAITING_BYTES:
            self._lost += 1
            if not self._full:
                self._full = True
                self._note(
                    "reports come faster than they can be counted: some are lost, the log's lines count"
                )
            return
        self._waiting.append((now, line))
        self._bytes += len(line)
        self._fresh.set()


def _clear(path: str) -> None:
    """Take away a socket that nobody answers on.  Raises OSError where something else stands there."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise OSError(None, "something that is no socket stands there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink(missing_ok=True)
                return
        raise OSError(None, "another program listens there")
