"""A map with a bound: two generations, so that forgetting costs nothing per entry.

Fresh and touched entries live in the young generation.  When it holds half the limit, or when `span` seconds of the
logs' time have passed, the old generation is dropped and the young one becomes old: an entry is forgotten between
one and two spans after its last touch, oldest first.  `worth_keeping` entries survive that; they are what a flood
of new keys must not push out.  Whether an entry has *expired* is for its owner to decide by the entry's own times;
the map only bounds memory.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from mypy_extensions import mypyc_attr

V = TypeVar("V", bound="Entry")


@mypyc_attr(acyclic=True)
class Entry:
    """What lives in a Bounded map and in the saved state: plain values under the names that `fields` lists."""

    __slots__ = ("turn",)

    turn: int  # the map's turn at which it was touched last

    def fields(self) -> tuple[str, ...]:
        """Return the names of the attributes that make up the entry."""
        raise NotImplementedError

    def worth_keeping(self, at: float) -> bool:
        """Whether a flood of new keys must not push this entry out at time `at`."""
        return False

    def dump(self) -> list[object]:
        """Return the entry as JSON values."""
        return [getattr(self, name) for name in self.fields()]

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        for name, value in zip(self.fields(), values, strict=True):
            setattr(self, name, value)


class Bounded(Generic[V]):
    """At most `limit` entries of one kind, by text key; `evicted` counts those dropped to make room."""

    __slots__ = (
        "_limit",
        "_old",
        "_span",
        "_turned",
        "_young",
        "changed",
        "evicted",
        "keep",
        "table",
        "turns",
    )

    def __init__(self, table: str, limit: int, span: float, *, keep: bool) -> None:
        self.table = table
        self.keep = keep  # remember what changed since the last checkpoint
        self.changed: set[str] = set()
        self.evicted = 0
        self.turns = 0
        self._limit = max(2, limit)
        self._span = span
        self._turned = 0.0
        self._young: dict[str, V] = {}
        self._old: dict[str, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: str) -> V | None:
        """Return the entry, made young again, or None."""
        entry = self._young.get(key)
        if entry is None:
            entry = self._old.get(key)
            if entry is None:
                return None
            del self._old[key]
            self._young[key] = entry
            entry.turn = self.turns
        return entry

    def fresh(self, entry: Entry) -> bool:
        """Whether an entry that somebody remembers is in the map, and young: then it needs no look-up."""
        return entry.turn == self.turns

    def peek(self, key: str) -> V | None:
        """Return the entry without touching it, or None."""
        entry = self._young.get(key)
        return entry if entry is not None else self._old.get(key)

    def put(self, key: str, entry: V, at: float) -> None:
        """Add an entry under a key that is not there, at the logs' time `at`."""
        if len(self._young) * 2 >= self._limit:
            self._turn(at, full=True)
        elif at - self._turned > self._span:
            self._turn(at, full=False)
        self._young[key] = entry
        entry.turn = self.turns

    def touch(self, key: str) -> None:
        """Note that the entry under `key` changed, for the next checkpoint."""
        if self.keep:
            self.changed.add(key)

    def discard(self, key: str) -> None:
        """Forget one entry, if it is there."""
        entry = self._young.pop(key, None)
        if entry is None:
            entry = self._old.pop(key, None)
        if entry is not None:
            entry.turn = -1
            self.touch(key)

    def take(self, key: str) -> V | None:
        """Return the entry and forget it, or None."""
        entry = self._young.get(key)
        if entry is not None:
            del self._young[key]
        else:
            entry = self._old.get(key)
            if entry is None:
                return None
            del self._old[key]
        entry.turn = -1
        self.touch(key)
        return entry

    def restore(self, key: str, entry: V) -> None:
        """Take an entry from the saved state."""
        self._young[key] = entry
        entry.turn = self.turns

    def values(self) -> list[V]:
        """Return all entries, oldest generation first."""
        return [*self._old.values(), *self._young.values()]

    def items(self) -> list[tuple[str, V]]:
        """Return all keys and entries, oldest generation first."""
        return [*self._old.items(), *self._young.items()]

    def forgotten(self, old: dict[str, V], kept: dict[str, V]) -> None:
        """Take note that the entries of `old` that are not in `kept` are dropped; for who counts something of them."""

    def _turn(self, at: float, *, full: bool) -> None:
        """Begin a new generation; what time alone pushes out was not touched for a whole span, and is over."""
        kept: dict[str, V] = {}
        if full:
            kept = {key: entry for key, entry in self._old.items() if entry.worth_keeping(at)}
            if len(kept) * 4 > self._limit:  # more keepers than room: the oldest of them go after all
                for key in list(kept)[: len(kept) - self._limit // 4]:
                    del kept[key]
            self.evicted += len(self._old) - len(kept)
        if self.keep:
            self.changed.update(key for key in self._old if key not in kept)
        self.forgotten(self._old, kept)
        if kept:
            kept.update(self._young)
            self._old = kept
        else:
            self._old = self._young
        self._young = {}
        self._turned = at
        self.turns += 1
