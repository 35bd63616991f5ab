"""The source is made again five times while the real rsyslogd and syslog-ng send at full speed.

MAILWARD_TEST_LINES=1000000 sends a million lines each way (with `-o timeout=600`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading
import time
from collections import Counter

import pytest

from guard.sources import Chunk
from guard.sources.syslog import SyslogSource, Tls
from tests.sources.test_syslog import certify, free
from tests.syslog_senders import SENDERS, Sender, requires

pytestmark = pytest.mark.servers

LINES = int(os.environ.get("MAILWARD_TEST_LINES", "20000"))
RESTARTS = 5
RATE = 100_000  # lines a second that the engine takes: less than is sent, so that every buffer on the way is full
WAYS = [
    *(("rsyslog", way) for way in ("tcp-newline", "tcp-counted", "tcp-5424", "tls")),
    *(("syslog-ng", way) for way in ("tcp-newline", "tcp-5424", "tls", "unix-stream")),
]
QUIET = 5.0  # seconds without a line after which the sender is asked whether it has more
MOST = 60.0  # seconds without a line after which nothing will come, whatever the sender says
_NUMBER = re.compile(rb" number (\d+)\Z")


def listening_at(way: str, folder) -> str:
    kind = way.partition("-")[0]
    if way.startswith("unix"):
        return f"{way}://{folder}/log"
    return f"{kind}://127.0.0.1:{free(socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)}"


async def received(
    url: str, folder, feed: threading.Thread, sender: Sender
) -> tuple[Counter[int], list[str], int]:
    """Read until all is there, or nothing comes and the sender has nothing more; the source is made again on the way."""
    got: Counter[int] = Counter()
    notes: list[str] = []
    positions: dict[str, str] = {}
    total = lost = 0

    async def put(chunk: Chunk) -> None:
        nonlocal total
        await asyncio.sleep(chunk.data.count(b"\n") / RATE)  # cancelled here it has taken nothing
        if chunk.position is not None:
            positions[chunk.stream] = chunk.position.dump()
        for line in chunk.data.splitlines():
            match = _NUMBER.search(line)
            assert match, line
            got[int(match[1])] += 1
            total += 1

    tls = Tls(f"{folder}/server.pem", f"{folder}/server.key") if url.startswith("tls") else None
    for n in range(RESTARTS + 1):
        source = SyslogSource("sys", [url], note=notes.append, tls=tls, positions=positions)
        task = asyncio.create_task(source.run(put))
        if n == 0:
            await asyncio.sleep(0.05)
            feed.start()
        seen, quiet = total, time.monotonic()
        goal = LINES if n == RESTARTS else LINES * (n + 1) // (RESTARTS + 2)
        while total < goal or (n == RESTARTS and len(got) < LINES):
            await asyncio.sleep(0.01)
            if total > seen:
                seen, quiet = total, time.monotonic()
            silence = time.monotonic() - quiet
            if silence > MOST or (silence > QUIET and not feed.is_alive() and not sender.queued()):
                break
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        lost += source.health().lost
    return got, notes, lost


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_what_is_sent_through_five_restarts_arrives(tmp_path, name, way):
    missing, twice, lost = sent(tmp_path, name, way)
    # Who notices within a message sends it again, but for syslog-ng's frames: those are counted.
    torn = RESTARTS if name == "syslog-ng" and way in {"tcp-5424", "tls"} else 0
    assert missing <= min(lost, torn)
    assert twice <= RESTARTS


@pytest.mark.parametrize("name", SENDERS)
def test_of_datagrams_what_does_not_arrive_is_counted(tmp_path, name):
    missing, twice, lost = sent(tmp_path, name, "udp")
    assert twice == 0
    assert (
        missing <= lost <= missing + 50 + missing // 50
    )  # the host's other datagrams for closed ports count as well


def sent(tmp_path, name: str, way: str) -> tuple[int, int, int]:
    """Send; return how many lines are missing, came twice, and are counted as lost."""
    requires(SENDERS[name].program)
    url = listening_at(way, tmp_path)
    certify(tmp_path, "server")
    with SENDERS[name](tmp_path / "s", way, url, tmp_path / "server.pem") as sender:

        def feed() -> None:
            for start in range(0, LINES, 50_000):
                stop = min(start + 50_000, LINES)
                sender.send(
                    [
                        f"<22>Nov 25 12:00:00 mx postfix/smtp[7]: 4bXyZ1234: to=<user@example.org>, number {n}"
                        for n in range(start, stop)
                    ]
                )

        feeding = threading.Thread(target=feed)
        began = time.monotonic()
        got, notes, lost = asyncio.run(received(url, tmp_path, feeding, sender))
        queued = sender.queued()
        feeding.join()
    missing, twice = LINES - len(got), sum(got.values()) - len(got)
    print(
        f"{name} {way}: {missing} missing, {twice} twice, {lost} counted as lost, {queued} still with the sender, {time.monotonic() - began:.1f} s; {set(notes)}"
    )
    return missing, twice, lost
