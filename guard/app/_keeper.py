"""Saves checkpoints in a thread of its own, one transaction for all that have come since the last.

Checkpoints that follow one another make one: the later rows and positions win.  So the engine is asked for its changes
in small slices however long the store takes, and memory is bounded by what the engine remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from guard.app._pipeline import Checkpoint
from guard.log import logger
from guard.model import Action
from guard.store import Store, StoreError

_HISTORY: Final = 100_000  # actions kept while the store is away


class Keeper:
    """Owns the store."""

    def __init__(self, store: Store) -> None:
        self.trouble = ""  # why the state is not saved, in words
        self.saved: Callable[[Mapping[str, str | None]], None] = lambda _: (
            None
        )  # takes positions that are safe
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._rows: dict[tuple[str, str], str | None] = {}
        self._positions: dict[str, str | None] = {}
        self._actions: list[Action] = []
        self._told: list[Callable[[], None]] = []  # who waits for what was taken to be saved
        self._ready = asyncio.Event()

    def take(self, checkpoint: Checkpoint, saved: Callable[[], None] | None = None) -> None:
        """Have `checkpoint` saved; returns at once.  `saved` is called once it is."""
        if saved is not None:
            self._told.append(saved)
        for table, key, text in checkpoint.rows:
            self._rows[table, key] = text
        self._positions |= checkpoint.positions
        self._actions += checkpoint.actions[: _HISTORY - len(self._actions)]
        if self._rows or self._positions or self._actions:
            self._ready.set()

    async def run(self) -> None:
        """Save what is taken until cancelled; trouble is told, and the next checkpoint tries again."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            await self._write()

    async def _write(self) -> None:
        rows, self._rows = self._rows, {}
        positions, self._positions = self._positions, {}
        actions, self._actions = self._actions, []
        told, self._told = self._told, []

        def save() -> None:
            flat = [(table, key, text) for (table, key), text in rows.items()]
            self._store.save(flat, positions, actions)

        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, save)
        except asyncio.CancelledError:  # nobody will learn how this ends: `close` saves it once more
            self._again(rows, positions)
            raise
        except StoreError as error:
            self._again(rows, positions)
            self._actions = actions + self._actions
            self._told = told + self._told
            if not self.trouble:
                logger().error("the state is not saved", reason=str(error))
            self.trouble = str(error)
            return
        if self.trouble:
            logger().warning("the state is saved again")
        self.trouble = ""
        self.saved(positions)
        for saved in told:
            saved()

    def _again(self, rows: dict[tuple[str, str], str | None], positions: dict[str, str | None]) -> None:
        self._rows = rows | self._rows
        self._positions = positions | self._positions

    async def close(self) -> None:
        """Save what is left, and give the store back."""
        if self._rows or self._positions or self._actions:
            await self._write()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()
