"""One path and the files that stand, or stood, under it: read in the order in which they were written."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from guard.sources import Chunk, Note
from guard.sources._position import FilePosition
from guard.sources._rotation import Sibling, find, newer, siblings
from guard.sources._tail import ReplacedError, Tail, open_log

CLOCK: Final = 0.1  # seconds that a file's time may lie behind the clock: the kernel's tick, and then some
LINE: Final = 64 * 1024  # how far back the beginning of an unfinished line is looked for


def _end(fd: int) -> int:
    """Return where the last complete line ends: a line that is being written now is not yet history."""
    size = os.fstat(fd).st_size
    start = max(0, size - LINE)
    last = os.pread(fd, size - start, start).rfind(b"\n")
    return start + last + 1 if last >= 0 or not start else size


class Follow:
    """Reads a path through rotation by rename, by copy and truncation, and by re-creation.

    Nothing twice and nothing lost that is still readable: a rotated file is read to its end before its successor,
    and watched for `linger` seconds for late writes; files that came and went between two looks are found among
    the rotated ones; what a truncation took away is read from the copy.  Purely synchronous, a step at a time.
    """

    def __init__(self, name: str, path: str, note: Note, linger: float, *, optional: bool) -> None:
        self.name = name
        self.path = path
        self.tails: list[Tail] = []  # oldest first
        self.left: list[Tail] = []  # closed; the owner drains this
        self.trouble = ""  # what is in the way, in words
        self.lost = 0  # how often something could not be delivered
        self.caught_up = time.monotonic()  # when everything written had been read
        self.behind = False
        self._note = note
        self._place = Path(path)
        self._linger = linger
        self._optional = optional
        self._before: set[tuple[int, int]] = (
            set()
        )  # the rotated files there were before the current one was opened
        self._opened = 0.0  # and when that was (seconds since the epoch)
        self._farewells: list[str] = []  # streams that are over and have no file any more

    def begin(self, saved: Sequence[FilePosition], from_start: bool) -> None:
        """Go on where `saved` says.  Without it the path's file is read from its start or from now on."""
        self._remember()
        current = None
        found: list[tuple[Sibling, Tail]] = []
        for position in saved:
            hit = find(position)
            if hit is None:
                self._lose("has gone while nobody was reading: what was written there meanwhile is lost")
                self._farewells.append(position.path + f"#{position.inode}")
                continue
            here = hit.sibling.path == self.path
            identity = None if hit.same or here else (position.device, position.inode)
            tail = Tail(hit.fd, self.path, position.offset, identity=identity)
            if not hit.same and here:
                self._farewells.append(position.path + f"#{position.inode}")
            tail.announced = hit.same or not here
            if here:
                current = tail
            else:
                found.append((hit.sibling, tail))
        found.sort(key=lambda pair: (pair[0].kind, pair[0].order))
        self.tails = [tail for _, tail in found]
        if current is None:
            current = self._first(from_start or bool(saved))
            if current:
                current.reset = any(p.inode == current.identity[1] for p in saved)
            if saved:
                than = found[-1][0] if found else None
                missed = newer(self.path, than, max(p.at for p in saved))
                self.tails += self._open(missed, current, copied=any(tail.copy for tail in self.tails))
        for tail in self.tails:
            tail.retire(self._linger)
        if current:
            self.tails.append(current)

    def _first(self, from_start: bool) -> Tail | None:
        try:
            fd = open_log(self.path)
        except OSError as error:
            self._say(error)
            return None
        return Tail(fd, self.path, 0 if from_start else _end(fd))

    def step(self) -> Chunk | None:
        """Return the next chunk; None when everything that is written has been read."""
        try:
            chunk = self._next()
        except OSError as error:  # a disk or network file system that fails: tried again at the next look
            self._say(error)
            return None
        self.behind = chunk is not None and self.tails != [] and self.tails[-1].unread() > 0
        if not self.behind:
            self.caught_up = time.monotonic()
        return chunk

    def _next(self) -> Chunk | None:
        while True:
            changed = False
            for tail in self.tails:
                try:
                    if tail.until is None and tail.blank() and tail.unread():
                        changed = self._again(tail)
                        if changed:
                            break
                    chunk = tail.read(self.name)
                except ReplacedError:
                    self._replaced(tail)
                    changed = True
                    break
                if chunk:
                    return chunk
                if tail.over():
                    return self._close(tail)
            if not changed and not self._look():
                return self._farewell()

    def _look(self) -> bool:
        """See whether another file stands under the path; True when there is something new to read."""
        last = self.tails[-1] if self.tails else None
        current = last if last and last.until is None else None
        try:
            info = self._place.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            if current and current.unlinked():
                current.retire(self._linger)
            elif not current and not self._optional:
                self._say(error)
            return False
        identity = (info.st_dev, info.st_ino)
        if current and current.identity == identity:
            self.trouble = ""
            return False
        for tail in self.tails:
            if tail.identity == identity and not tail.copy:  # it was renamed back
                tail.until = None
                self.tails.sort(key=lambda t: t is tail)
                return True
        self._remember()
        tail = Tail(open_log(self.path), self.path)
        self.trouble = ""
        if last:
            position = last.position
            if position.matches(tail.fd):  # an editor or a restore wrote the same content to a new file
                tail.close()
                tail = Tail(open_log(self.path), self.path, position.offset)
            else:
                self.tails += self._open(self._missed(last), tail)
        for other in self.tails:
            if other.until is None:
                other.retire(self._linger)
        self.tails.append(tail)
        return True

    def _missed(self, last: Tail) -> list[Sibling]:
        """Return the files that took the path after `last` and have already been rotated away."""
        info = os.fstat(last.fd)
        than = [s for s in siblings(self.path) if (s.device, s.inode) == (info.st_dev, info.st_ino)]
        return newer(self.path, than[0] if than else None, max(info.st_mtime, last.position.at))

    def _open(self, missed: Sequence[Sibling], current: Tail | None, *, copied: bool = False) -> list[Tail]:
        """Open the missed files; of copies only those whose original, the current file, has gone on since."""
        known = {tail.identity for tail in (*self.tails, *([current] if current else []))}
        tails = []
        for sibling in missed:
            if (sibling.device, sibling.inode) in known:
                continue
            try:
                tail = Tail(open_log(sibling.path), self.path)
            except OSError as error:
                self._lose(f"{sibling.path}: {error.strerror or error}: what is in it is lost")
                continue
            if (
                copied and current and tail.copies(current)
            ):  # copytruncate is between its copy and its truncation
                tail.close()
            else:
                tails.append(tail)
        return tails

    def _replaced(self, tail: Tail) -> None:
        """The content of `tail` is gone: go on in the copy that copytruncate made, then from the start."""
        if tail.until is not None:  # a rotated file that somebody emptied
            self._lose("was truncated after its rotation")
            self._drop(tail)
            self._farewells.append(tail.stream)
            return
        place = self.tails.index(tail)
        position = tail.position
        hit = find(position, avoid=tail.identity)
        self._remember()
        tail.restart()
        if hit is None:
            self._lose("was truncated and no copy is there: what was written since the last look is lost")
        else:
            rest = Tail(hit.fd, self.path, position.offset, identity=tail.identity)
            rest.announced = True
            missed = self._open(newer(self.path, hit.sibling, hit.sibling.modified), tail, copied=True)
            self._before.add((hit.sibling.device, hit.sibling.inode))
            self._before.update(other.identity for other in missed)
            self.tails[place:place] = [rest, *missed]
            for earlier in (rest, *missed):
                earlier.retire(self._linger)

    def _remember(self) -> None:
        """Take note of the rotated files before the current one is opened anew."""
        self._opened = time.time()
        self._before = {(s.device, s.inode) for s in siblings(self.path)}

    def _again(self, tail: Tail) -> bool:
        """The empty current file has its first bytes.  True when it had others before, copied away and truncated.

        Nothing of the file itself could tell; but the copy is new, and not of what stands there now.
        """
        tail.peek()
        new = [s for s in siblings(self.path) if s.whole and (s.device, s.inode) not in self._before]
        new = [s for s in new if s.modified > self._opened - CLOCK]  # no old archive that somebody unpacks
        missed = self._open(new, tail, copied=True)
        for earlier in missed:
            earlier.retire(self._linger)
        place = self.tails.index(tail)
        self.tails[place:place] = missed
        return bool(missed)

    def _drop(self, tail: Tail) -> None:
        self.tails.remove(tail)
        tail.close()
        self.left.append(tail)

    def _close(self, tail: Tail) -> Chunk:
        position = next((t.position for t in self.tails if t is not tail and t.stream == tail.stream), None)
        self._drop(tail)
        return Chunk(self.name, tail.stream, b"", position, end=True)

    def _farewell(self) -> Chunk | None:
        while self._farewells:
            stream = self._farewells.pop()
            if all(tail.stream != stream for tail in self.tails):
                return Chunk(self.name, stream, b"", None, end=True)
        return None

    def _lose(self, what: str) -> None:
        self.lost += 1
        self._note(f"{self.path}: {what}")

    def _say(self, error: OSError) -> None:
        text = f"{self.path}: {error.strerror or error}"
        if text != self.trouble:
            self.trouble = text
            self._note(text)

    def finished(self) -> bool:
        """Is there nothing left to read or to say, and no file under the path?"""
        return not self.tails and not self._farewells and not self.left and not self._place.exists()

    def close(self) -> None:
        """Close what is open."""
        for tail in self.tails:
            tail.close()
        self.tails = []
