"""When to compare the kernel with what is wanted: others changed our table, the clock was set, or it was long ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Self

from guard.firewall.monitor import Monitor
from guard.log import logger

VERIFY: Final = 30.0  # seconds between two looks without any reason
QUIET: Final = 0.1  # seconds without a further change: somebody who reloads a firewall makes many
LONGEST: Final = 1.0  # seconds; then we look while they are at it
CHECK: Final = 1.0  # seconds between two looks at the clock
STEP: Final = 0.5  # seconds by which the time of day moved against the time that passed: it was set


class Suspicion:
    """Tells when a reason arises.  `monitor` makes what listens to others; without it only time and clock are left."""

    def __init__(
        self, clock: Callable[[], float] = time.time, monitor: Callable[[], Monitor] | None = None
    ) -> None:
        self._clock = clock
        self._make = monitor
        self._monitor: Monitor | None = None
        self._changed = asyncio.Event()
        self._offset = clock() - time.monotonic()
        self._last = time.monotonic()

    def open(self) -> None:
        """Begin to listen; where the kernel does not let us, say so."""
        if self._make is None or self._monitor is not None:
            return
        try:
            self._monitor = self._make()
        except OSError as error:
            logger().warning(
                "changes that others make to the firewall are noticed within 30 s, not at once",
                reason=str(error),
            )
            return
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._news)
        self._changed.set()  # what others did before is not told

    def _news(self) -> None:
        if self._monitor is not None and self._monitor.foreign():
            self._changed.set()

    async def arises(self) -> None:
        """Wait until there is a reason to look."""
        while not self._changed.is_set():
            left = self._last + VERIFY - time.monotonic()
            if left <= 0 or self._clock_was_set():
                break
            try:
                async with asyncio.timeout(min(CHECK, left)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        await self._quiet()
        self._last = time.monotonic()

    async def _quiet(self) -> None:
        """Wait until those who change our table have done, but not for long."""
        until = time.monotonic() + LONGEST
        while self._changed.is_set() and time.monotonic() < until:
            self._changed.clear()
            try:
                async with asyncio.timeout(QUIET):
                    await self._changed.wait()
            except TimeoutError:
                return
        self._changed.clear()

    def _clock_was_set(self) -> bool:
        offset = self._clock() - time.monotonic()
        step = offset - self._offset
        self._offset = offset
        if abs(step) < STEP:
            return False
        logger().warning(
            "the clock was set: the ends of all bans are told to the kernel anew", seconds=round(step, 1)
        )
        return True

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None
