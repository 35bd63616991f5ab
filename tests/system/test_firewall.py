"""What a client on the wire meets after a ban and after its end: the same from every backend."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time

import pytest

from guard.firewall import Firewall, FirewallError
from guard.firewall.nftables import NftablesFirewall
from guard.firewall.raw_table import Variant, variant_of_host
from guard.model import Ban, Unban
from tests.daemon import Daemon, failure
from tests.system.backends import BACKENDS, VARIANTS, firewall_of, requires_iptables
from tests.system.netns import CLIENTS, HOST4, PATIENCE, Lab, give, link, mail_host, namespace, run

pytestmark = pytest.mark.system

GUESSER, BYSTANDER, NEIGHBOUR_NET = CLIENTS[:3]
GUESSER6, SAME_64, OTHER_64 = CLIENTS[3:]
IMAP, SSH = 143, 22
RESUMES = 30.0  # seconds: TCP tries again at growing intervals

KILLED = """
import os, signal, time
from guard.firewall.iptables import IptablesFirewall
from guard.model import Ban
firewall = IptablesFirewall([143], variant={variant!r})
firewall.open()
now = time.time()
nets = ["{guesser}/32", *(f"203.0.{{i // 250}}.{{i % 250}}/32" for i in range(999))]
assert firewall.apply([Ban(net, now, now + 600, "brute_force") for net in nets], now) == []
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def lab():
    with mail_host() as lab:
        yield lab


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@contextlib.contextmanager
def guarding(lab: Lab, firewall: Firewall):
    """Open `firewall` on the lab's host, and stay there."""
    with lab.host.entered(), contextlib.closing(firewall):
        firewall.open()
        yield firewall


@pytest.fixture
def firewall(lab: Lab, backend: str):
    with guarding(lab, firewall_of(backend, [25, IMAP])) as firewall:
        yield firewall


def ban(firewall: Firewall, *nets: str, seconds: float = 600.0):
    now = time.time()
    assert firewall.apply([Ban(net, now, now + seconds, "brute_force") for net in nets], now) == []


def unban(firewall: Firewall, *nets: str):
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


def test_a_ban_ends_open_connections_and_new_ones_of_its_client_and_of_no_other(lab, firewall):
    connection, other = lab.connect(GUESSER, IMAP), lab.connect(BYSTANDER, IMAP)
    assert connection.delivers()
    assert {drops.packets for drops in firewall.drops().values()} == {0}
    ban(firewall, f"{GUESSER}/32")
    assert not connection.upstream()
    assert not connection.downstream()
    assert not lab.reaches(GUESSER, IMAP)
    assert other.delivers()
    assert lab.reaches(BYSTANDER, IMAP)
    assert lab.reaches(GUESSER, SSH)
    drops = firewall.drops()
    assert drops["ipv4"].packets >= 1
    assert drops["ipv4"].bytes >= 40
    assert drops["ipv6"].packets == 0
    unban(firewall, f"{GUESSER}/32")
    assert lab.reaches(GUESSER, IMAP)
    assert connection.delivers(RESUMES)


def test_all_ports_closes_ssh_and_udp_too(lab, backend):
    with guarding(lab, firewall_of(backend, None)) as firewall:
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


def test_a_ban_of_a_64_holds_for_every_address_in_it_and_no_other(lab, firewall):
    guesser, other = lab.connect(GUESSER6, IMAP), lab.connect(OTHER_64, IMAP)
    ban(firewall, "2001:db8:1:2::/64")
    assert not guesser.upstream()
    assert not lab.reaches(GUESSER6, IMAP)
    assert not lab.reaches(SAME_64, IMAP)
    assert other.delivers()
    assert lab.reaches(OTHER_64, IMAP)
    assert lab.reaches(GUESSER6, SSH)
    assert firewall.drops()["ipv6"].packets >= 1
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


def test_an_unban_of_one_net_leaves_those_that_lie_within_or_around_it(lab, firewall):
    ban(firewall, "198.51.100.0/24", f"{GUESSER}/32", "198.51.100.0/28")
    unban(firewall, "198.51.100.0/28")
    assert not lab.reaches(GUESSER, IMAP)
    assert not lab.reaches(BYSTANDER, IMAP)
    unban(firewall, f"{GUESSER}/32")
    assert not lab.reaches(GUESSER, IMAP)
    ban(firewall, f"{GUESSER}/32")
    unban(firewall, "198.51.100.0/24")
    assert lab.reaches(BYSTANDER, IMAP)
    assert not lab.reaches(GUESSER, IMAP)


def test_a_restart_keeps_bans_and_connections_dead(lab, backend, firewall):
    connection = lab.connect(GUESSER, IMAP)
    ban(firewall, f"{GUESSER}/32")
    firewall.close()
    with guarding(lab, firewall_of(backend, [IMAP])) as again:
        assert [element.net for element in again.banned()] == [f"{GUESSER}/32"]
        assert not connection.upstream()
        assert not lab.reaches(GUESSER, IMAP)


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
        unban(firewall, f"{GUESSER}/32")
        assert connection.delivers(RESUMES)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_kill_leaves_a_thousand_bans_in_force_and_the_next_start_finds_them(lab, variant):
    requires_iptables(variant)
    connection = lab.connect(GUESSER, IMAP)
    code = KILLED.format(variant=variant, guesser=GUESSER)
    died = subprocess.run(
        ["ip", "netns", "exec", lab.host.name, sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert died.returncode in (-9, 137), died.stderr
    assert not connection.upstream()
    with guarding(lab, firewall_of(f"iptables-{variant}", [IMAP])) as firewall:
        assert firewall.drops()["ipv4"].packets >= 1, "counters are kept"
        assert len(firewall.banned()) == 1000
        assert not lab.reaches(GUESSER, IMAP)


def test_a_change_of_ports_holds_for_bans_already_there(lab, backend, firewall):
    ban(firewall, f"{GUESSER}/32")
    firewall.close()
    with guarding(lab, firewall_of(backend, [587])):
        assert lab.reaches(GUESSER, IMAP)
        assert not lab.reaches(GUESSER, 587)
    with guarding(lab, firewall_of(backend, None)):
        assert not lab.reaches(GUESSER, IMAP)


def test_the_daemon_bans_with_it_and_says_that_nftables_is_better(lab, tmp_path):
    variant = requires_iptables_of_host()
    within = ("ip", "netns", "exec", lab.host.name)
    with Daemon(tmp_path, within=within, backend="iptables") as daemon:
        connection = lab.connect(GUESSER, IMAP)
        daemon.write(*(failure(GUESSER) for _ in range(5)))
        daemon.until(lambda: [b["enforced"] for b in daemon.ask("bans")["bans"]] == [True])
        assert not connection.upstream()
        assert "nftables is the better choice" in daemon.errors.read_text()
        # The administrator's `iptables -F` on the table, and the daemon's own repair.
        for chain in ("PREROUTING", "MAILWARD"):
            lab.host.run(f"iptables-{variant}", "-t", "raw", "-F", chain)
        assert lab.reaches(GUESSER, IMAP)
        daemon.until(lambda: not lab.reaches(GUESSER, IMAP), 25.0)  # it looks without a reason after 30
        # And the sets as well, in the moment of the next ban.
        for chain in ("PREROUTING", "MAILWARD"):
            lab.host.run(f"iptables-{variant}", "-t", "raw", "-F", chain)
            lab.host.run(f"ip6tables-{variant}", "-t", "raw", "-F", chain)
        lab.host.run("ipset", "destroy")
        daemon.write(*(failure(BYSTANDER) for _ in range(5)))
        daemon.until(lambda: not lab.reaches(BYSTANDER, IMAP), 25.0)
        assert not lab.reaches(GUESSER, IMAP)


def requires_iptables_of_host() -> Variant:
    try:
        variant = variant_of_host()
    except FirewallError:
        variant = "nft"
    requires_iptables(variant)
    return variant
