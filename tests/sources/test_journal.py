"""The journal source against a real journald, rotated, vacuumed and restarted: every entry once, in order."""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from guard.sources import Chunk
from guard.sources._journalctl import JournalctlError
from guard.sources.journal import JournalSource, _readable
from tests.daemon import Daemon, failure, mailward, session
from tests.sources.journald import Journald, missing, native, requires_journald
from tests.system.netns import run

pytestmark = pytest.mark.servers

UNITS = ["postfix.service", "postfix@*.service", "dovecot.service", "sogo.service"]
REMOTE = Path("/lib/systemd/systemd-journal-remote")
POSTFIX, DOVECOT = "postfix@-.service", "dovecot.service"


@pytest.fixture
def journald(tmp_path):
    requires_journald()
    one = Journald(tmp_path)
    yield one
    one.close()


class Reader:
    """What the daemon does with chunks; it takes none after the first with lines before `go_on` is set."""

    def __init__(self, go_on: asyncio.Event | None = None) -> None:
        self.go_on = go_on
        self.lines: list[bytes] = []
        self.chunks: list[Chunk] = []
        self.positions: dict[str, str] = {}

    async def put(self, chunk: Chunk) -> None:
        assert chunk.data == b"" or chunk.data.endswith(b"\n")
        assert chunk.position
        self.chunks.append(chunk)
        self.lines += chunk.data.splitlines() if b"\r" not in chunk.data else chunk.data[:-1].split(b"\n")
        self.positions[chunk.stream] = chunk.position.rewind(0).dump()
        if self.go_on and chunk.data:
            await self.go_on.wait()


class Running:
    """A source at work."""

    def __init__(
        self, directory: Path | str, reader: Reader, tags: tuple[str, ...] = (), **more: Any
    ) -> None:
        self.notes: list[str] = []
        self.reader = reader
        self.directory = directory
        self.source = JournalSource(
            "journal1", UNITS, tags, reader.positions, directory=str(directory), note=self.notes.append,
            **more,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.source.run(self.reader.put))
        begun = len(self.reader.chunks)
        await self.until(lambda: len(self.reader.chunks) > begun or self.notes)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def until(self, true: Callable[[], object], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert not self.task.done(), self.task
            assert time.monotonic() < end, f"{len(self.reader.lines)} {self.reader.lines[-3:]} {self.notes}"
            await asyncio.sleep(0.005)

    async def reach(self, count: int) -> None:
        await self.until(lambda: len(self.reader.lines) >= count, 60)

    async def lines(self, count: int) -> list[str]:
        await self.reach(count)
        return [line.decode().partition(" ")[2] for line in self.reader.lines]

    def child(self) -> int:
        """Return the journalctl that follows for it."""
        mine = {"--follow", f"--directory={self.directory}"}
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if mine <= set(path.read_text().split("\0")):
                    found.append(int(path.parent.name))
        [pid] = found
        return pid


def numbers(reader: Reader) -> list[int]:
    return [int(line.rsplit(b" ", 1)[1]) for line in reader.lines]


async def through_everything(journald: Journald, count: int) -> Reader:
    """Write `count` lines at full speed; five times on the way the journal or its reader is disturbed."""
    reader = Reader()
    step = count // 6
    notes: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(Running(journald.directory, reader))
        for turn in range(6):
            writer = journald.many(turn * step, (turn + 1) * step)
            await running.reach(turn * step + step // 3)
            if turn in (0, 3):  # rotated
                journald.rotate()
            elif turn == 1:
                os.kill(running.child(), signal.SIGKILL)
            elif turn == 2:  # the daemon stops, the journal is rotated, the daemon starts
                notes += running.notes
                await stack.aclose()
                journald.rotate()
                running = await stack.enter_async_context(Running(journald.directory, reader))
            await running.until(lambda: writer.poll() is not None, 120)  # noqa: B023 - it is waited for here
            assert writer.returncode == 0
            await running.reach((turn + 1) * step)
            if turn in (0, 3):  # what was read is deleted
                journald.vacuum()
            elif turn == 4:
                journald.stop()
                journald.start()
        await asyncio.sleep(0.6)
        assert running.source.health().lost == 0
        notes += running.notes
    assert notes == ["journalctl: ended with status -9", "the journal is read again"]
    return reader


@pytest.mark.system
async def test_every_entry_once_through_rotation_vacuum_restarts_and_a_killed_journalctl(journald):
    count = int(os.environ.get("MAILWARD_TEST_LINES", "18000"))
    reader = await through_everything(journald, count)
    assert numbers(reader) == list(range(count // 6 * 6))


# ------------------------------------------------------------------------------------------------ where it begins


@pytest.mark.system
async def test_without_state_from_and_since_say_where_to_begin(journald):
    journald.log(DOVECOT, "dovecot", *(f"line {n}" for n in range(5)))
    journald.holds(5)
    middle = time.time() + 0.25
    await asyncio.sleep(0.5)
    journald.log(DOVECOT, "dovecot", *(f"line {n}" for n in range(5, 10)))
    journald.holds(10)
    async with contextlib.AsyncExitStack() as stack:
        expected: list[tuple[dict[str, Any], int]] = [
            ({"since": 3600.0}, 0),
            ({"since": time.time() - middle}, 5),
            ({"start": "start"}, 0),
            ({"start": "now"}, 10),
            ({}, 10),
        ]
        sources = [
            (await stack.enter_async_context(Running(journald.directory, Reader(), **more)), first)
            for more, first in expected
        ]
        journald.log(DOVECOT, "dovecot", *(f"line {n}" for n in range(10, 15)))
        for running, first in sources:
            await running.lines(15 - first)
            assert numbers(running.reader) == list(range(first, 15))


@pytest.mark.system
async def test_it_goes_on_where_it_was_even_if_nothing_had_come(journald):
    reader = Reader()
    async with Running(journald.directory, reader):
        pass
    for turn in range(3):
        journald.log(DOVECOT, "dovecot", f"line {turn}")
        journald.holds(turn + 1)
        async with Running(journald.directory, reader) as running:
            await running.lines(turn + 1)
            assert running.notes == []
    async with Running(journald.directory, reader, start="now") as running:
        journald.log(POSTFIX, "postfix/smtpd[1]", "line 3")
        await running.lines(4)
    assert numbers(reader) == [0, 1, 2, 3]


async def deliver(journald: Journald, reader: Reader, first: int, last: int) -> None:
    async with Running(journald.directory, reader) as running:
        journald.log(DOVECOT, "dovecot", *(f"line {n}" for n in range(first, last)))
        await running.lines(last)


@pytest.mark.system
async def test_a_vacuumed_cursor_goes_on_with_the_oldest_entry_and_is_counted(journald):
    reader = Reader()
    await deliver(journald, reader, 0, 5)
    journald.log(DOVECOT, "dovecot", *(f"line {n}" for n in range(5, 8)))
    journald.holds(8)
    journald.rotate()
    journald.log(DOVECOT, "dovecot", "line 8", "line 9")
    journald.holds(10)
    journald.vacuum()
    async with Running(journald.directory, reader) as running:
        await running.lines(7)
        assert numbers(reader) == [0, 1, 2, 3, 4, 8, 9]
        assert running.source.health().lost == 1
        [note] = running.notes
        assert "may be lost" in note
    async with Running(journald.directory, reader) as running:
        assert (running.notes, running.source.health().lost) == ([], 0)


@pytest.mark.system
async def test_a_vacuumed_cursor_before_the_very_next_entry_lost_nothing(journald):
    reader = Reader()
    await deliver(journald, reader, 0, 5)
    journald.rotate()
    journald.log(DOVECOT, "dovecot", "line 5")
    journald.holds(6)
    journald.vacuum()
    async with Running(journald.directory, reader) as running:
        await running.lines(6)
        assert (numbers(reader), running.notes) == ([*range(6)], [])


def has(reader: Reader, number: int) -> bool:
    return number in numbers(reader)


@pytest.mark.system
async def test_what_is_vacuumed_before_a_slow_reader_is_counted(journald, monkeypatch):
    monkeypatch.setattr("guard.sources.journal.BEHIND", 0.2)
    monkeypatch.setattr("guard.sources.journal.IDLE", 0.5)
    monkeypatch.setattr("guard.sources.journal.OVERLOOKED", 1.0)
    go_on = asyncio.Event()
    async with Running(journald.directory, Reader(go_on)) as running:
        journald.log(POSTFIX, "postfix/smtpd", "line 00000000")
        await running.lines(1)
        journald.many(1, 12000).wait()
        journald.ends(11999)
        for last in (12000, 12001):
            journald.rotate()
            journald.log(POSTFIX, "postfix/smtpd", f"line {last:08d}")
            journald.ends(last)
        journald.vacuum()
        await asyncio.sleep(0.3)
        go_on.set()
        # journalctl 252 may pass over, once in many runs, what came while the file it reads was removed.
        await running.until(partial(has, running.reader, 12001))
        assert len(running.reader.lines) < 12000
        assert running.source.health().lost == len(running.notes) >= 1
        assert all("may be lost" in note for note in running.notes)


@pytest.mark.system
@pytest.mark.parametrize("cursor", ["{}", "s={0};i=1;b={0};m=1;t={1:x};x=1", "nonsense"])
async def test_a_cursor_of_another_machine_goes_on_after_its_time(journald, cursor):
    journald.log(DOVECOT, "dovecot", *(f"line {n}" for n in range(5)))
    journald.holds(5)
    await asyncio.sleep(0.01)
    micro = int(time.time() * 1e6)
    journald.log(DOVECOT, "dovecot", *(f"line {n}" for n in range(5, 10)))
    journald.holds(10)
    reader = Reader()
    text = "" if cursor == "{}" else cursor.format("ab" * 16, micro)
    reader.positions = {"journal1/journal": f"{micro} {text}", "other": "x"}
    async with Running(journald.directory, reader) as running:
        await running.lines(5)
        assert numbers(reader) == list(range(5, 10))
        assert running.source.health().lost == (1 if text else 0)


@pytest.mark.system
async def test_entries_of_the_boot_before_are_read_to_their_end(tmp_path):
    requires_journald()
    if not REMOTE.exists():
        missing("NOT RUN: no systemd-journal-remote here; apt-get install systemd-journal-remote")
    now = int(time.time() * 1e6)
    text = "".join(
        f"__REALTIME_TIMESTAMP={now + n}\n__MONOTONIC_TIMESTAMP={n % 3 + 1}\n_BOOT_ID={'1' if n < 3 else '2'}{'0' * 31}\n"
        f"_SYSTEMD_UNIT={DOVECOT}\nSYSLOG_IDENTIFIER=dovecot\nMESSAGE=line {n}\n\n"
        for n in range(6)
    )
    run(str(REMOTE), "-o", str(tmp_path / "two.journal"), "-", given=text)
    whole, reader = Reader(), Reader()
    async with Running(tmp_path, whole, start="start") as running:
        await running.lines(6)
    assert numbers(whole) == list(range(6))
    shown = run(
        "journalctl", f"--directory={tmp_path}", "--quiet", "--output=export", "--output-fields=MESSAGE"
    )
    cursor = shown.partition("__CURSOR=")[2].partition("\n")[0]
    reader.positions = {"journal1/journal": f"{now} {cursor}"}
    async with Running(tmp_path, reader) as running:
        await running.lines(5)
        assert running.notes == []
    assert numbers(reader) == [1, 2, 3, 4, 5]


# ------------------------------------------------------------------------------------------------ what is read


@pytest.mark.system
async def test_any_message_is_one_line_of_who_wrote_it(journald):
    sent = [
        native(MESSAGE=b"one\ntwo\n\n__CURSOR=forged\n\nMESSAGE=x", SYSLOG_IDENTIFIER=b"dovecot"),
        native(MESSAGE=b"\xff\0\n", SYSLOG_IDENTIFIER=b"a b: x\n"),
        native(SYSLOG_IDENTIFIER=b"dovecot", _SYSTEMD_UNIT=b"forged.service", _HOSTNAME=b"forged"),
        native(MESSAGE=b"y" * 60_000, SYSLOG_IDENTIFIER=b"dovecot"),
        native(MESSAGE=b"z" * 180_000, SYSLOG_IDENTIFIER=b"dovecot"),
        native(MESSAGE=b"last", SYSLOG_IDENTIFIER=b"dovecot", SYSLOG_PID=b"77"),
    ]
    async with Running(journald.directory, Reader()) as running:
        for entry in sent:
            journald.send(DOVECOT, entry, native=True)
        await running.until(lambda: len(running.reader.lines) >= 6)
        host, _, rest = running.reader.lines[0].partition(b" ")[2].partition(b" ")
        tag, _, _ = rest.partition(b": ")
        texts = [line.partition(b" ")[2].removeprefix(host + b" ") for line in running.reader.lines]
        assert [text[:80] for text in texts] == [
            tag + b": one#012two#012#012__CURSOR=forged#012#012MESSAGE=x",
            tag.replace(b"dovecot", b"a_b__x_") + b": \xff#000",
            tag + b": ",
            (tag + b": " + b"y" * 80)[:80],
            (tag + b": " + b"z" * 80)[:80],
            b"dovecot[77]: last",
        ]
        assert [len(text) - len(tag) - 2 for text in texts[3:5]] == [60_000, 65_536]
        assert running.notes == ["an entry of more than 64 KiB was cut"]


@pytest.mark.system
async def test_units_and_tags_are_believed_and_nothing_else(journald):
    async with Running(journald.directory, Reader(), ("mailcow",)) as running:
        journald.log("cron.service", "dovecot", "forged 1")
        journald.log("", "dovecot", "forged 2")
        journald.log(POSTFIX, "dovecot", "forged 3", uid=1000)
        journald.log("", "mailcow", "forged 4", uid=1001)
        journald.log("", "mailcow", "line 1", uid=33)
        journald.log("postfix@later.service", "postfix/smtpd[1]", "line 2")
        journald.log("postfixes.service", "postfix/smtpd[1]", "forged 5")
        journald.log("sogo.service", "sogod", "Nov 24 00:00:00 sogod [9]: line 3")
        lines = await running.lines(3)
        await running.until(lambda: len(running.notes) == 2)
        assert sorted(line.partition(": ")[2] for line in lines) == ["line 1", "line 2", "line 3"]
        assert not any("sogod[9]" in line for line in lines)
        assert sorted(note[:44] for note in running.notes) == [
            "what the ordinary account 1000 writes in pos",
            "what the ordinary account 1001 writes in no ",
        ]


# ------------------------------------------------------------------------------------------------ what is in the way


@pytest.mark.system
async def test_a_journal_that_is_not_there_yet_is_told_once_and_read_when_it_is(journald, tmp_path):
    later = tmp_path / "later"
    async with Running(later, Reader(), start="start") as running:
        await running.until(lambda: running.notes)
        assert not running.source.health().up
        assert running.source.health().detail == f"no journal in {later}"
        journald.log(DOVECOT, "dovecot", "line 0")
        later.symlink_to(journald.directory)
        await running.lines(1)
        await running.until(lambda: running.source.health().up)
        assert running.notes == [f"no journal in {later}", "the journal is read again"]


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: only root can be somebody else for a moment")
def test_a_journal_that_may_not_be_read_is_told_with_the_remedy():
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder, "machine", "system.journal")
        journal.parent.mkdir()
        journal.touch(0o640)
        for place, mode in ((journal, 0o600), (journal.parent, 0o700), (Path(folder), 0o700)):
            journal.chmod(0o644)
            journal.parent.chmod(0o755)
            Path(folder).chmod(0o755)
            place.chmod(mode)
            os.seteuid(65534)
            try:
                with pytest.raises(JournalctlError) as caught:
                    _readable(folder)
            finally:
                os.seteuid(0)
            remedy = "Permission denied; let its user read the journal, and start it again: usermod -aG systemd-journal nobody"
            assert str(caught.value).endswith(remedy)


@pytest.mark.system
async def test_lag_grows_while_it_is_not_read_and_ends(journald):
    go_on = asyncio.Event()
    async with Running(journald.directory, Reader(go_on), start="start") as running:
        journald.log(DOVECOT, "dovecot", "line 0")
        await running.until(lambda: running.source.health().lag > 0.2)
        go_on.set()
        await running.until(lambda: running.source.health().lag == 0.0 and running.source.health().up)
        assert numbers(running.reader) == [0]


# ------------------------------------------------------------------------------------------------ the daemon


@pytest.mark.system
def test_the_daemon_bans_by_the_journal_and_counts_nothing_twice_over_a_restart(journald, tmp_path):
    more = f'[[source]]\ntype = "journal"\ndirectory = "{journald.directory}"'
    daemon = Daemon(tmp_path, more=more)
    sid = session("198.51.100.7")
    texts = [failure("198.51.100.7", sid=sid).partition("dovecot: ")[2]] * 5

    def failures() -> int:
        return int(daemon.ask("report")["failures"]["total"])

    daemon.start()
    try:
        journald.log("cron.service", "dovecot", *[failure("198.51.100.8").partition("dovecot: ")[2]] * 9)
        journald.log(DOVECOT, "dovecot", *texts[:3])
        daemon.until(lambda: failures() == 3)
        daemon.has_saved()
        daemon.stop()
        journald.log(DOVECOT, "dovecot", *texts[3:])
        daemon.start()
        daemon.until(lambda: failures() == 5)
        assert [ban["net"] for ban in daemon.ask("bans")["bans"]] == ["198.51.100.7/32"]
        [source] = [source for source in daemon.ask("status")["sources"] if source["name"] == "journal1"]
        assert (source["up"], source["lost"]) == (True, 0)
    finally:
        daemon.stop()


def test_without_journalctl_the_daemon_refuses_and_names_the_remedy(tmp_path):
    daemon = Daemon(tmp_path, more='[[source]]\ntype = "journal"')
    done = mailward("run", "--config", str(daemon.config), PATH=str(tmp_path))
    assert done.returncode == 2
    assert (
        "source journal1: there is no journalctl; install it (Debian: apt-get install systemd)" in done.stderr
    )
    assert "Traceback" not in done.stderr
