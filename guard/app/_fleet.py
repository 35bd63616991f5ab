"""This node's place in a fleet: what it tells and is told, in step with the state.

What is to be told goes out once it is saved with the engine that decided it (`guard.app._outbox`); what was told
changes the engine in the checkpoint that saves how far was read.  So a kill at any moment neither tells twice nor
misses.  While the server is away the node decides by what it has, keeps what it has to tell, and catches up later.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from guard.app import _outbox
from guard.app._outbox import Outbox, Row
from guard.app._pipeline import Pipeline
from guard.app._place import WRONG, CannotRunError
from guard.config import Config
from guard.fleet import BATCH, Batch, Event, FleetError, Greeting, Told
from guard.fleet.link import Link
from guard.log import logger
from guard.model import Action, Ban, readable
from guard.sources import Source
from guard.sources._backoff import Backoff

READ: Final = 0.1  # seconds between two looks at what the others tell
BEAT: Final = 5.0  # seconds between two signs of life
ALIVE: Final = 15.0  # seconds since the last one after which a node counts as away
PATIENCE: Final = 4.0  # the longest wait before the server is tried again
PRUNE: Final = 60.0
_SNAPSHOT: Final = 500  # registers taken at once
_ODD: Final = 64  # nodes whose nonsense is said
_FLEET: Final = "fleet"
_ORIGIN: Final = "origin"
FLEET_TABLES: Final = (_outbox.TABLE, _FLEET, _ORIGIN)


class Fleet:
    """Tells and is told.  `rows` are its own of the saved state."""

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        rows: Sequence[tuple[str, str, str]],
        sources: Sequence[Source],
    ) -> None:
        self.node = config.store.node or socket.gethostname()
        self.up = False
        self.trouble = "not connected yet"
        self._engine = pipeline.engine
        self._pipeline = pipeline
        self._sources = sources
        self._unsaved: list[Row] = []
        self._ready = asyncio.Event()
        self._nodes: dict[str, dict[str, object]] = {}
        self._heard = 0.0  # monotonic: when `_nodes` was asked for
        self._odd: set[str] = set()  # nodes that told nonsense: said once
        # net -> the node that decided its ban, where that was another
        self.origins: dict[str, str] = {
            key: json.loads(text) for table, key, text in rows if table == _ORIGIN
        }
        own: dict[str, Any] = {key: json.loads(text) for table, key, text in rows if table == _FLEET}
        if "instance" not in own:
            own["instance"] = secrets.token_hex(8)
            self._save("instance", own["instance"])
        span = config.rules.brute_force.window
        saved = ((key, text) for table, key, text in rows if table == _outbox.TABLE)
        self._outbox = Outbox(saved, own.get("last", 0), span, self._ready.set)
        positions = {key[9:]: text for key, text in own.items() if key.startswith("position ")}
        try:
            self._link = Link(config.store.url, self.node, own["instance"], positions, span=span)
        except FleetError as error:
            raise CannotRunError(WRONG, str(error)) from None

    def _save(self, key: str, value: object) -> None:
        self._unsaved.append((_FLEET, key, json.dumps(value)))

    def collect(self) -> tuple[list[Row], Callable[[], None] | None]:
        """Return the rows of the checkpoint that is being taken, and what to call once it is saved.

        Never awaits: what the engine has to tell belongs to its state of this moment.
        """
        last, notices = self._outbox.last, self._engine.notices
        saved = self._outbox.add(notices.take()) if notices else None
        if self._outbox.last != last:
            self._save("last", self._outbox.last)
        rows = self._unsaved + self._outbox.unsaved
        self._unsaved.clear()
        self._outbox.unsaved.clear()
        return rows, saved

    # -- the server ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell and be told until cancelled; trouble is said once, and the server is tried again."""
        backoff = Backoff(longest=PATIENCE)
        try:
            while True:
                try:
                    await self._greet(await self._link.connect())
                    backoff.reset()
                    await self._talk()
                except FleetError as error:
                    self._down(str(error))
                await asyncio.sleep(backoff.pause())
        finally:
            await self._link.close()

    def _down(self, reason: str) -> None:
        if self.up or self.trouble != reason:
            logger().error("the fleet is out of reach: this node goes on alone", reason=reason)
        self.up, self.trouble = False, reason

    async def _greet(self, greeting: Greeting) -> None:
        """Find out what the server has of ours, and what is in force."""
        self._outbox.again(greeting.known)
        self._save("last", self._outbox.last)
        registers = sorted(greeting.registers, key=_order)
        for start in range(0, len(registers), _SNAPSHOT):
            self._take(registers[start : start + _SNAPSHOT])
            await asyncio.sleep(0)
        self._engine.join({told.register for told in registers}, time.time())
        if self._engine.notices:
            self._pipeline.fresh.set()
        logger().warning("part of the fleet", node=self.node, registers=len(registers), to_tell=self.pending)
        self.up, self.trouble = True, ""

    async def _talk(self) -> None:
        read = beat = prune = 0.0  # when next
        while True:
            self._ready.clear()
            events = self._outbox.ready()
            if events:
                await self._send(events)
            now = time.monotonic()
            if now >= read:
                batch = await self._link.read()
                self._apply(batch)
                read = now if batch.more else now + READ * random.uniform(0.8, 1.2)  # noqa: S311 - as in Backoff
            if now >= beat:
                lag = max((source.health().lag for source in self._sources), default=0.0)
                self._nodes = await self._link.beat({"lag": round(lag, 3), "pending": self.pending})
                self._heard = time.monotonic()
                beat = now + BEAT * random.uniform(0.8, 1.0)  # noqa: S311 - as above
            if now >= prune:
                self._forget()
                prune = now + PRUNE
            if len(events) == BATCH:
                continue
            try:
                async with asyncio.timeout(max(0.0, read - time.monotonic())):
                    await self._ready.wait()
            except TimeoutError:
                continue

    async def _send(self, events: Sequence[Event]) -> None:
        try:
            await self._link.send(events)
        except ValueError as error:  # a defect of ours: it must not come back with every start
            if len(events) == 1:
                logger().exception("an event cannot be told", register=events[0].register, error=str(error))
            else:
                for event in events:
                    await self._send([event])
                return
        self._outbox.has(events)

    def _forget(self) -> None:
        self._outbox.forget()
        for net in [net for net in self.origins if not self._engine.is_banned(net)]:
            del self.origins[net]
            self._unsaved.append((_ORIGIN, net, None))

    # -- told ------------------------------------------------------------------------------------------------------

    def _apply(self, batch: Batch) -> None:
        """Take what was read.  Never awaits: the positions belong to the engine's state after it."""
        self._take(batch.told)
        for partition, text in batch.positions.items():
            self._save(f"position {partition}", text)

    def _take(self, told: Iterable[Told]) -> None:
        now = time.time()
        node = ""
        actions: list[Action] = []
        for event in told:
            if event.node != node and actions:
                self._pipeline.act(actions, readable(node))
                actions = []
            node = event.node
            actions += self._told(event._replace(node=readable(node)), now)
        self._pipeline.act(actions, readable(node))

    def _told(self, told: Told, now: float) -> list[Action]:
        before = self._engine.is_banned(told.net)
        try:
            actions = self._engine.told(
                told.net, told.register, told.live, told.at, told.ends, told.body, now
            )
        except ValueError as error:
            if told.node not in self._odd and len(self._odd) < _ODD:
                self._odd.add(told.node)
                logger().error("a node tells what cannot be taken", node=told.node, reason=str(error))
            return []
        except Exception:  # noqa: BLE001 - one unit of work must not end the guard
            logger().exception("what a node told could not be taken", node=told.node, register=told.register)
            return []
        if told.register and not before and told.node != self.node:
            for action in actions:
                if isinstance(action, Ban) and action.net == told.net:
                    self.origins[action.net] = told.node
                    self._unsaved.append((_ORIGIN, action.net, json.dumps(told.node)))
        return actions

    # -- looking ---------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many events the server does not have yet."""
        return len(self._outbox)

    @property
    def lost(self) -> int:
        """How many events found no room, or were gone before they were read."""
        return self._outbox.lost + self._link.lost

    def alive(self) -> int:
        """Return how many nodes gave a sign of life lately, this one among them."""
        return sum(1 for node in self.nodes() if cast("float", node["age"]) < ALIVE)

    def nodes(self) -> list[dict[str, object]]:
        """Return every node as docs/json.md has it."""
        since = time.monotonic() - self._heard
        return [
            {
                "name": readable(name),
                "here": name == self.node,
                "age": round(_number(said.get("age")) + since, 3),
                "lag": _number(said.get("lag")),
                "pending": int(_number(said.get("pending"))),
            }
            for name, said in sorted(self._nodes.items())
        ]

    def state(self) -> dict[str, object]:
        """Return how the fleet does, as docs/json.md has it."""
        return {
            "node": self.node,
            "up": self.up,
            "detail": self.trouble,
            "pending": self.pending,
            "lost": self.lost,
            "nodes": self.nodes(),
        }


def fleet_of(
    config: Config, pipeline: Pipeline, rows: Sequence[tuple[str, str, str]], sources: Sequence[Source]
) -> Fleet | None:
    """Return this node's place in its fleet, None where it has none.  Raises `CannotRunError`."""
    return Fleet(config, pipeline, rows, sources) if config.store.shared else None


def _order(told: Told) -> tuple[int, float]:
    """Lists go before bans, lifted bans before those in force."""
    kind = 0 if not told.register.startswith("ban ") else 2 if told.live else 1
    return kind, told.at


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
