"""One open log file that is read as it grows."""

from __future__ import annotations

import os
import stat
import time
from typing import Final

from guard.sources import CHUNK_BYTES, Chunk
from guard.sources._position import HEAD, TAIL, FilePosition, digest

FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # NONBLOCK: opening a FIFO by mistake must not hang
LINE: Final = 64 * 1024  # how far back the beginning of an unfinished line is looked for


class ReplacedError(Exception):
    """The bytes that were read are gone: the file was truncated, or truncated and has grown again."""


def open_log(path: str) -> int:
    """Return a descriptor of the regular file at `path`.  Raises OSError, also when it is something else."""
    fd = os.open(path, FLAGS)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("not a regular file")
    return fd


def whole_lines(fd: int) -> int:
    """Return where the last complete line ends: a line that is being written now is not yet history."""
    size = os.fstat(fd).st_size
    start = max(0, size - LINE)
    last = os.pread(fd, size - start, start).rfind(b"\n")
    return start + last + 1 if last >= 0 or not start else size


class Tail:
    """Reads a descriptor from `offset` on, and owns it.

    `path`, `device` and `inode` say which file this is to the stream's reader: for a copy (copytruncate) those of
    the original, so that its rest continues the stream.
    """

    __slots__ = (
        "_ahead",
        "_head",
        "_last",
        "announced",
        "before",
        "copy",
        "fd",
        "identity",
        "linger",
        "offset",
        "path",
        "reset",
        "seen",
        "since",
        "until",
        "wd",
    )

    def __init__(
        self, fd: int, path: str, offset: int = 0, *, identity: tuple[int, int] | None = None
    ) -> None:
        info = os.fstat(fd)
        self.fd = fd
        self.path = path
        self.copy = identity is not None
        self.identity = identity or (info.st_dev, info.st_ino)
        self.offset = offset
        self._fingerprint()
        self.seen = time.time()  # when it was looked at last
        self.before: set[tuple[int, int]] = set()  # the rotated files that none of its content was copied to
        self.since = 0.0  # as of when that is so (seconds since the epoch)
        self.reset = False  # the next chunk says so
        self.announced = False  # the reader knows the position
        self.linger = 0.0  # seconds without a write after which to leave it, once it is not the current file
        self.until: float | None = None  # monotonic time at which to leave it; None: it is the current file
        self.wd: int | None = None  # inotify's number

    def _fingerprint(self) -> None:
        early = min(TAIL, self.offset)
        self._last = os.pread(self.fd, early, self.offset - early)
        self._head = os.pread(self.fd, HEAD, 0)
        self._ahead = self._head[
            self.offset :
        ]  # seen, not read: what replaces it meanwhile is another content

    @property
    def stream(self) -> str:
        """The key of the byte stream."""
        return f"{self.path}#{self.identity[1]}"

    @property
    def position(self) -> FilePosition:
        """How far it was read."""
        return FilePosition(
            path=self.path,
            device=self.identity[0],
            inode=self.identity[1],
            offset=self.offset,
            head=digest(self._head),
            head_size=len(self._head),
            tail=digest(self._last),
            tail_size=len(self._last),
            tail_end=self.offset,
            at=self.since if self.blank() and self.since else self.seen,
        )

    def read(self, name: str) -> Chunk | None:
        """Return the next chunk, or None at the end of what is written.  Raises `ReplacedError`.

        Every read begins a few bytes early and compares, so that a file which was truncated and has already grown
        beyond the offset is noticed before a byte of it is taken for the old one's continuation.
        """
        seen, info = time.time(), os.fstat(self.fd)
        if info.st_size < self.offset + len(self._ahead):
            raise ReplacedError
        data = b""
        if info.st_size > self.offset:
            early = len(self._last)
            piece = os.pread(self.fd, early + CHUNK_BYTES, self.offset - early)
            data = piece[early:]
            if piece[:early] != self._last or not data.startswith(self._ahead):
                raise ReplacedError
        self.seen = seen
        if not data and self.announced:
            return None
        return self._advance(name, data, info.st_mtime)

    def _advance(self, name: str, data: bytes, written: float) -> Chunk:
        if len(self._head) < HEAD:
            self._head = (self._head[: self.offset] + data)[:HEAD] if data else self._head
        self._last = data[-TAIL:] if len(data) >= TAIL else (self._last + data)[-TAIL:]
        self._ahead = b"" if data else self._ahead
        self.offset += len(data)
        if self.until is not None:
            self.retire(self.linger)  # a late write: there may be more
        if self.reset:
            data = data.lstrip(b"\0")  # the rest of the hole that a writer without O_APPEND leaves
        chunk = Chunk(
            name, self.stream, data, self.position, reset=self.reset, written=written if data else None
        )
        self.reset, self.announced = False, True
        return chunk

    def retire(self, linger: float) -> None:
        """Another file has taken its place: leave it after `linger` seconds without a write; a copy at its end."""
        self.linger = linger
        self.until = time.monotonic() + (0.0 if self.copy else linger)

    def over(self) -> bool:
        """May it be closed, when it is read to its end?"""
        return self.until is not None and time.monotonic() >= self.until

    def restart(self) -> None:
        """Begin again: the same file has other content."""
        try:  # a writer without O_APPEND goes on at its old offset after copytruncate: skip the hole before it
            self.offset = os.lseek(self.fd, 0, os.SEEK_DATA)
        except OSError:  # ENXIO: there is no data
            self.offset = 0
        self._fingerprint()
        self.reset, self.announced, self.until = True, False, None

    def copies(self, other: Tail) -> bool:
        """Does it hold what `other` holds, as far as is known?  `other` may be truncated at this moment."""
        if not other.brief():
            return other._head.startswith(self._head)
        size = os.fstat(self.fd).st_size
        early = min(TAIL, size)
        return size <= os.fstat(other.fd).st_size and all(
            os.pread(self.fd, count, start) == os.pread(other.fd, count, start)
            for count, start in ((min(HEAD, size), 0), (early, size - early))
        )

    def blank(self) -> bool:
        """Is nothing known of its content?"""
        return not self._head

    def brief(self) -> bool:
        """Is so little known of its content that another file may begin in the same way?"""
        return len(self._head) < HEAD

    def forget(self) -> None:
        """Take nothing of its content for known: it was empty when it was seen last."""
        self._head = self._ahead = b""

    def announce(self, name: str) -> Chunk:
        """Return a chunk that tells the position alone."""
        self.announced = True
        return Chunk(name, self.stream, b"", self.position)

    def peek(self) -> None:
        """Take note of how it begins."""
        self._fingerprint()

    def unread(self) -> int:
        """Return how many written bytes have not been read."""
        return max(0, os.fstat(self.fd).st_size - self.offset)

    def unlinked(self) -> bool:
        """Has the file no name any more?"""
        return os.fstat(self.fd).st_nlink == 0

    def close(self) -> None:
        """Give the descriptor back; `position` stays."""
        os.close(self.fd)
