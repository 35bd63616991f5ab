"""Standard input: a pipe, a regular file, a slow reader; it ends when its input ends."""

import asyncio
import os

import pytest

from guard.sources import Chunk
from guard.sources.stdin import StdinSource


async def test_a_pipe_is_read_as_it_is_written_and_ends(tmp_path):
    out, into = os.pipe()
    source = StdinSource("in", out)
    chunks: list[Chunk] = []

    async def put(chunk: Chunk) -> None:
        chunks.append(chunk)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(source.run(put))
        for piece in (b"one\ntw", b"o\n"):
            os.write(into, piece)
            await asyncio.sleep(0.02)
            assert chunks[-1].data == piece
            assert source.health().up
        os.close(into)
    assert [chunk.end for chunk in chunks] == [False, False, True]
    assert not source.health().up
    os.close(out)


async def test_a_regular_file_and_a_reader_that_waits(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(os.urandom(1_000_000))
    queue: asyncio.Queue[Chunk] = asyncio.Queue(maxsize=1)
    fd = os.open(path, os.O_RDONLY)
    got = b""
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(StdinSource("in", fd).run(queue.put))
        while not (chunk := await queue.get()).end:
            got += chunk.data
            await asyncio.sleep(0.001)
    assert got == path.read_bytes()
    os.close(fd)


async def test_waiting_for_input_can_be_cancelled_at_once(tmp_path):
    out, into = os.pipe()

    async def put(chunk: Chunk) -> None:
        raise AssertionError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await StdinSource("in", out).run(put)
    os.close(out)
    os.close(into)
