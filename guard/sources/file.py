"""The source `file`: a log file, or all that a glob names, followed as they grow and through rotation.

Configuration: `path` (a path, or a glob: `*`, `?`, `[...]`, `**`), `from`:

* not set, `resume`: go on where the state says; without state from now on
* `start`: go on where the state says; without state read the file from its start
* `now`: from now on, whatever the state says

A file that appears later is read from its start.  A glob takes no file whose name says that it was rotated or
compressed (`mail.log.1`, `mail.log-20261124.gz`): those are found through the log that they come from.
"""

from __future__ import annotations

import asyncio
import fnmatch
import glob
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from guard.sources import Chunk, Health, Note, Put
from guard.sources._cursor import Cursor
from guard.sources._follow import Follow
from guard.sources._position import FilePosition, load
from guard.sources._rotation import is_rotated
from guard.sources._watch import OVERFLOW, Watch

POLL: Final = 0.05  # seconds between two looks at every file; grows with their number, see FileSource.run
RESCAN: Final = 1.0  # seconds between two evaluations of a glob
LINGER: Final = 10.0  # seconds without a write after which a rotated file is left; rsyslog reopens within one
FILES: Final = 4096  # the most files that one source follows
REMEMBERED: Final = 4096  # files read to their end: not new ones when another name turns up


class FileSource:
    """Follows `path`.  `positions` are the saved ones of all sources: it takes those of its own files.

    `note` is called with a sentence when something is in the way or is lost.
    """

    def __init__(
        self,
        name: str,
        path: str,
        positions: Mapping[str, str] | None = None,
        *,
        start: str = "resume",
        linger: float = LINGER,
        note: Note = lambda _: None,
    ) -> None:
        self._name = name
        self._pattern = str(Path(path).absolute())
        self._glob = glob.has_magic(path)
        self._start = start
        self._linger = linger
        self._note = note
        self._positions = [p for p in map(load, (positions or {}).values()) if p and self._own(p.path)]
        self._marker = f"{self._pattern}#"  # no file's stream: says that the files were looked for before
        self._known = self._marker in (positions or {})
        self._follows: dict[str, Follow] = {}
        self._watched: dict[int, Follow] = {}
        self._folders: dict[str, int | None] = {}
        self._read: dict[tuple[int, int], FilePosition] = {}  # read to the end, oldest first
        self._refused = 0  # files beyond FILES

    @property
    def name(self) -> str:
        """The label in metrics."""
        return self._name

    def health(self) -> Health:
        """Up while a file is read and none is in trouble."""
        follows = list(self._follows.values())
        trouble = [f.trouble for f in follows if f.trouble]
        if self._refused:
            trouble.append(f"{self._pattern}: more than {FILES} files, {self._refused} are not read")
        count = sum(1 for f in follows if f.tails)
        now = time.monotonic()
        return Health(
            name=self._name,
            up=count > 0 and not trouble,
            lag=max((now - f.caught_up for f in follows if f.behind), default=0.0),
            lost=sum(f.lost for f in follows) + self._refused,
            detail="; ".join(trouble[:3]) or (f"{count} of {self._pattern}" if self._glob else self._pattern),
        )

    async def run(self, put: Put) -> None:
        """Deliver chunks until the task is cancelled.

        The files take turns, a chunk each, so that a huge one does not keep the others waiting.  The wait between
        looks grows with their number: with inotify it only finds what inotify did not tell.
        """
        with Watch() as watch:
            try:
                self._begin()
                if not self._known:
                    await put(Chunk(self._name, self._marker, b"", Cursor("known")))
                ready = set(self._follows.values())
                looked = scanned = time.monotonic()
                while True:
                    now = time.monotonic()
                    touched = watch.touched()
                    moved = OVERFLOW in touched or not touched.isdisjoint(set(self._folders.values()))
                    ready.update(self._watched[number] for number in touched if number in self._watched)
                    if moved or now - scanned >= RESCAN:
                        await self._rescan(watch)
                        scanned = now
                    pause = POLL * (1 + len(self._follows) / 50)
                    if moved or now - looked >= pause:
                        ready.update(self._follows.values())
                        looked = now
                    ready = await self._round(ready, put, watch)
                    if not ready:
                        await watch.wait(max(0.0, looked + pause - time.monotonic()))
            finally:
                for follow in self._follows.values():
                    follow.close()

    async def _round(self, ready: set[Follow], put: Put, watch: Watch) -> set[Follow]:
        """Deliver one chunk of each file; return those that may have more."""
        busy = set()
        for follow in ready:
            chunk = follow.step()
            if self._rewatch(follow, watch) or chunk:
                busy.add(follow)
            if chunk:
                await put(chunk)
                await asyncio.sleep(0)  # a queue that has room does not let others run
        return busy

    def _rewatch(self, follow: Follow, watch: Watch) -> bool:
        """Watch the files it has opened and forget those it has closed; True when there is a new one.

        What was written between the last look and the beginning of the watch is found by looking once more.
        """
        fresh = False
        for tail in follow.left:
            self._read[tail.identity] = tail.position
            if tail.wd is not None and all(t.wd != tail.wd for t in follow.tails):
                self._watched.pop(tail.wd, None)
                watch.forget(tail.wd)
        follow.left.clear()
        while len(self._read) > REMEMBERED:
            del self._read[next(iter(self._read))]
        for tail in follow.tails:
            if tail.wd is None and watch.works:
                tail.wd = watch.file(tail.fd)
                if tail.wd is None:
                    continue
                self._watched[tail.wd] = follow
                fresh = True
        return fresh

    def _own(self, path: str) -> bool:
        if not self._glob:
            return path == self._pattern
        deep = "**" in self._pattern or path.count("/") == self._pattern.count("/")
        return deep and fnmatch.fnmatchcase(path, self._pattern)

    def _paths(self) -> list[str]:
        """Return what the pattern names now."""
        if not self._glob:
            return [self._pattern]
        found = glob.glob(self._pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return sorted(p for p in found if not is_rotated(Path(p).name))

    def _begin(self) -> None:
        saved: dict[str, list[FilePosition]] = {}
        for position in self._positions if self._start != "now" else []:
            saved.setdefault(position.path, []).append(position)
        paths = [*saved, *self._paths()]  # those with state first: they know their rotated files
        for path in dict.fromkeys(paths):
            if not self._taken(path) or path in saved:
                # A file without state was not there when the others were saved: it is new.
                new = self._start == "start" or (self._known and self._start != "now")
                self._follow(path, saved.get(path, []), new)
        self._positions = []

    def _follow(self, path: str, saved: list[FilePosition], from_start: bool) -> None:
        if len(self._follows) >= FILES:
            self._refused += 1
            return
        follow = self._follows[path] = Follow(self._name, path, self._note, self._linger, optional=self._glob)
        follow.begin(saved, from_start)

    def _taken(self, path: str) -> bool:
        """Is the file under `path` no log of its own: one that is read or was read under another name?"""
        if not self._glob:
            return False
        try:
            info = Path(path).stat()
        except OSError:
            return True
        identity = (info.st_dev, info.st_ino)
        if not stat.S_ISREG(info.st_mode) or any(
            tail.identity == identity for follow in self._follows.values() for tail in follow.tails
        ):
            return True
        return identity in self._read and self._same(path, self._read[identity])

    @staticmethod
    def _same(path: str, position: FilePosition) -> bool:
        try:
            with Path(path).open("rb") as file:
                return position.matches(file.fileno())
        except OSError:
            return True

    async def _rescan(self, watch: Watch) -> None:
        """See which files the pattern names now, and watch the folders they are in."""
        paths = await asyncio.to_thread(self._paths)
        self._refused = 0
        for path in paths:
            if path not in self._follows and not self._taken(path):
                self._follow(path, [], from_start=True)
        for path in [p for p, f in self._follows.items() if self._glob and f.finished()]:
            del self._follows[path]
        for folder in {str(Path(path).parent) for path in (*paths, *self._follows)} - set(self._folders):
            number = watch.folder(folder)
            if number is not None:
                self._folders[folder] = number
