"""Lines a second and added latency of the source `syslog` over TCP, UDP and unix sockets, against the file.

    python benchmarks/source_syslog.py [LINES]     # default 300 000

Another process sends as a daemon would: TCP with newlines or counts in writes of 64 KiB, UDP and
unix datagrams one by one.  UDP is sent no further ahead than the receive buffer holds: what is lost is no throughput.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from _sources import latencies, lines, of_file, report, throughput  # type: ignore[import-not-found]

from guard.sources import Chunk, Put
from guard.sources.syslog import SyslogSource

PROCESSES = multiprocessing.get_context("fork")
SAMPLE = 300
AHEAD = 4000  # datagrams: what the kernel holds where only root may ask for more
WRITE = 64 * 1024


def dial(url: str) -> socket.socket:
    """Return a socket that is connected to the listener, which may not be there yet."""
    kind, _, where = url.partition("://")
    family = socket.AF_UNIX if where.startswith("/") else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if kind in {"tcp", "unix-stream"} else socket.SOCK_DGRAM)
    host, _, port = where.rpartition(":")
    made.connect(where if family == socket.AF_UNIX else (host, int(port)))
    return made


def stream(url: str, sent: Sequence[bytes], _taken: Synchronized[int]) -> None:
    """Send everything in large writes."""
    data = b"".join(sent)
    with dial(url) as out:
        for start in range(0, len(data), WRITE):
            out.sendall(data[start : start + WRITE])


def datagrams(url: str, sent: Sequence[bytes], taken: Synchronized[int]) -> None:
    """Send one by one, not too far ahead of what was taken."""
    with dial(url) as out:
        for n, line in enumerate(sent):
            if n % 500 == 0:
                while n - taken.value > AHEAD:
                    time.sleep(0.0002)
            out.send(line)


class Counted(SyslogSource):
    """The source; what it delivers is counted where the sender can see it."""

    def __init__(self, url: str) -> None:
        super().__init__("syslog", [url])
        self.taken: Synchronized[int] = PROCESSES.Value("q", 0)

    async def run(self, put: Put) -> None:
        """Deliver and count."""

        async def counting(chunk: Chunk) -> None:
            self.taken.value += chunk.data.count(b"\n")
            await put(chunk)

        await super().run(counting)


async def measure(url: str, sent: Sequence[bytes], sample: Sequence[bytes]) -> tuple[float, list[float]]:
    """Return the seconds that all lines take, and the latencies of some."""
    source = Counted(url)
    deliver = stream if url.startswith(("tcp", "unix-stream")) else datagrams
    sending = PROCESSES.Process(target=deliver, args=(url, sent, source.taken))

    async def all_of_them() -> None:
        await asyncio.sleep(0.2)  # it listens
        sending.start()

    seconds = await throughput(source, len(sent), all_of_them) - 0.2
    sending.join()
    if lost := source.health().lost:
        print(f"  {lost} lost")
    connections: list[socket.socket] = []

    async def one(line: bytes) -> None:
        if not connections:
            connections.append(dial(url))
        connections[0].sendall(line)

    waits = await latencies(SyslogSource("syslog", [url]), one, sample)
    connections[0].close()
    return seconds, waits


def free(kind: socket.SocketKind) -> int:
    """Return a port that nobody listens at."""
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    plain = lines(count + SAMPLE)
    sent, sample = plain[:count], plain[count:]
    file = await of_file(sent, sample)
    ours = [b"<22>" + line for line in sent]
    ours_sample = [b"<22>" + line for line in sample]
    counted = [b"%d %s" % (len(line) - 1, line[:-1]) for line in ours]
    counted_sample = [b"%d %s" % (len(line) - 1, line[:-1]) for line in ours_sample]
    with tempfile.TemporaryDirectory() as folder:
        tcp = f"tcp://127.0.0.1:{free(socket.SOCK_STREAM)}"
        for kind, url, data, some in (
            ("tcp", tcp, ours, ours_sample),
            ("tcp counted", tcp, counted, counted_sample),
            ("udp", f"udp://127.0.0.1:{free(socket.SOCK_DGRAM)}", ours, ours_sample),
            ("unix", f"unix://{Path(folder, 'log')}", ours, ours_sample),
            ("unix-stream", f"unix-stream://{Path(folder, 'stream')}", ours, ours_sample),
        ):
            report(kind, count, await measure(url, data, some), file)


if __name__ == "__main__":
    asyncio.run(main())
