"""Who counts as an administrator in an SSH session: real connections, a clock in hand.

A plain TCP listener on port 22 stands in for sshd: what is looked at is the transport, and how long it lasts.
"""

from __future__ import annotations

import pytest

from guard.firewall import ssh_sessions
from guard.firewall.ssh_sessions import FORGET, GRACE, SshSessions
from tests.system.netns import CLIENTS, Connection, Lab, mail_host

pytestmark = pytest.mark.system

ADMIN, OTHER = CLIENTS[:2]
IN_64, SAME_64, OTHER_64 = CLIENTS[3:]
SSH, IMAP = 22, 143


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Host:
    """A host whose SSH sessions are looked at while time passes."""

    def __init__(self, lab: Lab, ports: tuple[int, ...] = (SSH,), environment: dict[str, str] | None = None):
        self.lab = lab
        self.clock = Clock()
        self.sessions = SshSessions(ports, environment=environment or {}, clock=self.clock)

    def protected(self) -> set[str]:
        with self.lab.host.entered():
            return self.sessions.look()

    def passes(self, seconds: float) -> None:
        self.clock.now += seconds

    def connect(self, client: str, port: int = SSH) -> Connection:
        return self.lab.connect(client, port)


@pytest.fixture
def lab():
    with mail_host() as lab:
        yield lab


@pytest.fixture
def host(lab):
    return Host(lab)


def test_a_session_protects_its_client_from_the_first_look_to_its_end(host):
    assert host.protected() == set()
    four, six = host.connect(ADMIN), host.connect(IN_64)
    host.connect(OTHER, IMAP)
    for _ in range(10):
        assert host.protected() == {ADMIN, IN_64}
        host.passes(60.0)
    four.close()
    assert host.protected() == {IN_64}
    six.close()
    assert host.protected() == set()


def test_who_never_logs_in_is_protected_for_the_grace_and_no_longer(host):
    for _ in range(3):  # sshd cuts him, he is back at once
        connection = host.connect(ADMIN)
        assert host.protected() == {ADMIN}
        host.passes(GRACE / 2.5)
        connection.close()
    for _ in range(5):
        connection = host.connect(ADMIN)
        assert host.protected() == set()
        host.passes(GRACE - 1)
        assert host.protected() == set()
        connection.close()
    host.connect(OTHER)
    assert host.protected() == {OTHER}, "the doubt is each client's own"


def test_whoever_has_lasted_once_is_protected_with_every_later_session(host):
    first = host.connect(ADMIN)
    host.protected()
    host.passes(GRACE)
    host.protected()
    first.close()
    host.passes(FORGET / 2)
    assert host.protected() == set()
    host.connect(ADMIN)
    assert host.protected() == {ADMIN}


def test_after_a_day_without_a_connection_a_client_is_new_again(host):
    host.connect(ADMIN).close()
    connection = host.connect(ADMIN)
    host.protected()
    connection.close()
    host.passes(GRACE + 1)
    connection = host.connect(ADMIN)
    assert host.protected() == set()
    connection.close()
    host.passes(FORGET + 1)
    host.connect(ADMIN)
    assert host.protected() == {ADMIN}


def test_addresses_of_one_64_share_the_doubt(host):
    first = host.connect(IN_64)
    host.protected()
    first.close()
    host.passes(GRACE)
    host.connect(SAME_64)
    host.connect(OTHER_64)
    assert host.protected() == {OTHER_64}


def test_a_young_session_is_protected_once_it_has_lasted_although_the_doubt_is_spent(host):
    host.connect(ADMIN)
    host.protected()
    for _ in range(4):
        host.passes(GRACE / 4)
        host.connect(ADMIN)
        assert host.protected() == {ADMIN}


def test_other_ports_of_sshd_and_the_session_that_started_the_guard(lab):
    environment = {"SSH_CONNECTION": f"{ADMIN} 50000 198.18.0.1 2200"}
    host = Host(lab, (2222,), environment)
    assert host.sessions.ports == {2222, 2200}
    host.passes(GRACE * 2)
    host.connect(ADMIN, 2200)
    host.connect(OTHER, 2222)
    host.connect(IN_64, 22)
    assert host.protected() == {ADMIN, OTHER}


@pytest.mark.parametrize(
    "text", ["", "a b c d", "198.51.100.7 1 198.18.0.1 0", "x 1 198.18.0.1 2200", "1 2 3"]
)
def test_an_environment_without_a_session_adds_nothing(text):
    assert SshSessions((22,), environment={"SSH_CONNECTION": text}).ports == {22}


def test_what_is_remembered_is_bounded(host, monkeypatch):
    monkeypatch.setattr(ssh_sessions, "LIMIT", 2)
    for client in (ADMIN, OTHER, OTHER_64):
        host.connect(client)
        host.protected()
    assert len(host.sessions._clients) <= 3
