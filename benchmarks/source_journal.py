"""The source `journal` beside the source `file`: the same lines, read from a journal of their own.

The journal is made by systemd-journal-remote, which journald's own writing would hold up; latency is journald's, in a
mount namespace (root).  Where one of the two is missing, what it is needed for is left out.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._sources import latencies, lines, of_file, report, throughput
from guard.sources.journal import JournalSource
from tests.sources.journald import JOURNALD, Journald

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
SAMPLE = 60
REMOTE = Path("/lib/systemd/systemd-journal-remote")
UNIT = "dovecot.service"
HEAD = re.compile(rb"\A.{15} mx ([a-z/]+)\[(\d+)\]: (.*)\n\Z")


def export(sent: Sequence[bytes]) -> bytes:
    """Return lines of syslog as entries, with about as many fields as journald gives them."""
    now = int(time.time() * 1e6)
    entries = []
    for n, line in enumerate(sent):
        match = HEAD.match(line)
        assert match
        entries.append(
            b"__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%b\n_MACHINE_ID=%b\n_HOSTNAME=mx\n"
            b"_TRANSPORT=syslog\nPRIORITY=6\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=%b\nSYSLOG_PID=%b\n_PID=%b\n_UID=100\n"
            b"_GID=100\n_COMM=smtpd\n_EXE=/usr/lib/postfix/sbin/smtpd\n_CMDLINE=smtpd -n smtp\n_CAP_EFFECTIVE=0\n"
            b"_SYSTEMD_CGROUP=/system.slice/%b\n_SYSTEMD_SLICE=system.slice\n_SYSTEMD_UNIT=%b\nMESSAGE=%b\n\n"
            % (
                now + n,
                n + 1,
                b"1" * 32,
                b"2" * 32,
                match[1],
                match[2],
                match[2],
                *[UNIT.encode()] * 2,
                match[3],
            )
        )
    return b"".join(entries)


async def main() -> None:
    sent = lines(COUNT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "whole").mkdir()
        command = [str(REMOTE), "-o", str(folder / "whole/all.journal"), "-"]
        subprocess.run(command, input=export(sent), check=True, capture_output=True)
        whole = JournalSource("journal", [UNIT], directory=str(folder / "whole"), start="start")
        seconds = await throughput(whole, COUNT)
        (folder / "live").mkdir()
        journald = Journald(folder / "live")
        try:

            async def send(line: bytes) -> None:
                journald.log(UNIT, "dovecot", line.decode().strip())

            own = await latencies(
                JournalSource("journal", [UNIT], directory=str(journald.directory)), send, sent[:SAMPLE]
            )
        finally:
            journald.close()
    report("journal", COUNT, (seconds, own), await of_file(sent, sent[:SAMPLE]))


if not REMOTE.exists() or not JOURNALD.exists() or os.geteuid() != 0:
    print("NOT RUN: needs root, and systemd and systemd-journal-remote (apt-get install)")
else:
    asyncio.run(main())
