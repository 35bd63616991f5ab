"""How far one file was read, in a form that recognises the file again.

A name says nothing (rotation), an inode little (ext4 gives a deleted file's inode to the next one created), so a
position also holds two fingerprints: of the file's first bytes and of the last bytes that were read.  Hashes, since
log lines can hold passwords and positions are stored.
"""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from typing import Final, NamedTuple

HEAD: Final = 256  # bytes of the file's beginning that are fingerprinted
TAIL: Final = 64  # bytes before the end of what was read


def digest(data: bytes) -> str:
    """Return a short fingerprint of `data`."""
    return blake2b(data, digest_size=8).hexdigest()


class FilePosition(NamedTuple):
    """`offset` bytes of the file that was `path` have been dealt with."""

    path: str
    device: int
    inode: int
    offset: int
    head: str  # of the first `head_size` bytes
    head_size: int
    tail: str  # of the `tail_size` bytes before `tail_end`; unlike `offset`, these stay when the position is lowered
    tail_size: int
    tail_end: int
    at: float  # when this was read, and what else was there had been seen (seconds since the epoch)
    over: bool = False  # read to its end and left, and nothing has taken its place yet

    def rewind(self, count: int) -> FilePosition:
        """Return the position `count` bytes before this one."""
        return self._replace(offset=max(0, self.offset - count))

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(self._asdict(), separators=(",", ":"))

    @property
    def stream(self) -> str:
        """The key under which it is saved."""
        return f"{self.path}#{self.inode}"

    @property
    def blank(self) -> bool:
        """Was the file empty, so that nothing of it can be recognised?"""
        return not self.head_size and not self.offset

    def matches(self, fd: int) -> bool:
        """Is what was read still there, byte for byte as far as the fingerprints tell?  False if nothing was read."""
        if not self.head_size or os.fstat(fd).st_size < max(self.offset, self.tail_end, self.head_size):
            return False
        start = self.tail_end - self.tail_size
        head, tail = os.pread(fd, self.head_size, 0), os.pread(fd, self.tail_size, start)
        return digest(head) == self.head and digest(tail) == self.tail


def load(text: str) -> FilePosition | None:
    """Return what `dump` wrote, or None where the text is another source's or damaged."""
    try:
        values: dict[str, object] = json.loads(text)
        position = FilePosition(**values)  # type: ignore[arg-type]  # checked below
        sizes = (
            values["inode"],
            values["offset"],
            values["head_size"],
            values["tail_size"],
            values["tail_end"],
        )
        sound = isinstance(values["path"], str) and isinstance(values["at"], int | float)
        sound = sound and all(isinstance(size, int) and size >= 0 for size in sizes)
        return position if sound and position.tail_size <= position.tail_end else None
    except (ValueError, TypeError):
        return None
