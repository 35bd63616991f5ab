"""The files of the configuration's lists: read again when they change, and never half."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from guard.app import _lists
from guard.app._lists import Lists
from guard.app._names import Names
from guard.config import Config, load
from guard.model import Policy


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(_lists, "LOOK", 0.05)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "allow").write_text("192.0.2.0/24\n")
    (tmp_path / "deny").write_text("203.0.113.1\n")
    return tmp_path


def config_of(folder: Path, more: str = "") -> Config:
    path = folder / "mailward.toml"
    path.write_text(
        f'[lists]\nallow = ["198.51.100.7", "{folder}/allow"]\ndeny = ["{folder}/deny", "203.0.113.0/24"]\n{more}'
    )
    return load(path)


def nets(lists: Lists) -> tuple[list[str], list[str]]:
    policy = lists.apply(Policy())
    return sorted(policy.allow), sorted(policy.deny)


def followed(folder: Path, work: Callable[[Lists], Coroutine[Any, Any, None]]) -> tuple[Lists, list[Any]]:
    """Take the configuration and let `work` happen while its files are followed."""
    changes: list[Any] = []
    lists = Lists(Names(hosts=folder / "hosts"))
    lists.take(config_of(folder))

    async def follow() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(lists.run(lambda: changes.append(nets(lists))))
            await work(lists)
            task.cancel()

    asyncio.run(follow())
    return lists, changes


async def until(condition: Callable[[], object], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def replaced(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


def test_configuration_and_files_are_one_list(folder):
    lists = Lists(Names())
    lists.take(config_of(folder))
    assert nets(lists) == (["192.0.2.0/24", "198.51.100.7/32"], ["203.0.113.0/24", "203.0.113.1/32"])


@pytest.mark.parametrize("write", [replaced, Path.write_text])
def test_a_file_that_changes_is_read_again(folder, write):
    async def change(lists: Lists) -> None:
        write(folder / "deny", "203.0.113.2\n")
        await until(lambda: "203.0.113.2/32" in nets(lists)[1])
        write(folder / "allow", "")
        await until(lambda: nets(lists)[0] == ["198.51.100.7/32"])

    _, changes = followed(folder, change)
    assert [len(deny) for _, deny in changes] == [2, 2]


def test_a_change_of_the_same_size_that_keeps_the_time_is_seen(folder):
    path = folder / "deny"
    before = path.stat()

    async def change(lists: Lists) -> None:
        path.write_text("203.0.113.2\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        await until(lambda: "203.0.113.2/32" in nets(lists)[1])

    followed(folder, change)


def test_a_file_is_not_read_while_it_is_being_written(folder):
    async def write_slowly(lists: Lists) -> None:
        with (folder / "deny").open("w") as file:
            for n in range(30):
                file.write(f"203.0.113.{n}\n")
                file.flush()
                await asyncio.sleep(0.02)
        await until(lambda: len(nets(lists)[1]) == 31)

    _, changes = followed(folder, write_slowly)
    assert [len(deny) for _, deny in changes] == [31]


def test_mistakes_keep_the_old_content_and_are_told_once_each_change(folder):
    good = "203.0.113.9\n"
    with capture_logs() as said:

        async def spoil(lists: Lists) -> None:
            replaced(folder / "deny", f"{good}300.1.1.1\noffice.example.org\n")
            await until(lambda: len(said) == 2)
            await asyncio.sleep(0.3)
            [origin] = [o for o in lists.origins("deny", []) if o["from"] == "file"]
            assert origin["nets"] == ["203.0.113.1/32"]
            assert f"{folder}/deny:2: expected an address" in str(origin["trouble"])
            replaced(folder / "deny", good)
            await until(lambda: "203.0.113.9/32" in nets(lists)[1])

        lists, changes = followed(folder, spoil)
    assert [event["event"] for event in said] == [
        "a list is not taken: its old content stays",
        "a list is not taken: its old content stays",
        "a list is read again",
    ]
    assert said[1]["problem"].startswith(f"{folder}/deny:3: expected an address")
    assert len(changes) == 1
    assert all(origin["trouble"] is None for origin in lists.origins("deny", []))


def test_a_file_that_goes_keeps_its_content_until_it_is_back(folder):
    with capture_logs() as said:

        async def go(lists: Lists) -> None:
            (folder / "allow").unlink()
            await until(lambda: said)
            assert "192.0.2.0/24" in nets(lists)[0]
            (folder / "allow").mkdir()
            await until(lambda: len(said) == 2)
            (folder / "allow").rmdir()
            (folder / "allow").write_text("192.0.2.0/25\n")
            await until(lambda: "192.0.2.0/25" in nets(lists)[0])

        followed(folder, go)
    problems = [event["problem"] for event in said[:2]]
    assert problems == [
        f"{folder}/allow: No such file or directory",
        f"{folder}/allow: it is no regular file",
    ]


def test_other_rights_alone_are_a_change(folder):
    """So that a file that could not be read is tried again after a chmod."""
    with capture_logs() as said:

        async def permit(_: Lists) -> None:
            (folder / "deny").chmod(0o600)
            await until(lambda: said)

        followed(folder, permit)
    assert said[0]["event"] == "a list is read again"


def test_names_in_a_file_come_and_go_with_it(folder):
    (folder / "hosts").write_text("198.51.100.9 office\n198.51.100.10 home\n")
    (folder / "allow").write_text("office # ours\n")

    async def change(lists: Lists) -> None:
        await until(lambda: "198.51.100.9/32" in nets(lists)[0])
        replaced(folder / "allow", "home\n")
        await until(lambda: nets(lists)[0] == ["198.51.100.10/32", "198.51.100.7/32"])
        [origin] = [o for o in lists.origins("allow", []) if o["from"] == "name"]
        assert (origin["file"], origin["name"]) == (f"{folder}/allow", "home")

    followed(folder, change)


def test_a_reload_takes_other_files(folder):
    (folder / "more").write_text("192.0.2.77\n")
    lists = Lists(Names())
    lists.take(config_of(folder))
    lists.take(load_with(folder, f'allow = ["{folder}/more"]'))
    assert nets(lists) == (["192.0.2.77/32"], [])


def load_with(folder: Path, text: str) -> Config:
    (folder / "other.toml").write_text(f"[lists]\n{text}\n")
    return load(folder / "other.toml")
