"""How long one scrape takes with many bans and many tracked addresses: the daemon's own View, engine and collector.

python -m benchmarks.scrape [BANS [ADDRESSES]]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parent.parent))

from exporters import exposition, registry_of
from exporters.guard import GuardCollector
from guard.app._geo import Databases, Geo
from guard.app._view import View
from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from tests.daemon import failure

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TIMES = 21


def main() -> None:
    bans, addresses = (int(text) for text in [*sys.argv[1:], "100000", "1000000"][:2])
    now = time.time()
    engine = Engine(
        Policy()._replace(max_addresses=addresses), clock=Clock(year=None, now=now, live=True), keep=True
    )
    for start in range(0, addresses, 10_000):
        lines = [
            failure(f"{20 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.1") + "\n"
            for n in range(start, start + 10_000)
        ]
        engine.feed("mail", "".join(lines).encode(), now, "mail")
    for n in range(bans):
        engine.ban(f"{100 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.9/32", 1e6, now)
    enforcer = SimpleNamespace(  # the kernel's side holds plain counts
        enforced=lambda: {"ipv4": bans}, foreign=dict, drops={}, up=True, trouble="", backend="nftables"
    )
    view = View(
        engine,
        cast("Any", enforcer),
        cast("Any", SimpleNamespace(trouble="")),
        [],
        "memory:",
        None,
        Geo(Databases([]), []),
    )
    registry = registry_of(GuardCollector(engine.stats, view.snapshot))
    print(f"bans {engine.wanted()}, tracked {engine.tracked()}")
    for name, work in (
        ("wanted", engine.wanted),
        ("tracked", engine.tracked),
        ("snapshot", view.snapshot),
        ("scrape", lambda: exposition(registry, OPENMETRICS)),
    ):
        took = []
        for _ in range(TIMES):
            began = time.perf_counter()
            work()
            took.append(time.perf_counter() - began)
        print(f"{name:<9} median {median(took) * 1e3:6.2f} ms, worst {max(took) * 1e3:6.2f} ms")


if __name__ == "__main__":
    main()
