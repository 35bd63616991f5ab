"""What the page at `/` costs: the event loop's time for one, at 100,000 bans and a million tracked addresses.

    python benchmarks/page.py     # baseline: /metrics of the same daemon, in the same run

The daemon's own parts, without its loop.  What stands in a page is gathered and written anew each time; the daemon does
so at most once a second, however many look.  Cold: other work has taken the processor's cache in between.
"""

from __future__ import annotations

import datetime as dt
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from exporters import exposition, registry_of
from exporters.guard import GuardCollector
from guard import model
from guard.app._enforcer import Enforcer
from guard.app._geo import Databases, Geo
from guard.app._keeper import Keeper
from guard.app._lists import Lists
from guard.app._lockout import Lockout
from guard.app._names import Names
from guard.app._newest import Newest
from guard.app._page import Page
from guard.app._pipeline import Pipeline
from guard.app._requests import Requests
from guard.app._view import View
from guard.clock import Clock
from guard.engine import Engine
from guard.firewall.dry_run import DryRunFirewall
from guard.firewall.protected import Protected
from guard.http.page import Moment, render
from guard.model import Policy
from guard.store import open_store
from tests.daemon import failure

BANS, ADDRESSES, ROUNDS = 100_000, 1_000_000, 20


def filled() -> Engine:
    """Return an engine that has seen a million addresses fail, and bans a tenth of them."""
    now = time.time()
    engine = Engine(Policy(), clock=Clock(year=None, zone=dt.UTC, now=now, live=True), keep=True)
    for start in range(0, ADDRESSES, 10_000):
        text = "".join(
            failure(f"20.{n >> 16}.{n >> 8 & 255}.{n & 255}", at=now) + "\n"
            for n in range(start, start + 10_000)
        )
        engine.feed("mail", text.encode(), now)
    for n in range(BANS):
        engine.ban(f"21.{n >> 16}.{n >> 8 & 255}.{n & 255}/32", 3600.0 + n % 977, now - n * 7919 % 3000)
    assert engine.tracked()["address"] == ADDRESSES
    assert sum(engine.wanted().values()) == BANS
    return engine


def taken(work: Callable[[], object], spoiled: bytearray | None = None) -> list[float]:
    """Return the milliseconds of each round."""
    found = []
    for _ in range(ROUNDS):
        if spoiled is not None:
            spoiled[:] = spoiled[1:] + spoiled[:1]
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1000)
    return found


def main() -> None:
    """Fill, measure, print."""
    engine = filled()
    protected = Protected(())
    enforcer = Enforcer(DryRunFirewall(), engine.stats, engine.active_bans)
    geo = Geo(Databases([]), [])
    view = View(engine, enforcer, Keeper(open_store("memory:")), [], "memory:", None, geo)
    pipeline = Pipeline(engine, enforcer.take, Lockout(engine, protected))
    requests = Requests(pipeline, enforcer, view, {}, Lists(Names(())), list, None, geo)
    page = Page(Newest(engine.active_bans, enforcer.take), view, requests)
    registry = registry_of(GuardCollector(engine.stats, view.snapshot))
    view.sample()
    moment = page.moment(time.time())
    core = "pure Python" if str(model.__file__).endswith(".py") else "compiled"
    print(f"{BANS:,} bans, {ADDRESSES:,} addresses, core {core}: median, worst of {ROUNDS}, in ms")
    baseline = 0.0

    def gathered() -> Moment:
        return page.moment(time.time())

    spoiled = bytearray(64 << 20)
    for name, work, room in (
        ("/metrics, the baseline", lambda: exposition(registry, ""), None),
        ("gathering", gathered, None),
        ("writing", lambda: render(moment), None),
        ("the page", lambda: render(gathered()), None),
        ("the page, cold", lambda: render(gathered()), spoiled),
    ):
        found = taken(work, room)
        median = statistics.median(found)
        baseline = baseline or median
        print(f"{name:<24} {median:6.1f} {max(found):6.1f}   x {median / baseline:.2f}")
    print(f"bytes: {len(render(moment)):,}")


if __name__ == "__main__":
    main()
