"""What the benchmarks of the sources share: one source, run until it has delivered what was sent, beside a file.

Each `benchmarks/source_<kind>.py` sends the same lines to its server, measures with `throughput` and `latencies`, and
prints with `report`: figures of the source against the source `file` reading the same lines, in the same run.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from guard.sources import Chunk, Source
from guard.sources.file import FileSource

PATIENCE: Final = 300.0  # seconds
LINE: Final = "{at} mx postfix/smtpd[{pid}]: connect from client-{n}.example.org[198.51.100.{octet}]\n"


def lines(count: int) -> list[bytes]:
    """Return ordinary lines, each another one."""
    at = time.strftime("%b %e %H:%M:%S", time.gmtime())
    return [LINE.format(at=at, pid=1000 + n % 500, n=n, octet=n % 250 + 1).encode() for n in range(count)]


async def throughput(source: Source, count: int, send: Callable[[], Awaitable[None]] | None = None) -> float:
    """Return the seconds from the first line to the last of `count`; `send` sends them once the source runs."""
    done = asyncio.Event()
    seen = 0
    first = 0.0

    async def put(chunk: Chunk) -> None:
        nonlocal seen, first
        first = first or time.perf_counter()
        seen += chunk.data.count(b"\n")
        if seen >= count:
            done.set()

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(source.run(put))
        began = time.perf_counter()
        if send is not None:
            await send()
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        took = time.perf_counter() - (first if send is None else began)
        reading.cancel()
    return took


async def latencies(
    source: Source, send: Callable[[bytes], Awaitable[None]], sample: Sequence[bytes]
) -> list[float]:
    """Return the seconds from sending a line to its delivery, of each line of `sample`, one after the other."""
    arrived = asyncio.Event()
    found: list[float] = []

    async def put(chunk: Chunk) -> None:
        if chunk.data:
            arrived.set()

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(source.run(put))
        await asyncio.sleep(0.5)
        for line in sample:
            arrived.clear()
            began = time.perf_counter()
            await send(line)
            async with asyncio.timeout(PATIENCE):
                await arrived.wait()
            found.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
        reading.cancel()
    return found


async def of_file(sent: Sequence[bytes], sample: Sequence[bytes]) -> tuple[float, list[float]]:
    """Return the same two figures of the source `file`, reading the same lines."""
    with tempfile.TemporaryDirectory() as folder:
        whole, grows = Path(folder, "whole.log"), Path(folder, "grows.log")
        whole.write_bytes(b"".join(sent))
        grows.touch()
        seconds = await throughput(FileSource("file", str(whole), start="start"), len(sent))
        with grows.open("ab", buffering=0) as file:

            async def send(line: bytes) -> None:
                file.write(line)

            return seconds, await latencies(FileSource("file", str(grows)), send, sample)


def report(kind: str, count: int, own: tuple[float, list[float]], file: tuple[float, list[float]]) -> None:
    """Print the figures of one source against those of the file."""
    print(f"{kind}: {count:,} lines, each figure against the source file in the same run")
    for name, (seconds, waits) in ((kind, own), ("file", file)):
        p99 = statistics.quantiles(waits, n=100)[98] * 1000
        print(
            f"  {name:12} {count / seconds:12,.0f} lines/s   latency median {statistics.median(waits) * 1000:.2f} ms,"
            f" p99 {p99:.2f} ms"
        )
    print(f"  lines/s: {file[0] / own[0]:.3f} of the file's")
