"""The real rsyslogd and syslog-ng send to the real daemon: every failure counted, once, however it came."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from tests.daemon import Daemon, failure, session, stamp
from tests.sources.test_syslog import certify, free
from tests.syslog_senders import SENDERS, requires

pytestmark = pytest.mark.servers

WAYS = [
    *(("rsyslog", way) for way in ("udp", "tcp-newline", "tcp-counted", "tcp-5424", "tls", "unix")),
    *(("syslog-ng", way) for way in ("udp", "tcp-newline", "tcp-5424", "tls", "unix", "unix-stream")),
]
DOVECOT, POSTFIX = 60, 40  # failures of each


class Listening(Daemon):
    """A daemon whose one source listens in every way there is."""

    def __init__(self, folder: Path) -> None:
        self.urls = {
            "udp": f"udp://127.0.0.1:{free(socket.SOCK_DGRAM)}",
            "tcp": f"tcp://127.0.0.1:{free()}",
            "tls": f"tls://127.0.0.1:{free()}",
            "unix": f"unix://{folder}/log",
            "unix-stream": f"unix-stream://{folder}/log.stream",
        }
        certify(folder, "server")
        super().__init__(folder)

    def configure(self, text: str) -> None:
        source = f"""[[source]]
type = "syslog"
name = "mail"
listen = {list(self.urls.values())}
certificate = "{self.folder}/server.pem"
key = "{self.folder}/server.key"
{text}
[store]
url = "sqlite://{self.folder}/state/state.db"
[control]
socket = "{self.socket}"
"""
        self.config.write_text(source)

    def url(self, way: str) -> str:
        """Return where a sender of that way sends to."""
        return self.urls.get(way) or self.urls[way.partition("-")[0]]

    def failures(self) -> dict[str, int]:
        """Return how many failures are counted of each address."""
        return {source["ip"]: source["failures"] for source in self.ask("report")["sources"]}

    def has(self, failures: int) -> None:
        """Wait until that many failures are counted."""
        self.until(lambda: self.total() >= failures, 60.0)

    def total(self) -> int:
        """Return how many failures are counted."""
        return int(self.ask("report")["failures"]["total"])


@pytest.fixture(scope="module")
def listening(tmp_path_factory):
    for program in ("rsyslogd", "syslog-ng"):
        requires(program)
    with Listening(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


def guesses(number: int) -> list[str]:
    """Return the failures of two clients: one at Dovecot, one at Postfix."""
    one, two = f"198.51.100.{number}", f"203.0.113.{number}"
    sid = session(one)
    return [
        *(f"<22>{failure(one, sid=sid)}" for _ in range(DOVECOT)),
        *(
            f"<22>{stamp()} mx postfix/smtpd[{900 + number}]: warning: unknown[{two}]: SASL LOGIN authentication failed:"
            f" UGFzc3dvcmQ6, sasl_username=user{n}@example.org"
            for n in range(POSTFIX)
        ),
    ]


@pytest.mark.parametrize(("number", "name", "way"), [(n, *way) for n, way in enumerate(WAYS, 21)])
def test_every_failure_is_counted_once(listening, tmp_path, number, name, way):
    with SENDERS[name](tmp_path / "s", way, listening.url(way), listening.folder / "server.pem") as sender:
        sender.send(guesses(number))
        want = {f"198.51.100.{number}": DOVECOT, f"203.0.113.{number}": POSTFIX}
        listening.until(lambda: listening.failures() | want == listening.failures(), 60.0)
    time.sleep(0.05)
    assert listening.failures() | want == listening.failures(), "and no more"


def test_a_restart_loses_nothing_that_a_careful_sender_sends(tmp_path):
    requires("syslog-ng")
    count = 1500
    sid = session("198.51.100.7")
    lines = [f"<22>{failure('198.51.100.7', f'user{n}@example.org', sid=sid)}" for n in range(count)]
    with (
        Listening(tmp_path) as daemon,
        SENDERS["syslog-ng"](tmp_path / "s", "tcp-newline", daemon.url("tcp")) as sender,
    ):

        def trickle() -> None:
            for n in range(0, count, 20):
                sender.send(lines[n : n + 20])
                time.sleep(0.01)

        sending = threading.Thread(target=trickle)
        sending.start()
        daemon.has(count // 5)
        assert daemon.stop() == 0
        daemon.start()
        sending.join()
        daemon.has(count)
        assert daemon.total() == count


def test_a_kill_loses_nothing_that_was_saved(tmp_path):
    with Listening(tmp_path) as daemon:
        for done, number in enumerate((41, 42), 1):
            with socket.create_connection(("127.0.0.1", int(daemon.urls["tcp"].rpartition(":")[2]))) as out:
                out.sendall("".join(line + "\n" for line in guesses(number)).encode())
                daemon.has(done * (DOVECOT + POSTFIX))
                if done == 1:
                    daemon.has_saved()
                    daemon.kill()
                    daemon.start()
        assert daemon.total() == 2 * (DOVECOT + POSTFIX)
