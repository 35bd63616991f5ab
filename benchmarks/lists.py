"""Lists of 100,000 nets: to load them, to look an address up in them, to change one entry.

    python benchmarks/lists.py [NETS]     # default 100 000

Each figure stands beside the same work on a plain Python set of the same texts, which can tell whether a text is in
it, and nothing of the addresses inside a net.  Best of several runs, in seconds of this process.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from functools import partial

from guard import addresses
from guard.addresses import network, text6
from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from guard.nets import NetSet

RUNS = 5
NOW = 1.8e9


def ipv4(dice: random.Random, first: int) -> str:
    """Return a net of some width among 64 million addresses."""
    address = f"{first + dice.randrange(4)}.{dice.randrange(256)}.{dice.randrange(256)}.{dice.randrange(256)}"
    return network(f"{address}/{dice.choice([32, 32, 32, 32, 29, 24])}")


def ipv6(dice: random.Random, first: int) -> str:
    """Return a net of some width under 2001:db8::/32, half of which is for each list."""
    value = 0x20010DB8 << 96 | (first > 20) << 95 | dice.getrandbits(95)
    return network(f"{text6(value)}/{dice.choice([128, 64, 64, 56, 48])}")


def nets(make: Callable[[random.Random, int], str], first: int, count: int) -> tuple[str, ...]:
    """Return so many different nets."""
    dice = random.Random(first)
    found: set[str] = set()
    while len(found) < count:
        found.add(make(dice, first))
    return tuple(found)


def seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the shortest time that `work` took."""
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def show(what: str, ours: float, plain: float, each: int = 1) -> None:
    """Print one line."""
    unit, scale = ("us each", 1e6 / each) if each > 1 else ("ms", 1e3)
    print(f"  {what:34} {ours * scale:9.2f} {unit:8} set {plain * scale:9.3f}   {ours / plain:8.1f} times")


def engine(allow: tuple[str, ...], deny: tuple[str, ...]) -> Engine:
    """Return an engine with these lists in force."""
    guard = Engine(Policy(), clock=Clock(year=2026, now=NOW))
    guard.configure(Policy(allow=allow, deny=deny), NOW)
    return guard


def lookups(have: NetSet, hosts: list[tuple[str, int]]) -> None:
    """Look every host up."""
    for host, value in hosts:
        have.has(host, value)


def overlaps(have: NetSet, others: tuple[str, ...]) -> None:
    """Ask of every net whether it touches the list."""
    for net in others:
        have.touches(net)


def members(plain: set[str], texts: list[str]) -> None:
    """Look every text up."""
    for text in texts:
        text in plain  # noqa: B015 - the time is what counts


def changed(guard: Engine, net: str) -> None:
    """Enter one net in both lists by hand and take it out again."""
    guard.deny(net, NOW)
    guard.undeny(net, NOW)
    guard.allow(net, NOW)
    guard.disallow(net, 0.0)
    guard.ban(net, 60.0, NOW)
    guard.unban(net, NOW)


def changed_set(plain: set[str], net: str) -> None:
    """Do the same to the set."""
    for _ in range(3):
        plain.add(net)
        plain.discard(net)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    kind = "pure Python" if addresses.__file__.endswith(".py") else "compiled"
    for name, make, one in (("IPv4", ipv4, "9.9.9.9/32"), ("IPv6", ipv6, "2001:db9::/64")):
        allow, deny = nets(make, 20, count), nets(make, 30, count)
        print(f"{name}, {count} nets a list, {kind}")
        plain, have = set(deny), NetSet(deny)
        show("NetSet of the texts", seconds(partial(NetSet, deny)), seconds(partial(set, deny)))
        hosts = [(net.partition("/")[0], addresses.parts(net)[0]) for net in allow]
        texts = [host for host, _ in hosts]
        of_set = seconds(partial(members, plain, texts))
        show("has: is an address in it", seconds(partial(lookups, have, hosts)), of_set, count)
        show("touches: does a net overlap it", seconds(partial(overlaps, have, allow)), of_set, count)
        both = seconds(partial(set, allow)) + seconds(partial(set, deny))
        show("configure: allow", seconds(partial(engine, allow, ())), both / 2)
        show("configure: deny", seconds(partial(engine, (), deny)), both / 2)
        show("configure: allow and deny", seconds(partial(engine, allow, deny)), both)
        guard = engine(allow, deny)
        policy = Policy(allow=allow, deny=deny)
        show("configure again, nothing new", seconds(partial(guard.configure, policy, NOW)), both)
        entry = seconds(partial(changed, guard, one))
        show("six changes by hand", entry, seconds(partial(changed_set, plain, one)))


if __name__ == "__main__":
    main()
