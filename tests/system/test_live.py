"""The product as it runs: a real daemon, a real log file, the real kernel, a client on the wire."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.firewall.nftables import NftablesFirewall
from tests.daemon import Daemon, failure, session
from tests.system.netns import CLIENTS, Lab, mail_host

pytestmark = pytest.mark.system

GUESSER, BYSTANDER, _ = CLIENTS[:3]
GUESSER6, SAME_64, OTHER_64 = CLIENTS[3:]
IMAP, SSH = 143, 22


@pytest.fixture
def lab():
    with mail_host() as lab:
        yield lab


@pytest.fixture
def daemon(lab, tmp_path):
    with guarding(lab, tmp_path) as daemon:
        yield daemon


def guarding(lab: Lab, folder: Path, ban: str = "1h", more: str = "") -> Daemon:
    within = ("ip", "netns", "exec", lab.host.name)
    return Daemon(folder, within=within, backend="nftables", rules=f'ban = "{ban}"', more=more)


def guess(daemon: Daemon, ip: str, times: int = 5) -> None:
    sid = session(ip)
    daemon.write(*(failure(ip, sid=sid) for _ in range(times)))


def banned(daemon: Daemon) -> dict[str, bool]:
    return {ban["net"]: ban["enforced"] for ban in daemon.ask("bans")["bans"]}


def until(condition: Callable[[], bool], patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_guesser_loses_his_connection_and_everybody_else_keeps_his(lab, tmp_path):
    with guarding(lab, tmp_path, ban="8s") as daemon:
        his, other = lab.connect(GUESSER, IMAP), lab.connect(BYSTANDER, IMAP)
        assert his.delivers()
        began = time.monotonic()
        guess(daemon, GUESSER)
        until(lambda: banned(daemon) == {f"{GUESSER}/32": True})
        assert not his.upstream(0.2), "an established connection dies as well"
        assert time.monotonic() - began < 8.0, "the ban is in force"
        assert not lab.reaches(GUESSER, IMAP)
        assert lab.reaches(GUESSER, SSH), "only the mail ports are closed"
        assert other.delivers()
        assert lab.reaches(BYSTANDER, IMAP)
        until(lambda: not banned(daemon), 40.0)
        until(lambda: lab.reaches(GUESSER, IMAP))


def test_a_guesser_within_his_64_is_one_client(lab, daemon):
    his, other = lab.connect(SAME_64, IMAP), lab.connect(OTHER_64, IMAP)
    guess(daemon, GUESSER6, 3)
    guess(daemon, SAME_64, 2)
    until(lambda: banned(daemon) == {"2001:db8:1:2::/64": True})
    assert not his.upstream(0.2)
    assert not lab.reaches(GUESSER6, IMAP)
    assert other.delivers()
    assert lab.reaches(OTHER_64, IMAP)


def test_from_line_to_kernel_takes_milliseconds(lab, daemon, record_property):
    nets = []
    with lab.host.entered():
        kernel = NftablesFirewall([IMAP])
        kernel.open()
        taken = []
        for number in range(1, 11):
            ip = f"203.0.113.{number}"
            guess(daemon, ip, 4)
            time.sleep(0.05)
            began = time.monotonic()
            guess(daemon, ip, 1)
            nets.append(f"{ip}/32")
            until(lambda: nets[-1] in {element.net for element in kernel.banned()})
            taken.append(time.monotonic() - began)
        kernel.close()
    taken.sort()
    record_property("line_to_kernel_ms", [round(seconds * 1000, 1) for seconds in taken])
    print("line -> kernel, ms:", [round(seconds * 1000, 1) for seconds in taken])
    assert taken[len(taken) // 2] < 1.0


def test_kill_and_restart_keep_counts_and_bans(lab, daemon):
    guess(daemon, GUESSER, 4)
    guess(daemon, BYSTANDER, 5)
    until(lambda: banned(daemon) == {f"{BYSTANDER}/32": True})
    before = daemon.ask("report")
    daemon.kill()
    assert not lab.reaches(BYSTANDER, IMAP), "the kernel bans without us"
    lab.host.nft("flush ruleset")
    daemon.start()
    until(lambda: daemon.ask("report") == before)
    until(lambda: banned(daemon) == {f"{BYSTANDER}/32": True})
    assert not lab.reaches(BYSTANDER, IMAP), "a ban that the kernel has lost is asserted anew"
    guess(daemon, GUESSER, 1)
    until(lambda: set(banned(daemon)) == {f"{BYSTANDER}/32", f"{GUESSER}/32"})


def test_what_is_written_while_it_is_down_counts_once_it_is_back(lab, daemon):
    guess(daemon, GUESSER, 3)
    daemon.has_read(3)
    daemon.has_saved()
    daemon.kill()
    guess(daemon, GUESSER, 2)
    daemon.start()
    until(lambda: banned(daemon) == {f"{GUESSER}/32": True})
    assert daemon.ask("report")["sources"][0]["failures"] == 5


def test_a_ruleset_that_somebody_flushes_comes_back(lab, daemon):
    guess(daemon, GUESSER)
    until(lambda: banned(daemon) == {f"{GUESSER}/32": True})
    lab.host.nft("flush ruleset")
    assert lab.reaches(GUESSER, IMAP)
    guess(daemon, BYSTANDER)
    until(lambda: set(banned(daemon)) == {f"{GUESSER}/32", f"{BYSTANDER}/32"})
    until(lambda: not lab.reaches(GUESSER, IMAP) and not lab.reaches(BYSTANDER, IMAP))


def test_the_commands_act_on_the_daemon_and_its_kernel(lab, daemon):
    done = daemon.command("ban", GUESSER, "--for", "2h", "--reason", "guesses at night")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"banned {GUESSER}/32\n", "")
    assert not lab.reaches(GUESSER, IMAP)
    listed = json.loads(daemon.command("bans", "--format", "json").stdout)
    assert listed["schema"] == "mailward.bans/1"
    [ban] = listed["bans"]
    assert (ban["net"], ban["rule"], ban["enforced"], ban["reason"]) == (
        f"{GUESSER}/32",
        "manual",
        True,
        "guesses at night",
    )
    assert "guesses at night" in daemon.command("bans").stdout
    assert (
        json.loads(daemon.command("explain", "--ip", GUESSER, "--format", "json").stdout)["address"]["ban"][
            "rule"
        ]
        == "manual"
    )
    assert "banned by manual" in daemon.command("explain", "--ip", GUESSER).stdout
    assert daemon.command("unban", GUESSER).returncode == 0
    assert lab.reaches(GUESSER, IMAP)
    again = daemon.command("unban", GUESSER)
    assert (again.returncode, again.stdout) == (1, "")
    own = daemon.command("ban", "198.18.0.1")
    assert own.returncode == 1
    assert "198.18.0.1 is an address of this host" in own.stderr
    status = json.loads(daemon.command("status", "--format", "json").stdout)
    assert status["firewall"]["backend"] == "nftables"
    assert daemon.command("status").returncode == 0


def test_the_lists_act_at_once(lab, daemon):
    guess(daemon, GUESSER)
    until(lambda: banned(daemon) == {f"{GUESSER}/32": True})
    assert daemon.command("allow", "add", "198.51.100.0/24").returncode == 0
    assert lab.reaches(GUESSER, IMAP)
    guess(daemon, GUESSER)
    daemon.has_read(10)
    assert banned(daemon) == {}
    assert daemon.command("allow", "remove", "198.51.100.0/24").returncode == 0
    assert daemon.command("deny", "add", GUESSER).returncode == 0
    assert not lab.reaches(GUESSER, IMAP)
    assert daemon.command("deny").stdout == f"{GUESSER}/32  by hand\n"
    assert daemon.command("deny", "remove", GUESSER).returncode == 0
    assert lab.reaches(GUESSER, IMAP)


def test_a_clean_stop_leaves_the_bans_in_the_kernel(lab, daemon):
    guess(daemon, GUESSER)
    until(lambda: banned(daemon) == {f"{GUESSER}/32": True})
    assert daemon.stop() == 0
    assert not lab.reaches(GUESSER, IMAP)


def test_a_reload_takes_the_deny_list_and_keeps_the_old_configuration_on_a_mistake(lab, daemon):
    text = f'[lists]\ndeny = ["{GUESSER}"]\n[firewall]\nbackend = "nftables"\n[http]\nlisten = ""'
    daemon.configure(text)
    daemon.signal(signal.SIGHUP)
    until(lambda: banned(daemon) == {f"{GUESSER}/32": True})
    daemon.configure(text + "\n[rules.brute_force]\nfailures = 0")
    daemon.signal(signal.SIGHUP)
    until(lambda: not daemon.ask("status")["configuration"]["ok"])
    assert not lab.reaches(GUESSER, IMAP)
    assert any("failures" in str(event.get("problem")) for event in daemon.events())
