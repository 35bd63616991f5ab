"""The composition root of `mailward run`: makes every part, joins them, and takes them down in order.

```
sources -> queue -> engine -> enforcer (one thread) -> kernel
                      |-> keeper (one thread) -> store, about every second
control socket, HTTP, signals, systemd: beside it, in the same loop
```
The engine is called from the loop alone, in slices of at most 256 KiB; nothing else in the loop takes time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Final

from exporters import exposition, registry_of
from exporters.guard import GuardCollector
from guard import http, log
from guard.app import _place
from guard.app._enforcer import Enforcer
from guard.app._keeper import Keeper
from guard.app._pipeline import Pipeline
from guard.app._place import REFUSED, CannotRunError
from guard.app._requests import REASON_TABLE, Requests
from guard.app._systemd import notify, watchdog_seconds
from guard.app._view import View
from guard.clock import Clock
from guard.config import Config, ConfigError, FileTable, StdinTable
from guard.control import ControlError
from guard.control.server import ControlServer
from guard.engine import Engine
from guard.firewall import FirewallError
from guard.log import logger
from guard.model import Policy
from guard.sources import Source
from guard.store import Store, StoreError, open_store

__all__ = ["CannotRunError", "run"]

TICK: Final = 0.25  # seconds
CHECKPOINT: Final = 1.0
SLICE: Final = (
    0.2  # seconds between two checkpoints while there is so much to save that asking for it takes time
)
SLOW: Final = 0.03
REFRESH: Final = 60.0  # own addresses, names of the allow list
RESTART: Final = 30.0  # the longest wait before a source that failed is made again
_AT_START_ONLY: Final = ("source", "firewall", "store", "http", "control", "limits")


class Daemon:
    """One run of the guard.  `load` reads the configuration; it is called again at each SIGHUP."""

    def __init__(self, load: Callable[[], Config]) -> None:
        self._load = load
        self._config = self._supported()
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Guard until SIGTERM or SIGINT.  Raises `CannotRunError` where it cannot begin."""
        config = self._config
        log.configure(config.log.format, config.log.level)
        async with contextlib.AsyncExitStack() as stack:
            await self._begin(config, stack)
            self._handle_signals()
            async with asyncio.TaskGroup() as group:
                self._tasks += [group.create_task(work) for work in self._work()]
                self._tasks.append(group.create_task(self._sources_until_their_end()))
                notify(f"READY=1\nMAINPID={os.getpid()}")
                logger().info(
                    "guarding", sources=[s.name for s in self._sources], firewall=self._enforcer.backend
                )
                await self._stop.wait()
                notify("STOPPING=1")
                for task in self._tasks:
                    task.cancel()
        logger().info("stopped: bans stay in force until their end")

    async def _begin(self, config: Config, stack: contextlib.AsyncExitStack) -> None:
        """Make every part, in the order in which they need each other."""
        tables = [t for t in config.sources() if isinstance(t, FileTable | StdinTable)]
        firewall = _place.firewall_of(config)
        if firewall.name == "none":
            logger().warning(
                'ONLY OBSERVING: firewall.backend = "none", decisions are shown and NOBODY IS BANNED'
            )
        descriptor = _place.lock(config.store.url)
        if descriptor is not None:
            stack.callback(os.close, descriptor)
        self._secret = _place.secret_of(config.store.url)
        store = _opened(config.store.url)
        self._keeper = Keeper(store)
        stack.push_async_callback(self._keeper.close)
        policy = await self._policy(config)
        clock = Clock(year=None, zone=_place.local_zone(), now=time.time(), live=True)
        self._engine = engine = Engine(policy, clock=clock, keep=True)
        state = store.load()
        reasons = {key: json.loads(text) for table, key, text in state.rows if table == REASON_TABLE}
        engine.restore(row for row in state.rows if row[0] != REASON_TABLE)
        self._enforcer = Enforcer(
            firewall,
            engine.stats,
            engine.active_bans,
            _place.suspicion_of(firewall),
            keep_foreign=config.firewall.foreign == "keep",
        )
        self._pipeline = Pipeline(engine, self._enforcer.take)
        self._configure(policy)
        self._pipeline.tick(time.time())
        try:
            await self._enforcer.open()
        except FirewallError as error:
            raise CannotRunError(REFUSED, str(error)) from None
        stack.push_async_callback(self._enforcer.close)
        self._tables = tables
        self._sources: list[Source] = [_place.source_of(table, state.positions) for table in tables]
        self._view = View(engine, self._enforcer, self._keeper, self._sources, config.store.url)
        self._requests = Requests(self._pipeline, self._enforcer, self._view, reasons)
        stack.callback(self._checkpoint)
        control = ControlServer(config.control.socket, self._requests.handle)
        await control.open()
        stack.push_async_callback(control.close)
        if config.http.listen:
            server = await http.listen(config.http.listen, self._routes())
            stack.callback(server.close)

    # -- configuration ---------------------------------------------------------------------------------------------

    async def _policy(self, config: Config) -> Policy:
        policy = config.policy(_place.own(), self._secret)
        names = config.allow_names()
        return policy._replace(allow=policy.allow + await _place.resolved(names, self._resolved))

    def _configure(self, policy: Policy) -> None:
        self._policy_now = policy
        self._pipeline.act(self._engine.configure(policy, time.time()))

    async def _reloads(self) -> None:
        """Take the configuration anew at each SIGHUP; one with mistakes is told and not taken."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                config = self._supported()
            except ConfigError as error:
                self._view.reload_ok = False
                for problem in error.problems:
                    logger().error("the configuration is not taken: the old one stays", problem=str(problem))
            else:
                await self._take(config)
            notify("READY=1")

    def _supported(self) -> Config:
        config = self._load()
        problems = config.unsupported()
        if problems:
            raise ConfigError(problems)
        return config

    async def _take(self, config: Config) -> None:
        later = [name for name in _AT_START_ONLY if getattr(config, name) != getattr(self._config, name)]
        self._config = config
        log.configure(config.log.format, config.log.level)
        self._configure(await self._policy(config))
        self._view.reloaded, self._view.reload_ok = time.time(), True
        logger().info("the configuration is taken", file=config.file)
        if later:
            logger().warning("a change in these tables takes effect at the next start", tables=later)

    async def _refresh(self) -> None:
        """Keep up with this host's own addresses and the names of the allow list."""
        while True:
            await asyncio.sleep(REFRESH)
            self._requests.prune()
            try:
                policy = await self._policy(self._config)
            except OSError as error:
                logger().warning("this host's own addresses are not told", reason=str(error))
                continue
            if policy != self._policy_now:
                self._configure(policy)

    # -- work ------------------------------------------------------------------------------------------------------

    def _work(self) -> list[Coroutine[None, None, None]]:
        enforcer = self._enforcer
        work = [
            self._pipeline.consume(),
            enforcer.run(),
            enforcer.watch(),
            enforcer.keep(),
            self._keeper.run(),
        ]
        return [*work, self._ticks(), self._checkpoints(), self._reloads(), self._refresh()]

    async def _ticks(self) -> None:
        beat = watchdog_seconds()
        last = 0.0
        while True:
            self._pipeline.tick(time.time())
            if beat and time.monotonic() - last >= beat:
                last = time.monotonic()
                notify("WATCHDOG=1")
            await asyncio.sleep(TICK)

    async def _checkpoints(self) -> None:
        pause = CHECKPOINT
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._pipeline.fresh.wait()
            self._pipeline.fresh.clear()
            self._view.sample()
            began = time.monotonic()
            self._checkpoint()
            pause = CHECKPOINT if time.monotonic() - began < SLOW else SLICE

    def _checkpoint(self) -> None:
        checkpoint = self._pipeline.checkpoint()
        checkpoint.rows.extend(self._requests.unsaved)
        self._requests.unsaved.clear()
        self._keeper.take(checkpoint)

    async def _sources_until_their_end(self) -> None:
        """Read every source; when all have ended (standard input can) and are processed, stop."""
        async with asyncio.TaskGroup() as group:
            for n in range(len(self._sources)):
                group.create_task(self._read(n))
        await self._pipeline.queue.join()
        logger().warning("every source has ended")
        self._stop.set()

    async def _read(self, n: int) -> None:
        """Read one source to its end; one that fails is told, and made again where it stopped."""
        pause = 1.0
        while True:
            began = time.monotonic()
            try:
                await self._sources[n].run(self._pipeline.queue.put)
            except Exception as error:  # noqa: BLE001 - one source must not end the others
                logger().exception("a source failed", source=self._sources[n].name, error=str(error))
            else:
                return
            pause = 1.0 if time.monotonic() - began > RESTART else min(pause * 2, RESTART)
            await asyncio.sleep(pause)
            await self._pipeline.queue.join()  # what is under way belongs to the positions
            self._sources[n] = _place.source_of(self._tables[n], self._pipeline.positions())

    # -- the world -------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

    def _routes(self) -> dict[str, http.Route]:
        registry = registry_of(GuardCollector(self._engine.stats, self._view.snapshot))

        def metrics(headers: http.Headers) -> http.Answer:
            return http.Answer(*exposition(registry, headers.get("accept", "")))

        def healthy(_: http.Headers) -> http.Answer:
            return http.Answer(b"ok\n")

        def ready(_: http.Headers) -> http.Answer:
            is_ready, parts = self._view.ready()
            status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
            return http.Answer(json.dumps(parts).encode() + b"\n", "application/json", status)

        return {"/metrics": metrics, "/healthz": healthy, "/readyz": ready}


def _opened(url: str) -> Store:
    try:
        store = open_store(url)
    except StoreError as error:
        raise CannotRunError(REFUSED, str(error)) from None
    if store.trouble:
        logger().error("the state was damaged", reason=store.trouble)
    return store


def run(load: Callable[[], Config]) -> None:
    """Guard this host until a signal says otherwise.  Raises `CannotRunError`, and `ConfigError` from `load`."""
    # The engine makes no cycles; a full collection over a million entries would hold up the loop for a second.
    gc.set_threshold(50_000, 20, 1000)
    try:
        asyncio.run(_run(load))
    except (ControlError, http.HttpError, StoreError) as error:
        raise CannotRunError(REFUSED, str(error)) from None


async def _run(load: Callable[[], Config]) -> None:
    try:
        await Daemon(load).run()
    except ExceptionGroup as group:  # a part of ours failed where nothing may: end, and be started again
        logger().exception("a part of the guard failed", parts=len(group.exceptions))
        raise CannotRunError(REFUSED, f"a part of the guard failed: {group.exceptions[0]!r}") from None
