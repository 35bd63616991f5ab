"""Ports that Docker publishes: a ban closes them as it closes the host's own, whichever way the packets go in.

A real engine, a real container, packets of a client on the wire; `make docker-test` runs these.
"""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

import pytest

from guard.firewall.nftables import NftablesFirewall
from guard.model import Ban, Unban
from tests.daemon import Daemon, failure, session
from tests.system.containers import GATEWAY, PUBLISHED, WITH_IPV6, Engine, requires_engine, until
from tests.system.netns import CLIENTS, Lab, mail_host

pytestmark = [pytest.mark.system, pytest.mark.docker]

GUESSER, BYSTANDER, _ = CLIENTS[:3]
GUESSER6, _, BYSTANDER6 = CLIENTS[3:]
NETS = {GUESSER: f"{GUESSER}/32", GUESSER6: "2001:db8:1:2::/64"}
HOSTED = 25  # SMTP on the host itself; IMAP is in the container
RESUMES = 30.0  # seconds: TCP tries again at growing intervals

WITHOUT_PROXY = WITH_IPV6 | {"userland-proxy": False}
ENGINES = {"default": {}, "IPv6": WITH_IPV6, "without_proxy": WITHOUT_PROXY, "native": WITHOUT_PROXY}


class Place(NamedTuple):
    lab: Lab
    engine: Engine


@pytest.fixture(scope="module", params=ENGINES)
def place(request, tmp_path_factory):
    requires_engine()
    folder, settings = tmp_path_factory.mktemp("engine"), ENGINES[request.param]
    with mail_host() as lab, Engine(lab, folder, settings, native=request.param == "native") as engine:
        engine.publish()
        yield Place(lab, engine)


@pytest.fixture
def firewall(place):
    firewall = NftablesFirewall([HOSTED, PUBLISHED])
    with place.lab.host.entered():
        firewall.open()
        yield firewall
        firewall.remove()


@pytest.fixture
def rules(request):
    return getattr(request, "param", 'ban = "8s"')


@pytest.fixture
def daemon(place, tmp_path, rules):
    within = ("ip", "netns", "exec", place.lab.host.name)
    with Daemon(tmp_path, within=within, backend="nftables", rules=rules) as daemon:
        yield daemon
    place.lab.host.nft("delete table inet mailward")


def only(engine: str):
    return pytest.mark.parametrize("place", [engine], indirect=True, scope="module")


each_family = pytest.mark.parametrize(
    ("guesser", "bystander"), [(GUESSER, BYSTANDER), (GUESSER6, BYSTANDER6)], ids=["IPv4", "IPv6"]
)


def ban(firewall: NftablesFirewall, *clients: str):
    now = time.time()
    assert firewall.apply([Ban(NETS[client], now, now + 600.0, "manual") for client in clients], now) == []


def unban(firewall: NftablesFirewall, *clients: str):
    now = time.time()
    assert firewall.apply([Unban(NETS[client], now, "manual") for client in clients], now) == []


def guess(daemon: Daemon, ip: str):
    sid = session(ip)
    daemon.write(*(failure(ip, sid=sid) for _ in range(5)))


def silent(place: Place, client: str, patience: float = 0.2) -> bool:
    """Tell whether nothing at all comes back from either port, not even a refusal."""
    with contextlib.suppress(TimeoutError):
        place.engine.call(client, patience)
        return False
    return not place.lab.reaches(client, HOSTED, patience)


def served(place: Place, client: str) -> bool:
    return place.engine.serves(client) and place.lab.reaches(client, HOSTED)


@each_family
def test_a_ban_closes_a_published_port_and_a_port_of_the_host(place, firewall, guesser, bystander):
    published, hosted = place.engine.call(guesser), place.lab.connect(guesser, HOSTED)
    others = place.engine.call(bystander), place.lab.connect(bystander, HOSTED)
    assert all(connection.upstream() for connection in (published, hosted, *others))
    ban(firewall, guesser)
    assert not published.upstream(0.2), "an established connection into a container dies as well"
    assert not hosted.upstream(0.2)
    assert silent(place, guesser)
    assert all(connection.upstream() for connection in others)
    assert served(place, bystander)
    unban(firewall, guesser)
    assert served(place, guesser)
    assert published.upstream(RESUMES), "what had stalled goes on"
    assert hosted.upstream(RESUMES)


def test_a_ban_outlasts_docker_restarting(place, firewall):
    stalled = place.engine.call(GUESSER)
    assert stalled.upstream()
    ban(firewall, GUESSER, GUESSER6)
    place.engine.stop()
    assert not place.engine.serves(BYSTANDER), "the container is gone"
    assert silent(place, GUESSER)
    assert silent(place, GUESSER6)
    place.engine.launch()
    while not place.engine.answers():
        assert silent(place, GUESSER, 0.02), "not for a moment"
        assert silent(place, GUESSER6, 0.02)
    place.engine.settle()
    assert silent(place, GUESSER)
    assert silent(place, GUESSER6)
    assert not stalled.upstream(0.2)
    assert served(place, BYSTANDER)
    assert served(place, BYSTANDER6)
    unban(firewall, GUESSER, GUESSER6)
    assert served(place, GUESSER)
    assert served(place, GUESSER6)


def test_a_ban_outlasts_iptables_saved_and_restored(place, firewall):
    ban(firewall, GUESSER, GUESSER6)
    for program in ("iptables", "ip6tables"):
        place.lab.host.run("sh", "-c", f"{program}-save | {program}-restore")
    assert silent(place, GUESSER)
    assert silent(place, GUESSER6)
    assert served(place, BYSTANDER)
    assert served(place, BYSTANDER6)
    unban(firewall, GUESSER, GUESSER6)
    assert served(place, GUESSER)
    assert served(place, GUESSER6)


@only("IPv6")
@each_family
def test_a_guesser_at_a_container_is_banned_by_the_daemon_and_let_in_again(place, daemon, guesser, bystander):
    published, hosted = place.engine.call(guesser), place.lab.connect(guesser, HOSTED)
    others = place.engine.call(bystander), place.lab.connect(bystander, HOSTED)
    guess(daemon, guesser)
    daemon.until(lambda: daemon.ask("bans")["bans"] and daemon.ask("bans")["bans"][0]["enforced"])
    assert not published.upstream(0.2)
    assert not hosted.upstream(0.2)
    assert silent(place, guesser)
    assert all(connection.upstream() for connection in others)
    assert served(place, bystander)
    until(lambda: served(place, guesser), 30.0)
    assert published.upstream(RESUMES)


@only("IPv6")
@pytest.mark.parametrize("rules", ['ban = "1h"'], indirect=True)
def test_a_daemons_bans_outlast_docker_restarting_and_drift_from_nothing(place, daemon):
    for guesser in (GUESSER, GUESSER6):
        guess(daemon, guesser)
    daemon.until(lambda: [ban["enforced"] for ban in daemon.ask("bans")["bans"]] == [True, True])
    place.engine.stop()
    place.engine.launch()
    until(place.engine.answers, 60.0)
    place.engine.settle()
    assert silent(place, GUESSER)
    assert silent(place, GUESSER6)
    assert served(place, BYSTANDER)
    assert served(place, BYSTANDER6)
    bans = daemon.ask("status")["bans"]
    assert (bans["wanted"], bans["enforced"], sum(bans["drift"].values())) == (
        {"ipv4": 1, "ipv6": 1},
        {"ipv4": 1, "ipv6": 1},
        0,
    )


@each_family
def test_whom_a_container_takes_for_its_client(request, place, guesser, bystander):
    """What its log then says: a ban cannot help where the log names somebody else than the guesser."""
    before = place.engine.clients()
    connection = place.engine.call(guesser)
    assert connection.upstream()
    in_between = ":" in guesser and "default" in request.node.callspec.id
    assert place.engine.clients() - before == {GATEWAY if in_between else guesser: 1}


@only("default")
def test_the_gateway_that_stands_for_everybody_is_never_banned(place, daemon):
    guess(daemon, GATEWAY)
    daemon.has_read(5)
    guess(daemon, GUESSER)
    daemon.until(lambda: daemon.ask("bans")["bans"])
    assert [found["net"] for found in daemon.ask("bans")["bans"]] == [NETS[GUESSER]]
    assert served(place, BYSTANDER6)
    assert silent(place, GUESSER)
