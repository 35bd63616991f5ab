"""rsyslogd and syslog-ng, as they are, each between a test and a listener: lines go in by TCP and come out as asked.

    with RSYSLOG(folder, "tcp-counted", "tcp://127.0.0.1:5514") as sender:
        sender.send(lines)

Both keep what they cannot send (on disk, or in a queue in memory), look whether the other side has closed before they
send, and connect again.  Where one of them is missing the test is skipped, and fails in CI.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

# Debian's two syslog daemons cannot be installed side by side; .ci/system lays them out here, apart from the system.
APART = Path(__file__).parent.parent / ".build" / "syslog"
PATIENCE = 60.0  # seconds


class Sender:
    """One daemon: `way` is how it sends, `url` where to; `ca` is what it trusts, for TLS."""

    program = ""

    def __init__(self, folder: Path, way: str, url: str, ca: Path | None = None) -> None:
        self.folder = folder
        self.way = way
        self.url = url
        self.ca = ca
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.target, _, port = url.partition("://")[2].rpartition(":")
        self.target_port = port

    def command(self, binary: Path, root: Path | None) -> list[str]:
        """Return how it is started; it stays in the foreground."""
        raise NotImplementedError

    def configuration(self) -> str:
        """Return its configuration."""
        raise NotImplementedError

    def send(self, lines: Sequence[str]) -> None:
        """Hand lines to it, each with <PRI> and header; returns when it has taken them."""
        with socket.create_connection(("127.0.0.1", self.port)) as out:
            for n in range(0, len(lines), 1000):
                out.sendall("".join(line + "\n" for line in lines[n : n + 1000]).encode())
            out.shutdown(socket.SHUT_WR)
            while out.recv(4096):
                pass

    def queued(self) -> int:
        """Return how many messages it holds still, as it says itself; a second old at most."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            finally:
                self._process.kill()
                self._process.wait()
            self._process = None

    def said(self) -> str:
        """Return what it has to say."""
        return (self.folder / "said").read_text(errors="replace")

    def __enter__(self) -> Self:
        binary, root = requires(self.program)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "conf").write_text(self.configuration())
        libraries = ":".join(str(p) for p in root.glob("usr/lib/*-linux-gnu")) if root else ""
        self._environment = os.environ | ({"LD_LIBRARY_PATH": libraries} if root else {})
        with (self.folder / "said").open("ab") as said:
            self._process = subprocess.Popen(
                self.command(binary, root),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=self._environment,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                assert self._process.poll() is None, self.said()
                assert time.monotonic() < deadline, self.said()
                time.sleep(0.01)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def requires(program: str) -> tuple[Path, Path | None]:
    """Return where the daemon is and the folder that it was laid out in, None where it is installed."""
    apart = APART / "usr/sbin" / program
    if apart.exists():
        return apart, APART
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found:
        return Path(found), None
    reason = f"NOT RUN: no {program}; .ci/system lays it out where CI is set"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Rsyslog(Sender):
    """rsyslogd 8.

    TLS by GnuTLS: up to the end of 2025 its other driver, ossl, goes on with the descriptor of a connection that it has
    closed, and closes it twice (rsyslog's pull request 6375).  Another thread's file or socket has that number by then:
    a worker waits for ever in its read(), with all that it has queued, or the queue's file is closed.
    The queue's full memory is waited for: by default a message is thrown away after 2 s.
    """

    program = "rsyslogd"

    def command(self, binary: Path, root: Path | None) -> list[str]:
        modules = [str(p) for p in root.glob("usr/lib/*-linux-gnu/rsyslog")] if root else []
        found = ["-M", modules[0]] if modules else []
        return [str(binary), "-n", "-f", f"{self.folder}/conf", "-i", f"{self.folder}/pid", *found]

    def queued(self) -> int:
        """Return what impstats said last about each queue, together."""
        sizes: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / "stats").read_text().splitlines():
                name, size = re.search(r'"name": "([^"]*)"', line), re.search(r'"size": (\d+)', line)
                if name and size:
                    sizes[name[1]] = int(size[1])
        return sum(sizes.values())

    def configuration(self) -> str:
        more = {
            "udp": 'protocol="udp"',
            "tcp-newline": 'protocol="tcp"',
            "tcp-counted": 'protocol="tcp" TCP_Framing="octet-counted"',
            "tcp-5424": 'protocol="tcp" TCP_Framing="octet-counted"',
            "tls": 'protocol="tcp" TCP_Framing="octet-counted" StreamDriver="gtls" StreamDriverMode="1" StreamDriverAuthMode="x509/certvalid"',
        }.get(self.way, "")
        template = (
            "RSYSLOG_SyslogProtocol23Format" if self.way == "tcp-5424" else "RSYSLOG_TraditionalForwardFormat"
        )
        action = f'type="omfwd" target="{self.target}" port="{self.target_port}" {more}'
        if self.way == "unix":
            action = f'type="omuxsock" socket="{self.url.partition("://")[2]}"'
        return (
            f"""
global(workDirectory="{self.folder}" {f'defaultNetstreamDriverCAFile="{self.ca}"' if self.ca else ""})
main_queue(queue.size="200000" queue.timeoutEnqueue="600000")
module(load="impstats" interval="1" format="json" log.syslog="off" log.file="{self.folder}/stats")
module(load="imptcp")
module(load="omuxsock")
input(type="imptcp" address="127.0.0.1" port="{self.port}")
action({action} template="{template}" action.resumeRetryCount="-1" action.resumeInterval="1"
       queue.type="LinkedList" queue.size="100000" queue.filename="out" queue.maxDiskSpace="1g"
       queue.timeoutEnqueue="600000")
"""
            if self.way != "unix"
            else f"""
global(workDirectory="{self.folder}")
main_queue(queue.size="200000" queue.timeoutEnqueue="600000")
module(load="impstats" interval="1" format="json" log.syslog="off" log.file="{self.folder}/stats")
module(load="imptcp")
$ModLoad omuxsock
$OMUxSockSocket {self.url.partition("://")[2]}
input(type="imptcp" address="127.0.0.1" port="{self.port}")
$ActionQueueType LinkedList
$ActionQueueSize 100000
$ActionResumeRetryCount -1
$ActionResumeInterval 1
*.* :omuxsock:;RSYSLOG_TraditionalForwardFormat
"""
        )


class SyslogNg(Sender):
    """syslog-ng 3.38."""

    program = "syslog-ng"

    def command(self, binary: Path, root: Path | None) -> list[str]:
        module = next(root.glob("usr/lib/syslog-ng/*/libafsocket.so")) if root else None
        found = [f"--module-path={module.parent}"] if module else []
        names = {"-f": "conf", "-R": "persist", "-c": "control", "-p": "pid"}
        files = [part for flag, name in names.items() for part in (flag, f"{self.folder}/{name}")]
        return [str(binary), "-F", "--no-caps", *files, *found]

    def queued(self) -> int:
        """Return what its control socket says about the destination's queue."""
        control = requires("syslog-ng-ctl")[0]
        said = subprocess.run(
            [control, "stats", f"--control={self.folder}/control"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return sum(
            int(line.rpartition(";")[2]) for line in said.splitlines() if re.match(r"dst\..*;queued;", line)
        )

    def configuration(self) -> str:
        target = f'"{self.target}" port({self.target_port})'
        path = self.url.partition("://")[2]
        buffer = f"disk-buffer(reliable(yes) mem-buf-size(64M) disk-buf-size(1G) dir({self.folder}))"
        destination = {
            "udp": f"network({target} transport(udp))",
            "tcp-newline": f"network({target} transport(tcp) {buffer})",
            "tcp-5424": f"syslog({target} transport(tcp) {buffer})",
            "unix": f'unix-dgram("{path}")',
            "unix-stream": f'unix-stream("{path}" {buffer})',
            "tls": f"syslog({target} transport(tls) tls(ca-file({self.ca}) peer-verify(required-trusted)) {buffer})",
        }[self.way]
        return f"""@version: 3.35
options {{ time-reopen(1); keep-hostname(yes); stats-freq(0); }};
source in {{ network(ip(127.0.0.1) port({self.port}) transport(tcp) max-connections(10) log-iw-size(100000)); }};
destination out {{ {destination}; }};
log {{ source(in); destination(out); flags(flow-control); }};
"""


SENDERS: dict[str, type[Sender]] = {"rsyslog": Rsyslog, "syslog-ng": SyslogNg}
