"""Brings decisions into the kernel: one thread for the firewall, whatever has piled up in one batch.

The loop never waits for the kernel, and a ban waits only for the batch before it.  While the firewall is in trouble
decisions are kept, one a net; when it is back every active ban is asserted anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from guard.firewall import Drops, Firewall, FirewallError, Refused
from guard.log import logger
from guard.model import Action, Ban
from guard.stats import Stats

RETRY: Final = 1.0  # seconds between two tries to open a firewall that is in trouble
VERIFY: Final = 30.0  # seconds between two looks at what the kernel holds
COUNT: Final = 5.0  # seconds between two looks at the kernel's counters
_GONE: Final = " is gone"

T = TypeVar("T")


class Enforcer:
    """Owns the firewall.  `wanted` returns the bans that the engine wants in force at this moment."""

    def __init__(self, firewall: Firewall, stats: Stats, wanted: Callable[[], list[Ban]]) -> None:
        self.backend = firewall.name
        self.trouble = ""  # why decisions do not reach the kernel, in words
        self.drops: Mapping[str, Drops] = {}
        self._firewall = firewall
        self._stats = stats
        self._wanted = wanted
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="firewall")
        self._todo: dict[str, tuple[Action, float]] = {}  # net -> the last action on it, when it was decided
        self._ready = asyncio.Event()
        self._waiting: list[asyncio.Future[dict[str, str]]] = []
        self._held: set[str] = set()  # what the kernel holds, as far as we know
        self._objected: set[str] = set()  # nets that the firewall refuses: said once
        self.refused: Callable[[Sequence[Refused]], None] = lambda _: None  # told what was refused
        self.confirmed: Callable[[Sequence[Ban]], None] = lambda _: None  # told what the kernel holds now

    @property
    def up(self) -> bool:
        """Do decisions reach the kernel?"""
        return not self.trouble and self.backend != "none"

    def enforced(self) -> dict[str, int]:
        """Return how many bans the kernel holds, by family."""
        if self.backend == "none":
            return {"ipv4": 0, "ipv6": 0}
        v6 = sum(1 for net in self._held if ":" in net)
        return {"ipv4": len(self._held) - v6, "ipv6": v6}

    def holds(self, net: str) -> bool:
        """Does the kernel hold this net, as far as we know?"""
        return self.backend != "none" and net in self._held

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

    async def open(self) -> None:
        """Open the firewall, assert every active ban and do what else is left.  Raises FirewallError."""
        await self._in_thread(self._firewall.open)
        self._held.clear()
        now = time.monotonic()
        todo = {net: entry for net, entry in self._todo.items() if not isinstance(entry[0], Ban)}
        todo |= {ban.net: (ban, now) for ban in self._wanted()}
        self._todo = {}
        await self._apply(todo, timed=False)

    async def run(self) -> None:
        """Do what is taken until cancelled."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            await self._batch()

    async def watch(self) -> None:
        """Look at the kernel's counters, and now and then at what it holds, until cancelled."""
        verified = time.monotonic()
        while True:
            try:
                self.drops = await self._in_thread(self._firewall.drops)
                if time.monotonic() - verified >= VERIFY:
                    verified = time.monotonic()
                    await self._verify()
            except FirewallError as error:
                await self._recover(str(error))
            await asyncio.sleep(COUNT)

    async def close(self) -> None:
        """Do what is left to do, and let go; what is banned stays banned."""
        if self._todo and not self.trouble:
            await self._batch()
        await self._in_thread(self._firewall.close)
        self._thread.shutdown()

    async def _batch(self) -> None:
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
            await self._recover(trouble)

    async def _apply(self, todo: Mapping[str, tuple[Action, float]], *, timed: bool = True) -> dict[str, str]:
        """Apply; return the reasons of what was refused, by net."""
        if not todo:
            return {}
        actions = [action for action, _ in todo.values()]
        refused = await self._in_thread(lambda: self._firewall.apply(actions, time.time()))
        done = time.monotonic()
        reasons = {refusal.action.net: refusal.reason for refusal in refused}
        for action, decided in todo.values():
            if action.net in reasons:
                continue
            if not isinstance(action, Ban):
                self._held.discard(action.net)
            elif action.until > time.time():
                self._held.add(action.net)
                if timed:
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
                await self.open()
            except FirewallError as error:
                self.trouble = str(error)
                await asyncio.sleep(RETRY)
            else:
                break
        self.trouble = ""
        self._stats.ban_drift.add(("structure",))
        logger().warning("the firewall is repaired: every active ban is in force again")

    async def _verify(self) -> None:
        """Compare what the kernel holds with what is wanted, and do again what is missing."""
        held = {element.net for element in await self._in_thread(self._firewall.banned)}
        soon = time.time() + 2.0  # what ends by then may be gone already
        missing = [
            ban
            for ban in self._wanted()
            if ban.net in self._held
            and ban.net not in held
            and ban.until > soon
            and ban.net not in self._todo
        ]
        self._held = held
        if missing:
            self._stats.ban_drift.add(("missing",), len(missing))
            logger().warning("bans were missing in the kernel and are asserted anew", bans=len(missing))
            self.take(missing)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
