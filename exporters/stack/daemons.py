"""clamd and olefy asked over their sockets; freshclam, which listens nowhere, by what it writes."""

from __future__ import annotations

import asyncio
import calendar
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from exporters.stack.board import Found, Series

LARGEST: Final = 4096  # bytes of an answer
TAIL: Final = 64 * 1024  # bytes of a log: some fifty checks of freshclam's
_CHECK: Final = "ClamAV update process started at "
_WELL: Final = (" is up-to-date", " updated (version: ")
_AWAY: Final = "cool-down until"  # a mirror's 429: after some databases perhaps, and no failure to freshclam
_FAILED: Final = "Update failed"  # other errors may be those of one mirror, before the next one answers


async def _asked(where: str, said: bytes, end: bytes) -> bytes:
    """Return the answer of the server at HOST:PORT or at a socket's path, up to `end`."""
    if where.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(where, limit=LARGEST)
    else:
        host, _, port = where.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), limit=LARGEST)
    try:
        writer.write(said)
        return await reader.readuntil(end)
    finally:
        writer.transport.abort()


async def clamd(where: str) -> Found:
    """Return whether clamd answers and how old its signatures are.

    VERSION answers `ClamAV 1.4.3/27800/Mon Nov 24 09:42:33 2025` (clamd(8)), in clamd's own time zone: UTC, as
    everywhere in the stack.  Without a database of ClamAV's own there is no date, and no such series.
    """
    answer = (await _asked(where, b"zVERSION\0", b"\0")).rstrip(b"\0").decode("ascii", "replace")
    if not answer.startswith("ClamAV "):
        raise ValueError(f"no answer of clamd's: {answer[:60]!r}")
    values: dict[Series, float] = {("service_up", "clamd"): 1.0}
    parts = answer.split("/")
    if len(parts) != 3:
        return Found(values, ("clamd has no database of ClamAV's own",))
    made = time.strptime(parts[2], "%a %b %d %H:%M:%S %Y")
    values[("clamav_signatures_timestamp_seconds",)] = float(calendar.timegm(made))
    return Found(values)


async def olefy(where: str) -> Found:
    """Return whether olefy answers its PING."""
    await _asked(where, b"PING\n\n", b"PONG")
    return Found({("service_up", "olefy"): 1.0})


async def freshclam(path: Path, oldest: float) -> Found:
    """Return whether freshclam gets signatures.

    `path` is its log: the last check that ended must have worked, and have begun at most `oldest` seconds ago.  Or it is
    the database's folder: the newest signatures must have come at most `oldest` seconds ago, which does not tell a
    freshclam that is gone from signatures that nobody has made.  Raises OSError and ValueError where there are none.
    """
    return await asyncio.to_thread(_written, path, oldest)


def _written(path: Path, oldest: float) -> Found:
    return _folder(path, oldest) if path.is_dir() else _log(path, oldest)


def _folder(path: Path, oldest: float) -> Found:
    # Not freshclam.dat: that is written anew when a mirror sends freshclam away.
    times = [file.stat().st_mtime for file in path.iterdir() if file.suffix in {".cvd", ".cld"}]
    if not times:
        raise FileNotFoundError(f"{path} holds no database: freshclam never fetched one")
    return _judged("no new signatures", time.time() - max(times), oldest)


def _log(path: Path, oldest: float) -> Found:
    for check in _checks(path):
        if _FAILED in check:
            return Found({("service_up", "freshclam"): 0.0}, (f"the last check failed: {path} says why",))
        if _AWAY not in check and any(word in check for word in _WELL):
            try:
                # ctime(3) in freshclam's own time zone: the host's, as here.
                began = time.mktime(time.strptime(check.partition("\n")[0], "%a %b %d %H:%M:%S %Y"))
            except (ValueError, OverflowError):
                break
            return _judged("no check that worked", time.time() - began, oldest)
    raise ValueError(f"{path} tells of no check that ended")


def _checks(path: Path) -> Iterator[str]:
    """Yield what freshclam wrote of each check, the last one first; into the log before after a rotation."""
    for log in (path, path.with_name(f"{path.name}.1")):
        if log == path or log.exists():
            with log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                yield from reversed(file.read(TAIL).decode("ascii", "replace").split(_CHECK)[1:])


def _judged(what: str, age: float, oldest: float) -> Found:
    fresh = age <= oldest
    return Found(
        {("service_up", "freshclam"): float(fresh)}, () if fresh else (f"{what} for {age / 3600:.0f} h",)
    )
