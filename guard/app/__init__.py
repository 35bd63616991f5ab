"""The composition root of `mailward run`: makes every part, joins them, and takes them down in order.

```
sources -> queue -> engine -> enforcer (one thread) -> kernel
                      |-> keeper (one thread) -> store, about every second
control socket, HTTP, fleet, signals, systemd: beside it, in the same loop
```
The engine is called from the loop alone, in slices of at most 256 KiB; nothing else in the loop takes time.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Final

from guard import http, log
from guard.app import _place, _privilege
from guard.app._checkpoints import Checkpoints
from guard.app._closer import Closer
from guard.app._enforcer import Enforcer
from guard.app._fleet import FLEET_TABLES, fleet_of
from guard.app._geo import Databases, Geo
from guard.app._intake import Intake
from guard.app._keeper import Keeper
from guard.app._lists import Lists
from guard.app._lockout import Lockout
from guard.app._names import NAME_TABLE, Names
from guard.app._newest import Newest
from guard.app._page import Page
from guard.app._pipeline import Pipeline
from guard.app._place import REFUSED, CannotRunError
from guard.app._requests import REASON_TABLE, Requests
from guard.app._routes import routes
from guard.app._systemd import heartbeat, notify
from guard.app._view import View
from guard.clock import Clock
from guard.config import AuthPolicyTable, Config, ConfigError
from guard.control import ControlError
from guard.control.server import ControlServer
from guard.engine import Engine
from guard.firewall import FirewallError
from guard.firewall.protected import Protected
from guard.firewall.ssh_sessions import SshSessions
from guard.log import logger
from guard.model import Action, Policy
from guard.store import StoreError
from guard.traffic import Traffic

__all__ = ["CannotRunError", "run"]

TICK: Final = 0.25  # seconds
PARTING: Final = 25.0  # the most that what the sources still deliver may take when we stop
REFRESH: Final = 60.0  # what is protected on this host
_OWN_TABLES: Final = (REASON_TABLE, NAME_TABLE, *FLEET_TABLES)  # rows of the state that are not the engine's
_AT_START_ONLY: Final = ("source", "firewall", "store", "http", "control", "limits", "exporters")


class Daemon:
    """One run of the guard.  `load` reads the configuration; it is called again at each SIGHUP."""

    def __init__(self, load: Callable[[], Config]) -> None:
        self._load = load
        self._config = self._supported()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Guard until SIGTERM or SIGINT.  Raises `CannotRunError` where it cannot begin."""
        config = self._config
        log.configure(config.log.format, config.log.level)
        if os.geteuid() == 0:
            logger().warning(
                "this is root: CAP_NET_ADMIN is enough; see docs/security.md, or mailward run --user mailward"
            )
        async with contextlib.AsyncExitStack() as stack:
            await self._begin(config, stack)
            self._handle_signals()
            async with asyncio.TaskGroup() as group:
                self._tasks += [group.create_task(work) for work in self._work()]
                reading = group.create_task(self._read())
                notify(f"READY=1\nMAINPID={os.getpid()}")
                sources = [source.name for source in self._intake.sources]
                logger().info("guarding", sources=sources, firewall=self._enforcer.backend)
                await self._stop.wait()
                notify("STOPPING=1")
                await self._part(reading)
                for task in self._tasks:
                    task.cancel()
        logger().info("stopped: bans stay in force until their end")

    async def _begin(self, config: Config, stack: contextlib.AsyncExitStack) -> None:
        """Make every part, in the order in which they need each other."""
        sessions = SshSessions(config.firewall.ssh_ports)
        self._protected = Protected(config.lists.trusted, sessions)
        firewall = _place.firewall_of(config, self._protected)
        if firewall.name == "none":
            logger().warning(
                'ONLY OBSERVING: firewall.backend = "none", decisions are shown and NOBODY IS BANNED'
            )
        descriptor = _place.lock(config.store.own)
        if descriptor is not None:
            stack.callback(os.close, descriptor)
        self._secret = _place.secret_of(config.store.own)
        store = _place.opened(config.store.own)
        self._keeper = Keeper(store)
        stack.push_async_callback(self._keeper.close)
        state = store.load()
        reasons = {key: json.loads(text) for table, key, text in state.rows if table == REASON_TABLE}
        self._lists = Lists(Names((key, text) for table, key, text in state.rows if table == NAME_TABLE))
        await self._lists.begin(config)
        policy = await self._policy(config)
        clock = Clock(year=None, zone=_place.local_zone(), now=time.time(), live=True)
        without = policy._replace(allow=(), deny=())  # long lists are taken once, by `_configure`
        reports = any(isinstance(table, AuthPolicyTable) for table in config.source)
        counted = Traffic() if config.exporters.mail else None
        self._engine = engine = Engine(without, clock=clock, keep=True, reports=reports, traffic=counted)
        if config.store.shared:
            engine.share()
        engine.restore(row for row in state.rows if row[0] not in _OWN_TABLES)
        self._enforcer = Enforcer(
            firewall,
            engine.stats,
            engine.active_bans,
            _place.suspicion_of(firewall),
            keep_foreign=config.firewall.foreign == "keep",
        )
        newest = Newest(engine.active_bans, self._enforcer.take)
        self._pipeline = Pipeline(engine, newest.take, Lockout(engine, self._protected))
        self._enforcer.refused = self._pipeline.take_back
        ports = config.firewall.ports
        self._closer = Closer(None if ports == "all" else ports, sessions.ports)
        if config.firewall.close_sockets and firewall.name != "none":
            self._enforcer.confirmed = self._closer.take
        self._geo = Geo(Databases(config.geo.files), engine.active_bans())
        self._pipeline.passed = self._geo.take
        self._configure(policy)
        self._pipeline.tick(time.time())
        try:
            if store.trouble:
                await self._adopt(reasons)
            await self._enforcer.open()
        except FirewallError as error:
            raise CannotRunError(REFUSED, str(error)) from None
        stack.push_async_callback(self._enforcer.close)
        self._intake = Intake(config.sources(), state.positions, self._pipeline, self._standing)
        sources = self._intake.sources
        rows = [row for row in state.rows if row[0] in FLEET_TABLES]
        self._fleet = fleet_of(config, self._pipeline, rows, sources)
        self._view = View(
            engine, self._enforcer, self._keeper, sources, config.store.own, self._fleet, self._geo
        )
        self._keeper.saved = self._intake.saved
        self._requests = Requests(
            self._pipeline,
            self._enforcer,
            self._view,
            reasons,
            self._lists,
            self._reassert,
            self._fleet,
            self._geo,
        )
        self._checkpoints = Checkpoints(self._pipeline, self._keeper, self._view.sample, self._fleet)
        self._checkpoints.others += [self._requests.unsaved, self._lists.names.unsaved]
        stack.callback(self._checkpoints.take)
        control = ControlServer(config.control.socket, self._requests.handle)
        await control.open()
        stack.push_async_callback(control.close)
        if config.http.listen:
            page = Page(newest, self._view, self._requests)
            country = self._geo.country if config.geo.files else None
            server = await http.listen(
                config.http.listen,
                routes(engine.stats, self._view, page, engine.traffic, country),
                config.http.token,
            )
            stack.callback(server.close)

    def _standing(self, ip: str) -> int:
        """Return what Dovecot is told of an address; where nobody is banned, that nobody is."""
        return 0 if self._enforcer.backend == "none" else self._engine.standing(ip, time.time())

    async def _part(self, reading: asyncio.Task[None]) -> None:
        """End the sources first, and take what they still deliver: some of it cannot be read again."""
        reading.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING):
                await asyncio.wait([reading])
                await self._pipeline.queue.join()

    async def _adopt(self, reasons: dict[str, str]) -> None:
        """Want again what the kernel still holds, as bans by hand: the state that knew what they rest on is lost."""
        now, known = time.time(), {ban.net for ban in self._engine.active_bans()}
        for net, seconds in await self._enforcer.found():
            if net not in known:
                with contextlib.suppress(ValueError):  # it may not be banned: now it is a stranger's
                    self._pipeline.act(self._engine.ban(net, seconds, now, force=True))
                    reasons[net] = "in force when the state was lost"

    # -- configuration ---------------------------------------------------------------------------------------------

    async def _policy(self, config: Config) -> Policy:
        await asyncio.to_thread(self._protected.look)
        return self._lists.apply(config.policy(self._protected.host(), self._secret))

    def _configure(self, policy: Policy) -> None:
        self._policy_now = policy
        self._protected.trust(policy.trusted)
        self._reassert()
        self._pipeline.act(self._pipeline.lockout.review())

    def _reassert(self) -> list[Action]:
        """Have what the lists say in force; return what that changes."""
        actions = self._engine.configure(self._policy_now, time.time())
        self._pipeline.act(actions)
        return actions

    def _relist(self) -> None:
        policy = self._lists.apply(self._policy_now)
        if policy != self._policy_now:
            self._configure(policy)

    async def _reloads(self) -> None:
        """Take the configuration anew at each SIGHUP; one with mistakes is told and not taken."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                config = await asyncio.to_thread(self._supported)  # long lists take their time
                databases = await asyncio.to_thread(Databases, config.geo.files)
            except (ConfigError, CannotRunError) as error:
                self._view.reload_ok = False
                for problem in error.problems if isinstance(error, ConfigError) else [error]:
                    logger().error("the configuration is not taken: the old one stays", problem=str(problem))
            else:
                self._geo.load(databases, self._engine.active_bans())
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
        self._lists.take(config)
        self._configure(await self._policy(config))
        self._view.reloaded, self._view.reload_ok = time.time(), True
        logger().info("the configuration is taken", file=config.file)
        if later:
            logger().warning("a change in these tables takes effect at the next start", tables=later)

    async def _refresh(self) -> None:
        """Keep up with what is protected on this host."""
        while True:
            await asyncio.sleep(REFRESH)
            self._requests.prune()
            policy = await self._policy(self._config)
            if policy != self._policy_now:
                self._configure(policy)
            self._pipeline.act(self._pipeline.lockout.deny_again())

    # -- work ------------------------------------------------------------------------------------------------------

    def _work(self) -> list[Coroutine[None, None, None]]:
        enforcer = self._enforcer
        work = [self._pipeline.consume(), enforcer.run(), enforcer.watch(), enforcer.keep()]
        work += [self._keeper.run(), self._ticks(), heartbeat(enforcer.answer), self._checkpoints.run()]
        work += [self._reloads(), self._refresh(), self._geo.run()]
        if self._config.firewall.close_sockets and self._enforcer.backend != "none":
            work.append(self._closer.run())
        if self._fleet is not None:
            work.append(self._fleet.run())
        return [*work, self._lists.run(self._relist)]

    async def _ticks(self) -> None:
        while True:
            self._pipeline.tick(time.time())
            await asyncio.sleep(TICK)

    async def _read(self) -> None:
        """Read the sources; when all have ended, stop."""
        await self._intake.run()
        self._stop.set()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)


def run(load: Callable[[], Config], user: str | None = None) -> None:
    """Guard this host, as `user` where one is named, until a signal says otherwise.

    Raises `CannotRunError`, and `ConfigError` from `load`.
    """
    if user is not None:
        config = load()  # read again as that user: what it cannot read now, it could not at a reload
        _privilege.become(user, _place.folders(config), config.firewall.backend)
    faulthandler.enable()  # the watchdog ends a hang by SIGABRT: the log then says where it hung
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
