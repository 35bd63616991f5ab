"""A stream: everything in it since our own saved place, in order, each entry once.

The place is the id of the last entry delivered, saved in one transaction with the counts.  So entries are read with
XREAD after that id, and never with XREADGROUP: what Redis believes to have delivered is not what has been counted, and
the pending entries of a group would be a second memory that a kill leaves at odds with the first.  The consumer group
is for everybody else: once a place is safe in our store, the group's `last-delivered-id` is set to it.  It shows
how far we are (XINFO GROUPS: `lag`), and says where to begin when our own state is lost.  So a group belongs to one
guard.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from guard.sources import CHUNK_BYTES, Chunk, Put
from guard.sources._cursor import Cursor
from guard.sources._redis_lines import LONGEST, of_stream
from guard.sources._redis_link import Link, RefusedError, Standing

BLOCK: Final = 1.0  # seconds that the server waits for the next entry
AGAIN: Final = 5.0  # seconds after which the group is tried again
MOST: Final = 2000  # entries at once
FIRST: Final = 250  # before their size is known
_SAVED: Final = re.compile(r"(\d{1,20}-\d{1,20}) (-?\d{1,20})", re.ASCII)


class _Info(NamedTuple):
    """What XINFO STREAM says."""

    last: str  # the last id given; "0-0" without a stream
    added: int  # entries ever added; -1 where the server does not count them (Redis 6)
    length: int


class StreamReader:
    """Follows `stream` from `saved` (a dumped place), else from where the group stands, else from `start`."""

    def __init__(
        self, name: str, stream: str, group: str, saved: str, start: str, standing: Standing
    ) -> None:
        self.label = f"{name}/{stream}"
        self._name = name
        self._stream = stream
        self._group = group
        self._standing = standing
        self._start = start
        match = _SAVED.fullmatch(saved)
        self._id = match[1] if match else ""  # of the last entry delivered; "": not known yet
        self._read = int(match[2]) if match else -1  # entries up to it that were ever added; -1: not known
        self._count = FIRST
        self._durable = ""
        self._shown = ""  # what the group was last set to
        self._no_group = ""  # why it could not be set
        self._not_before = 0.0  # monotonic time at which to try again

    def saved(self, text: str) -> None:
        """Take note that this place and the counts that belong to it are safe."""
        self._durable = text

    async def follow(self, link: Link, put: Put) -> None:
        """Deliver what is added until the connection ends.  Raises `LinkError`."""
        if not self._id:
            await self._begin(link)
        self._shown = ""
        await put(Chunk(self._name, self.label, b"", self._place()))
        self._standing.well()
        while True:
            entries, info = await self._look(link)
            if entries:
                self._standing.waits()
                await self._deliver(entries, put)
            if not entries:
                self._gone_back(info)
            if not entries or info.last == self._id:
                await self._settle(info, put)
                await self._show(link)
                [found] = await link.call(self._xread("BLOCK", int(BLOCK * 1000)), within=BLOCK)
                if found:
                    self._standing.waits()
                    await self._deliver(found[0][1], put)
            else:
                await self._show(link)

    def _xread(self, *more: str | int) -> list[str | int]:
        return ["XREAD", "COUNT", self._count, *more, "STREAMS", self._stream, self._id]

    async def _look(self, link: Link) -> tuple[list[Any], _Info]:
        found, info = await link.together(self._xread(), ["XINFO", "STREAM", self._stream])
        if isinstance(found, Exception):
            raise RefusedError(f"{self._stream}: {found}")
        return (found[0][1] if found else []), _info(info)

    def _place(self) -> Cursor:
        return Cursor(f"{self._id} {self._read}")

    # -- where it begins -------------------------------------------------------------------------------------------

    async def _begin(self, link: Link) -> None:
        """Find the place without a saved one: the group's, else the stream's start or end; make the group."""
        groups, raw = await link.together(
            ["XINFO", "GROUPS", self._stream], ["XINFO", "STREAM", self._stream]
        )
        info = _info(raw)
        known = [] if _absent(groups) else [_pairs(group) for group in groups]
        ours = [group for group in known if group.get(b"name") == self._group.encode()]
        if ours and self._start != "now":
            self._id = ours[0][b"last-delivered-id"].decode()
            read = ours[0].get(b"entries-read")
            self._read = read if isinstance(read, int) and info.added >= 0 else -1
        elif self._start == "start":
            self._id = "0-0"
            self._read = info.added - info.length if info.added >= 0 else -1
        else:
            self._id, self._read = info.last, info.added
        self._durable = "" if ours and self._start != "now" else self._place().text

    def _gone_back(self, info: _Info) -> None:
        """See whether the stream has gone back behind our place: restored from an older copy, or made anew.

        Whatever is in it up to its last id was delivered before it went back, or cannot be told from that.
        """
        if _order(info.last) < _order(self._id):
            self._standing.lose(
                f"stream {self._stream} has lost its newest entries (its last id is {info.last}, {self._id} was read):"
                " what was added and is gone is lost"
            )
            self._id, self._read = info.last, info.added

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _deliver(self, entries: Sequence[Any], put: Put) -> None:
        lines: list[bytes] = []
        size = total = 0
        for number, (name, fields) in enumerate(entries):
            line = of_stream(fields) if fields else b""
            if len(line) > LONGEST:
                self._standing.lose(f"{self._stream}: entry {name.decode()} of {len(line)} bytes is too long")
                line = b""
            lines.append(line)
            size += len(line)
            last = number == len(entries) - 1
            if last or size > CHUNK_BYTES - LONGEST:
                done = len(lines)
                self._id = name.decode()
                if self._read >= 0:
                    self._read += done
                await put(
                    Chunk(self._name, self.label, b"".join(lines), self._place(), written=_written(self._id))
                )
                total += size
                lines, size = [], 0
        self._count = max(16, min(MOST, self._count * 2, len(entries) * CHUNK_BYTES // max(total, 1)))

    async def _settle(self, info: _Info, put: Put) -> None:
        """Everything is read that there is: what was added besides has gone before we came to it."""
        missed = info.added - self._read if info.added >= 0 and self._read >= 0 else 0
        if missed > 0:
            text = f"stream {self._stream}: {missed} entries were deleted before they were read"
            self._standing.lose(text, missed)
        elif missed < 0:
            text = f"stream {self._stream} was made anew: what was in the old one and not read is lost"
            self._standing.lose(text)
        if info.added != self._read:
            self._id, self._read = max(self._id, info.last, key=_order), info.added
            await put(Chunk(self._name, self.label, b"", self._place()))
        self._standing.caught_up()

    async def _show(self, link: Link) -> None:
        """Set the group to the place that is safe."""
        safe = self._durable  # it may move on while the server is asked
        match = _SAVED.fullmatch(safe)
        if match is None or safe == self._shown or not self._group:
            return
        if time.monotonic() < self._not_before:
            return
        entries = ["ENTRIESREAD", match[2]] if int(match[2]) >= 0 else []
        try:
            try:
                await link.call(["XGROUP", "SETID", self._stream, self._group, match[1], *entries])
            except RefusedError:  # no such group, no such stream
                await link.call(
                    ["XGROUP", "CREATE", self._stream, self._group, match[1], "MKSTREAM", *entries]
                )
            self._no_group = ""
            self._shown = safe
        except RefusedError as error:  # a replica; a user who may only read; a disk that is full
            self._not_before = time.monotonic() + AGAIN
            if not self._no_group:
                self._standing.tell(
                    f"{link.place}: the group {self._group} cannot be set, lines are read: {error}"
                )
            self._no_group = str(error)


def _pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=False))


def _info(raw: Any) -> _Info:
    if _absent(raw):
        return _Info("0-0", 0, 0)
    values = _pairs(raw)
    return _Info(values[b"last-generated-id"].decode(), values.get(b"entries-added", -1), values[b"length"])


def _absent(answer: Any) -> bool:
    """Is the answer that there is no such key?  Raises `RefusedError` for another refusal."""
    if not isinstance(answer, Exception):
        return False
    if "no such key" in str(answer):
        return True
    raise RefusedError(str(answer))


def _order(name: str) -> tuple[int, int]:
    milli, _, number = name.partition("-")
    return int(milli), int(number)


def _written(name: str) -> float | None:
    """Return when an entry was added, where its id is the server's time."""
    at = _order(name)[0] / 1000
    return at if abs(time.time() - at) < 86400.0 else None
