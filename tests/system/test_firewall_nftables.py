"""The kernel itself: what a client on the wire meets after a ban, and after its end."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from guard.firewall.nftables import NftablesFirewall
from guard.model import Ban, Unban
from tests.system.netns import CLIENTS, HOST4, PATIENCE, Lab, give, link, mail_host, namespace, run

pytestmark = pytest.mark.system

GUESSER, BYSTANDER, NEIGHBOUR_NET = CLIENTS[:3]
GUESSER6, SAME_64, OTHER_64 = CLIENTS[3:]
IMAP, SSH = 143, 22
RESUMES = 10.0  # seconds: TCP tries again at growing intervals


@pytest.fixture
def lab():
    with mail_host() as lab:
        yield lab


@pytest.fixture
def firewall(lab: Lab):
    with guarding(lab, NftablesFirewall([25, IMAP])) as firewall:
        yield firewall


@contextlib.contextmanager
def guarding(lab: Lab, firewall: NftablesFirewall):
    """Open `firewall` on the lab's host, and stay there."""
    with lab.host.entered(), contextlib.closing(firewall):
        firewall.open()
        yield firewall


def ban(firewall: NftablesFirewall, *nets: str, seconds: float = 600.0):
    now = time.time()
    assert firewall.apply([Ban(net, now, now + seconds, "brute_force") for net in nets], now) == []


def unban(firewall: NftablesFirewall, *nets: str):
    now = time.time()
    assert firewall.apply([Unban(net, now, "manual") for net in nets], now) == []


def datagram_arrives(lab: Lab, client: str) -> bool:
    with lab.host.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab.internet.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((HOST4, 53))
        receiver.settimeout(PATIENCE)
        sender.bind((client, 0))
        sender.sendto(b"?", (HOST4, 53))
        try:
            return receiver.recv(1) == b"?"
        except TimeoutError:
            return False


def test_an_established_connection_dies_at_the_ban(lab, firewall):
    connection = lab.connect(GUESSER, IMAP)
    assert connection.delivers()
    ban(firewall, f"{GUESSER}/32")
    assert not connection.upstream()
    assert not connection.downstream()


def test_a_banned_client_opens_no_further_connection(lab, firewall):
    ban(firewall, f"{GUESSER}/32")
    assert not lab.reaches(GUESSER, IMAP)


def test_another_client_feels_nothing_of_a_ban(lab, firewall):
    connection = lab.connect(BYSTANDER, IMAP)
    ban(firewall, f"{GUESSER}/32")
    assert connection.delivers()
    assert lab.reaches(BYSTANDER, IMAP)


def test_ssh_stays_open_to_a_banned_client(lab, firewall):
    ban(firewall, f"{GUESSER}/32")
    connection = lab.connect(GUESSER, SSH)
    assert connection.delivers()
    assert lab.reaches(GUESSER, SSH)


def test_all_ports_closes_ssh_and_udp_too(lab):
    with guarding(lab, NftablesFirewall(None)) as firewall:
        assert lab.reaches(GUESSER, SSH)
        assert datagram_arrives(lab, GUESSER)
        ban(firewall, f"{GUESSER}/32")
        assert not lab.reaches(GUESSER, SSH)
        assert not datagram_arrives(lab, GUESSER)
        assert lab.reaches(BYSTANDER, SSH)
        assert datagram_arrives(lab, BYSTANDER)


def test_the_kernel_ends_a_ban_without_us(lab, firewall):
    connection = lab.connect(GUESSER, IMAP)
    started = time.monotonic()
    ban(firewall, f"{GUESSER}/32", seconds=1.5)
    firewall.close()
    assert not connection.upstream()
    assert lab.reaches(GUESSER, IMAP, patience=RESUMES)
    assert time.monotonic() - started >= 1.5
    assert connection.delivers(RESUMES)


def test_an_unban_opens_the_door_at_once(lab, firewall):
    connection = lab.connect(GUESSER, IMAP)
    ban(firewall, f"{GUESSER}/32")
    assert not connection.upstream()
    unban(firewall, f"{GUESSER}/32")
    assert lab.reaches(GUESSER, IMAP)
    assert connection.delivers(RESUMES)


def test_a_ban_of_a_64_holds_for_every_address_in_it_and_no_other(lab, firewall):
    guesser, other = lab.connect(GUESSER6, IMAP), lab.connect(OTHER_64, IMAP)
    ban(firewall, "2001:db8:1:2::/64")
    assert not guesser.upstream()
    assert not lab.reaches(GUESSER6, IMAP)
    assert not lab.reaches(SAME_64, IMAP)
    assert other.delivers()
    assert lab.reaches(OTHER_64, IMAP)
    assert lab.reaches(GUESSER6, SSH)
    unban(firewall, "2001:db8:1:2::/64")
    assert guesser.delivers(RESUMES)
    assert lab.reaches(SAME_64, IMAP)


@pytest.mark.parametrize(
    ("net", "inside", "outside"),
    [
        ("198.51.100.0/24", (GUESSER, BYSTANDER), (NEIGHBOUR_NET,)),
        ("198.51.100.0/29", (GUESSER,), (BYSTANDER, NEIGHBOUR_NET)),
        ("198.51.100.0/23", (GUESSER, BYSTANDER, NEIGHBOUR_NET), ()),
        ("2001:db8:1:2::7/128", (GUESSER6,), (SAME_64, OTHER_64)),
        ("2001:db8:1:2::/63", (GUESSER6, SAME_64, OTHER_64), ()),
        ("2001:db8:1::/56", (GUESSER6, SAME_64, OTHER_64), ()),
        ("2001:db8:1::/48", (GUESSER6, SAME_64, OTHER_64), (GUESSER,)),
    ],
)
def test_a_ban_closes_its_net_and_nothing_beside_it(lab, firewall, net, inside, outside):
    ban(firewall, net)
    assert [client for client in inside if lab.reaches(client, IMAP)] == []
    assert [client for client in outside if not lab.reaches(client, IMAP)] == []
    unban(firewall, net)
    assert [client for client in inside if not lab.reaches(client, IMAP)] == []


def test_a_width_of_its_own_is_looked_up_as_such(lab):
    with guarding(lab, NftablesFirewall([IMAP], prefix4=29, prefix6=52)) as firewall:
        ban(firewall, "198.51.100.0/29", "2001:db8:1::/52")
        assert not lab.reaches(GUESSER, IMAP)
        assert lab.reaches(BYSTANDER, IMAP)
        assert not lab.reaches(OTHER_64, IMAP)
        assert "198.51.100.0" in lab.host.nft("list set inet mailward ban4_29")


def test_a_port_published_into_a_container_is_closed_as_well(lab, firewall):
    """As Docker does it: DNAT in prerouting, then forwarding; the hook `input` never sees these connections."""
    with namespace("container") as container:
        link(lab.host, container, "br0")
        give(lab.host, ["198.19.0.1/24"], "br0")
        give(container, ["198.19.0.2/24"], "br0")
        run("ip", "-n", container.name, "route", "add", "default", "via", "198.19.0.1")
        lab.host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        lab.host.nft(
            "table ip published { chain prerouting { type nat hook prerouting priority dstnat;"
            " tcp dport 25 dnat to 198.19.0.2; }; }"
        )
        lab.publish(25, container, "198.19.0.2")
        connection, other = lab.connect(GUESSER, 25), lab.connect(BYSTANDER, 25)
        assert connection.delivers()
        ban(firewall, f"{GUESSER}/32")
        assert not connection.upstream()
        assert not connection.downstream()
        assert not lab.reaches(GUESSER, 25)
        assert other.delivers()
        assert lab.reaches(BYSTANDER, 25)
        unban(firewall, f"{GUESSER}/32")
        assert connection.delivers(RESUMES)


def test_the_counters_count_what_was_dropped_for_each_family(lab, firewall):
    assert {drops.packets for drops in firewall.drops().values()} == {0}
    ban(firewall, f"{GUESSER}/32")
    assert not lab.reaches(GUESSER, IMAP)
    drops = firewall.drops()
    assert drops["ipv4"].packets >= 1
    assert drops["ipv4"].bytes >= 40
    assert drops["ipv6"].packets == 0
    ban(firewall, "2001:db8:1:2::/64")
    assert not lab.reaches(GUESSER6, IMAP)
    assert firewall.drops()["ipv6"].packets >= 1


def test_a_restart_keeps_bans_and_connections_dead(lab, firewall):
    connection = lab.connect(GUESSER, IMAP)
    ban(firewall, f"{GUESSER}/32")
    firewall.close()
    with guarding(lab, NftablesFirewall([IMAP])) as again:
        assert [element.net for element in again.banned()] == [f"{GUESSER}/32"]
        assert not connection.upstream()
        assert not lab.reaches(GUESSER, IMAP)


def test_a_change_of_ports_holds_for_bans_already_there(lab, firewall):
    ban(firewall, f"{GUESSER}/32")
    firewall.close()
    with guarding(lab, NftablesFirewall([587])):
        assert lab.reaches(GUESSER, IMAP)
        assert not lab.reaches(GUESSER, 587)
