"""The journal source against a real journald, rotated, vacuumed and restarted: every entry once, in order."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from guard.sources import Chunk
from guard.sources.journal import JournalSource
from tests.sources.journald import Journald, native, requires_journald

UNITS = ["postfix.service", "postfix@*.service", "dovecot.service", "sogo.service"]
POSTFIX, DOVECOT = "postfix@-.service", "dovecot.service"


@pytest.fixture
def journald(tmp_path):
    requires_journald()
    one = Journald(tmp_path)
    yield one
    one.close()


class Reader:
    """What the daemon does with chunks."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.chunks: list[Chunk] = []
        self.positions: dict[str, str] = {}

    async def put(self, chunk: Chunk) -> None:
        assert chunk.data == b"" or chunk.data.endswith(b"\n")
        assert chunk.position
        self.chunks.append(chunk)
        self.lines += chunk.data.splitlines() if b"\r" not in chunk.data else chunk.data[:-1].split(b"\n")
        self.positions[chunk.stream] = chunk.position.rewind(0).dump()


class Running:
    """A source at work."""

    def __init__(self, directory: Path | str, reader: Reader, tags: tuple[str, ...] = (), **more: object) -> None:
        self.notes: list[str] = []
        self.reader = reader
        self.directory = directory
        self.source = JournalSource(
            "journal1", UNITS, tags, reader.positions, directory=str(directory), note=self.notes.append,
            **more,  # type: ignore[arg-type]
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.source.run(self.reader.put))
        begun = len(self.reader.chunks)
        await self.until(lambda: len(self.reader.chunks) > begun or self.notes)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def until(self, true: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert not self.task.done(), self.task
            assert time.monotonic() < end, f"{len(self.reader.lines)} {self.reader.lines[-3:]} {self.notes}"
            await asyncio.sleep(0.005)

    async def lines(self, count: int) -> list[str]:
        await self.until(lambda: len(self.reader.lines) >= count)
        return [line.decode().partition(" ")[2] for line in self.reader.lines]

    def child(self) -> int:
        """Return the journalctl that follows for it."""
        mine = {"--follow", f"--directory={self.directory}"}
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if mine <= set(path.read_text().split("\0")):
                    found.append(int(path.parent.name))
        [pid] = found
        return pid


def numbers(reader: Reader) -> list[int]:
    return [int(line.rsplit(b" ", 1)[1]) for line in reader.lines]


async def through_everything(journald: Journald, count: int) -> Reader:
    """Write `count` lines at full speed; five times on the way the journal or its reader is disturbed."""
    reader = Reader()
    step = count // 6
    notes: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(Running(journald.directory, reader))
        for turn in range(6):
            writer = journald.many(turn * step, (turn + 1) * step)
            await running.until(lambda n=turn * step + step // 3: len(reader.lines) >= n, 300)
            if turn in (0, 3):  # rotated, and the older files deleted
                journald.rotate()
                await running.until(lambda n=len(reader.lines) + step // 3: len(reader.lines) >= n, 300)
                journald.vacuum()
            elif turn == 1:
                os.kill(running.child(), signal.SIGKILL)
            elif turn == 2:  # the daemon stops, the journal is rotated, the daemon starts
                notes += running.notes
                await stack.aclose()
                journald.rotate()
                running = await stack.enter_async_context(Running(journald.directory, reader))
            while writer.poll() is None:
                await asyncio.sleep(0.01)
            assert writer.returncode == 0
            if turn == 4:
                journald.stop()
                journald.start()
        await running.until(lambda: len(reader.lines) >= step * 6, 300)
        await asyncio.sleep(0.6)
        assert running.source.health().lost == 0
        notes += running.notes
    assert notes == ["journalctl: ended with status -9", "the journal is read again"]
    return reader


@pytest.mark.system
async def test_every_entry_once_through_rotation_vacuum_restarts_and_a_killed_journalctl(journald):
    count = int(os.environ.get("MAILWARD_TEST_LINES", "18000"))
    reader = await through_everything(journald, count)
    assert numbers(reader) == list(range(count // 6 * 6))


