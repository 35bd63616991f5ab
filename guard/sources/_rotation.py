"""Where a log's earlier content went: what logrotate, newsyslog and Docker rename or copy it to.

`mail.log` becomes `mail.log.1`, `mail.log.2` ... or `mail.log-20261124`, or with logrotate's `extension` option
`mail.1.log`, `mail-20261124.log`.  Files that were compressed are not looked into.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from guard.sources._position import HEAD, FilePosition
from guard.sources._tail import Tail, open_log

COUNT: Final = re.compile(r"[.-](\d{1,4})", re.ASCII)  # a number that grows with age
DATE: Final = re.compile(r"[.-](\d[\d.:T_-]{4,30})", re.ASCII)  # a stamp that grows with time: dateformat
ROTATED: Final = re.compile(r".*\.[A-Za-z]+[.-]\d[\d.:T_-]*|.*\.(?:gz|xz|zst|bz2)", re.ASCII | re.DOTALL)
CLOCK: Final = 0.1  # seconds that a file's time may lie behind the clock: the kernel's tick, and then some
ATTEMPTS: Final = 5  # a listing during a rotation is made again


class Sibling(NamedTuple):
    """A rotated file beside the log."""

    path: str
    device: int
    inode: int
    modified: float
    kind: str  # the manner of its name; "" for the log itself
    order: int  # the later, the larger, among those of one kind
    whole: bool  # the log's whole name and something behind it: no other log is named so


class Found(NamedTuple):
    """A file that holds what a position speaks of.  The finder's caller owns `fd`."""

    fd: int
    sibling: Sibling
    same: bool  # the very file; else another one with its content


def is_rotated(name: str) -> bool:
    """Does a file's name look like one that nobody writes to any more?  A glob does not take such a file."""
    return ROTATED.fullmatch(name) is not None


def _sibling(name: str, stem: str, extension: str, entry: os.DirEntry[str]) -> Sibling | None:
    """Return `entry` as a sibling of the log `name`, which is stem and extension, or None.  Raises FileNotFoundError."""
    for before, after, whole in ((name, "", True), (stem, extension, False)):
        if not entry.name.startswith(before) or not entry.name.endswith(after):
            continue
        middle = entry.name[len(before) : len(entry.name) - len(after)]
        count, date = COUNT.fullmatch(middle), DATE.fullmatch(middle)
        if count or date:
            order = -int(count[1]) if count else int(re.sub(r"\D", "", middle))
            kind = f"{before}{middle[0]}{'count' if count else 'date'}"
            info = Path(entry.path).stat()
            return Sibling(entry.path, info.st_dev, info.st_ino, info.st_mtime, kind, order, whole)
    return None


def _list(path: str) -> list[Sibling] | None:
    """Return the rotated files beside `path`; None where one moved meanwhile."""
    folder, name = os.path.split(path)
    extension = Path(name).suffix
    stem = name.removesuffix(extension)
    try:
        with os.scandir(folder or ".") as entries:
            found = [
                _sibling(name, stem, extension, entry)
                for entry in entries
                if entry.name.startswith(stem) and entry.name != name
            ]
    except FileNotFoundError:
        return None
    except OSError:  # the folder cannot be listed: there is nothing to be found
        return []
    return sorted((s for s in found if s), key=lambda s: (s.kind, s.order))


def siblings(path: str) -> list[Sibling]:
    """Return the rotated files beside `path`, of each kind the oldest first.

    A rotation renames several files one after the other: the listing stands when two in a row agree.
    """
    before = _list(path)
    for _ in range(ATTEMPTS):
        now = _list(path)
        if now is not None and before is not None and [s[:3] for s in now] == [s[:3] for s in before]:
            break
        before = now
    return before or []


def find(position: FilePosition, avoid: tuple[int, int] | None = None) -> Found | None:
    """Return the file that continues what was read up to `position`: itself, or a copy of it.

    Its own inode comes first, under its path or beside it, then anything with the same content.  `avoid` is a file
    (device, inode) that it is known not to be.
    """
    itself = Sibling(position.path, 0, 0, 0.0, "", 0, True)
    beside = siblings(position.path)
    for _ in range(ATTEMPTS):
        # The oldest of the copies made since; half a line may fit all of them.
        since = [s for s in beside if s.modified > position.at]
        candidates = [itself, *since, *(s for s in reversed(beside) if s not in since)]
        for same in (True, False):
            for candidate in candidates:
                found = _try(position, candidate, avoid)
                if (
                    found
                    and found.same is same
                    and (candidate.kind or not outlived(found.fd, position, beside))
                ):
                    return found
                if found:
                    os.close(found.fd)
        before, beside = beside, siblings(position.path)
        if [s[:3] for s in before] == [s[:3] for s in beside]:
            break  # it is not there; else a rotation went on meanwhile, and has moved it
    return None


def _try(position: FilePosition, candidate: Sibling, avoid: tuple[int, int] | None) -> Found | None:
    try:
        fd = open_log(candidate.path)
    except OSError:
        return None
    info = os.fstat(fd)
    same = info.st_ino == position.inode
    empty = same and position.blank  # nothing to compare
    if (info.st_dev, info.st_ino) != avoid and (empty or position.matches(fd)):
        where = candidate._replace(device=info.st_dev, inode=info.st_ino, modified=info.st_mtime)
        return Found(fd, where, same)
    os.close(fd)
    return None


def outlived(fd: int, position: FilePosition, beside: Sequence[Sibling]) -> bool:
    """Was the log truncated, and begins again as it did before, as far as the position knows its beginning?

    A position of half a line fits many a file.  Then a copy was made after it, which fits too and goes on otherwise.
    """
    if not position.head_size or position.head_size >= HEAD:
        return False
    for sibling in beside:
        copy = _try(position, sibling, None) if sibling.modified > position.at else None
        if copy:
            begins, began = os.pread(fd, HEAD, 0), os.pread(copy.fd, HEAD, 0)
            os.close(copy.fd)
            if not begins.startswith(began) and not began.startswith(begins):
                return True
    return False


def newer(path: str, than: Sibling | None, since: float) -> list[Sibling]:
    """Return the rotated files that were current after `than`, oldest first.

    Their names tell; where `than` is not among them, what was written after `since` is newer.
    """
    found = siblings(path)
    if than and than.kind:
        now = next(
            (s for s in found if (s.device, s.inode) == (than.device, than.inode)), than
        )  # moved on since
        return [s for s in found if s.kind == now.kind and s.order > now.order]
    return sorted((s for s in found if s.whole and s.modified > since), key=lambda s: s.modified)


def copies(path: str, tail: Tail) -> list[Sibling]:
    """Return what may have been copied from `tail` since it began to be read: new, and older by name."""
    found = siblings(path)
    new = [s for s in found if s.whole and (s.device, s.inode) not in tail.before]
    new = [s for s in new if s.modified > tail.since - CLOCK]  # no old archive that somebody unpacks
    here = next((s for s in found if (s.device, s.inode) == tail.identity), None)
    if here:
        return [s for s in new if s.kind == here.kind and s.order < here.order]
    try:
        info = Path(path).stat()
    except OSError:
        return []
    return new if (info.st_dev, info.st_ino) == tail.identity else []
