"""A private Postfix: its own configuration, queue and data in a folder, SMTP and SMTPS on loopback."""

from __future__ import annotations

import os
import shutil
import smtplib
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

_MAIN = """
compatibility_level = 3.6
queue_directory = {at}/spool
data_directory = {at}/data
maillog_file = {at}/log/mail
maillog_file_prefixes = {at}/log
myhostname = mail.example.org
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
default_transport = smtp
defer_transports = smtp
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
"""
_MASTER = """
127.0.0.1:{smtp} inet n - n - - smtpd
127.0.0.1:{smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
smtp unix - - n - - smtp
showq unix n - n - - showq
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return as soon as `condition` holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


class Postfix:
    """Runs while it is a context."""

    def __init__(self, folder: Path, certificate: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.smtp, self.smtps = free_ports(2)
        for name in ("conf", "spool", "data", "log"):
            (folder / name).mkdir(parents=True)
        for parent in (folder, *folder.parents[:-2]):
            parent.chmod(0o755)  # its processes run as other users
        shutil.chown(folder / "data", "postfix")
        texts = {"at": folder, "certificate": certificate, "key": certificate.with_suffix(".key")}
        (folder / "conf/main.cf").write_text(_MAIN.format(**texts))
        (folder / "conf/master.cf").write_text(_MASTER.format(smtp=self.smtp, smtps=self.smtps))

    def command(self, *words: str) -> None:
        """Run one of its programs with this instance's configuration."""
        program, *rest = words
        subprocess.run(
            [f"/usr/sbin/{program}", "-c", str(self.folder / "conf"), *rest], check=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.command("postfix", "start")
        wait(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.smtp), 1).close()
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self.command("postfix", "stop")

    def send(self, text: str) -> None:
        """Hand one message in."""
        with smtplib.SMTP("127.0.0.1", self.smtp, timeout=60) as client:
            client.sendmail("a@example.org", ["b@example.net"], f"Subject: t\r\n\r\n{text}\r\n")

    def names(self, queue: str) -> list[str]:
        """Return the queue ids in a queue."""
        return [name for _, _, files in os.walk(self.spool / queue) for name in files]
