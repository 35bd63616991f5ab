"""Reads the sources into the pipeline's queue; one that fails is made again where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

from guard.app._pipeline import Pipeline
from guard.app._sources import source_of
from guard.config import AnySource
from guard.log import logger
from guard.sources import Keeping, Source
from guard.sources.auth_policy import Standing

RESTART: Final = 30.0  # the longest wait before a source that failed is made again


class Intake:
    """Owns the sources that `tables` describe; `positions` are where they stood when the state was saved."""

    def __init__(
        self, tables: Sequence[AnySource], positions: dict[str, str], pipeline: Pipeline, standing: Standing
    ) -> None:
        self.sources: list[Source] = [source_of(table, positions, standing) for table in tables]
        self._standing = standing
        self._tables = tables
        self._pipeline = pipeline

    async def run(self) -> None:
        """Read every source until all have ended (standard input can) and are processed."""
        async with asyncio.TaskGroup() as group:
            for n in range(len(self.sources)):
                group.create_task(self._read(n))
        await self._pipeline.queue.join()
        logger().warning("every source has ended")

    def saved(self, positions: Mapping[str, str | None]) -> None:
        """Tell the sources that care which positions are safe in the store."""
        for source in self.sources:
            if isinstance(source, Keeping):
                source.saved(positions)

    async def _read(self, n: int) -> None:
        """Read one source to its end; one that fails is told, and made again where it stopped."""
        pause = 1.0
        while True:
            began = time.monotonic()
            try:
                await self.sources[n].run(self._pipeline.queue.put)
            except Exception as error:  # noqa: BLE001 - one source must not end the others
                logger().exception("a source failed", source=self.sources[n].name, error=str(error))
            else:
                return
            pause = 1.0 if time.monotonic() - began > RESTART else min(pause * 2, RESTART)
            await asyncio.sleep(pause)
            await self._pipeline.queue.join()  # what is under way belongs to the positions
            self.sources[n] = source_of(self._tables[n], self._pipeline.positions(), self._standing)
