"""Postfix' queues, read from the spool directory.

`postqueue -j` would need Postfix' programs, its group and its running showq, prints everybody's addresses, and shows
neither `corrupt` nor what waits while Postfix is down.  The directories are the user postfix' own (mode 0700): this
user on a volume that is mounted read-only is the least that can see them.

Of a file its name, its size and the first bytes are read: a deferred file's mtime is its next attempt, so the time
of arrival comes from the record that Postfix writes before any address (`T`, after the sizes, `C`; record types and
lengths: Postfix' src/global/rec_type.h and record.c).
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from exporters.stack.board import Found, Series

QUEUES: Final = ("active", "incoming", "deferred", "hold", "maildrop", "corrupt")
DEPTH: Final = 16  # hash_queue_depth's highest
_HEAD: Final = 160  # bytes: the two records and no address
_SIZES: Final = re.compile(rb"\AC[\x00-\x7f][ 0-9]{15,120}\Z")


async def look(spool: Path) -> Found:
    """Return counts, bytes and ages.  Raises OSError where a queue cannot be read."""
    return await asyncio.to_thread(measured, spool, time.time())


def measured(spool: Path, now: float) -> Found:
    """Return the queues as they are at `now`, seconds since the epoch."""
    values: dict[Series, float] = {}
    here = {folder.name for folder in spool.iterdir()}
    if "active" not in here:
        raise FileNotFoundError(f"{spool} is no queue directory of Postfix': it holds no folder `active`")
    for queue in QUEUES:
        messages = size = 0
        oldest = now
        for path, status in _files(os.fspath(spool / queue), DEPTH) if queue in here else ():
            messages += 1
            size += status.st_size
            oldest = min(oldest, _arrival(path) or status.st_mtime)
        values["queue_messages", queue] = messages
        values["queue_bytes", queue] = size
        values["queue_oldest_seconds", queue] = now - oldest
    return Found(values)


def _files(folder: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if depth:
                        yield from _files(entry.path, depth - 1)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path, entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # Postfix moved it on meanwhile


def _arrival(path: str) -> float | None:
    """Return when the message was taken in, or None where the file does not say it in its first bytes."""
    try:
        # Never a link, never a wait: others write here.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        head = os.read(handle, _HEAD)
    finally:
        os.close(handle)
    if head[:1] == b"C" and len(head) > 2:
        end = 2 + head[1]
        if not _SIZES.match(head[:end]):
            return None
        head = head[end:]
    if head[:1] != b"T" or len(head) < 2:
        return None
    seconds = head[2 : 2 + head[1]].split(b" ")[0]
    return float(seconds) if seconds.isdigit() and len(seconds) <= 12 else None
