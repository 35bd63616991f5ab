"""Somebody takes our bans out of the kernel: the real daemon puts them back by itself, as packets show."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time

import pytest

from guard.app._enforcer import Enforcer
from guard.app._suspicion import Suspicion
from guard.firewall.monitor import Monitor
from guard.firewall.nftables import NftablesFirewall
from guard.model import Ban, Unban
from guard.stats import Stats
from tests.daemon import Daemon, failure
from tests.system.netns import CLIENTS, Lab, mail_host

pytestmark = pytest.mark.system

GUESSER, BYSTANDER, _ = CLIENTS[:3]
GUESSER6 = CLIENTS[3]
IMAP = 143
PATIENCE = 15.0  # seconds: far below the 30 after which the daemon looks without a reason
T = "inet mailward"


@pytest.fixture
def lab():
    with mail_host() as lab:
        yield lab


def guarding(lab: Lab, folder, more: str = "", rules: str = "") -> Daemon:
    within = ("ip", "netns", "exec", lab.host.name)
    return Daemon(folder, within=within, backend="nftables", rules=rules, more=more)


def until(condition, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def status(daemon: Daemon):
    return daemon.ask("status")["bans"]


def listed(lab: Lab, name: str = "ban4_32") -> dict[str, float]:
    """Return what nft(8) says that a set of ours holds."""
    text = lab.host.run("nft", "-j", "list", "set", "inet", "mailward", name)
    [entry] = [entry["set"] for entry in json.loads(text)["nftables"] if "set" in entry]
    items = [
        item.get("elem", item) if isinstance(item, dict) else {"val": item} for item in entry.get("elem", ())
    ]
    return {item["val"]: item.get("expires", float("inf")) for item in items}


FAULTS = {
    "flush ruleset": "flush ruleset",
    "table deleted": f"delete table {T}",
    "rules flushed": f"flush chain {T} banned",
    "chains deleted": f"flush chain {T} prerouting; flush chain {T} banned; delete chain {T} banned; delete chain {T} prerouting",
    "accepted before us": f"insert rule {T} prerouting accept",
    "another hook": f"flush chain {T} prerouting; delete chain {T} prerouting; add chain {T} prerouting {{ type filter hook input priority 0; }}",
    "asleep": f"add table {T} {{ flags dormant; }}",
    "set deleted": f"flush chain {T} banned; delete set {T} ban4_32",
    "set emptied": f"flush set {T} ban4_32",
    "element removed": f"delete element {T} ban4_32 {{ {GUESSER} }}",
}


def test_whatever_is_taken_away_comes_back_by_itself(lab, tmp_path):
    with guarding(lab, tmp_path) as daemon:
        daemon.ask("ban", net=GUESSER, seconds=3600)
        daemon.ask("ban", net="2001:db8:1:2::/64", seconds=3600)
        his = {"ipv4": 1, "ipv6": 1}
        for name, fault in FAULTS.items():
            before = status(daemon)["drift"]
            lab.host.nft(fault)
            until(lambda before=before: status(daemon)["drift"] != before)
            until(lambda: not lab.reaches(GUESSER, IMAP, 0.1) and not lab.reaches(GUESSER6, IMAP, 0.1))
            until(lambda: status(daemon)["wanted"] == status(daemon)["enforced"] == his)
            assert lab.reaches(BYSTANDER, IMAP), name
        assert 3500 < listed(lab)[GUESSER] <= 3601


def test_an_end_that_somebody_changed_is_set_anew(lab, tmp_path):
    with guarding(lab, tmp_path) as daemon:
        daemon.ask("ban", net=GUESSER, seconds=3600)
        for other in ("timeout 2s", "timeout 9d", ""):
            before = status(daemon)["drift"]["timeout"]
            lab.host.nft(
                f"delete element {T} ban4_32 {{ {GUESSER} }}; add element {T} ban4_32 {{ {GUESSER} {other} }}"
            )
            until(lambda before=before: status(daemon)["drift"]["timeout"] > before)
            assert 3500 < listed(lab)[GUESSER] <= 3601


@pytest.mark.parametrize("mode", ["keep", "remove"])
def test_what_nobody_decided_is_shown_or_taken_away(lab, tmp_path, mode):
    daemon = guarding(lab, tmp_path)
    daemon.configure(f'[firewall]\nforeign = "{mode}"\n[http]\nlisten = ""')
    with daemon:
        lab.host.nft(f"add element {T} ban4_32 {{ {GUESSER} }}")
        until(lambda: status(daemon)["drift"]["foreign"] == 1)
        assert lab.reaches(GUESSER, IMAP) == (mode == "remove")
        kept = [f"{GUESSER}/32"] if mode == "keep" else []
        assert daemon.ask("bans")["foreign"] == kept
        assert status(daemon)["foreign"]["ipv4"] == status(daemon)["enforced"]["ipv4"] == len(kept)
        assert (GUESSER in daemon.command("bans").stdout) == bool(kept)


def test_a_thousand_bans_outlive_a_kill_and_a_flush(lab, tmp_path):
    with guarding(lab, tmp_path, rules="failures = 1") as daemon:
        ips = [GUESSER, *(f"198.19.{i // 250}.{i % 250}" for i in range(999))]
        daemon.write(*(failure(ip) for ip in ips))
        daemon.until(lambda: status(daemon)["enforced"]["ipv4"] == 1000)
        daemon.has_saved()
        daemon.kill()
        assert not lab.reaches(GUESSER, IMAP), "the kernel bans without us"
        lab.host.nft("flush ruleset")
        assert lab.reaches(GUESSER, IMAP)
        daemon.start()
        until(lambda: status(daemon)["enforced"]["ipv4"] == 1000)
        assert listed(lab).keys() == set(ips)
        assert not lab.reaches(GUESSER, IMAP)


def test_without_ipv6_bans_of_both_families_are_no_trouble(lab, tmp_path):
    lab.host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    with guarding(lab, tmp_path) as daemon:
        for net in (GUESSER, "2001:db8:1:2::/64"):
            assert daemon.ask("ban", net=net, seconds=600)["done"][0]["enforced"]
        assert not lab.reaches(GUESSER, IMAP)
        assert status(daemon)["enforced"] == {"ipv4": 1, "ipv6": 1}


class Guard:
    """An enforcer on a real firewall, its wanted bans in hand, and a clock that can be set: the host's own cannot."""

    def __init__(self) -> None:
        self.step = 0.0
        self.bans: dict[str, Ban] = {}
        self.stats = Stats()
        clock = lambda: time.time() + self.step  # noqa: E731
        self.enforcer = Enforcer(
            NftablesFirewall([25, IMAP]), self.stats, lambda: list(self.bans.values()), Suspicion(clock, Monitor), clock=clock
        )  # fmt: skip

    async def ban(self, net: str, seconds: float = 600.0) -> None:
        now = time.time() + self.step
        self.bans[net] = Ban(net, now, now + seconds, "brute_force")
        self.enforcer.take([self.bans[net]])
        assert await self.enforcer.settled() == {}

    async def during(self, work) -> None:
        await self.enforcer.open()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(task) for task in (self.enforcer.run(), self.enforcer.keep())]
            await work()
            for task in tasks:
                task.cancel()
        await self.enforcer.close()


@pytest.mark.parametrize(("step", "left"), [(-3600.0, 4200.0), (500.0, 100.0)])
def test_a_step_of_the_clock_moves_the_ends_in_the_kernel(lab, step, left):
    """`until` is a time of day and the kernel counts from now.  The clock is set at the enforcer's seam."""
    guard = Guard()

    async def work() -> None:
        await guard.ban(f"{GUESSER}/32")
        guard.step = step
        async with asyncio.timeout(PATIENCE):
            while not guard.stats.ban_drift.values.get(("timeout",)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert left - 30 < listed(lab)[GUESSER] <= left + 1

    with lab.host.entered():
        asyncio.run(guard.during(work))


def test_a_slow_transaction_of_somebody_else_delays_a_ban_and_loses_nothing(lab, tmp_path):
    file = tmp_path / "slow.nft"
    addresses = ", ".join(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(150_000))
    file.write_text(
        f"table ip slow {{ set s {{ type ipv4_addr; flags interval; elements = {{ {addresses} }}; }}; }}"
    )
    guard, gaps, took = Guard(), [0.0], [0.0]

    async def beat() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - began)

    async def work() -> None:
        slow = subprocess.Popen(["nft", "-f", str(file)])  # noqa: ASYNC220
        beating = asyncio.ensure_future(beat())
        n = 0
        while slow.poll() is None:
            began = time.monotonic()
            await guard.ban(f"198.19.{n // 250}.{n % 250}/32")
            took.append(time.monotonic() - began)
            n += 1
            await asyncio.sleep(0.4)  # each of ours makes nft begin anew
        beating.cancel()
        assert slow.returncode == 0
        assert len(listed(lab)) == n == len(guard.bans)

    with lab.host.entered():
        asyncio.run(guard.during(work))
    assert max(took) > 0.1, "no ban met the slow transaction"
    assert max(gaps) < max(took) / 2, "the loop was held up with it"


def test_what_is_decided_during_a_comparison_is_not_undone(lab):
    now = time.time()
    nets = [f"198.{18 + i // 62500}.{i // 250 % 250}.{i % 250}/32" for i in range(1000, 21000)]
    wanted = {net: Ban(net, now, now + 600, "brute_force") for net in nets}
    with lab.host.entered():
        firewall = NftablesFirewall([IMAP])
        firewall.open()
        assert firewall.reconcile(wanted, now).missing == len(nets)
        lab.host.nft(f"delete element {T} ban4_32 {{ {', '.join(net[:-3] for net in nets[:9000])} }}")
        done = threading.Event()

        def compare() -> None:
            with lab.host.entered():
                for _ in range(3):
                    firewall.reconcile(wanted, now, keep_foreign=False)
            done.set()

        thread = threading.Thread(target=compare)
        thread.start()
        ended, fresh = [], []
        for net in nets:
            if done.is_set():
                break
            ended.append(net)
            fresh.append(net.replace("198.18.", "198.51.").replace("198.19.", "198.51."))
            firewall.apply([Unban(net, now, "manual"), Ban(fresh[-1], now, now + 600, "brute_force")], now)
        thread.join()
        held = {element.net for element in firewall.banned()}
        assert len(ended) > 20
        assert held.isdisjoint(ended)
        assert set(fresh) <= held
        assert held == {*nets, *fresh} - set(ended)
