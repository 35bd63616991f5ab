"""Brings decisions into the kernel, whatever has piled up in one batch, and keeps them there.

The loop never waits for the kernel, and a ban waits only for the batch before it.  The firewall has one thread; what
the kernel holds is compared with what is wanted in a second one where the backend can do so (`aside`).
While the firewall is in trouble decisions are kept, one a net; when it is back every active ban is asserted anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from guard.app._held import Held
from guard.app._suspicion import Suspicion
from guard.firewall import Drift, Drops, Element, Firewall, FirewallError, Refused
from guard.firewall.monitor import own_thread
from guard.log import logger
from guard.model import Action, Ban
from guard.stats import Stats

RETRY: Final = 1.0  # seconds between two tries to open a firewall that is in trouble
COUNT: Final = 5.0  # seconds between two looks at the kernel's counters
_GONE: Final = " is gone"

T = TypeVar("T")


class Enforcer:
    """Owns the firewall.

    `wanted` returns the bans that the engine wants in force at this moment, `suspicion` tells when to compare them with
    the kernel, `clock` is the time of day by which bans end.
    """

    def __init__(
        self,
        firewall: Firewall,
        stats: Stats,
        wanted: Callable[[], list[Ban]],
        suspicion: Suspicion | None = None,
        *,
        keep_foreign: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.backend = firewall.name
        self.trouble = ""  # why decisions do not reach the kernel, in words
        self.drops: Mapping[str, Drops] = {}
        self.held = Held()  # as far as we know
        self._firewall = firewall
        self._stats = stats
        self._wanted = wanted
        self._suspicion = suspicion or Suspicion(clock)
        self._keep_foreign = keep_foreign
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="firewall", initializer=own_thread)
        self._aside = (
            ThreadPoolExecutor(1, thread_name_prefix="reconcile", initializer=own_thread)
            if firewall.aside
            else self._thread
        )
        # Where both are one thread, a batch and a comparison must not know of different moments.
        self._turn = contextlib.nullcontext() if firewall.aside else asyncio.Lock()
        self._look = asyncio.Lock()
        self._todo: dict[str, tuple[Action, float]] = {}  # net -> the last action on it, when it was decided
        self._flight: Mapping[str, tuple[Action, float]] = {}  # what the firewall is doing
        self._ready = asyncio.Event()
        self._waiting: list[asyncio.Future[dict[str, str]]] = []
        self._objected: set[str] = set()  # nets that the firewall refuses: said once
        self.refused: Callable[[Sequence[Refused]], None] = lambda _: None  # told what was refused
        self.confirmed: Callable[[Sequence[Ban]], None] = lambda _: None  # told what the kernel holds now

    @property
    def up(self) -> bool:
        """Do decisions reach the kernel?"""
        return not self.trouble and self.backend != "none"

    def enforced(self) -> dict[str, int]:
        """Return how many nets the kernel holds, by family; foreign ones are among them."""
        return {"ipv4": 0, "ipv6": 0} if self.backend == "none" else self.held.count()

    def foreign(self) -> dict[str, int]:
        """Return how many of them nobody decided, by family."""
        return self.held.foreign

    def strangers(self) -> tuple[str, ...]:
        """Return the nets that the kernel holds and nobody decided, the first thousand."""
        return self.held.strangers

    def holds(self, net: str) -> bool:
        """Does the kernel hold this net, as far as we know?"""
        return self.backend != "none" and net in self.held

    def take(self, actions: Sequence[Action]) -> None:
        """Have `actions` done; returns at once."""
        decided = time.monotonic()
        for action in actions:
            self._todo.pop(action.net, None)
            self._todo[action.net] = action, decided
        if actions:
            self._ready.set()

    async def settled(self) -> dict[str, str]:
        """Wait until all that was taken is done; return why not, by net."""
        if self.trouble:
            return dict.fromkeys(self._todo, self.trouble)
        waiting: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._ready.set()
        return await waiting

    async def answer(self) -> None:
        """Wait until the firewall's thread has done what it is at."""
        await self._in_thread(lambda: None)

    async def found(self) -> list[Element]:
        """Open the firewall and return what the kernel holds before anything is decided.  Raises FirewallError."""
        await self._in_thread(self._firewall.open)
        return await self._in_thread(self._firewall.banned)

    async def open(self) -> Drift:
        """Open the firewall, end what waits to be ended and bring every active ban back.  Raises FirewallError."""
        await self._in_thread(self._firewall.open)
        self._todo = {net: entry for net, entry in self._todo.items() if not isinstance(entry[0], Ban)}
        unbans = dict(self._todo)
        await self._apply(unbans)
        self._todo = {net: entry for net, entry in self._todo.items() if unbans.get(net) is not entry}
        return await self._compare()

    async def run(self) -> None:
        """Do what is taken until cancelled."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            await self._batch()

    async def watch(self) -> None:
        """Look at the kernel's counters until cancelled."""
        while True:
            try:
                self.drops = await self._in_thread(self._firewall.drops)
            except FirewallError as error:
                await self._recover(str(error))
            await asyncio.sleep(COUNT)

    async def keep(self) -> None:
        """Compare what the kernel holds with what is wanted whenever there is a reason to, until cancelled."""
        with self._suspicion:
            while True:
                await self._suspicion.arises()
                if self.trouble:
                    continue
                try:
                    self._tell(await self._compare())
                except FirewallError as error:
                    await self._recover(str(error))

    async def close(self) -> None:
        """Do what is left to do, and let go; what is banned stays banned."""
        if self._todo and not self.trouble:
            await self._batch()
        await self._in_thread(self._firewall.close)
        self._thread.shutdown()
        self._aside.shutdown()

    async def _batch(self) -> None:
        async with self._turn:
            trouble = await self._do()
        if trouble:
            await self._recover(trouble)  # which takes a turn of its own

    async def _do(self) -> str:
        """Do what waits; return why the firewall cannot, "" where it could.  Then it waits again."""
        todo, self._todo = self._todo, {}
        waiting, self._waiting = self._waiting, []
        trouble = ""
        try:
            reasons = await self._apply(todo)
            trouble = next((reason for reason in reasons.values() if _GONE in reason), "")
        except FirewallError as error:
            trouble = str(error)
            reasons = dict.fromkeys(todo, trouble)
        for future in waiting:
            if not future.done():
                future.set_result(reasons)
        if trouble:
            self._todo = todo | self._todo
        return trouble

    async def _apply(self, todo: Mapping[str, tuple[Action, float]]) -> dict[str, str]:
        """Apply; return the reasons of what was refused, by net."""
        if not todo:
            return {}
        actions = [action for action, _ in todo.values()]
        self._flight = todo
        try:
            refused = await self._in_thread(lambda: self._firewall.apply(actions, self._clock()))
        finally:
            self._flight = {}
        done = time.monotonic()
        reasons = {refusal.action.net: refusal.reason for refusal in refused}
        for action, decided in todo.values():
            if action.net in reasons:
                continue
            if not isinstance(action, Ban):
                self.held.discard(action.net)
            elif action.until > self._clock():
                self.held.put(action)
                self._stats.enforcement_seconds.observe(done - decided)
        self._object(refused)
        self.confirmed([act for act, _ in todo.values() if isinstance(act, Ban) and act.net not in reasons])
        return reasons

    def _object(self, refused: Sequence[Refused]) -> None:
        for refusal in refused:
            if refusal.action.net not in self._objected and len(self._objected) < 10_000:
                self._objected.add(refusal.action.net)
                what = "ban" if isinstance(refusal.action, Ban) else "unban"
                logger().error("not enforced", action=what, net=refusal.action.net, reason=refusal.reason)
        if refused:
            self.refused(refused)

    async def _recover(self, trouble: str) -> None:
        """Try until the firewall is open again; `open` asserts what the engine wants then."""
        if self.trouble:
            return  # somebody is at it
        self.trouble = trouble
        logger().error("the firewall is in trouble: bans are not enforced", reason=trouble)
        while True:
            try:
                drift = await self.open()
            except FirewallError as error:
                self.trouble = str(error)
                await asyncio.sleep(RETRY)
            else:
                self._tell(drift._replace(structure=max(1, drift.structure)))
                break
        self.trouble = ""
        self._ready.set()
        logger().warning("the firewall is repaired: every active ban is in force again")

    async def _compare(self) -> Drift:
        """Compare what the kernel holds with what is wanted, and have the difference mended.

        What is decided and not yet done is not wanted here: the kernel is to hold what it held, until it is done.
        """
        async with self._look, self._turn:
            bans, now = self._wanted(), self._clock()
            waiting = {net: self.held.get(net) for net in (*self._flight, *self._todo)}
            self.held.watch()

            def work() -> tuple[Drift, Held]:
                wanted = {ban.net: ban for ban in bans} | waiting
                asserted = {net: ban for net, ban in wanted.items() if ban is not None}
                drift = self._firewall.reconcile(asserted, now, keep_foreign=self._keep_foreign)
                return drift, Held.of(drift, asserted)

            drift, held = await asyncio.get_running_loop().run_in_executor(self._aside, work)
            self.held = held.after(self.held)
            self._object(drift.refused)
        return drift

    def _tell(self, drift: Drift) -> None:
        """Count and log in what the kernel differed from what was wanted."""
        more = drift.foreign if not self._keep_foreign else self.held.more(drift.foreign)
        found = {
            "missing": drift.missing,
            "foreign": more,
            "timeout": drift.timeout,
            "structure": drift.structure,
        }
        for kind, n in found.items():
            self._stats.ban_drift.add((kind,), n)
        if any(found.values()):
            logger().warning("the kernel held other than what is wanted: mended", **found)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
