"""The way of the data in the daemon: chunks of the sources -> the engine -> decisions, log and checkpoints.

The engine is synchronous: between two awaits of this module the engine, the positions and the decisions taken belong
together.  A checkpoint taken then is exactly the state after the bytes up to its positions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from guard.app._lockout import Lockout
from guard.engine import Engine
from guard.firewall import Refused
from guard.log import logger
from guard.model import Action, Ban, finding_id
from guard.report import finding_values
from guard.sources import Chunk, Position

CHUNKS: Final = 16  # that wait for the engine: a full queue slows the sources down
QUIET: Final = 60.0  # seconds without an outage's line after which it is over
TOLD: Final = 20  # actions of one list or cause at once that are told one by one
_HISTORY: Final = 100_000


class Checkpoint(NamedTuple):
    """What changed since the last one; belongs into one transaction."""

    rows: list[tuple[str, str, str | None]]
    positions: dict[str, str | None]
    actions: list[Action]


class Pipeline:
    """Feeds the engine; `enforce` takes its decisions, as far as `lockout` admits them."""

    def __init__(self, engine: Engine, enforce: Callable[[Sequence[Action]], None], lockout: Lockout) -> None:
        self.engine = engine
        self.lockout = lockout
        self.queue: asyncio.Queue[Chunk] = asyncio.Queue(CHUNKS)
        # A stream has begun: until its position is saved a kill would lose its lines; or there is news for others.
        self.fresh = asyncio.Event()
        self.urgent = False  # what nobody can be asked for again is not saved yet
        self.passed: Callable[[Sequence[Action]], None] = lambda _: None  # told what goes to the firewall
        self._enforce = enforce
        self._positions: dict[str, Position | None] = {}
        self._moved: set[str] = set()  # streams whose position changed since the last checkpoint
        self._actions: list[Action] = []
        self._unjudged = engine.stats.auth_unjudged.total()
        self._outage = 0.0  # monotonic time of its last line; 0.0: there is none

    async def consume(self) -> None:
        """Take chunks until cancelled.  A chunk that fails is a defect of ours: it is told, and the next one taken."""
        while True:
            chunk = await self.queue.get()
            try:
                self.feed(chunk, time.time())
            except Exception:  # noqa: BLE001 - one unit of work must not end the guard
                logger().exception(
                    "a chunk could not be processed", stream=chunk.stream, bytes=len(chunk.data)
                )
            finally:
                self.queue.task_done()
            await asyncio.sleep(0)

    def feed(self, chunk: Chunk, now: float) -> None:
        """Take one chunk: the protocol of guard/sources."""
        engine = self.engine
        stream = chunk.stream
        if chunk.reset:
            engine.drop(stream)
        actions = (
            engine.feed(stream, chunk.data, now, chunk.name, reports=chunk.reports) if chunk.data else []
        )
        if chunk.end:
            actions += engine.finish(stream, now, chunk.name, reports=chunk.reports)
        if chunk.position is None:
            self.urgent = True
        elif stream not in self._positions:
            self.fresh.set()
        self._positions[stream] = chunk.position
        self._moved.add(stream)
        ban = next((action for action in actions if isinstance(action, Ban)), None)
        if chunk.written is not None and ban is not None:
            seconds = max(0.0, time.time() - chunk.written)
            engine.stats.detection_seconds.observe(seconds)
            engine.stats.detection_seconds.example(seconds, finding_id(ban.rule, ban.net, ban.at), ban.at)
        self.act(actions)

    def act(self, actions: Sequence[Action], node: str = "") -> None:
        """Have decisions enforced, told and remembered; `node` is the other one of the fleet that they come from."""
        if actions:
            actions, taken_back = self.lockout.admit(actions)
            self._enforce([*actions, *taken_back])
            self.passed([*actions, *taken_back])
            _tell_all(actions, node)
            if len(self._actions) < _HISTORY:
                self._actions += actions
        for finding in self.engine.take_findings():
            logger().error("finding", **finding_values(finding))
        self.lockout.tell_spared()
        if self.engine.notices:
            self.fresh.set()

    def take_back(self, refused: Sequence[Refused]) -> None:
        """Take what the firewall has refused: what it refuses for good is wanted no more."""
        unbans = self.lockout.refused(refused)
        self._enforce(unbans)
        self.passed(unbans)

    def tick(self, now: float) -> None:
        """Let time pass in the engine; tell when an outage of the password database begins and ends."""
        self.act(self.engine.tick(now))
        unjudged = self.engine.stats.auth_unjudged.total()
        clock = time.monotonic()
        if unjudged > self._unjudged:
            if not self._outage:
                logger().error(
                    "the password database fails: nobody is held responsible for that", unjudged=unjudged
                )
            self._unjudged, self._outage = unjudged, clock
        elif self._outage and clock - self._outage > QUIET:
            self._outage = 0.0
            logger().warning("the password database has not failed for a minute", unjudged=unjudged)

    def checkpoint(self) -> Checkpoint:
        """Return what changed since the last call.  Never awaits: see the module's text."""
        positions: dict[str, str | None] = {}
        for stream in self._moved:
            position = self._positions[stream]
            if position is None:
                positions[stream] = None
                del self._positions[stream]
            else:
                positions[stream] = position.rewind(self.engine.pending(stream)).dump()
        self._moved.clear()
        self.urgent = False
        actions, self._actions = self._actions, []
        return Checkpoint(self.engine.changes(), positions, actions)

    def positions(self) -> dict[str, str]:
        """Return where every stream stands, for a source that is made again."""
        return {
            stream: position.rewind(self.engine.pending(stream)).dump()
            for stream, position in self._positions.items()
            if position is not None
        }


def _tell_all(actions: Sequence[Action], node: str) -> None:
    """Tell each action; what a long list brings with it or takes away in one line."""
    listed: dict[tuple[str, str], list[Action]] = {}
    for action in actions:
        if isinstance(action, Ban):
            if action.rule == "deny":
                listed.setdefault(("bans of the deny list", action.rule), []).append(action)
        elif action.cause != "expired":
            listed.setdefault(("unbans", action.cause), []).append(action)
    many = {key: of_one for key, of_one in listed.items() if len(of_one) > TOLD}
    told = {id(action) for of_one in many.values() for action in of_one}
    for action in actions:
        if id(action) not in told:
            _tell(action, {"node": node} if node else {})
    for (event, cause), of_one in many.items():
        logger().warning(event, nets=len(of_one), cause=cause)


def _tell(action: Action, origin: dict[str, str]) -> None:
    if isinstance(action, Ban):
        logger().warning(
            "ban",
            id=finding_id(action.rule, action.net, action.at),
            net=action.net,
            rule=action.rule,
            failures=action.failures,
            seconds=None if action.until == float("inf") else round(action.seconds),
            session_open=action.session_open,
            **origin,
        )
    else:
        logger().info("unban", net=action.net, cause=action.cause, **origin)
