"""Host names of the allow list as a host has them: /etc/resolv.conf, a name server, its failure, a restart."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.daemon import Daemon, failure, session
from tests.nameserver import NameServer
from tests.system.netns import namespace, requires_namespaces

pytestmark = pytest.mark.system

HOME, AWAY, GUESSER = "198.51.100.7", "203.0.113.9", "203.0.113.66"
OFFICE = "office.example.org"
BIND = 'mount --bind "$1" /etc/resolv.conf && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'


@pytest.fixture
def host(tmp_path):
    """A namespace whose only name server is ours, and a daemon in it that sees this in /etc/resolv.conf."""
    requires_namespaces()
    with namespace("names") as host:
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
        within = ("ip", "netns", "exec", host.name, "sh", "-c", BIND, "sh")
        files = (f"{tmp_path}/resolv.conf", f"{tmp_path}/hosts")
        (tmp_path / "allow").write_text(f"{OFFICE}\n")
        more = f'[lists]\nallow = ["{tmp_path}/allow"]\ndeny = ["{AWAY}"]'
        with host.entered():
            server = NameServer({(OFFICE, "A"): (300, [HOME])}, port=53)
        with server:
            yield server, Daemon(tmp_path, within=(*within, *files), more=more)


def bans(daemon: Daemon) -> set[str]:
    return {ban["net"] for ban in daemon.ask("bans")["bans"]}


def guess(daemon: Daemon, ip: str) -> None:
    sid = session(ip)
    daemon.write(*(failure(ip, sid=sid) for _ in range(5)))


def test_a_names_new_address_ends_its_ban_and_the_last_good_one_outlives_dns_and_a_restart(host):
    server, daemon = host
    with daemon:
        for ip in (HOME, GUESSER):
            guess(daemon, ip)
        daemon.has_read(10)
        assert bans(daemon) == {f"{AWAY}/32", f"{GUESSER}/32"}, "the office is never banned"

        server.zone[OFFICE, "A"] = 300, [AWAY]
        daemon.signal(signal.SIGHUP)  # looks names up at once; else it would be the TTL
        daemon.until(lambda: bans(daemon) == {f"{GUESSER}/32"})
        guess(daemon, HOME)
        daemon.until(lambda: bans(daemon) == {f"{GUESSER}/32", f"{HOME}/32"})
        assert daemon.command("allow").stdout.startswith(
            f"{AWAY}/32  {OFFICE} in {daemon.folder}/allow (TTL 300 s"
        )

        server.zone[OFFICE, "A"] = 300, [HOME]
        daemon.signal(signal.SIGHUP)
        daemon.until(lambda: bans(daemon) == {f"{GUESSER}/32", f"{AWAY}/32"})

        daemon.has_saved()
        server.close()
        daemon.kill()
        daemon.start()
        assert daemon.ask("lists")["allow"] == [f"{HOME}/32"]
        guess(daemon, HOME)
        daemon.has_read(20)
        assert bans(daemon) == {f"{GUESSER}/32", f"{AWAY}/32"}
        daemon.until(lambda: daemon.ask("lists")["allow_origins"][-1]["trouble"] == "no name server answers")
        [told] = [event for event in daemon.events() if "does not resolve" in str(event["event"])]
        assert told["addresses"] == [f"{HOME}/32"]


def test_a_name_of_the_hosts_file_needs_no_name_server(host):
    server, daemon = host
    server.close()
    Path(daemon.folder, "hosts").write_text(f"{HOME} {OFFICE}\n{AWAY} {OFFICE}\n")
    with daemon:
        assert daemon.ask("lists")["allow"] == [f"{HOME}/32", f"{AWAY}/32"]
        assert bans(daemon) == set()
