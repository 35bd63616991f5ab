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
REST = b"""_BOOT_ID=11111111111111111111111111111111
_MACHINE_ID=22222222222222222222222222222222
_HOSTNAME=mx
_TRANSPORT=syslog
PRIORITY=6
SYSLOG_FACILITY=2
_UID=100
_GID=100
_COMM=smtpd
_EXE=/usr/lib/postfix/sbin/smtpd
_CMDLINE=smtpd -n smtp
_CAP_EFFECTIVE=0
_SYSTEMD_CGROUP=/system.slice/dovecot.service
_SYSTEMD_SLICE=system.slice

"""
HEAD = re.compile(rb"\A.{15} mx ([a-z/]+)\[(\d+)\]: (.*)\n\Z")


def export(sent: Sequence[bytes]) -> bytes:
    """Return lines of syslog as entries, with about as many fields as journald gives them."""
    now = int(time.time() * 1e6)
    entries = []
    for n, line in enumerate(sent):
        match = HEAD.match(line)
        assert match
        tag, pid, text = match.groups()
        entries.append(
            b"__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_SYSTEMD_UNIT=%b\n"
            % (now + n, n + 1, UNIT.encode())
            + b"SYSLOG_IDENTIFIER=%b\nSYSLOG_PID=%b\n_PID=%b\nMESSAGE=%b\n" % (tag, pid, pid, text)
            + REST
        )
    return b"".join(entries)


def make(journal: Path, sent: Sequence[bytes]) -> None:
    """Write lines into a journal's file."""
    subprocess.run(
        [str(REMOTE), "-o", str(journal), "-"], input=export(sent), check=True, capture_output=True
    )


async def main() -> None:
    sent = lines(COUNT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "whole").mkdir()
        make(folder / "whole/all.journal", sent)
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
