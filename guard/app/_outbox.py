"""What this node has to tell, from the decision until the others surely have it.

An event gets its number, and its row in the checkpoint of the engine that made it; it may go out once that is saved
(`ready`), and is kept for a while after the server has it: a server that loses its data is told again.
"""

from __future__ import annotations

import heapq
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from guard.fleet import BATCH, Event, partition_of
from guard.log import logger
from guard.model import Notice

LIMIT: Final = 100_000  # events kept for a server that is away; attempts go first
TABLE: Final = "outbox"

Row = tuple[str, str, str | None]


class Outbox:
    """`saved` are its rows; `keep`: seconds an event is kept after the server has it; `news` is called when there is some."""

    def __init__(
        self, saved: Iterable[tuple[str, str]], last: int, keep: float, news: Callable[[], None]
    ) -> None:
        self.lost = 0  # events that found no room
        self.last = last  # number given; 0: none
        self.unsaved: list[Row] = []
        self._keep = keep
        self._news = news
        self._saving = 0  # events that are being saved
        self._facts: dict[int, Event] = {}  # by number, rising: saved, and not known to be at the server
        self._registers: dict[int, Event] = {}
        self._kept: deque[tuple[float, Event]] = deque()  # when the server had it, and it
        self._full = False
        self._fill(_event(int(key), json.loads(text)) for key, text in saved)

    def __len__(self) -> int:
        """How many events the server is not known to have."""
        return self._saving + len(self._facts) + len(self._registers)

    def add(self, notices: Sequence[Notice]) -> Callable[[], None] | None:
        """Take what is to be told; return what to call once `unsaved` is saved, None where nothing is."""
        events: list[Event] = []
        for notice in notices:
            if len(self) + len(events) >= LIMIT:
                self._make_room()
            self.last = self.last + 1 if self.last else int(time.time() * 1000)
            event = Event(self.last, *notice)
            events.append(event)
            self._save(event)
        if not events:
            return None
        self._saving += len(events)

        def saved() -> None:
            self._saving -= len(events)
            for event in events:
                self._queue(event)
            self._news()

        return saved

    def ready(self) -> list[Event]:
        """Return what may go out now, in rising numbers, one batch of it."""
        return list(islice(heapq.merge(self._facts.values(), self._registers.values()), BATCH))

    def has(self, events: Iterable[Event]) -> None:
        """Note that the server has these."""
        now = time.monotonic()
        for event in events:
            (self._registers if event.register else self._facts).pop(event.seq, None)
            self._kept.append((now, event))
        if self._full and len(self) < LIMIT // 2:
            self._full = False

    def again(self, known: Mapping[int, int]) -> None:
        """Have all go out that the server does not have: `known` are its last numbers of ours by partition."""
        highest = max(known.values(), default=0)
        if highest > self.last:
            self._renumber(highest)
            return
        events = [*self._facts.values(), *self._registers.values(), *(event for _, event in self._kept)]
        self._facts.clear()
        self._registers.clear()
        self._kept.clear()
        there = [event for event in events if event.seq <= known.get(partition_of(event.net), 0)]
        self._fill(set(events).difference(there))
        self.has(sorted(there))

    def forget(self) -> None:
        """Forget what the server has had for long."""
        edge = time.monotonic() - self._keep
        while self._kept and (self._kept[0][0] < edge or len(self._kept) > LIMIT):
            _, event = self._kept.popleft()
            self.unsaved.append((TABLE, str(event.seq), None))

    def _fill(self, events: Iterable[Event]) -> None:
        for event in sorted(events):
            self._queue(event)

    def _queue(self, event: Event) -> None:
        (self._registers if event.register else self._facts)[event.seq] = event

    def _save(self, event: Event) -> None:
        ends = None if math.isinf(event.ends) else event.ends
        values = [event.net, event.register, event.live, event.at, ends, event.body]
        self.unsaved.append((TABLE, str(event.seq), json.dumps(values)))

    def _renumber(self, highest: int) -> None:
        """Give what waits numbers that were not used: our state is an old copy, and others came of it."""
        events = [*self._facts.values(), *self._registers.values()]
        self._facts.clear()
        self._registers.clear()
        self.last = highest
        for event in sorted(events):
            self.last += 1
            self.unsaved.append((TABLE, str(event.seq), None))
            fresh = event._replace(seq=self.last)
            self._save(fresh)
            self._queue(fresh)

    def _make_room(self) -> None:
        """Let the oldest attempt go, else the oldest register: what is in force is told again at the next greeting."""
        queue = self._facts or self._registers
        if not queue:
            return  # all is being saved
        seq = next(iter(queue))
        del queue[seq]
        self.unsaved.append((TABLE, str(seq), None))
        self.lost += 1
        if not self._full:
            self._full = True
            logger().error(
                "too much waits for the fleet's server: the oldest attempts are not told", events=LIMIT
            )


def _event(seq: int, values: list[Any]) -> Event:
    net, register, live, at, ends, body = values
    return Event(seq, net, register, live, at, math.inf if ends is None else ends, body)
