"""A real redis-server of one's own in a folder, one who pushes numbered records at full speed, and one who reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from guard.sources import CHUNK_BYTES, Chunk
from guard.sources.redis import RedisSource

LIVES: Final = "--appendonly yes --appendfsync always".split()  # what was answered survives a kill
FORGETS: Final = ["--appendonly", "no"]
requires_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"), reason="no redis-server here"
)


class Server:
    """`redis-server` with its socket and files in `folder`; `options` as on its command line."""

    def __init__(self, folder: Path, *options: str, password: str | None = None) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.admin: Any = Redis(unix_socket_path=str(self.socket), socket_timeout=10, password=password)
        self._command = [
            "redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder), "--save", "",
            "--loglevel", "warning", "--logfile", str(folder / "redis.log"), *options,
        ]  # fmt: skip
        self._command += ["--requirepass", password] if password else []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(RedisError, OSError):
                if self.admin.ping():
                    return
            if time.monotonic() > end:
                self.kill()
                raise AssertionError("redis-server does not come up")
            time.sleep(0.005)

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)

    def restart(self) -> None:
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.admin.close()
        if self.process and self.process.poll() is None:
            self.kill()


def record(number: int) -> bytes:
    """Return a record as mailcow's syslog-ng pushes it."""
    text = f"connect from client[198.51.100.{number % 250}] number {number}"
    values = {"time": str(1763900000 + number // 500), "program": "postfix/smtpd", "priority": "info"}
    return json.dumps({**values, "message": text}, separators=(",", ":")).encode() + b"\n"


def number(line: bytes) -> int:
    """Return the number in a line."""
    return int(line.rsplit(b"number ", 1)[1].rstrip(b'"}'))


class Pusher(threading.Thread):
    """Has numbered records pushed by `push` (pipeline, records) at full speed, and goes on after each kill of the server.

    `last` returns the number of the newest record that the server has: what it never got is pushed again.
    """

    def __init__(
        self,
        server: Server,
        count: int,
        push: Callable[[Any, list[bytes]], object],
        last: Callable[[], int],
        batch: int = 200,
    ) -> None:
        super().__init__()
        self.server, self.count, self.push, self.last, self.batch = server, count, push, last, batch
        self.pushed = 0
        self.broken = 0
        self.limit = count  # how far it may go now

    def run(self) -> None:
        once = Retry(NoBackoff(), 0)  # a push that is tried again unasked would be there twice
        client = Redis(unix_socket_path=str(self.server.socket), socket_timeout=10, retry=once)
        while self.pushed < self.count:
            if self.pushed >= self.limit:
                time.sleep(0.001)
                continue
            some = [record(n) for n in range(self.pushed, min(self.pushed + self.batch, self.count))]
            pipe = client.pipeline(transaction=False)
            self.push(pipe, some)
            try:
                pipe.execute()
                self.pushed += len(some)
            except (RedisError, OSError):
                self.broken += 1
                while True:
                    try:
                        self.pushed = max(self.last() + 1, 0)
                        break
                    except (RedisError, OSError):
                        time.sleep(0.01)
        client.close()


class Reader:
    """What the daemon does with chunks and positions."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.streams: dict[str, bytes] = {}
        self.positions: dict[str, str] = {}

    async def put(self, chunk: Chunk) -> None:
        assert len(chunk.data) <= CHUNK_BYTES
        assert not chunk.data or chunk.data.endswith(b"\n")
        self.lines += chunk.data.split(b"\n")[:-1]
        self.streams[chunk.stream] = self.streams.get(chunk.stream, b"") + chunk.data[:10_000]
        if chunk.position is not None:
            self.positions[chunk.stream] = chunk.position.rewind(0).dump()
        await asyncio.sleep(0)

    def numbers(self) -> list[int]:
        return [number(line) for line in self.lines]


class Running:
    """A source at work; it can be killed and made again from what was saved."""

    def __init__(self, url: str, reader: Reader | None = None, **options: Any) -> None:
        self.url, self.options = url, options
        self.reader = reader or Reader()
        self.notes: list[str] = []
        self.lost = 0
        self._make()

    def _make(self) -> None:
        self.source = RedisSource(
            "r", self.url, dict(self.reader.positions), note=self.notes.append, **self.options
        )

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.source.run(self.reader.put))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def again(self) -> None:
        """End the source at any moment, and make it again from its saved positions."""
        await self.__aexit__()
        self.lost += self.source.health().lost
        self._make()
        await self.__aenter__()

    def save(self) -> None:
        self.source.saved(dict(self.reader.positions))

    async def until(self, true: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert not self.task.done(), self.task
            assert time.monotonic() < end, (
                f"{self.source.health()} {self.notes[-5:]} {len(self.reader.lines)}"
            )
            await asyncio.sleep(0.002)

    async def up(self) -> None:
        await self.until(lambda: self.source.health().up)

    def has(self, count: int) -> bool:
        return len(self.reader.lines) >= count

    async def lines(self, count: int) -> list[bytes]:
        await self.until(lambda: len(self.reader.lines) >= count)
        await asyncio.sleep(0.1)  # nothing more comes
        assert len(self.reader.lines) == count, (self.reader.lines[-5:], self.notes)
        return self.reader.lines
