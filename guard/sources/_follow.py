"""One path and the files that stand, or stood, under it: read in the order in which they were written."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from guard.sources import Chunk, Note
from guard.sources._position import FilePosition
from guard.sources._rotation import Sibling, copies, find, newer, outlived, siblings
from guard.sources._tail import ReplacedError, Tail, open_log, whole_lines


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
        self._folder = 0  # when its folder changed last, nanoseconds
        self._last: FilePosition | None = None  # of a file that has gone, until another stands under the path
        self._parting: Tail | None = None  # about to be closed
        self._farewells: list[str] = []  # streams that are over and have no file any more

    def begin(self, saved: Sequence[FilePosition], from_start: bool) -> None:
        """Go on where `saved` says.  Without it the path's file is read from its start or from now on."""
        begun, beside = time.time(), siblings(self.path)
        current = None
        found: list[tuple[Sibling, Tail]] = []
        for position in saved:
            hit = find(position)
            if hit is None:
                if not position.over:
                    self._lose("has gone while nobody was reading: what was written there meanwhile is lost")
                self._farewells.append(position.stream)
                continue
            here = hit.sibling.path == self.path
            identity = None if hit.same or here else (position.device, position.inode)
            tail = Tail(hit.fd, self.path, position.offset, identity=identity)
            if not hit.same and here:
                self._farewells.append(position.stream)
            tail.announced = hit.same or not here
            self._know(tail, begun, beside)
            if position.blank and hit.same:  # what has come since may be what it held meanwhile
                tail.forget()
                self._know(tail, position.at, [s for s in beside if s.modified <= position.at])
                tail.before |= {(p.device, p.inode) for p in saved}
            if here:
                current = tail
            else:
                found.append((hit.sibling, tail))
        found.sort(key=lambda pair: (pair[0].kind, pair[0].order))
        self.tails = [tail for _, tail in found]
        if current is None:
            current = self._first(from_start or bool(saved))
            if current:
                self._know(current, begun, beside)
                current.reset = any(p.inode == current.identity[1] for p in saved)
            if saved:
                than = found[-1][0] if found else None
                missed = newer(self.path, than, max(p.at for p in saved))
                self.tails += self._open(missed, current, copied=any(tail.copy for tail in self.tails))
        for tail in self.tails:
            tail.retire(self._linger)
        if current:
            self.tails.append(current)

    @staticmethod
    def _know(tail: Tail, since: float, beside: Sequence[Sibling]) -> None:
        """Note that none of `beside`, the rotated files at `since`, holds anything of `tail`."""
        tail.since, tail.before = since, {(s.device, s.inode) for s in beside}

    def _first(self, from_start: bool) -> Tail | None:
        try:
            fd = open_log(self.path)
        except OSError as error:
            self._say(error)
            return None
        return Tail(fd, self.path, 0 if from_start else whole_lines(fd))

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
                    if tail.brief() and tail.unread():
                        changed = self._again(tail) if tail.blank() else self._outlived(tail)
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
                    return self._part(tail)
            if not changed and not self._look():
                return self._farewell()

    def _look(self) -> bool:
        """See whether another file stands under the path; True when there is something new to read."""
        last = self.tails[-1] if self.tails else None
        current = last if last and last.until is None else None
        try:
            info = self._place.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            if (last or self._last) and self._moved():
                return self._between(last)
            if current:
                return False
            if not self._optional:
                self._say(error)
            return False
        identity = (info.st_dev, info.st_ino)
        if current and current.identity == identity:
            self.trouble = ""
            return current.blank() and self._moved() and self._again(current)
        for tail in self.tails:
            if tail.identity == identity and not tail.copy:  # it was renamed back
                tail.until = None
                self.tails.sort(key=lambda t: t is tail)
                return True
        if current and current.blank() and self._again(current):
            return True
        looked, beside = time.time(), siblings(self.path)
        tail = Tail(open_log(self.path), self.path)
        self.trouble = ""
        position = last.position if last else self._last
        if position:
            if position.matches(tail.fd):  # an editor or a restore wrote the same content to a new file
                tail.close()
                tail = Tail(open_log(self.path), self.path, position.offset)
            else:
                written = os.fstat(last.fd).st_mtime if last else 0.0
                self.tails += self._open(self._missed(position, written), tail)
            self._left_behind([tail])
        self._know(tail, looked, beside)
        for other in self.tails:
            if other.until is None:
                other.retire(self._linger)
        self.tails.append(tail)
        return True

    def _moved(self) -> bool:
        """Has a file come, gone or been renamed in the folder since the last call?"""
        before, self._folder = self._folder, self._place.parent.stat().st_mtime_ns
        return self._folder != before

    def _between(self, last: Tail | None) -> bool:
        """Nothing stands under the path: the next file may have come and gone as well."""
        position = last.position if last else self._last
        passed = (
            self._open(self._missed(position, os.fstat(last.fd).st_mtime if last else 0.0), None)
            if position
            else []
        )
        if last and last.until is None and (passed or last.unlinked()):
            last.retire(self._linger)
        for other in passed[:-1]:
            other.retire(self._linger)
        self._left_behind(passed)
        self.tails += passed
        return bool(passed)

    def _left_behind(self, tails: Sequence[Tail]) -> None:
        """Forget the file that had gone, now that others have come."""
        if self._last and tails:
            self._farewells.append(self._last.stream)
            self._last = None

    def _missed(self, last: FilePosition, written: float) -> list[Sibling]:
        """Return the files that took the path after `last` and have already been rotated away."""
        than = [s for s in siblings(self.path) if (s.device, s.inode) == (last.device, last.inode)]
        return newer(self.path, than[0] if than else None, max(written, last.at))

    def _open(self, missed: Sequence[Sibling], current: Tail | None, *, copied: bool = False) -> list[Tail]:
        """Open the missed files; of copies only those whose original, the current file, has gone on since."""
        known = {tail.identity for tail in (*self.tails, *([current] if current else []))}
        tails = []
        looked, beside = time.time(), siblings(self.path) if missed else []
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
                self._know(tail, looked, beside)
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
        looked, beside = time.time(), siblings(self.path)
        hit = find(position, avoid=tail.identity)
        tail.restart()
        self._know(tail, looked, beside)
        if hit is None:
            self._lose("was truncated and no copy is there: what was written since the last look is lost")
        else:
            rest = Tail(hit.fd, self.path, position.offset, identity=tail.identity)
            rest.announced = True
            missed = self._open(newer(self.path, hit.sibling, hit.sibling.modified), tail, copied=True)
            tail.before |= {(hit.sibling.device, hit.sibling.inode), *(other.identity for other in missed)}
            self.tails[place:place] = [rest, *missed]
            for earlier in (rest, *missed):
                earlier.retire(self._linger)

    def _again(self, tail: Tail) -> bool:
        """Find what an empty file held since it was seen to be empty, where it was copied away and truncated.

        Nothing of the file itself could tell; but the copy is new, and not of what stands there now.
        """
        tail.peek()
        missed = self._open(copies(self.path, tail), tail, copied=True)
        tail.before.update(other.identity for other in missed)
        for earlier in missed:
            earlier.retire(self._linger)
        place = self.tails.index(tail)
        self.tails[place:place] = missed
        return bool(missed)

    def _outlived(self, tail: Tail) -> bool:
        """See whether a file of which little is known was copied away, truncated, and has begun in the same way."""
        if tail.until is not None or not outlived(
            tail.fd, tail.position._replace(at=0.0), copies(self.path, tail)
        ):
            return False
        self._replaced(tail)
        return True

    def _part(self, tail: Tail) -> Chunk:
        """Leave `tail`, after what the reader must know of the others: a kill may follow at any moment.

        Those that are still to be read are told first, and that what `tail` holds is none of an empty file's.
        """
        if self._parting is not tail:
            self._parting = tail
            for other in self.tails[:]:
                now = time.time()
                if other is not tail and other.blank() and not self._again(other):
                    other.since, other.announced = now, False
        for other in self.tails:
            if not other.announced and other.stream != tail.stream:
                return other.announce(self.name)
        return self._close(tail)

    def _drop(self, tail: Tail) -> None:
        self.tails.remove(tail)
        tail.close()
        self.left.append(tail)

    def _close(self, tail: Tail) -> Chunk:
        position = next((t.position for t in self.tails if t is not tail and t.stream == tail.stream), None)
        self._drop(tail)
        if not self.tails:
            self._last = tail.position._replace(over=True)
            position = None if self._optional else self._last  # many a file of a glob never comes back
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
