"""The file source against real files, written and rotated at full speed: every line once, in order, at once."""

import asyncio
import contextlib
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from guard.sources import Chunk
from guard.sources.file import FileSource


class Reader:
    """What the daemon does with chunks: lines out, positions lowered by what is held."""

    def __init__(self, positions: dict[str, str] | None = None) -> None:
        self.lines: list[bytes] = []
        self.held: dict[str, bytes] = {}
        self.positions = dict(positions or {})
        self.chunks: list[Chunk] = []

    def files(self) -> list[str]:
        """Return the positions of files."""
        return [text for stream, text in self.positions.items() if not stream.endswith("#")]

    async def put(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        if chunk.reset:
            self.held.pop(chunk.stream, None)
        *lines, rest = (self.held.pop(chunk.stream, b"") + chunk.data).split(b"\n")
        self.lines += lines
        if chunk.end:
            self.lines += [rest] if rest else []
        elif rest:
            self.held[chunk.stream] = rest
        if chunk.position is None:
            self.positions.pop(chunk.stream, None)
        else:
            self.positions[chunk.stream] = chunk.position.rewind(len(self.held.get(chunk.stream, b""))).dump()


class Running:
    """A source at work."""

    def __init__(self, path: Path | str, reader: Reader, start: str = "resume", linger: float = 10.0) -> None:
        self.notes: list[str] = []
        self.source = FileSource(
            "mail", str(path), reader.positions, start=start, linger=linger, note=self.notes.append
        )
        self.reader = reader

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.source.run(self.reader.put))
        await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def until(self, true: Callable[[], bool], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert not self.task.done(), self.task
            assert time.monotonic() < end, f"{self.reader.lines[-3:]} {self.notes}"
            await asyncio.sleep(0.002)

    async def lines(self, count: int) -> None:
        await self.until(lambda: len(self.reader.lines) >= count)
        await asyncio.sleep(0.1)  # nothing more comes
        assert len(self.reader.lines) == count, (self.reader.lines[-5:], self.notes)


def text(first: int, last: int) -> bytes:
    return b"".join(b"Nov 24 00:00:00 mx dovecot: line %08d\n" % n for n in range(first, last))


def numbers(reader: Reader) -> list[int]:
    return [int(line.rsplit(b" ", 1)[1]) for line in reader.lines]


def append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


# ------------------------------------------------------------------------------------------------ where it begins


@pytest.mark.parametrize(("start", "expected"), [("start", 15), ("now", 5), ("resume", 5)])
async def test_without_state_from_says_where_to_begin(tmp_path, start, expected):
    log = tmp_path / "mail.log"
    append(log, text(0, 10))
    async with Running(log, Reader(), start) as running:
        append(log, text(10, 15))
        await running.lines(expected)
        assert numbers(running.reader) == list(range(15 - expected, 15))


async def test_a_line_being_written_at_the_start_is_read_whole(tmp_path):
    log = tmp_path / "mail.log"
    append(log, text(0, 10) + text(10, 11)[:-12])
    async with Running(log, Reader()) as running:
        append(log, text(10, 11)[-12:])
        await running.lines(1)
        assert numbers(running.reader) == [10]


@pytest.mark.parametrize("start", ["start", "now", "resume"])
async def test_file_that_appears_later_is_read_from_its_start(tmp_path, start):
    log = tmp_path / "mail.log"
    async with Running(log, Reader(), start) as running:
        assert not running.source.health().up
        assert "No such file" in running.source.health().detail
        append(log, text(0, 10))
        await running.lines(10)
        health = running.source.health()
        assert (health.up, health.lag, health.lost, health.detail) == (True, 0.0, 0, str(log))


async def test_folder_that_appears_later(tmp_path):
    async with Running(tmp_path / "later" / "mail.log", Reader()) as running:
        (tmp_path / "later").mkdir()
        append(tmp_path / "later" / "mail.log", text(0, 10))
        await running.lines(10)


async def test_what_is_no_file_is_told_once(tmp_path):
    os.mkfifo(tmp_path / "mail.log")
    async with Running(tmp_path / "mail.log", Reader()) as running:
        await asyncio.sleep(0.2)
        assert running.notes == [f"{tmp_path}/mail.log: not a regular file"]
        assert not running.source.health().up


# ------------------------------------------------------------------------------------------------ at speed


class Writer(threading.Thread):
    """Writes numbered lines at full speed and rotates now and then, as logrotate would."""

    def __init__(self, log: Path, rotate: Callable[[Path, int], None], rotations: int, pause: float) -> None:
        super().__init__()
        self.log, self.rotate, self.rotations, self.pause = log, rotate, rotations, pause
        self.written = 0

    def run(self) -> None:
        shift = random.Random(self.rotations)
        for turn in range(self.rotations + 1):
            fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for _ in range(shift.randrange(20, 60)):
                batch = shift.randrange(1, 200)
                os.write(fd, text(self.written, self.written + batch))
                self.written += batch
            if turn < self.rotations:
                self.rotate(self.log, turn)
            os.write(fd, text(self.written, self.written + 50))  # rsyslog before its HUP
            self.written += 50
            os.close(fd)
            time.sleep(self.pause)


def shift(log: Path) -> None:
    for number in range(8, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))


def by_rename(log: Path, turn: int) -> None:
    shift(log)
    log.rename(log.with_name(log.name + ".1"))


def by_date(log: Path, turn: int) -> None:
    log.rename(log.with_name(f"{log.name}-2026112{turn}"))


def by_extension(log: Path, turn: int) -> None:
    log.rename(log.with_name(f"mail-2026112{turn}.log"))


def by_copy(log: Path, turn: int) -> None:
    shift(log)
    shutil.copyfile(log, log.with_name(log.name + ".1"))
    os.truncate(log, 0)


def by_creation(log: Path, turn: int) -> None:
    shift(log)
    os.link(log, log.with_name(log.name + ".1"))
    fresh = log.with_name("fresh")
    fresh.touch()
    fresh.rename(log)


ROTATIONS = [by_rename, by_date, by_extension, by_copy, by_creation]


@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.parametrize("rotate", ROTATIONS)
async def test_every_line_once_through_rotations_at_full_speed(tmp_path, rotate, pause):
    log = tmp_path / "mail.log"
    log.touch()
    writer = Writer(log, rotate, rotations=5, pause=pause)
    async with Running(log, Reader()) as running:
        writer.start()
        await running.until(lambda: not writer.is_alive())
        await running.lines(writer.written)
        assert sorted(numbers(running.reader)) == list(range(writer.written))
        assert running.source.health().lost == 0
        assert len({chunk.stream for chunk in running.reader.chunks if not chunk.stream.endswith("#")}) <= 6


@pytest.mark.parametrize("rotate", [by_rename, by_extension, by_copy])
async def test_a_glob_takes_no_rotated_file_for_a_new_one(tmp_path, rotate):
    logs = [tmp_path / f"{name}.log" for name in ("mail", "sogo", "other")][:1]
    async with Running(tmp_path / "*.log*", Reader(), linger=0.05) as running:
        for turn in range(3):
            for log in logs:
                append(log, text(turn * 10, turn * 10 + 10))
            await running.lines(turn * 10 + 10)
            for log in logs:
                rotate(log, turn)
            await asyncio.sleep(0.2)
        await asyncio.sleep(1.5)  # the glob is evaluated again
        assert numbers(running.reader) == list(range(30))


# ------------------------------------------------------------------------------------------------ particular cases


async def test_late_writes_to_a_renamed_file_are_read(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    async with Running(log, Reader(), linger=0.3) as running:
        with log.open("ab", buffering=0) as old:
            old.write(text(0, 10))
            await running.lines(10)
            log.rename(tmp_path / "mail.log.1")
            append(log, text(10, 20))
            await running.lines(20)
            old.write(text(20, 30))
            await running.lines(30)
        await running.until(lambda: any(chunk.end for chunk in running.reader.chunks))
        append(log, text(30, 31))
        await running.lines(31)
        assert len(running.reader.files()) == 1


async def test_file_that_has_regrown_beyond_the_position_is_seen_to_be_another(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    async with Running(log, Reader()) as running:
        append(log, text(0, 100))
        await running.lines(100)
        shutil.copyfile(log, tmp_path / "mail.log.1")
        with log.open("r+b", buffering=0) as file:  # one step for the reader: it never sees the file small
            file.write(text(100, 250))
        await running.lines(250)
        assert numbers(running.reader) == list(range(250))


async def test_unfinished_line_is_dropped_with_its_truncated_file(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    async with Running(log, Reader()) as running:
        append(log, text(0, 10) + b"half a li")
        await running.lines(10)
        os.truncate(log, 0)
        await asyncio.sleep(0.1)
        append(log, text(10, 20))
        await running.lines(20)
        assert numbers(running.reader) == list(range(20))
        assert running.source.health().lost == 1
        assert "no copy" in running.notes[0]


async def test_unfinished_line_of_a_rotated_file_is_a_line(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    async with Running(log, Reader(), linger=0.05) as running:
        append(log, text(0, 10)[:-1])
        await running.lines(9)
        log.rename(tmp_path / "mail.log.1")
        log.touch()
        await running.lines(10)


async def test_hole_left_by_a_writer_without_append_is_skipped(tmp_path):
    log = tmp_path / "mail.log"
    with log.open("wb", buffering=0) as writer:
        async with Running(log, Reader()) as running:
            writer.write(text(0, 20_000))
            await running.lines(20_000)
            shutil.copyfile(log, tmp_path / "mail.log.1")
            os.truncate(log, 0)
            writer.write(text(20_000, 20_010))  # at its old offset
            await running.lines(20_010)
            assert numbers(running.reader) == list(range(20_010))


async def test_removed_and_created_again(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    async with Running(log, Reader(), linger=0.05) as running:
        for turn in range(4):
            append(log, text(turn * 10, turn * 10 + 10))
            await running.lines(turn * 10 + 10)
            log.unlink()
            await asyncio.sleep(0.15 * (turn % 2))
        assert numbers(running.reader) == list(range(40))


async def test_file_written_anew_with_the_same_content_is_not_read_twice(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    async with Running(log, Reader()) as running:
        append(log, text(0, 10))
        await running.lines(10)
        shutil.copyfile(log, tmp_path / "edited")
        append(tmp_path / "edited", text(10, 20))
        (tmp_path / "edited").rename(log)
        await running.lines(20)
        assert numbers(running.reader) == list(range(20))


async def test_symbolic_link_that_moves_on(tmp_path):
    link = tmp_path / "current.log"
    append(tmp_path / "a", text(0, 5))
    link.symlink_to("a")
    async with Running(link, Reader(), "start") as running:
        await running.lines(5)
        append(tmp_path / "b", text(5, 10))
        (tmp_path / "new").symlink_to("b")
        (tmp_path / "new").rename(link)
        await running.lines(10)
        append(tmp_path / "b", text(10, 15))
        await running.lines(15)


async def test_a_huge_file_does_not_keep_others_waiting(tmp_path):
    append(tmp_path / "huge.log", text(0, 400_000))
    append(tmp_path / "small.log", b"needle 400000\n")
    async with Running(tmp_path / "*.log", Reader(), "start") as running:
        await running.lines(400_001)
        place = next(i for i, chunk in enumerate(running.reader.chunks) if b"needle" in chunk.data)
    assert place < 3
    assert max(len(chunk.data) for chunk in running.reader.chunks) <= 256 * 1024


async def test_a_glob_sees_files_come_and_go(tmp_path):
    (tmp_path / "a").mkdir()
    async with Running(tmp_path / "*/*.log", Reader(), linger=0.05) as running:
        append(tmp_path / "a" / "one.log", text(0, 1))
        await running.lines(1)
        (tmp_path / "a" / "one.log").unlink()
        (tmp_path / "b").mkdir()
        append(tmp_path / "b" / "two.log", text(1, 2))
        await running.lines(2)
        await running.until(lambda: len(running.reader.files()) == 1)
        health = running.source.health()
        assert (health.up, health.detail) == (True, f"1 of {tmp_path}/*/*.log")
        assert health.lost == 0


async def test_a_written_line_arrives_within_milliseconds(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    waits = []
    async with Running(log, Reader()) as running:
        for turn in range(50):
            await asyncio.sleep(0.003)
            begun = time.perf_counter()
            append(log, text(turn, turn + 1))
            while len(running.reader.lines) <= turn:  # noqa: ASYNC110 - it is the wait that is measured
                await asyncio.sleep(0)
            waits.append(time.perf_counter() - begun)
    assert sorted(waits)[12] < 0.005  # the machine may be busy


# ------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("rotate", [None, *ROTATIONS])
@pytest.mark.parametrize("seed", range(3))
async def test_killed_at_random_points_and_resumed_through_rotations_meanwhile(tmp_path, rotate, seed):
    log = tmp_path / "mail.log"
    log.touch()
    dice = random.Random(seed)
    reader = Reader()
    async with Running(log, reader):
        pass
    written, turns = 0, 0
    for _ in range(12):
        for _ in range(dice.randrange(3)):  # while nobody reads
            if rotate and turns < 8 and log.stat().st_size:
                rotate(log, turns)
                turns += 1
            count = dice.randrange(1, 200)
            append(log, text(written, written + count))
            written += count
        async with Running(log, reader) as running:
            torn = text(written, written + 1)
            append(log, torn[:10])
            await asyncio.sleep(dice.random() * 0.02)
        reader.held.clear()  # the process died
        append(log, torn[10:])
        written += 1
    async with Running(log, reader) as running:
        await running.lines(written)
        assert numbers(reader) == list(range(written))
        assert not running.notes


async def test_killed_after_every_chunk_while_a_rotation_is_caught_up(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    first = Reader()
    async with Running(log, first) as running:
        append(log, text(0, 5000))
        await running.lines(5000)
    append(log, text(5000, 20_000))
    by_rename(log, 0)
    append(log, text(20_000, 30_000))
    by_rename(log, 1)
    append(log, text(30_000, 40_000))

    class KilledError(Exception):
        pass

    class Dying(Reader):
        async def put(self, chunk: Chunk) -> None:
            await super().put(chunk)
            raise KilledError

    lines, positions = list(first.lines), first.positions
    with contextlib.suppress(TimeoutError):  # nothing comes any more
        for _ in range(100):
            reader = Dying(positions)
            with contextlib.suppress(KilledError):
                async with asyncio.timeout(0.5):
                    await FileSource("mail", str(log), positions).run(reader.put)
            lines += reader.lines
            positions = reader.positions
    first.lines = lines
    assert numbers(first) == list(range(40_000))


async def test_truncated_while_nobody_read_and_regrown_with_its_copy_beside_it(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    reader = Reader()
    async with Running(log, reader) as running:
        append(log, text(0, 100))
        await running.lines(100)
    append(log, text(100, 150))
    by_copy(log, 0)
    append(log, text(150, 500))
    async with Running(log, reader) as running:
        await running.lines(500)
        assert numbers(reader) == list(range(500))


async def test_what_cannot_be_found_again_is_told_and_counted(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    reader = Reader()
    async with Running(log, reader) as running:
        append(log, text(0, 100))
        await running.lines(100)
    log.unlink()
    append(log, text(100, 120))
    async with Running(log, reader) as running:
        await running.lines(120)
        assert numbers(reader) == list(range(120))
        assert running.source.health().lost == 1
        assert "is lost" in running.notes[0]
        assert len(reader.files()) == 1


async def test_positions_of_other_sources_and_damaged_ones_are_left_alone(tmp_path):
    log = tmp_path / "mail.log"
    append(log, text(0, 10))
    reader = Reader({"journal": "s=abc;i=1", "x": "{}", "y": "[1]", "z": '{"path": 1}'})
    async with Running(log, reader) as running:
        append(log, text(10, 15))
        await running.lines(5)
    assert {"journal", "x", "y", "z"} < set(reader.positions)


async def test_rotated_files_beside_an_empty_log_stay_unread(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    append(tmp_path / "mail.log.1", text(0, 10))
    reader = Reader()
    for turn in range(3):
        async with Running(log, reader) as running:
            await running.lines(0)
            append(tmp_path / f"mail.log.{turn + 2}", text(0, 10))
            os.utime(tmp_path / f"mail.log.{turn + 2}", (1e9, 1e9))  # unpacked by somebody
    async with Running(log, reader) as running:
        append(log, text(10, 20))
        await running.lines(10)
        assert numbers(reader) == list(range(10, 20))


async def test_empty_log_filled_copied_and_truncated_between_two_looks(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    async with Running(log, Reader()) as running:
        append(log, text(0, 10))  # nothing is awaited: the source cannot look meanwhile
        by_copy(log, 0)
        append(log, text(10, 20))
        by_copy(log, 0)
        append(log, text(20, 30))
        await running.lines(30)
        assert numbers(running.reader) == list(range(30))


async def test_source_given_another_name_goes_on_where_it_was(tmp_path):
    log = tmp_path / "mail.log"
    log.touch()
    reader = Reader()
    async with Running(log, reader) as running:
        append(log, text(0, 10))
        await running.lines(10)
    append(log, text(10, 20))
    async with Running(tmp_path / "*.log", reader) as running:
        await running.lines(20)


async def test_a_position_holds_no_text_of_the_log(tmp_path):
    log = tmp_path / "mail.log"
    append(log, b"Nov 24 dovecot: auth: given password: hunter2\n")
    async with Running(log, Reader(), "start") as running:
        await running.lines(1)
    (position,) = running.reader.files()
    assert "hunter" not in position
    assert "hunter" not in bytes.fromhex(position.split('"tail":"')[1][:16]).decode("latin1")


@pytest.mark.parametrize("pattern", ["mail.log", "*.log"])
async def test_a_file_made_while_nobody_looked_is_read_from_its_start(tmp_path, pattern):
    reader = Reader()
    append(tmp_path / "old.log", text(100, 200))
    async with Running(tmp_path / pattern, reader) as running:
        await running.until(lambda: len(reader.positions) >= 1)
    append(tmp_path / "mail.log", text(0, 5))
    async with Running(tmp_path / pattern, reader) as running:
        await running.lines(5)
    assert numbers(reader) == list(range(5))
