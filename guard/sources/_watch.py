"""Wakes a file source when something was written, within a fraction of a millisecond; polling is what it rests on.

inotify through `inotify_simple`: a hundred lines over libc with no dependency, a plain descriptor that fits
`loop.add_reader`.  Events are hints only (they do not exist on network file systems, and the queue may overflow):
whoever waits looks for himself after some time.
"""

from __future__ import annotations

import asyncio
from typing import Final, Self

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

WRITTEN: Final = int(flags.MODIFY)
MOVED: Final = int(flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.ONLYDIR)
OVERFLOW: Final = -1  # the number the kernel gives to "events were lost"


class Watch:
    """Watches files and folders; used within a running loop, as a context manager."""

    def __init__(self) -> None:
        self._touched: set[int] = set()
        self._wake = asyncio.Event()
        try:
            self._inotify: INotify | None = INotify(nonblocking=True)
        except (OSError, AttributeError, TypeError):  # no instances left; no libc that knows inotify
            self._inotify = None

    def __enter__(self) -> Self:
        """Begin."""
        if self._inotify:
            asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        if self._inotify:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()

    @property
    def works(self) -> bool:
        """Is it more than polling?"""
        return self._inotify is not None

    def file(self, fd: int) -> int | None:
        """Watch an open file, under whatever name it may have; return its number, None when it cannot be watched."""
        return self._add(f"/proc/self/fd/{fd}", WRITTEN)

    def folder(self, path: str) -> int | None:
        """Watch what appears in and vanishes from a folder; return its number, None when it cannot be watched."""
        return self._add(path, MOVED)

    def _add(self, path: str, mask: int) -> int | None:
        try:
            return int(self._inotify.add_watch(path, mask)) if self._inotify else None
        except OSError:  # none left (fs.inotify.max_user_watches), or the file system has none
            return None

    def forget(self, number: int) -> None:
        """Watch no longer."""
        try:
            if self._inotify:
                self._inotify.rm_watch(number)
        except OSError:  # the kernel has forgotten it already, with the file
            return

    def touched(self) -> set[int]:
        """Return the numbers of what was touched since the last call; OVERFLOW among them means: everything."""
        touched, self._touched = self._touched, set()
        self._wake.clear()
        return touched

    async def wait(self, seconds: float) -> None:
        """Return when something is touched, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _on_event(self) -> None:
        if self._inotify:
            self._touched.update(event.wd for event in self._inotify.read(timeout=0))
            self._wake.set()
