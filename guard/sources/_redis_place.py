"""A place in a list that others push to and trim: found again by the records around it.

A list has no numbers that last: LPUSH shifts them at one end, LTRIM at the other.  So a place is told by how many
records lie at and below it (`below`: an index from the tail, which a push does not move) and by the digests of the
records themselves, newest first.  Two identical records are two lines, so one digest says little: as many are compared
as it takes until they could not also stand a little further up or down.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Final

DEPTH: Final = 1 << 14  # records that a place remembers while it is followed
SAVED: Final = 1024  # and over a restart: Redis may come back with an older list than we had read
LEAST: Final = 32  # records that are compared at each look
_TIME: Final = re.compile(rb'\{"time":"([0-9]{1,11})"')
_DIGEST: Final = 4  # bytes
_TRIES: Final = 100_000  # a list of few different records must not hold up everything else


def digest(record: bytes) -> bytes:
    """Return the digest of a record."""
    return hashlib.blake2b(record, digest_size=_DIGEST).digest()


class Place:
    """Between two records of a list: `below` of them are at or under it, `seen` are the digests of the newest."""

    def __init__(self, below: int = 0, seen: Sequence[bytes] = (), number: int = 0, time: int = 0) -> None:
        self.below = below
        self.seen = list(seen)
        self.number = number  # records delivered so far, ever
        self.time = time  # that a record delivered lately says; 0: none says one

    def dump(self) -> str:
        """Return it as text."""
        digests = base64.b64encode(b"".join(self.seen[:SAVED])).decode()
        values = {"below": self.below, "number": self.number, "time": self.time, "seen": digests}
        return json.dumps(values, separators=(",", ":"))

    def passed(self, digests: Sequence[bytes]) -> None:
        """Move over records that have been delivered, in the order in which they were pushed."""
        self.seen[:0] = reversed(digests)
        del self.seen[DEPTH:]
        self.below += len(digests)
        self.number += len(digests)

    def context(self) -> int:
        """Return how many of the newest records seen tell this place from those a little above or below it."""
        most = min(len(self.seen), self.below)
        wanted = LEAST
        while wanted < most and _period(self.seen[:wanted]) <= wanted // 2:
            wanted *= 2
        return min(wanted, most)

    def shift(self, digests: Sequence[bytes]) -> int | None:
        """Return how far down in `digests`, newest first, the place is; None where it is not among them."""
        enough = self.context()
        for i in range(len(digests) - enough + 1):
            if digests[i : i + enough] == self.seen[:enough]:
                return i
        return None

    def find(self, digests: Sequence[bytes], *, whole: bool) -> tuple[int, int] | None:
        """Return (i, j): our j-th newest record is digests[i], and all further ones agree; None where nothing does.

        `digests`: newest first.  j is above 0 where the list has lost its newest records.  `whole`: there are no more
        digests below these, so an agreement that goes on to their end is as good as one of full length.
        """
        return self._at(0, digests, whole=whole) or (self._back(digests) if whole else None)

    def _at(self, j: int, digests: Sequence[bytes], *, whole: bool) -> tuple[int, int] | None:
        first, enough, i = self.seen[j], self.context(), -1
        while True:
            try:
                i = digests.index(first, i + 1)
            except ValueError:
                return None
            depth = min(len(self.seen) - j, len(digests) - i)
            if (whole or depth >= enough) and digests[i : i + depth] == self.seen[j : j + depth]:
                return i, j

    def _back(self, digests: Sequence[bytes]) -> tuple[int, int] | None:
        places: dict[bytes, list[int]] = {}
        for j, one in enumerate(self.seen):
            places.setdefault(one, []).append(j)
        tried = 0
        for i, one in enumerate(digests):
            for j in places.get(one, ()):
                tried += 1
                if tried > _TRIES:
                    return None
                depth = min(len(self.seen) - j, len(digests) - i)
                if digests[i : i + depth] == self.seen[j : j + depth]:
                    return i, j
        return None


def load(text: str) -> Place | None:
    """Return the place that `dump` wrote; None for anything else."""
    try:
        values = json.loads(text)
        raw = base64.b64decode(values["seen"], validate=True)
        below, number, time = int(values["below"]), int(values["number"]), int(values["time"])
    except (ValueError, TypeError, KeyError):
        return None
    if len(raw) % _DIGEST or below < 0:
        return None
    return Place(below, [raw[n : n + _DIGEST] for n in range(0, len(raw), _DIGEST)], number, time)


def time_of(record: bytes, now: float) -> int:
    """Return the time in a record as mailcow pushes it, seconds since the epoch; 0 where there is none, or none yet."""
    match = _TIME.match(record)
    time = int(match[1]) if match else 0
    return time if time <= now else 0  # SOGo's may be anybody's


def _period(digests: Sequence[bytes]) -> int:
    """Return the shortest distance at which `digests` repeat themselves (Knuth, Morris, Pratt: the failure function)."""
    fail = [0] * len(digests)
    k = 0
    for n in range(1, len(digests)):
        while k and digests[n] != digests[k]:
            k = fail[k - 1]
        if digests[n] == digests[k]:
            k += 1
        fail[n] = k
    return len(digests) - (fail[-1] if fail else 0)
