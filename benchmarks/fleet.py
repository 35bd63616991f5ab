"""How fast nodes tell each other over one Redis, beside a plain pipeline of XADD into the same server in the same run.

    python benchmarks/fleet.py [events] [redis-server]

Prints events/s sent and read (batches of 1000), their ratio to the plain pipeline, and the round trip from sending one
event to its being read on another link that polls without a pause.  Starts a redis-server of its own; touches no other.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from guard.fleet import BATCH, Event, FleetError
from guard.fleet.link import Link

Fields = dict[FieldT, EncodableT]

ROUNDS = 5
TRIPS = 1000
BODY = '{"ip":"198.51.100.7","at":1795632086.289,"n":1,"line":"' + "x" * 200 + '"}'


def events(count: int) -> list[Event]:
    now = time.time()
    return [
        Event(1 + n, f"10.{n % 256}.{n // 256 % 256}.7", "", True, now, now + 600, BODY) for n in range(count)
    ]


async def plain(socket: str, told: list[Event]) -> float:
    """Return the seconds that the same fields take as XADDs, 1000 a pipeline."""
    async with Redis(unix_socket_path=socket) as client:
        began = time.perf_counter()
        for start in range(0, len(told), BATCH):
            pipe = client.pipeline(transaction=False)
            for e in told[start : start + BATCH]:
                fields: Fields = {"n": 1, "node": "a", "seq": e.seq, "net": e.net, "register": "", "live": 1}
                fields |= {"at": e.at, "ends": e.ends, "body": e.body}
                pipe.xadd(f"plain{e.seq % 16}", fields, maxlen=10_000)
            await pipe.execute()
        return time.perf_counter() - began


async def pair(url: str) -> tuple[Link, Link]:
    one, other = (Link(url, name, name, {}, span=600) for name in "ab")
    await one.connect()
    await other.connect()
    return one, other


async def measure(socket: str, count: int) -> tuple[float, float, float]:
    """Return the seconds for a plain pipeline, for sending, for reading."""
    told = events(count)
    async with Redis(unix_socket_path=socket) as client:
        await client.flushall()
    base = await plain(socket, told)
    one, other = await pair(f"redis+unix://{socket}")
    sent = read = 0.0
    found = 0
    for start in range(0, count, 50 * BATCH):  # no more at once than the server keeps
        began = time.perf_counter()
        await one.send(told[start : start + 50 * BATCH])
        sent += time.perf_counter() - began
        began = time.perf_counter()
        more = True
        while more:
            batch = await other.read()
            more = batch.more
            found += len(batch.told)
        read += time.perf_counter() - began
    if found != count:
        raise SystemExit(f"read {found} of {count}")
    await one.close()
    await other.close()
    return base, sent, read


async def trips(socket: str) -> list[float]:
    async with Redis(unix_socket_path=socket) as client:
        await client.flushall()
    one, other = await pair(f"redis+unix://{socket}")
    found = []
    for event in events(TRIPS):
        began = time.perf_counter()
        await one.send([event])
        while not (await other.read()).told:
            pass
        found.append(time.perf_counter() - began)
    await one.close()
    await other.close()
    return sorted(found)


async def measured(socket: str, count: int) -> tuple[list[tuple[float, float, float]], list[float]]:
    for _ in range(200):
        try:
            for link in await pair(f"redis+unix://{socket}"):
                await link.close()
            break
        except FleetError:  # it has only begun
            await asyncio.sleep(0.02)
    return [await measure(socket, count) for _ in range(ROUNDS)], await trips(socket)


def main(count: int, program: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder, "r"))
        options = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as server:
            try:
                runs, found = asyncio.run(measured(socket, count))
            finally:
                server.terminate()
    for number, name in enumerate(("plain XADD", "sent", "read")):
        rate = count / statistics.median(run[number] for run in runs)
        ratio = statistics.median(run[0] / run[number] for run in runs)
        print(f"{name:<12}{rate:>10,.0f} events/s {ratio:>7.2f} x plain")
    p50, p99 = (found[TRIPS * part // 100] * 1000 for part in (50, 99))
    print(f"send -> read on another link: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000, (sys.argv[2:3] or ["redis-server"])[0])
