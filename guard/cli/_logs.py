"""Captured logs for `replay` and `parse`: opened, decompressed, cut into lines, merged by time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final

from guard.cli._failure import REFUSED, WRONG, Failure
from guard.clock import Clock
from guard.reader import merged
from guard.sources.archive import Archive

EXPECTED: Final = (
    "expected a mail log: lines of syslog (RFC 3164, RFC 5424, ISO time), journal or Docker JSON, or the files that "
    "Dovecot, Postfix and SOGo write themselves"
)
_KEY: Final = "/var/lib/mailward/secret"
_KEY_BYTES: Final = 32
_LONGEST: Final = 1 << 20
_BATCH: Final = 256  # lines of one log that go to the engine at once


def clock_of(year: int | None, zone: str) -> Clock:
    """Return the clock that reads the logs' stamps; a zone that nobody knows is a Failure."""
    return Clock(year=year, zone=_zone(zone), now=time.time(), live=False)


def _zone(name: str) -> tzinfo:
    if name.upper() in {"UTC", "Z"}:
        return UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - most logs are in UTC

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Failure(
            WRONG, f"--timezone {name}: no such time zone; expected a name like Europe/Berlin"
        ) from None


def secret() -> bytes:
    """Return the state directory's key where it may be read, so that hashes compare; else one of this run."""
    try:
        key = Path(_KEY).read_bytes()
    except OSError:
        key = b""
    return key if len(key) >= _KEY_BYTES else os.urandom(_KEY_BYTES)


def opened(paths: Sequence[str]) -> list[Archive]:
    """Open logs; the first that cannot be opened is a Failure that names it."""
    if not paths:
        raise Failure(WRONG, "which log? Name one or more files, or - for standard input")
    return [_opened(path) for path in paths]


def _opened(path: str) -> Archive:
    try:
        return Archive("-" if path == "/dev/stdin" else path)
    except FileNotFoundError:
        raise Failure(WRONG, f"{path}: there is no such file{_near(path)}") from None
    except IsADirectoryError:
        raise Failure(WRONG, f"{path}: is a directory; name the log files in it") from None
    except PermissionError:
        raise Failure(WRONG, f"{path}: may not be read; use root or a member of the group adm") from None
    except OSError as error:
        raise Failure(WRONG, f"{path}: {error.strerror or error}") from None


def _near(path: str) -> str:
    """Return a hint at the rotated or compressed neighbours of a log that is not there."""
    place = Path(path)
    try:
        names = sorted(p.name for p in place.parent.iterdir() if p.name.startswith(place.name))
    except OSError:
        return "; the folder is not there either" if not place.parent.exists() else ""
    return (
        f"; there is {', '.join(names[:3])}"
        if names
        else "; systemd-only hosts: journalctl -o short-iso > FILE"
    )


def lines_of(archive: Archive) -> Iterator[bytes]:
    """Yield the lines with their ends; of one longer than 1 MiB, pieces."""
    half = b""
    for piece in _read(archive):
        data = half + piece
        end = data.rfind(b"\n") + 1
        yield from data[:end].splitlines(keepends=True) if b"\r" not in data[:end] else _split(data[:end])
        half = data[end:]
        if len(half) > _LONGEST:
            yield half
            half = b""
    if half:
        yield half


def _read(archive: Archive) -> Iterator[bytes]:
    """Yield the content; a disk that fails ends the command."""
    try:
        yield from archive
    except OSError as error:
        raise Failure(REFUSED, f"{archive.path}: {error.strerror or error}") from None


def _split(data: bytes) -> list[bytes]:
    """Split at line feeds alone: `splitlines` would also split at a carriage return inside a line."""
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def pieces_of(archives: Sequence[Archive], clock: Clock) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes): one log as it is, several merged by the time of their lines."""
    if len(archives) == 1:
        for piece in _read(archives[0]):
            yield archives[0].path, piece
        return
    names = [f"{n}:{archive.path}" for n, archive in enumerate(archives)]
    last = -1
    held: list[bytes] = []
    for stream, line in merged([lines_of(archive) for archive in archives], clock):
        if stream != last or len(held) >= _BATCH:
            if held:
                yield names[last], b"".join(held)
                held = []
            last = stream
        held.append(line)
    if held:
        yield names[last], b"".join(held)
