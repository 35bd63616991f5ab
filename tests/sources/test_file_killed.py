"""A log written, torn, rotated, and read by a source that is killed and made again, all in random order: each line once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sources.test_file import Reader, Running, append, numbers, text

SEEDS = int(os.environ.get("MAILWARD_TEST_SEEDS", "4"))
STEPS = 40
KEPT = 60  # rotated files


def shift(log: Path) -> Path:
    for number in range(KEPT, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    return log.with_name(f"{log.name}.1")


def rename(log: Path, turn: int) -> None:
    first = shift(log)
    if log.exists():
        log.rename(first)


def create(log: Path, turn: int) -> None:
    rename(log, turn)
    log.touch()


def date(log: Path, turn: int) -> None:
    if log.exists():
        log.rename(log.with_name(f"{log.name}-202611{turn:04}"))


def link(log: Path, turn: int) -> None:
    first = shift(log)
    if log.exists():
        os.link(log, first)
        log.with_name("fresh").touch()
        log.with_name("fresh").rename(log)


def copytruncate(log: Path, turn: int) -> None:
    first = shift(log)
    if log.exists():
        first.write_bytes(log.read_bytes())
        os.truncate(log, 0)


class Case:
    """One run: what is done is drawn from `dice`; `done` says what, for whoever reads a failure."""

    def __init__(self, log: Path, rotate: Callable[[Path, int], None], dice: random.Random) -> None:
        self.log, self.rotate, self.dice = log, rotate, dice
        self.written = self.turns = 0
        self.half = b""  # what is left to write of a torn line
        self.reader = Reader()
        self.saved: tuple[list[bytes], dict[str, str]] = ([], {})
        self.done: list[str] = []
        self.running: Running

    async def start(self) -> None:
        linger = self.dice.choice([0.15, 0.3, 10.0])
        self.running = await Running(self.log, self.reader, "start", linger).__aenter__()

    def save(self) -> None:
        self.saved = list(self.reader.lines), dict(self.reader.positions)

    def write(self, count: int) -> None:
        append(
            self.log, self.half + text(self.written + bool(self.half), self.written + bool(self.half) + count)
        )
        self.written += count + bool(self.half)
        self.half = b""

    def turn(self) -> None:
        if not self.half:  # syslog daemons write whole lines before they let go of a file
            self.turns += 1
            self.rotate(self.log, self.turns)

    async def kill(self) -> None:
        await self.running.__aexit__()
        self.reader = Reader(self.saved[1])
        self.reader.lines = list(self.saved[0])
        for _ in range(self.dice.randrange(3)):  # while nobody reads
            if not self.half:
                self.write(self.dice.choice([1, 30]))
            if self.dice.random() < 0.5:
                self.turn()
        await self.start()

    async def step(self) -> None:
        do = self.dice.choices(
            ["write", "tear", "rotate", "run", "save", "kill", "wait"], [6, 2, 3, 4, 3, 1.5, 0.5]
        )
        self.done += do
        match do[0]:
            case "write":
                self.write(self.dice.choice([1, 1, 3, 50, 5000 if self.dice.random() < 0.2 else 2]))
            case "tear" if not self.half:
                line = text(self.written, self.written + 1)
                cut = self.dice.randrange(1, len(line))
                append(self.log, line[:cut])
                self.half = line[cut:]
            case "rotate":
                self.turn()
            case "run":
                for _ in range(self.dice.randrange(1, 4)):
                    await asyncio.sleep(self.dice.choice([0, 0, 0.001, 0.01, 0.03]))
            case "save":
                self.save()
            case "kill":
                await self.kill()
            case "wait":
                await asyncio.sleep(0.12)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("rotate", [rename, create, date, link, copytruncate])
async def test_each_line_once_whatever_is_done_to_the_log_and_the_reader(tmp_path, rotate, seed):
    log = tmp_path / "mail.log"
    log.touch()
    case = Case(log, rotate, random.Random(f"{rotate.__name__} {seed}"))
    await case.start()
    await case.running.until(lambda: bool(case.reader.files()))
    case.save()
    try:
        for _ in range(STEPS):
            await case.step()
        if case.half:
            case.write(0)
        with contextlib.suppress(AssertionError):
            await case.running.until(lambda: len(case.reader.lines) >= case.written, 30.0)
        await asyncio.sleep(0.06)
        assert sorted(numbers(case.reader)) == list(range(case.written)), case.done
        assert [note for note in case.running.notes if "No such file" not in note] == []
    finally:
        await case.running.__aexit__()
