"""A real Dovecot asks and tells the real daemon: ten guesses are ten failures, the fifth is a ban, and Dovecot enforces it too."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.system.dovecot import IMAP, POLICY, Dovecot, requires_dovecot, roots
from tests.system.netns import CLIENTS, HOST4, Lab, mail_host

pytestmark = [pytest.mark.system, pytest.mark.servers]

GUESSER, BYSTANDER = CLIENTS[:2]
MORE = f"""
[[source]]
type = "auth_policy"
name = "policy"
listen = "127.0.0.1:{POLICY}"
key = "X-API-Key: sesame"
"""


class Imap:
    """One IMAP connection of a client on the internet."""

    def __init__(self, lab: Lab, client: str) -> None:
        deadline = time.monotonic() + 60.0
        with lab.internet.entered():
            while True:
                self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                self._socket.settimeout(60.0)
                self._socket.bind((client, 0))
                try:
                    self._socket.connect((HOST4, IMAP))
                    break
                except ConnectionRefusedError:
                    self._socket.close()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
        self._file = self._socket.makefile("rb")
        assert self._file.readline().startswith(b"* OK")

    def login(self, password: str) -> bool:
        """Try to log in."""
        self._socket.sendall(f"a LOGIN alice@example.org {password}\r\n".encode())
        while not (line := self._file.readline()).startswith(b"a "):
            assert line, "the server has hung up"
        return line.startswith(b"a OK")

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


def of(report: dict[str, Any], ip: str) -> tuple[int, int]:
    return next(((s["failures"], s["successes"]) for s in report["sources"] if s["ip"] == ip), (0, 0))


RUNS = [("/", True), *((root, with_log) for root in roots()[1:] for with_log in (False, True))]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a unix socket's may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="mailward-") as name:
        yield Path(name)


@pytest.mark.parametrize(("root", "with_log"), RUNS)
def test_ten_guesses_are_ten_failures_and_from_the_fifth_on_dovecot_is_told_to_refuse(root, with_log, folder):
    requires_dovecot()
    with mail_host() as lab:
        within = ("ip", "netns", "exec", lab.host.name)
        (folder / "guard").mkdir()
        dovecot = Dovecot(folder / "dovecot", root, within=within)
        daemon = Daemon(folder / "guard", within=within, backend="nftables", more=MORE)
        if with_log:
            text = daemon.config.read_text().replace(str(daemon.log), str(dovecot.folder / "dovecot.log"))
            daemon.config.write_text(text)
        with dovecot, daemon:
            first, other = Imap(lab, GUESSER), Imap(lab, BYSTANDER)
            assert [first.login(f"bad{n}") for n in range(4)] == [False] * 4
            daemon.until(lambda: of(daemon.ask("report"), GUESSER) == (4, 0))
            assert daemon.ask("bans")["bans"] == []
            assert not first.login("bad4")
            daemon.until(lambda: [ban["net"] for ban in daemon.ask("bans")["bans"]] == [f"{GUESSER}/32"])
            # The port is none that the firewall closes: Dovecot itself refuses, be the password right or wrong.
            assert not first.login("bad5")
            assert not first.login("good")
            assert other.login("good")
            first.close()
            daemon.until(lambda: of(daemon.ask("report"), BYSTANDER) == (0, 1))
            daemon.until(lambda: daemon.ask("report")["refused"] >= 2)
            assert dovecot.log().count("Authentication failure due to policy server refusal") == 2
            assert of(daemon.ask("report"), GUESSER) == (5, 0)
            assert daemon.command("unban", f"{GUESSER}/32").returncode == 0
            again = Imap(lab, GUESSER)
            assert [again.login(f"more{n}") for n in range(4)] == [False] * 4
            assert again.login("good")
            again.close()
            other.close()
            daemon.until(lambda: of(daemon.ask("report"), GUESSER) == (9, 1))
            if with_log:
                daemon.until(lambda: dovecot.log().count("rip=") == 3 and lag(daemon) == 0.0)
            assert of(daemon.ask("report"), GUESSER) == (9, 1)
            assert daemon.ask("report")["refused"] == 2
            assert daemon.ask("report")["lines"]["unparsed"] == 0
            [source] = [source for source in daemon.ask("status")["sources"] if source["name"] == "policy"]
            assert source["up"]
            assert source["lost"] == 0


def lag(daemon: Daemon) -> float:
    return max(float(source["lag"]) for source in daemon.ask("status")["sources"])
