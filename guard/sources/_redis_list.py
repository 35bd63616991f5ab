"""A list onto whose head others push (LPUSH), and which they trim: followed without taking anything from it.

mailcow's syslog-ng pushes a record a line, its UI reads the same lists, and a job trims them every minute.  So each look
reads from the tail's side of our place, and makes sure by the records around it that it is still that place
(guard/sources/_redis_place.py).  Where it is not, the list was trimmed, emptied, or has come back older than it was:
the place is looked for in all of it.  Where it cannot be found, more was pushed than the list holds: that is a loss,
and the list is read from its tail.

`pop`: the list is ours alone, and what is safe in our own store is trimmed from its tail, all but the last SAVED
records, by which the place is found.  Nothing is ever out of the list before it is counted and saved: so there is no
second list for what is under way, and a kill at any moment loses and doubles nothing.
"""

from __future__ import annotations

import time
from typing import Any, Final

from guard.sources import CHUNK_BYTES, Chunk, Put
from guard.sources._cursor import Cursor
from guard.sources._redis_lines import LONGEST, of_list
from guard.sources._redis_link import Command, Link, RefusedError, Standing
from guard.sources._redis_place import SAVED, Place, digest, load, time_of

MOST: Final = 2000  # records at once
FIRST: Final = 250  # before their size is known
PIECE: Final = 4096  # records at once while the place is looked for
FARTHEST: Final = 1 << 18  # how far down that is
SLACK: Final = 1024
SPARE: Final = 256  # records that are trimmed at once, at least


class ListReader:
    """Follows `key` from `saved` (a dumped place), else from `start`."""

    def __init__(
        self, name: str, key: str, saved: str, start: str, standing: Standing, *, pop: bool = False
    ) -> None:
        self.label = f"{name}/{key}"
        self.refused = ""  # why this list cannot be read
        self._name = name
        self._key = key
        self._standing = standing
        self._start = start
        self._place = load(saved) if saved else None
        if saved and self._place is None:
            standing.tell(f"list {key}: the saved place cannot be read: it is followed as without one")
        self._pop = pop
        self._count = FIRST
        self._slack = 0  # records read below the place: it moves down while others trim at each push
        self._durable = -1  # the number of the last record that is safe; -1: not known
        self._told = False
        self._old = 0  # while a list is read whose place was lost: the time of what had been read

    def saved(self, text: str) -> None:
        """Take note that this place and the counts that belong to it are safe."""
        place = load(text)
        self._durable = place.number if place else -1

    async def step(self, link: Link, put: Put) -> tuple[int, int]:
        """Deliver the next records; return how many, and how many more there were.  Raises `LinkError`."""
        if not self._told:
            if self._place is None:
                self._place = await self._begin(link)
            await put(Chunk(self._name, self.label, b"", self._cursor()))
            self._told = True
        place = self._place
        assert place is not None  # noqa: S101 - made above
        span = min(place.below, place.context() + self._slack)
        length, records = await self._look(link, -(place.below + self._count), -(place.below - span + 1))
        start = max(0, len(records) - span)
        shift = place.shift([digest(record) for record in records[start:]])
        if shift is None:
            self._slack = SLACK
            await self._search(link, place)
            return 0, 1
        there = start + shift
        gone = span - (len(records) - there)  # trimmed since the last look
        self._slack = SLACK if gone else self._slack // 2
        place.below -= gone
        more = max(0, length - place.below - there)
        if there:
            self._standing.waits()
            await self._deliver(records[:there], place, put)
        if self._pop:
            await self._trim(link, place)
        return there, more

    def _cursor(self) -> Cursor:
        return Cursor(self._place.dump() if self._place else "")

    async def _look(self, link: Link, newest: int, oldest: int) -> tuple[int, list[bytes]]:
        """Return the list's length and the records between two indices, newest first, of one moment."""
        answers = await self._done(link, ["LLEN", self._key], ["LRANGE", self._key, newest, oldest])
        return answers[0], answers[1]

    async def _done(self, link: Link, *commands: Command) -> list[Any]:
        answers = await link.together(*commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise RefusedError(f"{self._key}: {answer}")
        return answers

    async def _begin(self, link: Link) -> Place:
        if self._start == "start":
            return Place()
        length, records = await self._look(link, 0, SAVED - 1)
        newest = time_of(records[0], time.time()) if records else 0
        return Place(length, [digest(record) for record in records], time=newest)

    async def _deliver(self, records: list[bytes], place: Place, put: Put) -> None:
        """Deliver records, newest first as they come, oldest first as they were pushed."""
        lines: list[bytes] = []
        digests: list[bytes] = []
        size = total = 0
        records.reverse()
        for number, record in enumerate(records, 1):
            digests.append(digest(record))
            line = b"" if self._older(record) else of_list(self._key, record)
            if len(line) > LONGEST:
                self._standing.lose(f"{self._key}: a record of {len(record)} bytes is too long")
            else:
                lines.append(line)
                size += len(line)
            if number == len(records) or size > CHUNK_BYTES - LONGEST:
                place.passed(digests)
                place.time = max(place.time, time_of(record, time.time()))
                await put(Chunk(self._name, self.label, b"".join(lines), self._cursor(), written=time.time()))
                total += size
                lines, digests, size = [], [], 0
        self._count = max(16, min(MOST, self._count * 2, len(records) * CHUNK_BYTES // max(total, 1)))

    # -- when the list is not as it was ----------------------------------------------------------------------------

    async def _search(self, link: Link, place: Place) -> None:
        """Find the place again, at and below where it was; without it begin at the list's tail."""
        digests: list[bytes] = []
        [length] = await self._done(link, ["LLEN", self._key])
        top = min(place.below, length)  # how many records lie at and below the newest that may be ours
        while place.seen and len(digests) < min(top, FARTHEST):
            overlap = min(len(digests), 16)
            high = top - len(digests) + overlap
            length, records = await self._look(link, -high, -max(high - PIECE, 1))
            found = [digest(record) for record in records]
            if length < top or found[:overlap] != digests[len(digests) - overlap :]:
                return  # it was trimmed meanwhile: the next look begins again
            digests += found[overlap:]
            hit = place.find(digests, whole=len(digests) >= top)
            if hit:
                i, j = hit
                place.below = top - i
                del place.seen[:j]
                if j:
                    self._standing.tell(
                        f"list {self._key}: its newest {j} records are gone: it was restored from an older copy"
                    )
                return
        if length:
            text = "our place is not in it: more was pushed than it holds, or another list took its place"
        else:
            text = "is empty: what was pushed since the last look is lost"
        self._standing.lose(f"list {self._key}: {text}")
        self._old = place.time
        self._place = Place(0, (), place.number, place.time)

    def _older(self, record: bytes) -> bool:
        """Was a record pushed before what we had read when the place was lost?  Redis may have come back far older."""
        at = time_of(record, time.time()) if self._old else 0
        if at >= self._old:
            self._old = 0
        return 0 < at < self._old

    async def _trim(self, link: Link, place: Place) -> None:
        """Take from the tail what is safe."""
        if self._durable >= 0:
            count = place.below - (place.number - self._durable) - SAVED
            if count >= SPARE:
                await self._done(link, ["LTRIM", self._key, 0, -(count + 1)])
                place.below -= count
