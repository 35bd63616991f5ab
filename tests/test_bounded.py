"""The bounded map: a limit that holds, what a flood must not push out, and what a checkpoint is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from guard.bounded import Bounded
from guard.rules._window import Window


def seen(times: int = 1) -> Window:
    """Return an entry that is worth keeping when it was seen more than once (a real one: compiled classes have no heirs)."""
    window = Window()
    for _ in range(times):
        window.add(0.0, "", 600.0)
    return window


def full(limit: int, n: int, *, span: float = 1e9, keep: bool = False) -> Bounded[Window]:
    entries: Bounded[Window] = Bounded("seen", limit, span, keep=keep)
    for key in range(n):
        entries.put(str(key), seen(), 1.0)
    return entries


@given(st.integers(2, 100), st.integers(0, 500))
def test_the_limit_holds_and_the_newest_are_there(limit, n):
    entries = full(limit, n)
    assert len(entries) <= limit + limit % 2
    assert len(entries) + entries.evicted == n
    for key in range(max(0, n - limit // 2), n):
        assert entries.peek(str(key)) is not None


@pytest.mark.parametrize("flood", [100, 1000, 10_000])
def test_a_flood_does_not_push_out_what_is_worth_keeping(flood):
    entries = full(100, 0)
    for key in range(10):
        entries.put(f"near {key}", seen(4), 1.0)
    for key in range(flood):
        entries.put(str(key), seen(), 1.0)
    assert all(entries.peek(f"near {key}") for key in range(10))
    assert len(entries) <= 200


def test_a_flood_of_what_is_worth_keeping_is_bounded_too():
    entries: Bounded[Window] = Bounded("seen", 100, 1e9, keep=False)
    for key in range(10_000):
        entries.put(str(key), seen(2), 1.0)
        assert len(entries) <= 150
    assert entries.peek("9999") is not None
    assert entries.peek("0") is None


def test_what_is_not_touched_for_two_spans_is_forgotten_and_what_is_touched_is_not():
    entries: Bounded[Window] = Bounded("seen", 1000, 100.0, keep=False)
    entries.put("idle", seen(), 0.0)
    entries.put("busy", seen(), 0.0)
    for at in range(0, 1000, 50):
        assert entries.get("busy") is not None
        entries.put(f"at {at}", seen(), float(at))
        if at <= 100:
            assert entries.peek("idle") is not None
    assert entries.peek("idle") is None
    assert entries.evicted == 0, "its time was over: nobody pushed it out"


def test_an_entry_in_hand_knows_whether_it_is_still_in_the_map():
    entries = full(4, 0)
    entry = seen()
    entries.put("a", entry, 1.0)
    assert entries.fresh(entry)
    entries.discard("a")
    assert not entries.fresh(entry)
    entries.put("b", entry, 1.0)
    for key in range(10):
        entries.put(str(key), seen(), 1.0)
    assert not entries.fresh(entry)


def test_only_a_map_that_is_kept_remembers_its_changes():
    for keep in (True, False):
        entries = full(100, 3, keep=keep)
        entries.touch("1")
        entries.discard("2")
        entries.discard("nobody")
        assert entries.changed == ({"1", "2"} if keep else set())


class Model(RuleBasedStateMachine):
    """A map whose rows are saved: after any history the rows are the map."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: Bounded[Window] = Bounded("seen", 8, 50.0, keep=True)
        self.rows: dict[str, list[object]] = {}
        self.now = 0.0

    @rule(key=st.integers(0, 30), wait=st.sampled_from([0.0, 0.0, 10.0, 60.0]), times=st.integers(1, 3))
    def see(self, key: int, wait: float, times: int) -> None:
        self.now += wait
        entry = self.entries.get(str(key))
        if entry is None:
            self.entries.put(str(key), seen(times), self.now)
        else:
            entry.add(self.now, "", 1e9)
        self.entries.touch(str(key))

    @rule(key=st.integers(0, 30))
    def forget(self, key: int) -> None:
        self.entries.discard(str(key))
        assert self.entries.peek(str(key)) is None

    @rule()
    def save(self) -> None:
        for key in self.entries.changed:
            entry = self.entries.peek(key)
            if entry is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = json.loads(json.dumps(entry.dump()))
        self.entries.changed.clear()
        assert self.rows == {key: entry.dump() for key, entry in self.entries.items()}

    @rule()
    def restart(self) -> None:
        self.save()
        self.entries = Bounded("seen", 8, 50.0, keep=True)
        for key, values in self.rows.items():
            entry = seen()
            entry.load(json.loads(json.dumps(values)))
            self.entries.restore(key, entry)

    @invariant()
    def holds(self) -> None:
        keys = [key for key, _ in self.entries.items()]
        assert len(keys) == len(set(keys)) == len(self.entries) == len(self.entries.values())
        assert len(self.entries) <= 16


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=40)


def test_what_is_taken_out_of_either_generation_is_gone():
    entries = full(8, 6, keep=True)
    entries.changed.clear()
    keys = [key for key, _ in entries.items()]
    for key in (keys[0], keys[-1]):
        entry = entries.get(key) if key == keys[-1] else entries.peek(key)
        assert entry is not None
        assert entries.take(key) is entry
        assert not entries.fresh(entry)
        assert entries.peek(key) is entries.take(key) is None
    assert entries.changed == {keys[0], keys[-1]}
    assert len(entries) == len(keys) - 2
