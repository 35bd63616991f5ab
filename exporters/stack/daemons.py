"""clamd and olefy asked over their sockets; freshclam by the age of what it writes."""

from __future__ import annotations

import asyncio
import calendar
import time
from pathlib import Path
from typing import Final

from exporters.stack.board import Found, Series

LARGEST: Final = 4096  # bytes of an answer


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
    """Return whether the newest file that freshclam keeps is at most `oldest` seconds old.

    `path` is its log, which it writes at each check, or the database's folder, where new signatures arrive daily.
    """
    newest = await asyncio.to_thread(_newest, path)
    age = time.time() - newest
    fresh = age <= oldest
    troubles = () if fresh else (f"nothing new since {age / 3600:.0f} h",)
    return Found({("service_up", "freshclam"): float(fresh)}, troubles)


def _newest(path: Path) -> float:
    files = [path]
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix in {".cvd", ".cld", ".dat", ".log"}]
    if not files:
        raise FileNotFoundError(f"{path} holds no database: freshclam never fetched one")
    return max(file.stat().st_mtime for file in files)
