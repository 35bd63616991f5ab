"""How the daemon does at this moment: for /readyz, /metrics and `mailward status`."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final

from exporters.guard import DRIFTS, FleetState, Snapshot, SourceState
from guard.app._enforcer import Enforcer
from guard.app._fleet import Fleet
from guard.app._geo import Geo
from guard.app._history import History
from guard.app._keeper import Keeper
from guard.engine import Engine
from guard.reader import when
from guard.sources import Source

SCHEMA: Final = "mailward.status/1"
_MINUTE: Final = 60.0


def version() -> str:
    """Return the release that runs."""
    try:
        return metadata.version("mailward")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return "0"


class View:
    """Looks at everything and changes nothing."""

    def __init__(
        self,
        engine: Engine,
        enforcer: Enforcer,
        keeper: Keeper,
        sources: Sequence[Source],
        store: str,
        fleet: Fleet | None,
        geo: Geo,
    ) -> None:
        self.reloaded = time.time()
        self.reload_ok = True
        self._engine = engine
        self._enforcer = enforcer
        self._keeper = keeper
        self._sources = sources
        self._fleet = fleet
        self._geo = geo
        self._store = store.partition(":")[0]  # the rest may hold a password
        self._version = version()
        self._started = time.time()
        self.history = History(engine.stats)
        self._samples: deque[tuple[float, int, int]] = deque()  # monotonic, lines, failures

    def sample(self) -> None:
        """Remember where the counters stand; called about every second."""
        self.history.sample()
        now = time.monotonic()
        self._samples.append((now, self._engine.lines_read, self._engine.stats.auth_failures.total()))
        while now - self._samples[0][0] > _MINUTE:
            self._samples.popleft()

    def snapshot(self) -> Snapshot:
        """Return what the exporter shows beside the counters."""
        fleet = self._fleet
        return Snapshot(
            version=self._version,
            sources=[SourceState(h.name, h.up, h.lag, h.lost) for h in self._healths()],
            wanted=self._engine.wanted(),
            enforced=self._enforcer.enforced(),
            foreign=self._enforcer.foreign(),
            drops={family: (drops.packets, drops.bytes) for family, drops in self._enforcer.drops.items()},
            tracked=self._engine.tracked(),
            store_up=not self._keeper.trouble,
            firewall_up=self._enforcer.up,
            enforcing=self._enforcer.backend != "none",
            reloaded=self.reloaded,
            reload_ok=self.reload_ok,
            fleet=None if fleet is None else FleetState(fleet.up, fleet.alive(), fleet.pending, fleet.lost),
            countries=(self._geo.bans, self._geo.banned) if self._geo.databases.files else None,
            attacked=self._engine.attacked.networks(time.time()),
        )

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Return whether sources are read, the firewall enforces and the state is saved; and each part's state."""
        healths, fleet = list(self._healths()), self._fleet
        parts: dict[str, Any] = {
            "sources": [{"name": h.name, "up": h.up, "detail": h.detail} for h in healths],
            "firewall": self._firewall(),
            "store": {"up": not self._keeper.trouble, "detail": self._keeper.trouble},
            "fleet": None
            if fleet is None
            else {"up": fleet.up, "detail": fleet.trouble},  # alone we still guard
        }
        ready = all(h.up for h in healths) and not self._enforcer.trouble and not self._keeper.trouble
        return ready, {"ready": ready, **parts}

    def status(self) -> dict[str, object]:
        """Return what `mailward status --format json` shows."""
        return {**self.brief(), "tracked": self._engine.tracked()}

    def brief(self) -> dict[str, object]:
        """Return the same without what is remembered: counting that takes long where it is much."""
        stats = self._engine.stats
        read: dict[str, int] = {}
        for (name, _), n in stats.lines.values.items():
            read[name] = read.get(name, 0) + n
        first, last = (self._samples[0], self._samples[-1]) if self._samples else ((0.0, 0, 0), (0.0, 0, 0))
        seconds = max(1.0, last[0] - first[0])
        ready, _ = self.ready()
        return {
            "schema": SCHEMA,
            "version": self._version,
            "pid": os.getpid(),
            "started": when(self._started),
            "ready": ready,
            "sources": [{**h._asdict(), "lines": read.get(h.name, 0)} for h in self._healths()],
            "rates": {
                "lines_per_second": round((last[1] - first[1]) / seconds, 2),
                "failures_per_minute": round((last[2] - first[2]) / seconds * 60, 2),
            },
            "attempts": {
                "failures": stats.auth_failures.total() - stats.auth_revoked.total(),
                "successes": stats.auth_successes.total(),
                "unjudged": stats.auth_unjudged.total(),
                "unparsed": stats.unparsed.total(),
            },
            "bans": {
                "wanted": self._engine.wanted(),
                "enforced": self._enforcer.enforced(),
                "foreign": self._enforcer.foreign(),
                "drift": {kind: stats.ban_drift.values.get((kind,), 0) for kind in DRIFTS},
            },
            "firewall": self._firewall(),
            "store": {"kind": self._store, "up": not self._keeper.trouble, "detail": self._keeper.trouble},
            "fleet": None if self._fleet is None else self._fleet.state(),
            "configuration": {"taken": when(self.reloaded), "ok": self.reload_ok},
        }

    def _firewall(self) -> dict[str, object]:
        enforcer = self._enforcer
        detail = enforcer.trouble or (
            "enforces nothing: firewall.backend is none" if enforcer.backend == "none" else ""
        )
        return {
            "backend": enforcer.backend,
            "up": enforcer.up,
            "detail": detail,
            "dropped": {family: drops._asdict() for family, drops in enforcer.drops.items()},
        }

    def _healths(self) -> list[Any]:
        return [source.health() for source in self._sources]
