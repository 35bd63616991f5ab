"""What no ban may touch, and the words in which that is said."""

from __future__ import annotations

import socket

import pytest

from guard.firewall import netlink
from guard.firewall.nets import read_net
from guard.firewall.protected import Protected
from guard.firewall.ssh_sessions import SshSessions
from tests.system.netns import CLIENTS, GATEWAY4, GATEWAY6, HOST4, HOST6, mail_host

ADMIN = CLIENTS[0]
SSH = 22


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def made(trusted: tuple[str, ...] = (), clock: Clock | None = None) -> Protected:
    return Protected(trusted, SshSessions((SSH,), environment={}), clock=clock or Clock())


def said(protected: Protected, net: str, rule: str = "brute_force") -> tuple[str, str] | None:
    objection = protected.objection(read_net(net), rule)
    return None if objection is None else (objection.label, objection.text)


@pytest.mark.system
def test_everything_that_is_protected_is_named():
    with mail_host() as lab, lab.host.entered():
        lab.connect(ADMIN, SSH)
        protected = made(("203.0.113.0/24",))
        protected.look()
        assert protected.trouble == {}
        for net, what in (
            (HOST4, "an address of this host"),
            (HOST6, "an address of this host"),
            ("127.0.0.1", "an address of this host"),
            (GATEWAY4, "a gateway of this host"),
            (GATEWAY6, "a gateway of this host"),
            (ADMIN, "the client of an SSH session that is open on this host"),
        ):
            assert said(protected, net) == ("own", f"{net} is {what}: never banned, not even with --force")
        for net, inside in (
            ("0.0.0.0/0", "1"),
            ("::/0", ""),
            ("198.51.100.0/24", ADMIN),
            ("198.18.0.0/30", "198"),
        ):
            label, text = said(protected, net, "manual") or ("", "")
            assert label == "own"
            assert text.startswith(f"{net} holds {inside}")
            assert text.endswith("; ban narrower nets that leave it out")
        assert (said(protected, "203.0.0.0/16") or ("", ""))[0] == "trusted"
        assert said(protected, "203.0.112.0/24") is None
        # A session protects its client; only the host and its ways are no clients at all.
        assert f"{ADMIN}/32" not in protected.host()
        assert {f"{HOST4}/32", f"{HOST6}/128", f"{GATEWAY4}/32", f"{GATEWAY6}/128"} <= set(protected.host())


@pytest.mark.parametrize(("widest", "wider"), [("64.0.0.0/16", "64.0.0.0/15"), ("2a00::/33", "2a00::/32")])
def test_a_rule_bans_no_part_of_the_internet_and_the_administrator_may(widest, wider):
    protected = made()
    assert said(protected, widest) is None
    assert (said(protected, wider) or ("", ""))[0] == "anomaly"
    assert said(protected, wider, "manual") is None
    assert said(protected, wider, "deny") is None


@pytest.mark.parametrize(
    "net", ["127.1.2.3", "127.0.0.0/8", "::1", "::", "::ffff:198.51.100.7", "0.0.0.0/0", "::/0"]
)
def test_what_is_no_address_of_a_client_is_refused_before_anything_is_read(net):
    assert (said(made(), net, "manual") or ("", ""))[0] == "own"


@pytest.mark.system
def test_an_address_that_comes_and_goes_is_seen_at_the_next_look():
    clock = Clock()
    with mail_host() as lab, lab.host.entered():
        protected = made(clock=clock)
        protected.look()
        lab.host.run("ip", "address", "add", "203.0.113.9/32", "dev", "eth0")
        clock.now += 1.0
        protected.look()
        assert protected.what("203.0.113.9") == "an address of this host"
        lab.host.run("ip", "address", "del", "203.0.113.9/32", "dev", "eth0")
        clock.now += 1.0
        protected.look()
        assert said(protected, "203.0.113.9") is None


def test_what_cannot_be_read_is_known_as_it_was_and_told(monkeypatch):
    protected = made()
    protected.look()
    known = protected.host()
    assert known
    monkeypatch.setattr(netlink, "ROUTE", 31)  # no such protocol: the kernel itself refuses
    protected._good_until = -1.0
    protected.look()
    assert protected.host() == known
    assert set(protected.trouble) == {"an address of this host", "a gateway of this host"}
    monkeypatch.undo()
    protected._good_until = -1.0
    protected.look()
    assert protected.trouble == {}


def test_a_look_that_was_dear_is_good_for_a_while():
    ticks = iter([0.0, 9.0, 10.9, 11.0, 11.5])  # asked, ended, asked, asked and begun anew, ended
    costs = iter([4.0, 5.0, 5.0, 5.5])  # the machine was busy with other things
    protected = Protected(
        (), SshSessions((SSH,), environment={}), clock=lambda: next(ticks), cost=lambda: next(costs)
    )
    for _ in range(3):
        protected.look()
    assert list(ticks) == list(costs) == []


def test_the_kernels_refusal_is_an_error_with_its_words():
    with pytest.raises(OSError, match="not supported"):
        list(netlink.dump(netlink.ROUTE, 4095, bytes(4)))
    with pytest.raises(OSError, match=r"."):
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 31).close()


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x00\x00\x00", b"\x08\x00\x05\x00", b"\x03\x00\x05\x00abcd"]
)
def test_attributes_end_where_the_message_ends(data):
    assert len(list(netlink.attributes(data, 0))) <= 1
