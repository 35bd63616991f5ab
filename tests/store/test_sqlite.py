"""The SQLite store: all or nothing, through kills and damage, with every string that Python has."""

import json
import math
import os
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guard.model import Ban, Unban
from guard.store import Store, StoreError, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "state.db"


@pytest.fixture
def opened():
    stores: list[Store] = []

    def open_it(path: Path | str, **options: float) -> Store:
        stores.append(open_store(f"sqlite://{path}" if isinstance(path, Path) else path, **options))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.mark.parametrize("memory", [False, True])
def test_what_was_saved_is_loaded_and_none_deletes(path, opened, memory):
    store = opened("memory:" if memory else path)
    assert store.load() == ([], {})
    store.save([("window", "a", "1"), ("window", "b", "2"), ("ban", "a", "3")], {"x": "p1", "y": "p2"})
    store.save([("window", "a", None), ("window", "b", "22"), ("no", "such", None)], {"x": None, "z": "p3"})
    store.save([("ban", "c", "1"), ("ban", "c", None), ("ban", "d", None), ("ban", "d", "5")], {})
    if not memory:
        store.close()
        store = opened(path)
    state = store.load()
    assert sorted(state.rows) == [("ban", "a", "3"), ("ban", "d", "5"), ("window", "b", "22")]
    assert state.positions == {"y": "p2", "z": "p3"}
    assert store.trouble == ""
    assert store.healthy()


@given(st.text(st.characters(categories=None)), st.text(st.characters(categories=None)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_text_comes_back_as_it_was(opened_memory, key, value):
    opened_memory.save([("t", key, value)], {key: value})
    state = opened_memory.load()
    assert ("t", key, value) in state.rows
    assert state.positions[key] == value


@pytest.fixture
def opened_memory():
    store = open_store("memory:")
    yield store
    store.close()


def test_history_gives_the_actions_back_newest_first_and_forgets_the_old(path, opened):
    now = time.time()
    actions = [
        Ban("198.51.100.7/32", now - 50 * 86400, now, "brute_force", 5, True, ("a \udcff line", "another")),
        Ban("2001:db8::/64", now, math.inf, "deny"),
        Unban("198.51.100.7/32", now, "expired"),
    ]
    store = opened(path)
    store.save([], {}, actions)
    assert store.history() == actions[::-1]
    assert store.history(1) == actions[2:]
    store.close()
    store = opened(path, keep=40 * 86400.0)
    store.save([], {}, [])
    assert store.history() == actions[:0:-1]


def test_history_is_bounded(path, opened, monkeypatch):
    monkeypatch.setattr("guard.store.sqlite.HISTORY", 3)
    now = time.time()
    actions = [Unban(f"198.51.100.{n}/32", now, "expired") for n in range(5)]
    store = opened(path)
    store.save([], {}, actions)
    assert store.history() == actions[:1:-1]


def test_modes_keep_others_out(path, opened):
    before = os.umask(0)
    try:
        opened(path).save([("t", "k", "v")], {})
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    files = list(path.parent.iterdir())
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_file_that_was_open_to_others_is_closed_to_them(path, opened):
    opened(path).close()
    path.chmod(0o644)
    opened(path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["text", "header", "page", "cut"])
def test_damaged_file_is_set_aside_and_a_fresh_one_started(path, opened, damage):
    store = opened(path)
    store.save([("t", str(n), json.dumps("v" * 100)) for n in range(5000)], {"s": "p"})
    store.close()
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"this is no database\n" * 500)
    elif damage == "header":
        content[:100] = os.urandom(100)
    elif damage == "page":
        content[4096 * 3 : 4096 * 20] = os.urandom(4096 * 17)
    else:
        del content[len(content) // 2 :]
    path.write_bytes(content)
    store = opened(path)
    assert store.load() == ([], {})
    (aside,) = path.parent.glob("state.db.corrupt-*")
    assert aside.read_bytes() == content
    assert str(aside) in store.trouble
    assert str(path) in store.trouble
    store.save([("t", "k", "v")], {})
    assert store.load().rows == [("t", "k", "v")]


def test_state_of_the_first_schema_keeps_bans_and_loses_the_books_of_addresses(path, opened):
    store = opened(path)
    kinds = ("ban", "client", "offender", "session mx", "source", "window")
    store.save([(kind, "k", "[]") for kind in kinds], {"stream": "9"})
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=1")
    db.close()
    state = opened(path).load()
    assert sorted(kind for kind, _, _ in state.rows) == ["ban", "offender", "session mx"]
    assert state.positions == {"stream": "9"}


def test_state_of_a_newer_release_is_refused_and_left_alone(path, opened):
    opened(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match=r"newer mailward \(schema 99"):
        open_store(f"sqlite://{path}")
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]


def test_file_held_by_another_is_an_error_not_a_damage(path, opened, monkeypatch):
    monkeypatch.setattr("guard.store.sqlite.WAIT", 0.05)
    store = opened(path)
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.save([("t", "k", "v")], {"s": "p"})
    other.rollback()
    other.close()
    store.save([("t", "k", "v")], {"s": "p"})
    assert store.load() == ([("t", "k", "v")], {"s": "p"})


def test_where_nothing_can_be_written_it_says_where(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/lib/state\.db: Not a directory"):
        open_store(f"sqlite://{tmp_path}/file/lib/state.db")


@pytest.mark.parametrize("url", ["redis://:hunter2@localhost/0", "sqlite:///", "postgres://x", ""])
def test_unknown_stores_are_refused_without_telling_the_password(url):
    with pytest.raises(StoreError, match=r"^store.url: \w*: not in this release") as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


def test_a_save_of_ten_thousand_rows_takes_a_moment(path, opened):
    store = opened(path)
    rows = [("window", f"198.51.{n >> 8}.{n & 255}", json.dumps([1.5] * 5)) for n in range(10_000)]
    store.save(rows, {"s": "p"})
    begun = time.perf_counter()
    store.save(rows, {"s": "p"})
    assert time.perf_counter() - begun < 20.0


def test_threads_take_turns(path, opened):
    store = opened(path)

    def work(number: int) -> None:
        for turn in range(50):
            store.save([("t", f"{number}", str(turn))], {f"{number}": str(turn)})
            store.load()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.load().positions == dict.fromkeys("0123", "49")


CHILD = """
import sys
from guard.store import open_store
store = open_store("sqlite://" + sys.argv[1])
for turn in range(10**6):
    store.save([("t", str(n), str(turn)) for n in range(50)], {"s": str(turn)})
    print(turn, flush=True)
"""


def test_kill_9_at_any_moment_leaves_the_last_save_whole(path, opened):
    for wait in (0.05, 0.11, 0.17):
        out, into = os.pipe()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", CHILD, str(path)],
            {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            file_actions=[(os.POSIX_SPAWN_DUP2, into, 1)],
        )
        os.close(into)
        with os.fdopen(out) as said:
            first = said.readline()
            time.sleep(wait)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            last = int([first, *said.read().split("\n")][-2])
        store = opened(path)
        state = store.load()
        assert store.trouble == ""
        assert int(state.positions["s"]) in {last, last + 1}
        assert {value for _, _, value in state.rows} == {state.positions["s"]}
        store.close()


def test_closed_store_says_so(path, opened):
    store = opened(path)
    store.close()
    store.close()
    assert not store.healthy()
    with pytest.raises(StoreError, match="closed"):
        store.load()
