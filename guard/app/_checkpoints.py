"""Takes what changed, of the engine and of everybody else, and has the keeper save it in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from guard.app._fleet import Fleet
from guard.app._keeper import Keeper
from guard.app._pipeline import Pipeline

PAUSE: Final = 1.0  # seconds between two checkpoints
SLICE: Final = 0.2  # while there is so much to save that asking takes time, or no source can tell it again
SLOW: Final = 0.03  # seconds that asking may take
SOONEST: Final = 0.05  # while there is news for the fleet

Unsaved = list[tuple[str, str, str | None]]


class Checkpoints:
    """`others` are the rows that others want saved beside the engine's; `sample` is called at each checkpoint."""

    def __init__(
        self, pipeline: Pipeline, keeper: Keeper, sample: Callable[[], None], fleet: Fleet | None
    ) -> None:
        self.others: list[Unsaved] = []
        self._pipeline = pipeline
        self._keeper = keeper
        self._sample = sample
        self._fleet = fleet

    async def run(self) -> None:
        """Take one about every second until cancelled, sooner where something must not wait."""
        pause = PAUSE
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._pipeline.fresh.wait()
            self._pipeline.fresh.clear()
            self._sample()
            urgent, began = self._pipeline.urgent, time.monotonic()
            self.take()
            took = time.monotonic() - began
            pause = PAUSE if took < SLOW and not urgent else SLICE
            await asyncio.sleep(min(SLICE, max(SOONEST, took * 4)))

    def take(self) -> None:
        """Take one now.  Never awaits: what everybody says is of the same moment."""
        checkpoint = self._pipeline.checkpoint()
        for unsaved in self.others:
            checkpoint.rows.extend(unsaved)
            unsaved.clear()
        saved = None
        if self._fleet is not None:
            rows, saved = self._fleet.collect()
            checkpoint.rows.extend(rows)
        self._keeper.take(checkpoint, saved)
