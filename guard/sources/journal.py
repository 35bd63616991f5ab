"""The source `journal`: systemd's journal, by unit or by tag, followed as it grows, is rotated and vacuumed.

It runs `journalctl`, and has no second way through a binding.  Measured against systemd-python 235 (systemd 252, two
cores, 320 000 entries of Postfix; benchmarks/source_journal.py measures the way that was taken):

|                         | journalctl                           | binding                                        |
|-------------------------|--------------------------------------|------------------------------------------------|
| entries/s               | 130 000 (as JSON: 50 000)            | 164 000 (as its `Reader` gives them: 58 000)   |
| written -> seen         | 0.13 s at 200 entries/s, 0.5 s alone | 0.01 s where it polls, 0.4 s where it waits    |
| to install              | nothing                              | compiler, libsystemd-dev: PyPI has source only |
| a damaged journal       | ends a child, which is started again | can end the guard (SIGBUS, failed assertions)  |

journald tells readers of an entry by a timer of 250 ms that may be as much late; only polling is faster, by the price of
that C code, and of what it maps, inside the process that holds CAP_NET_ADMIN.

Each entry is delivered once.  The place is journald's cursor and, beside it, the time: where the journal no longer has
the entry (it was vacuumed, or is another machine's) reading goes on with the oldest one after it, and that is told and
counted as a loss, unless it was the very next.  Held in between: a pipe of 1 MiB and the chunk that waits for `put`.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from guard.sources import CHUNK_BYTES, Chunk, Health, Note, Put
from guard.sources._backoff import Backoff
from guard.sources._cursor import Cursor
from guard.sources._export import Export, Fields
from guard.sources._journal_entry import FIELDS, Writer, matches
from guard.sources._journalctl import (
    PROGRAM,
    Journalctl,
    JournalctlError,
    Place,
    arguments,
    load,
    look,
    place_of,
    since,
)

__all__ = ["PROGRAM", "JournalSource"]

GATHER: Final = 0.005  # seconds
QUIET: Final = 0.1  # seconds without data after which everything written was read
IDLE: Final = 5.0  # seconds between two looks at what it complains of
SETTLED: Final = 1.0  # seconds that journalctl lives, after which it is well
BEHIND: Final = (
    2.0  # seconds of reading without an end, after each of which it is checked that nothing is lost
)
OVERLOOKED: Final = (
    30.0  # seconds between two looks, while all is quiet, for an entry that journalctl passed over
)
_NUMBER: Final = re.compile(r"s=([0-9a-f]+);i=([0-9a-f]+);")  # of the entry in its sequence


class JournalSource:
    """Follows the entries of `units` (a name, or a template with `*` after its `@`) and `tags` in one journal.

    `directory`: where it lies; "": this machine's.  `positions` are the saved ones of all sources.  `start` is `resume`,
    `start` or `now` as for files; without state `since` seconds of history are read.  `note` is called with a sentence
    when something is in the way or is lost.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[str],
        tags: Sequence[str] = (),
        positions: Mapping[str, str] | None = None,
        *,
        directory: str = "",
        start: str = "resume",
        since: float = 0.0,
        any_user: bool = False,
        note: Note = lambda _: None,
    ) -> None:
        self._name = name
        self._stream = f"{name}/journal"
        self._directory = directory
        self._start = start
        self._since = since
        self._note = note
        self._writer = Writer(units, tags, any_user=any_user, note=note)
        self._matches = matches(units, tags, "" if directory else _machine())
        saved = (positions or {}).get(self._stream, "")
        self._place = load(saved) if start != "now" and saved else None
        self._trouble = "not yet begun"
        self._told = ""
        self._lost = 0
        self._cut = 0
        self._caught_up = time.monotonic()
        self._busy = False  # data came within the last QUIET seconds
        self._anchor: Place | None = None  # where we were when it was last checked that nothing is lost
        self._checked = 0.0
        self._looked = time.monotonic()  # for what journalctl passed over

    @property
    def name(self) -> str:
        """The label in metrics."""
        return self._name

    def health(self) -> Health:
        """Up while journalctl follows.  `lost` counts gaps, not entries: nobody knows what was in them."""
        lag = time.monotonic() - self._caught_up if self._busy or self._trouble else 0.0
        detail = self._trouble or self._directory or "journal"
        return Health(self._name, not self._trouble, lag, self._lost, detail)

    async def run(self, put: Put) -> None:
        """Deliver chunks until the task is cancelled."""
        backoff = Backoff()
        while True:
            try:
                _readable(self._directory)
                place = await self._begin()
                await put(self._chunk(b"", place))
                await self._follow(place, put, backoff)
            except (JournalctlError, ValueError) as error:
                self._say(str(error))
            await asyncio.sleep(backoff.pause())

    def _chunk(self, data: bytes, place: Place) -> Chunk:
        self._place = place
        written = place.micro / 1e6 if data else None
        return Chunk(self._name, self._stream, data, Cursor(place.dump()), written=written)

    async def _begin(self) -> Place:
        """Return where to go on: where it stopped, as far as the journal still knows; else what `start` says."""
        place = self._place
        if place is None:
            if self._start == "start":
                return Place(0, "")
            now = int(time.time() * 1e6)
            if self._start == "resume" and self._since:
                return Place(max(0, now - int(self._since * 1e6)), "")
            return await look(self._directory, []) or Place(now, "")
        if not place.cursor:
            return place
        return await self._still(place)

    async def _still(self, place: Place) -> Place:
        """Return `place`, or what comes nearest where the journal no longer has its entry; that is counted."""
        try:
            there = await look(self._directory, [f"--cursor={place.cursor}"])
        except JournalctlError:  # no cursor that this journalctl understands, or worse
            there = await look(self._directory, [since(place.micro)])
        if there and there.cursor == place.cursor:
            return place
        ours, theirs = _NUMBER.match(place.cursor), _NUMBER.match(there.cursor if there else "")
        same = ours is not None and theirs is not None and ours[1] == theirs[1]
        if not (same and ours and theirs and int(theirs[2], 16) == int(ours[2], 16) + 1):
            self._lost += 1
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(place.micro / 1e6))
            self._note(
                f"the journal no longer has the entry of {at} UTC that was read last; what was written between it "
                "and the oldest one after it may be lost"
            )
        if there is None:
            return Place(place.micro + 1, "")
        return Place(there.micro if same else max(there.micro, place.micro), "")

    async def _follow(self, place: Place, put: Put, backoff: Backoff) -> None:
        """Deliver what comes after `place` until journalctl ends.  Raises `JournalctlError`, ValueError."""
        given = [*arguments(self._directory, FIELDS), "--follow", "--no-tail"]
        if place.cursor:
            given.append(
                f"--cursor={place.cursor}"
            )  # not --after-cursor: that skips one where the entry has gone
        elif place.micro:
            given.append(since(place.micro))
        export = Export()
        async with Journalctl([*given, *self._matches]) as process:
            began = time.monotonic()
            while True:
                data = process.read()
                if data is None:
                    if not await process.readable(QUIET if self._busy or self._trouble else IDLE):
                        self._busy = False
                        if self._trouble and time.monotonic() - began > SETTLED:
                            self._well()
                        if await self._overlooks() and not await process.readable(SETTLED):
                            return  # and begin anew where it stopped
                    continue
                if not data:
                    raise JournalctlError(await process.end() or "journalctl ended")
                if not self._busy:
                    self._busy, self._caught_up = True, time.monotonic()
                entries = export.feed(data)
                if export.cut > self._cut:
                    self._cut = export.cut
                    self._note("an entry of more than 64 KiB was cut")
                if entries and place.cursor and place_of(entries[0]) == place:
                    del entries[0]
                if entries:
                    self._well()
                    backoff.reset()
                    await self._deliver(entries, put)
                    place = Place(0, "")
                    await self._check()
                # It writes 4 KiB at a time: a moment's wait makes chunks of them, and lets others run.
                await asyncio.sleep(GATHER if len(data) < CHUNK_BYTES else 0)

    async def _overlooks(self) -> bool:
        """Whether the journal has an entry for us that journalctl, by all signs, has not seen.

        journalctl 252 may pass over what is written while the file that it reads is vacuumed, until the next entry comes.
        """
        now = time.monotonic()
        if now - self._looked < OVERLOOKED:
            return False
        self._looked = now
        place, newest = self._place, await look(self._directory, self._matches)
        return place is not None and newest is not None and newest.micro > place.micro

    async def _deliver(self, entries: Sequence[Fields], put: Put) -> None:
        lines: list[bytes] = []
        size = 0
        place = place_of(entries[-1])
        for fields in entries:
            place = place_of(fields)
            line = self._writer.line(fields, place.micro)
            lines.append(line)
            size += len(line)
            if size >= CHUNK_BYTES:
                await put(self._chunk(b"".join(lines), place))
                lines, size = [], 0
        if lines:
            await put(self._chunk(b"".join(lines), place))

    async def _check(self) -> None:
        """While we are behind, see now and then whether the journal was vacuumed past us: journalctl does not say so.

        Where an entry is still there, so is all that came after it.
        """
        now = time.monotonic()
        if now - self._caught_up < BEHIND or now - self._checked < BEHIND:
            return
        place = self._anchor if self._checked > self._caught_up else self._place
        if place and place.cursor:
            await self._still(place)
        self._anchor, self._checked = self._place, now

    def _say(self, trouble: str) -> None:
        if not self._trouble and not self._busy:
            self._caught_up = time.monotonic()
        self._trouble = trouble
        if trouble != self._told:
            self._told = trouble
            self._note(trouble)

    def _well(self) -> None:
        if self._told:
            self._note("the journal is read again")
        self._trouble = self._told = ""


def _machine() -> str:
    """Return this machine's id, "" where it has none."""
    try:
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if re.fullmatch(r"[0-9a-f]{32}", text) else ""


def _readable(directory: str) -> None:
    """Raise `JournalctlError` with the remedy where the system's journal is not there, or not for us.

    journalctl itself shows what it may and passes over the rest: without the group it would follow nothing for ever.
    """
    roots = [Path(directory)] if directory else [Path("/var/log/journal"), Path("/run/log/journal")]
    found = False
    for journal in (file for root in roots for file in _files(root)):
        found = True
        if journal.name == "system.journal":
            try:
                journal.open("rb").close()
            except OSError as error:
                raise _refused(error) from None
    if not found:
        raise JournalctlError(f"no journal in {' or '.join(map(str, roots))}")


def _files(root: Path) -> list[Path]:
    """Return the journal files of a folder and of the folders in it, one a machine.  Raises `JournalctlError`."""
    try:
        entries = list(root.iterdir())
        entries += [file for folder in entries if folder.is_dir() for file in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _refused(error) from None
    return [file for file in entries if file.suffix == ".journal"]


def _refused(error: OSError) -> JournalctlError:
    text = f"{error.filename}: {error.strerror}"
    if isinstance(error, PermissionError):
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            user = "USER"
        text += f"; let its user read the journal, and start it again: usermod -aG systemd-journal {user}"
    return JournalctlError(text)
