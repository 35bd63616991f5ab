"""The files that `lists.allow` and `lists.deny` name: an entry a line.

Read outside pydantic and with as little as possible a line: block lists hold 100,000 nets and more.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from guard.config._problems import ConfigError, Problem
from guard.config._values import NARROWEST, is_net, net_or_host, net_to_deny

LARGEST: Final = 16 << 20  # bytes: about a million nets
MOST_NAMES: Final = 1000  # each is looked up by its TTL for as long as it stands here
MOST_MISTAKES: Final = 100  # told one by one; a file with more is not a list
COMMENT: Final = re.compile("[#;]")  # `;` as in Spamhaus' DROP lists

Key = Literal["allow", "deny"]
Stamp = tuple[
    int, int, int, int
]  # device, inode, size, ctime in ns: unlike mtime nobody sets it back, and chmod shows

_READS: Final[Mapping[Key, Callable[[object], str]]] = {"allow": net_or_host, "deny": net_to_deny}
_FEWEST_BITS: Final[Mapping[Key, Mapping[int, int]]] = {"allow": {4: 0, 6: 0}, "deny": NARROWEST}


class ListFile(NamedTuple):
    """What a file said when it was read: nets as canonical CIDR, host names in lower case, each once."""

    nets: tuple[str, ...]
    names: tuple[str, ...]
    stamp: Stamp


def stamp_of(path: str) -> Stamp:
    """Return what changes when the file does, also where another takes its place.  Raises OSError."""
    return _stamp(os.stat(path))  # noqa: PTH116 - asked every second: a Path is no gain


def read_list(path: str, key: Key) -> ListFile:
    """Read a file of `lists.<key>`.

    Raises OSError where it cannot be read, is no regular file or is larger than 16 MiB; ConfigError with its
    mistakes, of which all after the first 100 are only counted.
    """
    data, stamp = _read(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(path, line, "", "expected UTF-8 text")]) from None
    return _entries(text, path, key, stamp)


def _entries(text: str, path: str, key: Key, stamp: Stamp) -> ListFile:
    nets: dict[str, None] = {}
    names: dict[str, None] = {}
    problems: list[Problem] = []
    mistakes = 0
    fewest, slow = _FEWEST_BITS[key], _READS[key]
    for number, line in enumerate(text.split("\n"), 1):
        entry = COMMENT.split(line, maxsplit=1)[0].strip() if "#" in line or ";" in line else line.strip()
        if not entry:
            continue
        net = _quickly(entry, fewest)
        if net is not None:
            nets[net] = None
            continue
        try:
            value = slow(entry)
            if is_net(value):
                nets[value] = None
            elif len(names) < MOST_NAMES or value in names:
                names[value] = None
            else:
                raise ValueError(f"at most {MOST_NAMES} host names in a file")  # noqa: TRY301 - told as the others
        except ValueError as error:
            mistakes += 1
            if mistakes <= MOST_MISTAKES:
                problems.append(Problem(path, number, "", f"expected {error}; found {entry!r:.80}"))
    if mistakes > MOST_MISTAKES:
        problems.append(
            Problem(path, 0, "", f"{mistakes - MOST_MISTAKES} more mistakes: is this a list of nets?")
        )
    if problems:
        raise ConfigError(problems)
    return ListFile(tuple(nets), tuple(names), stamp)


def _quickly(entry: str, fewest: Mapping[int, int]) -> str | None:
    """Return an entry that is a net in plain form as canonical CIDR; None for one that needs a closer look.

    inet_pton(3) takes a tenth of ipaddress's time, and inet_ntop(3) writes the same text but for addresses that
    it ends in an IPv4 one.
    """
    address, slash, length = entry.partition("/")
    version, family, bits = (6, socket.AF_INET6, 128) if ":" in address else (4, socket.AF_INET, 32)
    try:
        packed = socket.inet_pton(family, address)
    except (OSError, ValueError):
        return None
    width = bits
    if slash:
        if not (length.isascii() and length.isdigit() and len(length) <= 3):
            return None
        width = int(length)
        if width > bits or int.from_bytes(packed, "big") & ((1 << (bits - width)) - 1):
            return None
    if width < fewest[version]:
        return None
    if version == 6:
        address = socket.inet_ntop(family, packed)
        if "." in address:
            return None
    return f"{address}/{width}"


def _read(path: str) -> tuple[bytes, Stamp]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us up
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {LARGEST >> 20} MiB")
    return data, _stamp(status)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns
