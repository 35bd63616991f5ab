"""journalctl as a child process: one that follows, and short ones that look at a place."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from guard.sources import CHUNK_BYTES
from guard.sources._export import Export, Fields

PROGRAM: Final = "journalctl"
PATIENCE: Final = 60.0  # seconds for a short look, on a disk that is busy
_PIPE: Final = 1 << 20  # bytes; what an ordinary user may ask for
_SAID: Final = 4096  # bytes of its complaints that are kept


class JournalctlError(Exception):
    """journalctl has ended, or cannot be started; the text says why."""


class Place(NamedTuple):
    """Between two entries.  Without a cursor: before the first entry of that time; 0: before the first of all."""

    micro: int  # microseconds since the epoch
    cursor: str

    def dump(self) -> str:
        """Return it as text for the store."""
        return f"{self.micro} {self.cursor}"


def load(text: str) -> Place | None:
    """Return what `dump` wrote, None where the text is no place."""
    micro, _, cursor = text.partition(" ")
    if not (micro.isascii() and micro.isdigit() and len(micro) < 18) or len(cursor) > 512:
        return None
    return Place(int(micro), cursor) if not cursor or (cursor.isascii() and cursor.isprintable()) else None


def place_of(fields: Fields) -> Place:
    """Return the place of an entry.  Raises ValueError where it has none."""
    place = load(
        f"{fields.get(b'__REALTIME_TIMESTAMP', b'').decode()} {fields.get(b'__CURSOR', b'').decode()}"
    )
    if place is None or not place.cursor:
        raise ValueError("an entry without a place")
    return place


def since(micro: int) -> str:
    """Return the argument that asks for entries of that time and later."""
    return f"--since=@{micro // 1_000_000}.{micro % 1_000_000:06d}"


def arguments(directory: str, fields: Sequence[str]) -> list[str]:
    """Return what every call has.

    `--merge`: to follow means "this boot alone" otherwise, even with a cursor of the last one; what was written
    between our end and the host's would never be read.  (It also opens other machines' journals: see `matches`.)
    """
    where = [f"--directory={directory}"] if directory else []
    return [
        *where,
        "--merge",
        "--quiet",
        "--no-pager",
        "--output=export",
        "--output-fields=" + ",".join(fields),
    ]


class Journalctl:
    """One process.  Use it as an async context manager."""

    def __init__(self, given: Sequence[str]) -> None:
        self._given = given
        self._said = b""

    async def __aenter__(self) -> Self:
        """Start it.  Raises `JournalctlError`."""
        (self._out, out), (self._errors, errors) = pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        with contextlib.suppress(OSError):
            fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, _PIPE)
        for ours, _ in pipes:
            os.set_blocking(ours, False)
        environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
        try:
            self._process = await asyncio.create_subprocess_exec(
                PROGRAM,
                *self._given,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environment,
            )
        except OSError as error:
            self._close()
            raise JournalctlError(f"{PROGRAM}: {error.strerror}") from None
        finally:
            os.close(out)
            os.close(errors)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it."""
        if self._process.returncode is None:  # else: `end` has waited for it
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._close()
        await self._process.wait()

    def _close(self) -> None:
        os.close(self._out)
        os.close(self._errors)

    def read(self) -> bytes | None:
        """Return what it has written, b"" at its end, None where there is nothing yet."""
        with contextlib.suppress(BlockingIOError):  # it never waits for us to hear its complaints
            self._said = (self._said + os.read(self._errors, _SAID))[-_SAID:]
        try:
            return os.read(self._out, CHUNK_BYTES)
        except BlockingIOError:
            return None

    async def readable(self, seconds: float) -> bool:
        """Wait until there is something to read, or its end; False after `seconds` without."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._out, ready.set)
        try:
            async with asyncio.timeout(seconds):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._out)
        return True

    async def end(self) -> str:
        """Return why it ended, after its output has; "" where it succeeded."""
        status = await self._process.wait()
        self.read()
        if status == 0:
            return ""
        lines = self._said.decode("utf-8", "replace").strip().splitlines()
        return f"{PROGRAM}: {lines[-1] if lines else f'ended with status {status}'}"


async def look(directory: str, given: Sequence[str]) -> Place | None:
    """Return the place of the one entry that journalctl shows, None where there is none.

    Raises `JournalctlError`.
    """
    export = Export()
    found: Place | None = None
    try:
        async with (
            asyncio.timeout(PATIENCE),
            Journalctl([*arguments(directory, ["_UID"]), "--lines=1", *given]) as process,
        ):
            while (data := process.read()) != b"":
                if data is None:
                    await process.readable(1.0)
                    continue
                for fields in export.feed(data):
                    found = place_of(fields)
            why = await process.end()
    except TimeoutError:
        raise JournalctlError(f"{PROGRAM}: no answer within {PATIENCE:.0f} s") from None
    except ValueError as error:
        raise JournalctlError(f"{PROGRAM}: {error}") from None
    if why:
        raise JournalctlError(why)
    return found
