"""What a ban costs, in network namespaces of its own; needs root, ip and nft.

    python benchmarks/bans.py [restore|one|packets]     # default: all three

restore  bans brought back after a flush: 100,000 through the backend; 5000 through it, through one `nft add element`
         process a ban and through one `nft add rule` process a ban (what fail2ban and mailcow do).
one      a further ban at 100,000, from the decision to the kernel's confirmation, through the real enforcer: p50 and
         p99; alone, and while the kernel is compared with what is wanted.
packets  UDP datagrams a second that one core receives from an address that is not banned: through 0, 1000, 10,000 and
         100,000 bans in sets and through 10,000 rules. Ratio to a measurement without a firewall just before.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from guard.app._enforcer import Enforcer
from guard.app._suspicion import Suspicion
from guard.firewall.monitor import Monitor
from guard.firewall.nftables import NftablesFirewall
from guard.model import Ban
from guard.stats import Stats
from tests.system.netns import CLIENTS, HOST4, Lab, mail_host

FEW, MANY = 5000, 100_000
SAMPLES = 300
SECONDS = 1.0
ROUNDS = 5


def bans(n: int, seed: int = 1) -> dict[str, Ban]:
    """Return `n` bans of hosts in 20.0.0.0/6."""
    now, chance = time.time(), random.Random(seed)
    nets: dict[str, Ban] = {}
    while len(nets) < n:
        value = 20 << 24 | chance.getrandbits(26)
        net = f"{socket.inet_ntoa(value.to_bytes(4, 'big'))}/32"
        nets[net] = Ban(net, now, now + 36_000, "brute_force")
    return nets


def restored(lab: Lab, wanted: dict[str, Ban]) -> float:
    """Return the seconds in which the backend brings bans back into an empty ruleset."""
    lab.host.nft("flush ruleset")
    began = time.perf_counter()
    firewall = NftablesFirewall([25, 143])
    firewall.open()
    drift = firewall.reconcile(wanted, time.time())
    seconds = time.perf_counter() - began
    assert drift.missing == len(wanted)
    firewall.close()
    return seconds


def restore(lab: Lab) -> None:
    """Compare bringing bans back with a process a ban."""
    many = statistics.median(restored(lab, bans(MANY)) for _ in range(3))
    wanted = bans(FEW)
    few = statistics.median(restored(lab, wanted) for _ in range(3))
    began = time.perf_counter()
    for net in wanted:
        address = net.removesuffix("/32")
        command = f"add element inet mailward ban4_24 {{ {address} timeout 36000s }}"
        subprocess.run(["nft", command], check=True)
    elements = time.perf_counter() - began
    lab.host.nft("flush ruleset; add table ip one; add chain ip one c")
    began = time.perf_counter()
    for net in wanted:
        subprocess.run(["nft", f"add rule ip one c ip saddr {net} drop"], check=True)
    rules = time.perf_counter() - began
    print(
        f"restore: {MANY} bans {many:.2f} s; {FEW} bans {few:.3f} s, one nft process an element {elements:.1f} s "
        f"(x {elements / few:.0f}), one nft process a rule {rules:.1f} s (x {rules / few:.0f})"
    )


async def _one(during: bool) -> tuple[float, float]:
    wanted = bans(MANY)
    enforcer = Enforcer(
        NftablesFirewall([25, 143]), Stats(), lambda: list(wanted.values()), Suspicion(monitor=Monitor)
    )
    await enforcer.open()
    took: list[float] = []
    busy = True

    async def compare() -> None:
        while busy:
            await enforcer._compare()

    async with asyncio.TaskGroup() as group:
        run = group.create_task(enforcer.run())
        comparing = [group.create_task(compare())] if during else []
        for net, ban in bans(SAMPLES, seed=2).items():
            await asyncio.sleep(0.01)
            wanted[net] = ban
            began = time.perf_counter()
            enforcer.take([ban])
            assert not await enforcer.settled()
            took.append((time.perf_counter() - began) * 1000)
        busy = False
        await asyncio.gather(*comparing)
        run.cancel()
    await enforcer.close()
    return statistics.median(took), statistics.quantiles(took, n=100)[98]


def one(lab: Lab) -> None:
    """Measure one ban more."""
    for during in (False, True):
        lab.host.nft("flush ruleset")
        p50, p99 = asyncio.run(_one(during))
        when = "while comparing without a pause" if during else "alone"
        print(f"one ban at {MANY}, {when}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def rate(lab: Lab) -> float:
    """Return datagrams a second that go through the host's hook: the sender's own system call carries them there."""
    with lab.host.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((HOST4, 143))
    with lab.internet.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((CLIENTS[0], 0))
    with receiver, sender:
        sender.connect((HOST4, 143))
        send, n, began = sender.send, 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            for _ in range(500):
                send(b"0123456789abcdef")
            n += 500
        return n / (time.perf_counter() - began)


def packets(lab: Lab) -> None:
    """Measure what a packet of a client who is not banned pays, in pairs with no firewall at all."""
    rules = "".join(f"add rule inet r c ip saddr {net} drop\n" for net in bans(10_000))
    chain = "add table inet r\nadd chain inet r c { type filter hook prerouting priority raw; }\n"
    for name, n in (("sets", 0), ("sets", 1000), ("sets", 10_000), ("sets", MANY), ("rules", 10_000)):
        ratios = []
        for _ in range(ROUNDS):
            lab.host.nft("flush ruleset")
            without = rate(lab)
            with contextlib.ExitStack() as stack:
                if name == "rules":
                    lab.host.nft(chain + rules)
                else:
                    firewall = NftablesFirewall(None)
                    firewall.open()
                    stack.callback(firewall.close)
                    firewall.reconcile(bans(n), time.time())
                ratios.append(rate(lab) / without)
        print(
            f"packets through {n} bans in {name}: {statistics.median(ratios):.3f} of the rate without a firewall "
            f"({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    gc.set_threshold(50_000, 20, 1000)  # as the daemon has it
    parts = {"restore": restore, "one": one, "packets": packets}
    for name in sys.argv[1:] or parts:
        with mail_host() as lab, lab.host.entered():
            parts[name](lab)


if __name__ == "__main__":
    main()
