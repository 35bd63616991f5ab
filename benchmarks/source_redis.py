"""The source `redis` in its three modes, from a real redis-server, beside the source `file` reading the same lines.

`python benchmarks/source_redis.py [LINES]`.  The lists and the stream are full before they are read; the channel's lines
are published while it listens, by a process of its own.  The records of lists are mailcow's JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from _sources import latencies, lines, of_file, report, throughput  # type: ignore[import-not-found]  # beside this script
from redis import Redis
from redis.exceptions import ConnectionError as NotThereError

from guard.sources.redis import RedisSource

LINES: Final = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
SAMPLE: Final = 300
BATCH: Final = 1000
PUBLISH: Final = """
import sys
from redis import Redis
client = Redis(unix_socket_path=sys.argv[1])
lines = sys.stdin.buffer.read().splitlines()
script = "for i = 1, #ARGV do redis.call('PUBLISH', KEYS[1], ARGV[i]) end"
for n in range(0, len(lines), 1000):
    client.eval(script, 1, "CHANNEL", *lines[n : n + 1000])
"""


@contextmanager
def serving() -> Iterator[tuple[Any, str]]:
    """Run a server of our own; give a client of it and its socket."""
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder, "redis.sock"))
        command = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        limit = ["--client-output-buffer-limit", "pubsub", "0", "0", "0"]  # the publisher outruns everybody
        server = subprocess.Popen([*command, *limit, "--loglevel", "warning"], stdout=subprocess.DEVNULL)
        client = Redis(unix_socket_path=socket)
        try:
            for _ in range(200):
                try:
                    client.ping()
                    break
                except (NotThereError, OSError):
                    time.sleep(0.02)
            yield client, socket
        finally:
            client.close()
            server.kill()
            server.wait()


def record(line: bytes) -> bytes:
    """Return a line as mailcow's syslog-ng pushes it."""
    program, _, text = line.decode().rstrip("\n").split(" ", 4)[4].partition(": ")
    values = {"time": str(int(time.time())), "program": program, "priority": "info", "message": text}
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def push(client: Any, key: str, sent: list[bytes]) -> None:
    """Fill a list."""
    for n in range(0, len(sent), BATCH):
        client.lpush(key, *map(record, sent[n : n + BATCH]))


def add(client: Any, key: str, sent: list[bytes]) -> None:
    """Fill a stream."""
    for n in range(0, len(sent), BATCH):
        pipe = client.pipeline(transaction=False)
        for line in sent[n : n + BATCH]:
            pipe.xadd(key, {"line": line})
        pipe.execute()


def publish(client: Any, key: str, sent: list[bytes]) -> None:
    """Publish on a channel."""
    for line in sent:
        client.publish(key, line)


async def measure(
    mode: str, client: Any, socket: str, sent: list[bytes], sample: list[bytes]
) -> tuple[float, list[float]]:
    """Return the seconds for all of `sent`, and the latencies of `sample`."""
    give: Callable[[Any, str, list[bytes]], None] = {"list": push, "stream": add, "channel": publish}[mode]

    def source(what: str) -> RedisSource:
        names: dict[str, Any] = {"channel": what, "keys": [what], "stream": what}
        return RedisSource(mode, f"unix://{socket}", mode=mode, start="start", heads=True, **names)

    async def publish_all() -> None:
        await asyncio.sleep(0.3)  # it listens by then
        publisher = [sys.executable, "-c", PUBLISH, socket]
        process = await asyncio.create_subprocess_exec(*publisher, stdin=asyncio.subprocess.PIPE)
        await process.communicate(b"".join(sent))

    if mode == "channel":
        seconds, _ = await asyncio.gather(throughput(source("CHANNEL"), len(sent)), publish_all())
    else:
        give(client, "WHOLE", sent)
        seconds = await throughput(source("WHOLE"), len(sent))
        client.delete("WHOLE")

    async def send(line: bytes) -> None:
        give(client, "GROWS", [line])

    return seconds, await latencies(source("GROWS"), send, sample)


def main() -> None:
    """Print the figures of the three modes."""
    sent, sample = lines(LINES), lines(SAMPLE)
    for mode in ("channel", "list", "stream"):
        with serving() as (client, socket):
            own = asyncio.run(measure(mode, client, socket, sent, sample))
        report(f"redis {mode}", LINES, own, asyncio.run(of_file(sent, sample)))


if __name__ == "__main__":
    main()
