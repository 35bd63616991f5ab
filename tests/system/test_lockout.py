"""Nobody is locked out: the daemon, the kernel, and log lines that would ban this host's way to the world.

A plain TCP listener on port 22 stands in for sshd: what protects is the transport, and how long it lasts
(tests/firewall/test_ssh_sessions.py has the clock in hand).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.app._enforcer import Enforcer
from guard.app._lockout import Lockout
from guard.app._pipeline import Pipeline
from guard.clock import Clock
from guard.engine import Engine
from guard.firewall.dry_run import DryRunFirewall
from guard.firewall.protected import Protected
from guard.firewall.ssh_sessions import SshSessions
from guard.model import Policy
from tests.daemon import Daemon, failure
from tests.system.netns import CLIENTS, GATEWAY4, GATEWAY6, HOST4, Connection, Lab, mail_host, run

pytestmark = pytest.mark.system

ADMIN, NEIGHBOUR, OTHER = CLIENTS[:3]  # the first two in one /24
GUESSER6 = CLIENTS[3]
RESOLVER = "203.0.113.53"
IMAP, SSH = 143, 22


@pytest.fixture
def lab():
    with mail_host() as lab:
        yield lab


def guarding(lab: Lab, folder: Path, rules: str = "", firewall: str = "", more: str = "") -> Daemon:
    """Return a daemon that bans at the first failure, with metrics, in the host's network and with its own resolver."""
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {RESOLVER}\n")
    inside = ("ip", "netns", "exec", lab.host.name)
    daemon = Daemon(
        folder, within=(*inside, "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolver))
    )
    daemon.configure(
        f'[rules.brute_force]\nfailures = 1\n{rules}\n[firewall]\nbackend = "nftables"\n{firewall}\n'
        f'[log]\nformat = "json"\n{more}\n'
    )
    return daemon


def banned(daemon: Daemon) -> dict[str, bool]:
    return {ban["net"]: ban["enforced"] for ban in daemon.ask("bans")["bans"]}


def metric(lab: Lab, name: str) -> float:
    with lab.host.entered(), urllib.request.urlopen("http://127.0.0.1:9780/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)


def said(daemon: Daemon, event: str) -> list[dict[str, object]]:
    return [one for one in daemon.events() if one["event"] == event]


def kernel(lab: Lab) -> str:
    return lab.host.run("nft", "list", "ruleset")


def until(condition: Callable[[], bool], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_way_to_the_world_is_never_a_client_and_that_is_told_once(lab, tmp_path):
    with guarding(lab, tmp_path) as daemon:
        ways = {
            GATEWAY4: "a gateway of this host",
            GATEWAY6: "a gateway of this host",
            RESOLVER: "a resolver of this host",
            HOST4: "an address of this host",
        }
        daemon.write(*(failure(address) for address in ways), failure(OTHER))
        until(lambda: banned(daemon) == {f"{OTHER}/32": True})
        daemon.write(*(failure(address) for address in ways))
        daemon.has_read(9)
        told = said(daemon, "failed logins from an address that is never banned")
        assert {one["ip"]: one["what"] for one in told} == ways
        assert len(told) == 4
        assert banned(daemon) == {f"{OTHER}/32": True}
        assert not any(address in kernel(lab) for address in ways)
        assert metric(lab, 'mailward_ignored_total{reason="own"}') == 8


def test_whoever_has_an_ssh_session_open_is_not_banned_and_that_is_told_once(lab, tmp_path):
    with guarding(lab, tmp_path) as daemon:
        ssh, mail = lab.connect(ADMIN, SSH), lab.connect(ADMIN, IMAP)
        for n in range(3):
            daemon.write(failure(ADMIN))
            daemon.has_read(n + 1)
        daemon.write(failure(OTHER))
        until(lambda: banned(daemon) == {f"{OTHER}/32": True})
        [told] = said(daemon, "a ban is refused")
        assert told["net"] == f"{ADMIN}/32"
        assert "SSH session" in str(told["reason"])
        assert told["level"] == "error"
        assert metric(lab, 'mailward_ignored_total{reason="own"}') == 3
        assert metric(lab, 'mailward_unbans_total{cause="revoked"}') == 3
        wanted, enforced = (daemon.ask("status")["bans"][which]["ipv4"] for which in ("wanted", "enforced"))
        assert wanted == enforced == 1
        assert ADMIN not in kernel(lab)
        assert mail.delivers()
        ssh.close()
        daemon.write(failure(ADMIN))
        until(lambda: banned(daemon).get(f"{ADMIN}/32", False))
        ban = next(ban for ban in daemon.ask("bans")["bans"] if ban["net"] == f"{ADMIN}/32")
        assert ban["seconds"] == 3600, "refused bans do not make the next one longer"


def test_in_the_net_of_an_administrator_every_address_stands_for_itself(lab, tmp_path):
    with guarding(lab, tmp_path, rules="prefix4 = 24") as daemon:
        lab.connect(ADMIN, SSH)
        daemon.write(failure(NEIGHBOUR))
        until(lambda: bool(said(daemon, "a ban is refused")))
        assert banned(daemon) == {}
        daemon.write(failure(NEIGHBOUR), failure(ADMIN), failure(OTHER))
        until(lambda: banned(daemon) == {f"{NEIGHBOUR}/32": True, "198.51.101.0/24": True})


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (HOST4, f"{HOST4} is an address of this host"),
        (GATEWAY4, f"{GATEWAY4} is a gateway of this host"),
        (GATEWAY6, f"{GATEWAY6} is a gateway of this host"),
        (RESOLVER, f"{RESOLVER} is a resolver of this host"),
        (ADMIN, f"{ADMIN} is the client of an SSH session that is open on this host"),
        ("203.0.0.0/16", f"203.0.0.0/16 holds {RESOLVER}, a resolver of this host"),
        ("0.0.0.0/0", "0.0.0.0/0 holds "),
        ("::/0", "::/0 holds "),
        ("2001:db8:ffff::/48", "2001:db8:ffff::/48 holds "),
        ("10.1.2.3", "lists.trusted"),
    ],
)
def test_what_is_never_banned_is_refused_by_hand_too(shared, net, reason):
    for command in (("ban", net), ("ban", net, "--force"), ("deny", "add", net, "--force")):
        done = shared.command(*command)
        assert done.returncode == 1
        assert done.stdout == ""
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert banned(shared) == {}
    assert shared.ask("lists")["deny"] == []


def test_a_net_that_is_a_part_of_the_internet_needs_force(shared):
    for net in ("64.0.0.0/7", "2a00::/32"):
        done = shared.command("ban", net)
        assert done.returncode == 1
        assert "use --force if you mean it" in done.stderr
        assert shared.command("ban", net, "--force").returncode == 0
        assert banned(shared) == {net: True}
        assert shared.command("unban", net).returncode == 0
    for net in ("64.0.0.0/8", "2a00::/33"):
        assert shared.command("ban", net).returncode == 0
        assert shared.command("unban", net).returncode == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A daemon that the tests of this module share; ADMIN has an SSH session open."""
    with mail_host() as lab, guarding(lab, tmp_path_factory.mktemp("daemon")) as daemon:
        lab.connect(ADMIN, SSH)
        yield daemon


def test_a_ban_in_force_ends_when_its_net_comes_to_hold_a_gateway(lab, tmp_path):
    with guarding(lab, tmp_path) as daemon:
        daemon.write(failure(OTHER), failure(NEIGHBOUR))
        until(lambda: banned(daemon) == {f"{OTHER}/32": True, f"{NEIGHBOUR}/32": True})
        daemon.has_saved()
        daemon.kill()
        for route in (f"{OTHER} dev eth0", f"203.0.113.0/24 via {OTHER}"):
            run("ip", "-n", lab.host.name, "route", "add", *route.split())
        daemon.start()
        until(lambda: banned(daemon) == {f"{NEIGHBOUR}/32": True})
        until(lambda: OTHER not in kernel(lab))
        assert NEIGHBOUR in kernel(lab)


def test_an_entry_of_the_deny_list_waits_until_the_session_in_it_ends(lab):
    with lab.host.entered():
        lockout, engine = made(Policy(deny=(f"{ADMIN}/32", "192.168.0.0/16")))
        ssh = lab.connect(ADMIN, SSH)
        admitted, _ = lockout.admit(
            engine.configure(Policy(deny=(f"{ADMIN}/32", "192.168.0.0/16")), time.time())
        )
        assert admitted == []
        assert lockout.admit(lockout.deny_again())[0] == []
        assert engine.stats.ignored.values == {("own",): 2, ("trusted",): 2}
        ssh.close()
        until(lambda: [ban.net for ban in lockout.admit(lockout.deny_again())[0]] == [f"{ADMIN}/32"])
        assert lockout.admit(lockout.deny_again())[0] == []
        assert [ban.net for ban in engine.active_bans()] == [f"{ADMIN}/32"]


def test_what_only_the_firewall_objects_to_is_wanted_no_more(lab):
    async def refused() -> dict[str, str]:
        lockout, engine = made(Policy(trusted=()), trusted=())
        enforcer = Enforcer(DryRunFirewall([f"{OTHER}/32"]), engine.stats, engine.active_bans)
        pipeline = Pipeline(engine, enforcer.take, lockout)
        enforcer.refused = pipeline.take_back
        work = asyncio.create_task(enforcer.run())
        for net in (f"{OTHER}/32", f"{ADMIN}/32"):
            pipeline.act(engine.ban(net, 60.0, time.time()))
        reasons = await enforcer.settled()
        assert [ban.net for ban in engine.active_bans()] == [f"{ADMIN}/32"]
        work.cancel()
        return reasons

    with lab.host.entered():
        reasons = asyncio.run(refused())
    assert list(reasons) == [f"{OTHER}/32"]
    assert "lists.trusted" in reasons[f"{OTHER}/32"]


def made(policy: Policy, trusted: tuple[str, ...] | None = None) -> tuple[Lockout, Engine]:
    engine = Engine(policy, clock=Clock(now=time.time(), live=True))
    nets = policy.trusted if trusted is None else trusted
    return Lockout(engine, Protected(nets, SshSessions((SSH,), environment={}))), engine


# -- established connections -------------------------------------------------------------------------------------------


class Waiting:
    """A server's thread that waits for its client's next word, as a Dovecot login process does."""

    def __init__(self, connection: Connection) -> None:
        self.error: int | None = None
        self.ended = 0.0
        self._connection = connection
        self._thread = threading.Thread(target=self._wait, daemon=True)
        connection.server.settimeout(None)
        self._thread.start()

    def _wait(self) -> None:
        try:
            self._connection.server.recv(1)
        except OSError as error:
            self.error = error.errno
        self.ended = time.monotonic()

    def ends(self, patience: float) -> bool:
        self._thread.join(patience)
        return not self._thread.is_alive()


@pytest.mark.parametrize("ports", ["", 'ports = "all"'], ids=["mail ports", "all ports"])
def test_the_server_of_a_banned_client_waits_no_longer(lab, tmp_path, ports):
    with guarding(lab, tmp_path, firewall=ports) as daemon:
        his, in_64, other = (Waiting(lab.connect(client, IMAP)) for client in (ADMIN, GUESSER6, OTHER))
        began = time.monotonic()
        daemon.write(failure(ADMIN), failure(CLIENTS[4]))
        for one in (his, in_64):
            assert one.ends(2.0)
            assert one.error == errno.ECONNABORTED
        print(
            "line -> server's side closed, ms:", [round((one.ended - began) * 1000) for one in (his, in_64)]
        )
        assert not other.ends(0.1)
        assert lab.connect(OTHER, IMAP).delivers()
        daemon.until(lambda: said(daemon, "connections of banned clients are closed"))


def test_ssh_is_on_the_ports_that_the_configuration_names(lab, tmp_path):
    with guarding(lab, tmp_path, firewall="ssh_ports = [2222]\nports = [22, 143, 2222]") as daemon:
        plain, ssh = lab.connect(ADMIN, SSH), lab.connect(OTHER, 2222)
        daemon.write(failure(ADMIN), failure(OTHER))
        waiting = Waiting(plain)
        assert waiting.ends(2.0), "port 22 is a port like any other here"
        daemon.has_read(2)
        assert banned(daemon) == {f"{ADMIN}/32": True}
        assert ssh.delivers()


def test_without_close_sockets_the_connection_stalls(lab, tmp_path):
    with guarding(lab, tmp_path, firewall="close_sockets = false") as daemon:
        his = Waiting(lab.connect(ADMIN, IMAP))
        daemon.write(failure(ADMIN))
        until(lambda: banned(daemon) == {f"{ADMIN}/32": True})
        assert not his.ends(0.3)
        with contextlib.suppress(OSError):
            his._connection.close()
