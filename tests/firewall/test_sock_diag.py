"""Sockets as the kernel tells and closes them: real connections in namespaces, both ends in hand."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

import pytest

from guard.firewall import sock_diag
from guard.firewall.nets import read_net
from guard.firewall.sock_diag import ESTABLISHED, NETS_AT_ONCE, cannot_destroy, destroy, sockets
from tests.system.netns import (
    CLIENTS,
    HOST4,
    HOST6,
    Connection,
    Lab,
    mail_host,
    namespace,
    requires_namespaces,
)

pytestmark = pytest.mark.system

GUESSER, BYSTANDER, OTHER = CLIENTS[:3]
GUESSER6, SAME_64, OTHER_64 = CLIENTS[3:]
IMAP, SUBMISSION, SSH = 143, 587, 22
EVERYBODY = ("0.0.0.0/0", "::/0")


@pytest.fixture
def lab():
    with mail_host() as lab:
        yield lab


def dual_stack(lab: Lab, client: str, port: int) -> Connection:
    """Connect an IPv4 client to a listener that takes both families, as Dovecot's and Postfix's do."""
    with lab.host.entered():
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener, lab.internet.entered():
        end = socket.create_connection((HOST4, port), 2, (client, 0))
        server, peer = listener.accept()
    assert peer[0] == f"::ffff:{client}"
    return Connection(end, server)


def told(lab: Lab, *nets: str, port: int = 0) -> list[tuple[str, int]]:
    with lab.host.entered():
        found = sockets(ESTABLISHED, port=port, nets=[read_net(net) for net in nets] or None)
        return sorted((one.peer, one.port) for one in found)


def closed(lab: Lab, *nets: str, ports: tuple[int, ...] = (IMAP, SUBMISSION)) -> int:
    with lab.host.entered():
        return destroy([read_net(net) for net in nets], ports.__contains__)


def test_sockets_are_told_by_local_port_and_by_the_peers_net(lab):
    ends = [
        lab.connect(GUESSER, IMAP),
        lab.connect(BYSTANDER, SSH),
        lab.connect(GUESSER6, IMAP),
        lab.connect(OTHER_64, SSH),
        dual_stack(lab, OTHER, SUBMISSION),
    ]
    assert told(lab, port=SSH) == [(BYSTANDER, SSH), (OTHER_64, SSH)]
    assert told(lab, port=993) == []
    assert told(lab, "198.51.100.0/24") == [(GUESSER, IMAP), (BYSTANDER, SSH)]
    assert told(lab, "198.51.101.0/24") == [(OTHER, SUBMISSION)], "a mapped peer is in the IPv4 net"
    assert told(lab, "2001:db8:1:2::/64") == [(GUESSER6, IMAP)]
    assert told(lab, "203.0.113.0/24", f"{GUESSER}/32", "2001:db8::/33", f"{OTHER}/32") == [
        (GUESSER, IMAP),
        (OTHER, SUBMISSION),
        (GUESSER6, IMAP),
        (OTHER_64, SSH),
    ]
    assert len(told(lab, *EVERYBODY)) == 5
    assert told(lab, f"{HOST4}/32", f"{HOST6}/128") == [], "the peer counts, not this host"
    filler = [f"203.0.113.{i}/32" for i in range(NETS_AT_ONCE - 1)]
    assert told(lab, *filler, f"{GUESSER}/32") == [(GUESSER, IMAP)]
    assert told(lab, f"{GUESSER}/32", *filler) == [(GUESSER, IMAP)]
    for end in ends:
        end.close()


@pytest.mark.parametrize("many", [0, NETS_AT_ONCE], ids=["few nets", "many nets"])
@pytest.mark.parametrize("client", [GUESSER, GUESSER6, "mapped"])
def test_the_server_that_waits_for_a_closed_peer_learns_it_at_once(lab, client, many):
    mapped = client == "mapped"
    his = dual_stack(lab, GUESSER, SUBMISSION) if mapped else lab.connect(client, IMAP)
    others = [lab.connect(OTHER, IMAP), lab.connect(OTHER_64, IMAP)]
    woke: list[tuple[float, int | None]] = []

    def wait() -> None:
        his.server.settimeout(None)
        try:
            his.server.recv(1)
        except OSError as error:
            woke.append((time.monotonic(), error.errno))

    server = threading.Thread(target=wait, daemon=True)
    server.start()
    net = f"{GUESSER6.removesuffix('::7')}::/64" if client == GUESSER6 else f"{GUESSER}/32"
    began = time.monotonic()
    assert closed(lab, net, *(f"203.0.{i // 256}.{i % 256}/32" for i in range(many))) == 1
    server.join(20)
    assert [number for _, number in woke] == [errno.ECONNABORTED]
    assert woke[0][0] - began < 5.0
    with pytest.raises(ConnectionResetError):
        his.client.recv(1)
    assert closed(lab) == 0, "no net is no peer"
    assert all(other.delivers() for other in others)
    his.close()


def test_only_what_is_on_the_banned_ports_is_closed(lab):
    mail, ssh = lab.connect(GUESSER, IMAP), lab.connect(GUESSER, SSH)
    with lab.internet.entered():
        far = socket.create_server((GUESSER, 25))
    with lab.host.entered():
        outward = socket.create_connection(
            (GUESSER, 25), 2
        )  # mail that this host delivers to the same machine
    inward, _ = far.accept()
    assert closed(lab, f"{GUESSER}/32") == 1
    assert not mail.upstream(0.1)
    assert ssh.delivers()
    assert Connection(outward, inward).delivers()
    for end in (far, outward, inward):
        end.close()


def test_looking_needs_no_right_and_closing_does(lab):
    with lab.host.entered():
        assert cannot_destroy() is None
        connection = lab.connect(GUESSER, IMAP)
        pid = os.fork()
        if pid == 0:  # without CAP_NET_ADMIN: another user
            os.setuid(65534)
            seen = [one.peer for one in sockets(ESTABLISHED, port=IMAP)]
            try:
                destroy([read_net(f"{GUESSER}/32")], lambda _: True)
            except PermissionError:
                os._exit(0 if seen == [GUESSER] else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert connection.delivers()


def test_a_kernel_that_cannot_close_is_told_from_one_that_can(monkeypatch):
    assert cannot_destroy() is None
    monkeypatch.setattr(sock_diag, "_DESTROY", 31)  # a command that no kernel has
    assert (cannot_destroy() or "").startswith("the kernel lacks CONFIG_INET_DIAG_DESTROY")


def test_a_host_without_ipv6_is_no_trouble():
    requires_namespaces()
    with namespace("four") as four:
        four.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        with four.entered():
            assert list(sockets(ESTABLISHED)) == []
            assert destroy([read_net("2001:db8::/64")], lambda _: True) == 0
