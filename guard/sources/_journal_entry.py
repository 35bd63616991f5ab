"""An entry of the journal -> the line that the core reads, or nothing where nobody may believe it.

    2026-11-23T17:31:14.084075+00:00 mx postfix/smtpd[412]: text

The head of this form is looked up in the core's table, and no text can bend it: a tag that would not be one is
changed, and one entry stays one line (control characters become `#012`, as rsyslog writes them).

Who wrote an entry is in the fields that journald adds itself and no client can set (their names begin with an
underscore).  `SYSLOG_IDENTIFIER` is not one of them: `logger -t dovecot` writes any.  A unit is not everything either:
Postfix runs what stands in a user's .forward file inside its own unit.  So what ordinary accounts wrote is left out.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from guard.sources import Note
from guard.sources._export import Fields

FIELDS: Final = ("MESSAGE", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "_PID", "_HOSTNAME", "_SYSTEMD_UNIT", "_UID")
ORDINARY: Final = range(1000, 60001)  # UID_MIN to UID_MAX of login.defs(5): people, not daemons
_CACHED: Final = 1 << 14

_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_NO_TAG: Final = re.compile(rb"[^A-Za-z0-9_./+-]")
_NO_HOST: Final = re.compile(rb"[^A-Za-z0-9_.-]")
_PID: Final = re.compile(rb"\d{1,10}")
# SOGo writes its own head, also to standard output.
_SOGO: Final = re.compile(rb"\A[A-Z][a-z]{2} [ 0-3]\d [0-2]\d:[0-5]\d:[0-6]\d sogod \[\d{1,10}\]: ")


def slice_of(unit: str) -> str:
    """Return the slice in which systemd puts every unit of the template that `unit` is of: systemd.slice(5)."""
    template = unit.partition("@")[0]
    escaped = re.sub(r"[^A-Za-z0-9:_.]", lambda m: "".join(f"\\x{b:02x}" for b in m[0].encode()), template)
    return f"system-{escaped}.slice"


def matches(units: Sequence[str], tags: Sequence[str], machine: str) -> list[str]:
    """Return journalctl's arguments for all entries of `units` and `tags`, and perhaps a few more.

    A pattern would be looked up once, at the start; the slice of a template also holds the instance that comes later.
    """
    terms = [f"_SYSTEMD_SLICE={slice_of(unit)}" if "*" in unit else f"_SYSTEMD_UNIT={unit}" for unit in units]
    terms += [f"SYSLOG_IDENTIFIER={tag}" for tag in tags]
    found: list[str] = []
    for term in dict.fromkeys(terms):
        found += [*(["+"] if found else []), term, *([f"_MACHINE_ID={machine}"] if machine else [])]
    return found


class Writer:
    """Writes entries as lines; leaves out what is of no unit and no tag that was asked for, and what people wrote."""

    def __init__(self, units: Sequence[str], tags: Sequence[str], *, any_user: bool, note: Note) -> None:
        self._units = units
        self._tags = {tag.encode() for tag in tags}
        self._any_user = any_user
        self._note = note
        self._heads: dict[tuple[bytes, bytes, bytes], bytes] = {}
        self._wanted: dict[bytes, bool] = {}
        self._people: set[int] = set()  # that were told of
        self._second = -1
        self._stamp = b""

    def line(self, fields: Fields, micro: int) -> bytes:
        r"""Return the line of an entry written at `micro`, with its newline; b"" where it is left out."""
        get: Callable[[bytes, bytes], bytes] = fields.get
        tag = get(b"SYSLOG_IDENTIFIER", b"")
        unit = get(b"_SYSTEMD_UNIT", b"")
        wanted = self._wanted.get(unit)
        if wanted is None:
            wanted = self._is_wanted(unit)
        if not (wanted or tag in self._tags) or not (
            self._any_user or self._is_daemon(get(b"_UID", b""), unit)
        ):
            return b""
        text = get(b"MESSAGE", b"")
        pid = get(b"SYSLOG_PID", b"") or get(b"_PID", b"")
        if tag.startswith(b"sogo") and (own := _SOGO.match(text)):
            text = text[own.end() :]
        if _CONTROL.search(text):
            text = _CONTROL.sub(_escaped, text.rstrip(b"\r\n"))
        key = (get(b"_HOSTNAME", b""), tag, pid)
        head = self._heads.get(key)
        if head is None:
            head = self._introduce(key)
        second = micro // 1_000_000
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b"%b.%06d+00:00 %b: %b\n" % (self._stamp, micro % 1_000_000, head, text)

    def _is_wanted(self, unit: bytes) -> bool:
        name = unit.decode("utf-8", "replace")
        if len(self._wanted) >= _CACHED:
            self._wanted.clear()
        wanted = self._wanted[unit] = any(fnmatch.fnmatchcase(name, pattern) for pattern in self._units)
        return wanted

    def _is_daemon(self, uid: bytes, unit: bytes) -> bool:
        number = (
            int(uid) if _PID.fullmatch(uid) else 0
        )  # journald knows it of every process; none: of the kernel
        if number not in ORDINARY:
            return True
        if number not in self._people and len(self._people) < 16:
            self._people.add(number)
            self._note(
                f"what the ordinary account {number} writes in {unit.decode('utf-8', 'replace') or 'no unit'} is not "
                "believed; if a mail daemon runs under it, set any_user = true"
            )
        return False

    def _introduce(self, key: tuple[bytes, bytes, bytes]) -> bytes:
        host, tag, pid = key
        head = (_NO_HOST.sub(b"_", host[:255]) or b"-") + b" " + (_NO_TAG.sub(b"_", tag[:100]) or b"-")
        if _PID.fullmatch(pid):
            head += b"[" + pid + b"]"
        if len(self._heads) >= _CACHED:
            self._heads.clear()
        self._heads[key] = head
        return head


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"#%03o" % match[0][0]
