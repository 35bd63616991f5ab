"""Lines a second and added latency of the source `docker` against the source `file`, on a private engine.

    python benchmarks/source_docker.py [LINES]     # default 300 000; needs root, dockerd and busybox-static

A container writes LINES lines, and the source reads them from its start; another gives back each line that it is sent.
The Docker SDK's own stream of the same log is measured beside it, in processor time too: it is what a thread of ours
would hold the interpreter for.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from os import geteuid
from pathlib import Path

import _sources  # type: ignore[import-not-found]  # beside this script

sys.path.insert(0, str(Path(__file__).parent.parent))

from guard.sources.docker import DockerSource
from tests.system.netns import mail_host
from tests.system.stack import Stack, seq

SAMPLE = 300


async def measure(stack: Stack, count: int) -> None:
    lines = _sources.lines(count)
    writer = stack.run("postfix", seq(count, then=":"))
    writer.wait()
    source = DockerSource("docker", stack.url, project="mail", start="start")
    used = time.process_time()
    seconds = await _sources.throughput(source, count)
    used = time.process_time() - used

    echo = stack.run("dovecot", "exec /bin/busybox cat", project="echo", stdin_open=True)
    with echo.attach_socket(params={"stdin": 1, "stream": 1})._sock as attached:

        async def send(line: bytes) -> None:
            attached.sendall(line)

        waits = await _sources.latencies(
            DockerSource("docker", stack.url, project="echo"), send, lines[:SAMPLE]
        )

    began, sdk = time.perf_counter(), time.process_time()
    found = sum(piece.count(b"\n") for piece in writer.logs(stream=True, follow=True, timestamps=True))
    began, sdk = time.perf_counter() - began, time.process_time() - sdk
    _sources.report("docker", count, (seconds, waits), await _sources.of_file(lines, lines[:SAMPLE]))
    print(
        f"  processor time a line: {used / count * 1e6:.2f} us; the SDK's stream {sdk / found * 1e6:.2f} us"
    )
    print(f"  lines/s of the SDK's stream: {found / began:,.0f}")


def main() -> None:
    count = int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 300_000
    missing = [
        program for program in ("dockerd", "iptables", "busybox", "nft") if shutil.which(program) is None
    ]
    if missing or geteuid() != 0:
        print(f"docker: not measured: {'needs root' if geteuid() else ', '.join(missing) + ' not found'}")
        return
    with tempfile.TemporaryDirectory() as folder, mail_host() as lab, Stack(lab, Path(folder)) as stack:
        try:
            asyncio.run(measure(stack, count))
        finally:
            stack.clear()


if __name__ == "__main__":
    main()
