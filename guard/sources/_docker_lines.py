"""A container's log as the engine's API sends it -> lines that the core reads, each once.

With `timestamps` every message begins with the engine's stamp.  Unless the container has a terminal, each message is
a frame: a byte that says which stream (1 stdout, 2 stderr, 3 the engine's own word), three zeros, four bytes of
length (Docker Engine API, ContainerAttach, "Stream format").  The engine cuts a line at 16 KiB; its pieces share one
stamp, and only the last ends with a newline.

How a line is written:

* its own time, where it has one without zone (RFC 3164, Dovecot's and SOGo's own files, supervisord), gives way to
  the engine's stamp: a container's clock has a zone of its own, mostly UTC, which its lines do not tell
* a line without such a time, or one that begins like another envelope, becomes Docker's JSON form; no text can leave
  a JSON string
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

LONGEST: Final = 256 * 1024  # bytes of a line; a longer one is dropped
OVERLAP: Final = 2.0  # seconds that one of the two streams may be written later than it was stamped

_HEADER: Final = struct.Struct(">BxxxL")
_STDOUT, _STDERR, _ENGINE = 1, 2, 3
_STAMP: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
# What stands before the daemon's own text; with a zone it needs no other time, and is left as it is.
_TIMED: Final = re.compile(
    rb"(?:[A-Z][a-z]{2} [ 0-3]\d [0-2]\d:[0-5]\d:[0-6]\d"
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?) (?=[^ \n])"
)
# json-file and local stamp to the nanosecond, which no two lines of a stream share; journald to the microsecond.
_COARSE: Final = b"000Z"
_NEVER: Final = b"0001-01-01T00:00:00.000000000Z"


class Mark(NamedTuple):
    """How far one of the two streams was read: all lines before `stamp`, and `lines` of those with this stamp."""

    stamp: bytes = _NEVER  # 30 bytes, so that stamps compare as bytes
    lines: int = 0


class Place(NamedTuple):
    """How far a container's log was read.  stdout and stderr are stamped apart, and written in no common order."""

    out: Mark = Mark()
    err: Mark = Mark()

    @classmethod
    def at(cls, seconds: float) -> Self:
        """Return the place before everything written from a time on (seconds since the epoch)."""
        whole, fraction = divmod(max(0, round(seconds * 1e6)), 1_000_000)
        stamp = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{fraction:06}000Z"
        return cls(Mark(stamp.encode()), Mark(stamp.encode()))

    @classmethod
    def load(cls, text: str) -> Self | None:
        """Return the place that `dump` wrote, None for any other text."""
        words = text.split(" ")
        if len(words) != 4 or not (words[1].isdecimal() and words[3].isdecimal()):
            return None
        stamps = [padded(word.encode()) for word in words[::2]]
        if stamps[0] is None or stamps[1] is None:
            return None
        return cls(Mark(stamps[0], int(words[1])), Mark(stamps[1], int(words[3])))

    def dump(self) -> str:
        """Return it as text for the store."""
        return f"{self.out.stamp.decode()} {self.out.lines} {self.err.stamp.decode()} {self.err.lines}"

    def newest(self) -> float:
        """Return the time of the newest line, in seconds since the epoch."""
        return seconds_of(max(self.out.stamp, self.err.stamp))

    def since(self) -> float:
        """Return from when on the engine is to send again.

        A silent stderr does not have all of stdout sent again.  The microsecond: a float is coarser than a stamp.
        """
        marks = seconds_of(self.out.stamp), seconds_of(self.err.stamp)
        return max(0.0, min(marks), max(marks) - OVERLAP) - 1e-6 if max(marks) > 0 else 0.0


def padded(stamp: bytes) -> bytes | None:
    """Return an RFC 3339 stamp in UTC with nine digits, None when it is none.  Engines drop zeros at its end."""
    match = _STAMP.fullmatch(stamp)
    if match is None:
        return None
    whole, fraction, zone = match.groups(b"")
    if zone != b"Z":
        try:
            there = datetime.fromisoformat((whole + zone).decode()).astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        whole = there.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0").encode()
    return whole + b"." + fraction.ljust(9, b"0") + b"Z"


def seconds_of(stamp: bytes) -> float:
    """Return a padded stamp as seconds since the epoch; what is no time is 0.0."""
    try:
        return max(0.0, datetime.fromisoformat(stamp[:26].decode() + "+00:00").timestamp())
    except (ValueError, OverflowError):
        return 0.0


class Pass:
    """Reads a container's log from `place` on, until the connection ends.

    What is not newer than `place` is dropped: the engine sends more than it was asked for, and under rotation it
    repeats lines.  A stamp that goes back is a line repeated; unless the last one lies in the future, then the
    clock was set back.
    """

    def __init__(self, place: Place, *, framed: bool = True) -> None:
        self.lost = 0  # lines that were too long
        self.rotated = False  # the line read last is not there any more, and others may be gone with it
        self.word = ""  # what the engine said last, an error mostly
        self._framed = framed
        self._rest = b""
        self._halves: dict[int, tuple[bytes, bytes]] = {}  # by stream: stamp and text of an unfinished line
        self._marks = {_STDOUT: place.out, _STDERR: place.err}
        # How many lines with the mark's stamp are to come once more; none where the engine is not asked for them.
        since = place.since()
        self._fresh: set[int] = set()  # the streams that have sent something new
        self._skip = {k: m.lines if seconds_of(m.stamp) >= since else 0 for k, m in self._marks.items()}

    @property
    def cut(self) -> bool:
        """Is there half a message?"""
        return bool(self._rest)

    def place(self) -> Place:
        """Return how far it has come."""
        return Place(self._marks[_STDOUT], self._marks[_STDERR])

    def feed(self, data: bytes, now: float) -> bytes:
        """Take what has arrived; return the lines that are whole.  Raises ValueError for what are no frames."""
        done: list[bytes] = []
        for kind, piece in self._frames(data) if self._framed else self._raw(data):
            if kind == _ENGINE:
                self.word = piece.decode(errors="replace").strip()[:300]
                continue
            stamp = piece[:30]
            text = piece[31:]
            if len(piece) < 31 or piece[29:31] != b"Z " or piece[19:20] != b".":
                first, _, text = piece.partition(b" ")
                stamp = padded(first.rstrip(b"\n")) or b""
                if not stamp:
                    self.word = piece.decode(errors="replace").strip()[:300]
                    continue
            if self._halves:
                stamp, text = self._joined(kind, stamp, text, now, done)
            if text[-1:] != b"\n":
                self._halves[kind] = stamp, text
            elif self._is_new(kind, stamp, now):
                self._write(stamp, text, done)
        return b"".join(done)

    def finish(self, now: float) -> bytes:
        """Return the lines that will not be continued: those that a program left unfinished when it ended."""
        done: list[bytes] = []
        for kind, (stamp, text) in self._halves.items():
            if self._is_new(kind, stamp, now):
                self._write(stamp, text + b"\n", done)
        self._halves.clear()
        return b"".join(done)

    def _joined(
        self, kind: int, stamp: bytes, text: bytes, now: float, done: list[bytes]
    ) -> tuple[bytes, bytes]:
        """Join a piece to what was begun in its stream; what another stamp shows to be over is written."""
        begun = self._halves.pop(kind, None)
        if begun is None:
            return stamp, text
        if begun[0] == stamp:
            return stamp, begun[1] + text if len(begun[1]) <= LONGEST else begun[1] + text[-1:]
        if self._is_new(kind, begun[0], now):
            self._write(begun[0], begun[1] + b"\n", done)
        return stamp, text

    def _is_new(self, kind: int, stamp: bytes, now: float) -> bool:
        mark = self._marks[kind]
        if stamp > mark.stamp:
            self.rotated = self.rotated or self._skip[kind] > 0
            self._marks[kind] = Mark(stamp, 1)
            self._skip[kind] = 0
            self._fresh.add(kind)
            return True
        if stamp == mark.stamp:
            if self._skip[kind]:
                self._skip[kind] -= 1
                return False
            if stamp[-4:] != _COARSE:
                return False
            self._marks[kind] = Mark(stamp, mark.lines + 1)
            return True
        if kind not in self._fresh or mark.stamp < Place.at(now + 1.0).out.stamp:
            self._skip[kind] = mark.lines
            return False
        self._marks[kind] = Mark(stamp, 1)
        return True

    def _write(self, stamp: bytes, text: bytes, done: list[bytes]) -> None:
        if len(text) > LONGEST:
            self.lost += 1
        else:
            done.append(written(stamp, text))

    def _frames(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        data = self._rest + data if self._rest else data
        start, size = 0, len(data)
        while size - start >= 8:
            kind, length = _HEADER.unpack_from(data, start)
            if not _STDOUT <= kind <= _ENGINE or length > LONGEST:
                raise ValueError(f"expected a frame of a log; found {data[start : start + 8]!r}")
            end = start + 8 + length
            if end > size:
                break
            yield kind, data[start + 8 : end]
            start = end
        self._rest = data[start:]

    def _raw(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """A terminal's log: no frames, the pieces of a long line cannot be told apart."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            self.lost += 1
            self._rest = self._rest[:64]  # its stamp, so that the end of the line has one
        for line in lines:
            yield _STDOUT, line + b"\n"


def written(stamp: bytes, text: bytes) -> bytes:
    """Return one line of a container, `text` with its newline, as the core reads it."""
    if text.find(b"\n") != len(text) - 1:
        text = text.rstrip(b"\n").replace(b"\n", b"#012") + b"\n"
    timed = _TIMED.match(text)
    if timed is not None:
        return b"%s %s" % (stamp, text[timed.end() :])
    line = {"log": text.decode("utf-8", "surrogateescape"), "time": stamp.decode()}
    return json.dumps(line).encode() + b"\n"
