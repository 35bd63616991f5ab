"""A real systemd-journald of a test's own, in a mount namespace: no systemd is running here, and this machine's
journal stays as it is.  Senders stand in control groups named as systemd names those of units, since that is where
journald takes `_SYSTEMD_UNIT` from.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

JOURNALD = Path("/lib/systemd/systemd-journald")
START = """
set -e; cd "$1"
mount --make-rprivate /
mount -t tmpfs none /run; mkdir -p /run/systemd/journal /run/log; touch /run/systemd/journal/flushed
mount -t tmpfs none /var/log; mkdir /var/log/journal; mount --bind journal /var/log/journal
mount --bind machine-id /etc/machine-id
mkdir -p /etc/systemd; mount -t tmpfs none /etc/systemd; cp journald.conf /etc/systemd
mount -t cgroup2 none /sys/fs/cgroup; mkdir -p /sys/fs/cgroup/"$2"
exec /lib/systemd/systemd-journald
"""
CONF = """[Journal]
Storage=persistent
ReadKMsg=no
Audit=no
RateLimitBurst=0
SystemMaxUse=6G
SystemMaxFiles=1000
"""
# Reads what it is to send, the length of each datagram before it; moves into the control group of its unit first.
SENDER = """
import os, socket, sys
group, path, uid = sys.argv[1:]
if group:
    os.makedirs(group, exist_ok=True)
    open(group + "/cgroup.procs", "w").write(str(os.getpid()))
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(path)
os.setuid(int(uid))
while size := sys.stdin.buffer.read(4):
    s.send(sys.stdin.buffer.read(int.from_bytes(size, "big")))
"""
MANY = """
import os, socket, sys
group, path, tag, first, last = sys.argv[1:]
os.makedirs(group, exist_ok=True)
open(group + "/cgroup.procs", "w").write(str(os.getpid()))
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(path)
for n in range(int(first), int(last)):
    s.send(b"<22>Nov 24 00:00:00 %s[%d]: line %08d" % (tag.encode(), 1000 + n % 500, n))
"""


def missing(reason: str) -> None:
    """Fail in CI, where a skip proves nothing; skip, loudly, elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def requires_journald() -> None:
    """Skip the test, loudly, where no journald can be run; fail it in CI, where a skip proves nothing."""
    reason = ""
    if not JOURNALD.exists() or shutil.which("journalctl") is None:
        reason = "NOT RUN: no journald here; apt-get install systemd"
    elif os.geteuid() != 0:
        reason = "NOT RUN: a journald of one's own needs root, for a mount namespace"
    elif subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        reason = "NOT RUN: this machine does not permit mount namespaces"
    if reason:
        missing(reason)


class Journald:
    """One journald; its files are in `folder`/journal, under a machine id of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = folder / "journal"
        self.machine = uuid.uuid4().hex
        self._slice = f"mailward-test-{uuid.uuid4().hex[:8]}.slice"
        self._senders: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self._writers: list[subprocess.Popen[bytes]] = []
        self.directory.mkdir()
        (folder / "machine-id").write_text(self.machine + "\n")
        (folder / "journald.conf").write_text(CONF)
        self.start()

    def start(self) -> None:
        """Start it and wait until it takes entries."""
        with (self.folder / "journald.out").open("ab") as out:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", START, "sh", str(self.folder), self._slice],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self._root = f"/proc/{self.process.pid}/root"
        until(self._listens, (self.folder / "journald.out").read_text)

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self.folder / "journald.out").read_text()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(f"{self._root}/run/systemd/journal/dev-log")
            return any(self.directory.rglob("system.journal"))
        return False

    def stop(self) -> None:
        """Stop it as systemd does."""
        self.hang_up()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def close(self) -> None:
        """Stop it for good and take away its control groups."""
        self.hang_up()
        for writer in self._writers:  # of a test that failed
            writer.kill()
            writer.wait(20)
        groups = Path(self._root, "sys/fs/cgroup", self._slice)
        try:
            for group in sorted((path for path in groups.rglob("*") if path.is_dir()), reverse=True):
                group.rmdir()
            groups.rmdir()
        finally:
            self.process.kill()
            self.process.wait(20)

    def hang_up(self) -> None:
        """End the senders: their sockets lead to the journald that was."""
        for sender in self._senders.values():
            assert sender.stdin
            sender.stdin.close()
            assert sender.wait(20) == 0
        self._senders.clear()

    def rotate(self) -> None:
        """Begin a new file, as `journalctl --rotate` has it begin one."""
        before = len(self.files())
        self.process.send_signal(signal.SIGUSR2)
        until(lambda: len(self.files()) > before)

    def vacuum(self, files: int = 1) -> None:
        """Delete archived files until so many are left."""
        subprocess.run(
            ["journalctl", f"--directory={self.directory}", f"--vacuum-files={files}", "--quiet"],
            check=True, capture_output=True,
        )  # fmt: skip

    def files(self) -> list[Path]:
        """Return its files."""
        return sorted(self.directory.rglob("*.journal"))

    def _group(self, unit: str) -> str:
        template, at, _ = unit.partition("@")
        inner = f"system.slice/system-{template}.slice" if at else "system.slice"
        return f"{self._root}/sys/fs/cgroup/{self._slice}/{inner}/{unit}" if unit else ""

    def send(self, unit: str, *datagrams: bytes, native: bool = False, uid: int = 0) -> None:
        """Send datagrams as a process of the unit ("": of none): syslog's, or journald's own protocol."""
        path = f"{self._root}/run/systemd/journal/{'socket' if native else 'dev-log'}"
        key = (unit + path, uid)
        if key not in self._senders:
            command = [sys.executable, "-c", SENDER, self._group(unit), path, str(uid)]
            self._senders[key] = subprocess.Popen(command, stdin=subprocess.PIPE)
        pipe = self._senders[key].stdin
        assert pipe
        for datagram in datagrams:
            pipe.write(len(datagram).to_bytes(4, "big") + datagram)
        pipe.flush()

    def log(self, unit: str, tag: str, *texts: str, uid: int = 0) -> None:
        """Send texts as syslog(3) would."""
        self.send(unit, *(f"<22>Nov 24 00:00:00 {tag}: {text}".encode() for text in texts), uid=uid)

    def many(self, first: int, last: int, unit: str = "postfix@-.service") -> subprocess.Popen[bytes]:
        """Have numbered lines written at full speed; return the process that does."""
        path = f"{self._root}/run/systemd/journal/dev-log"
        arguments = [self._group(unit), path, "postfix/smtpd", str(first), str(last)]
        self._writers.append(subprocess.Popen([sys.executable, "-c", MANY, *arguments]))
        return self._writers[-1]

    def written(self, *matches: str) -> int:
        """Return how many entries it holds."""
        command = [
            "journalctl", f"--directory={self.directory}", "--merge", "--quiet", "--output=export",
            "--output-fields=_UID", *matches,
        ]  # fmt: skip
        return subprocess.run(command, check=True, capture_output=True).stdout.count(b"__CURSOR=")

    def holds(self, count: int) -> None:
        """Wait until it has so many entries of Dovecot."""
        until(lambda: self.written("_SYSTEMD_UNIT=dovecot.service") == count)

    def ends(self, number: int) -> None:
        """Wait until line `number` is its last entry."""
        command = [
            "journalctl",
            f"--directory={self.directory}",
            "--merge",
            "--quiet",
            "--output=cat",
            "--lines=1",
        ]
        wanted = b"line %08d\n" % number
        until(lambda: subprocess.run(command, check=True, capture_output=True).stdout == wanted)


def native(**fields: bytes) -> bytes:
    """Return an entry in journald's own protocol; every value in the binary form."""
    parts = (
        name.encode() + b"\n" + len(value).to_bytes(8, "little") + value for name, value in fields.items()
    )
    return b"\n".join(parts) + b"\n"


def until(true: Callable[[], object], say: Callable[[], object] = str, seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, say()
        time.sleep(0.005)
