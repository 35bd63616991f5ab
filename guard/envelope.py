r"""A line of bytes -> who wrote it, when, and where its text begins: the transport around a message, taken off.

| form | example |
|---|---|
| RFC 3164 | `Nov 23 17:31:14 mx postfix/smtpd[412]: text` (no year, no zone: guard.clock knows them) |
| ISO 8601 | `2026-11-23T17:31:14.084075+00:00 mx dovecot: text` (rsyslog's RSYSLOG_FileFormat) |
| RFC 5424 | `<22>1 2026-11-23T17:31:14.084075+00:00 mx postfix 412 - -  text` (rsyslog cuts the tag at the slash) |
| journal | `{"__REALTIME_TIMESTAMP": "...", "SYSLOG_IDENTIFIER": "postfix/smtpd", "MESSAGE": "text"}` |
| Docker | `{"log": "any other form\n", "stream": "stdout", "time": "..."}` (json-file driver) |
| Docker's syslog driver | `Nov 23 17:31:14 host 213f1d8cdff8[3]: any other form`; with RFC 5424 the tag is MSGID too |
| mailcow's list | `{"time": "1763900000", "program": "postfix/smtpd", "priority": "info", "message": "text"}` |
| Dovecot's log_path | `Nov 23 17:32:29 imap-login: Info: text` (no host, no "dovecot:") |
| SOGo's own file | `Nov 23 17:31:47 sogod [576]: text` |
| TAI64N | `@400000004c91... any form without a time` (multilog) |
| bare | `text` (mailcow's F2B_CHANNEL) |

Most lines of a mail log decide nothing, so the head `mx postfix/smtpd[412]` is looked up in a bounded table of heads
seen before: a line of a program that we do not read costs one search and one look-up, and never becomes an object.
"""

from __future__ import annotations

import json
import re
from typing import Final

from mypy_extensions import i64

from guard.model import BARE, DOVECOT, IGNORED, POSTFIX, POSTSCREEN, SMTPD, SOGO, Record

_HEADS: Final = 1 << 14
_SYSLOG: Final = re.compile(
    r"\A([^\s:\[\](){}\"<>,]{1,255}|[0-9A-Fa-f:.]{2,45}) ([\w./+-]{1,100})(?:\[(\d{1,10})\])?\Z", re.ASCII
)
_SOGO: Final = re.compile(r"\A(?:([^\s:\[\]]{1,255}) )?(sogod) ?\[(\d{1,10})\]\Z", re.ASCII)
_DOVECOT: Final = re.compile(r"\A[a-z][a-z0-9-]{1,30}(?:: |\()", re.ASCII)
_ISO: Final = re.compile(
    r"\A\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\Z", re.ASCII
)
_RFC3164: Final = re.compile(r"\A[A-Z][a-z]{2} [ 0-3]\d [0-2]\d:[0-5]\d:[0-6]\d\Z", re.ASCII)
_RFC5424: Final = re.compile(
    r"\A([0-9T:.+Z-]{1,35}|-) (\S{1,255}) (\S{1,48}) (\S{1,128}) \S{1,32}\Z", re.ASCII
)
_PRI: Final = re.compile(r"\A<\d{1,3}>(1 )?\Z", re.ASCII)
_TAI64N: Final = re.compile(r"\A@([0-9a-f]{16})([0-9a-f]{8})\Z", re.ASCII)
# Docker's syslog driver (daemon/logger/syslog) writes a container's line behind a header of its own, with its own pid; the
# tag is the container's short id, or what `--log-opt tag=` says.  Which tags are containers nobody else can tell from
# programs whose text begins as an attacker likes: these alone are, and in RFC 5424 those that stand in MSGID as well.
_CONTAINER: Final = re.compile(r"\A([0-9a-f]{12}|docker/[\w./+-]{1,90}|postfix|dovecot|sogo)\Z", re.ASCII)
_SERVICES: Final = {"postfix": (POSTFIX, SMTPD, POSTSCREEN), "dovecot": (DOVECOT,), "sogo": (SOGO,)}
# Docker's and journald's JSON hold another line or a message; deeper nesting is nobody's log.
_DEPTH: Final = 2


class Origin:
    """Who writes lines under one head."""

    __slots__ = ("carries", "family", "host", "mail", "pid", "process", "tag", "whole")

    def __init__(
        self, host: str, tag: str, pid: str, family: int, *, whole: bool = False, carries: bool = False
    ) -> None:
        self.host = host
        self.tag = tag
        self.pid = pid
        self.process = tag + pid if pid else ""
        self.family = family
        self.whole = whole  # the head is part of the text (Dovecot's own file), or the text is another line
        self.carries = carries  # the text is a container's line
        self.mail: i64 = -1  # its code in guard.programs, once somebody has asked


_NOBODY: Final = Origin("", "", "", BARE)
_FOREIGN: Final = Origin("", "", "", IGNORED)
_DOVECOT_FILE: Final = Origin("", "dovecot", "", DOVECOT, whole=True)


def family_of(tag: str) -> int:
    """Return which family of parsers reads what `tag` writes."""
    if tag.endswith("smtpd"):
        return SMTPD
    if tag.endswith("postscreen"):
        return POSTSCREEN
    if tag.startswith("dovecot") or tag == "auth":  # so PAM names Dovecot's process
        return DOVECOT
    if tag in ("sogod", "sogo"):
        return SOGO
    if tag.startswith("postfix") and "/" not in tag:
        return POSTFIX
    return IGNORED


class Envelope:
    """Takes the transport off lines; remembers the heads that it has seen.

    `open` leaves what it found in the attributes: nothing is built for a line that cannot matter.
    """

    __slots__ = ("_heads", "at", "origin", "stamp", "start", "text")

    def __init__(self) -> None:
        self._heads: dict[str, Origin] = {}
        self.origin = _NOBODY  # who wrote the line
        self.text = ""  # the line, or what a JSON envelope held; the message begins at `start`
        self.start = 0
        self.stamp = ""  # the time as written, "" where there is none
        self.at = -1.0  # seconds since the epoch where the envelope gave a number

    def open(self, line: str, depth: int = 0) -> bool:
        """Read the head of `line`; False when its program says nothing of logins.  Never raises."""
        if len(line) > 16 and line[15] == " " and line[3] == " " and line[6] == " " and line[12] == ":":
            return self._headed(line, 16, line[:15], depth)
        if len(line) > 15 and line[14] == " " and line[5] == " " and line[3] == " " and line[11] == ":":
            return self.open(f"{line[:4]} {line[4:]}", depth)  # a day of one digit, not padded
        first = line[:1]
        if first.isdigit() and line[4:5] == "-" and line[7:8] == "-":
            end = line.find(" ", 19)
            if 0 < end <= 36 and (end > 19 or line[10:11] == " ") and _ISO.match(line[:end]):
                return self._headed(line, end + 1, line[:end], depth)
        elif first == "<":
            return self._prioritised(line, depth)
        elif first == "{" and depth < _DEPTH:
            return self._json(line, depth)
        elif first == "@" and depth < _DEPTH and _TAI64N.match(line[:25]):
            return self._labelled(line, depth)
        return self._found(_NOBODY, line, 0, "", -1.0)

    def _found(self, origin: Origin, text: str, start: int, stamp: str, at: float) -> bool:
        self.origin = origin
        self.text = text
        self.start = start
        self.stamp = stamp
        self.at = at
        return origin.family != IGNORED

    def record(self, at: float) -> Record:
        """Return the record of the line opened last, stamped `at`."""
        origin = self.origin
        return Record(at, origin.host, origin.tag, origin.pid, self.text[self.start :], origin.process)

    def peek(self, text: str, start: int, end: int) -> Origin | None:
        """Return who wrote the RFC 3164 line text[start:end], where its head was seen before; else None.

        `self.start` is then where its message begins in `text`: a line that cannot matter is never cut out.
        """
        if end - start < 24 or text[start + 15] != " " or text[start + 3] != " " or text[start + 12] != ":":
            return None
        colon = text.find(": ", start + 16, end)
        if colon < 0:
            return None
        self.start = colon + 2
        return self._heads.get(text[start + 16 : colon])

    def headed(self, line: str) -> None:
        """Take the RFC 3164 line whose `origin` and `start` are known already."""
        self.text = line
        self.stamp = line[:15]
        self.at = -1.0

    def _headed(self, line: str, start: int, stamp: str, depth: int) -> bool:
        end = line.find(": ", start)
        head = line[start:end] if end > 0 else line[start:].rstrip(":")
        origin = self._heads.get(head)
        if origin is None:
            origin = self._introduce(head, line, start)
        if origin.whole:
            if origin.carries and end > 0:
                return self._carried(origin, line[end + 2 :], stamp, depth)
            return self._found(origin, line, start, stamp, -1.0)
        return self._found(origin, line, end + 2 if end > 0 else len(line), stamp, -1.0)

    def _introduce(self, head: str, line: str, start: int) -> Origin:
        match = _SOGO.match(head)
        if match:
            origin = Origin(match[1] or "", "sogod", match[3], SOGO)
        elif match := _SYSLOG.match(head):
            contained = match[3] is not None and _CONTAINER.match(match[2]) is not None
            origin = Origin(
                match[1],
                match[2],
                match[3] or "",
                family_of(match[2]),
                whole=contained,
                carries=contained,
            )
        elif _DOVECOT.match(line[start : start + 33]):
            return _DOVECOT_FILE  # its head may hold a user name: never remembered
        else:
            return _FOREIGN
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        self._heads[head] = origin
        return origin

    def _prioritised(self, line: str, depth: int) -> bool:
        end = line.find(">") + 1
        if not 3 <= end <= 5 or not _PRI.match(line[:end]):
            return self._found(_NOBODY, line, 0, "", -1.0)
        if line[end : end + 2] != "1 ":
            return (
                self.open(line[end:], depth + 1)
                if depth < _DEPTH
                else self._found(_FOREIGN, line, 0, "", -1.0)
            )
        parts = line.split(" ", 6)
        if len(parts) < 7:
            return self._found(_FOREIGN, line, 0, "", -1.0)
        head = " ".join(parts[2:5])
        origin = self._heads.get(head)
        if origin is None:
            if not _RFC5424.match(" ".join(parts[1:6])):
                return self._found(_FOREIGN, line, 0, "", -1.0)
            pid = parts[4] if parts[4].isdigit() else ""
            origin = Origin(parts[2], parts[3], pid, family_of(parts[3]))
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[head] = origin
        start = len(line) - len(parts[6])
        if parts[6].startswith("["):
            start = _after_structured_data(line, start)
        elif parts[6].startswith("-"):
            start += 1
        while line[start : start + 1] in (" ", "\ufeff"):
            start += 1
        if parts[5] == parts[3]:
            return self._carried(origin, line[start:], parts[1], depth)
        return self._found(origin, line, start, parts[1], -1.0)

    def _carried(self, container: Origin, text: str, stamp: str, depth: int) -> bool:
        """Read a container's line.  The time is Docker's, which has a zone, or this host's; the container may have another.

        A container that its tag says is one service's is no other's: SOGo writes the newlines of a user name raw.
        """
        if depth >= _DEPTH:
            return self._found(_FOREIGN, text, 0, "", -1.0)
        self.open(text, depth + 1)
        self.stamp = stamp
        self.at = -1.0
        found = self.origin
        named = [families for name, families in _SERVICES.items() if name in container.tag]
        family = found.family
        if (
            family == BARE and container.family != IGNORED
        ):  # no container: the daemon itself, which logs its pid
            self.origin = container
            return True
        if family == BARE and len(named) == 1:
            family = named[0][0]
        elif family not in (BARE, IGNORED) and named and not any(family in families for families in named):
            family = IGNORED
        if not found.host or family != found.family:
            host = found.host or f"{container.host}/{container.tag}"
            self.origin = Origin(host, found.tag, found.pid, family)
        return family != IGNORED

    def _json(self, line: str, depth: int) -> bool:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            return self._found(_NOBODY, line, 0, "", -1.0)
        if not isinstance(values, dict):
            return self._found(_FOREIGN, line, 0, "", -1.0)
        if isinstance(values.get("log"), str):  # Docker's json-file driver
            matters = self.open(str(values["log"]).rstrip("\r\n"), depth + 1)
            if self.stamp == "" and self.at < 0 and isinstance(values.get("time"), str):
                self.stamp = str(values["time"])
            return matters
        if "MESSAGE" in values:  # journald: systemd.journal-fields(7)
            text = _journal_text(values["MESSAGE"])
            tag = str(values.get("SYSLOG_IDENTIFIER") or values.get("_COMM") or "")
            pid = str(values.get("SYSLOG_PID") or values.get("_PID") or "")
            micro = str(values.get("_SOURCE_REALTIME_TIMESTAMP") or values.get("__REALTIME_TIMESTAMP") or "")
            at = int(micro) / 1e6 if micro.isdecimal() and len(micro) < 20 else -1.0
            return self._told(str(values.get("_HOSTNAME") or "-"), tag, pid, text, at)
        if isinstance(values.get("message"), str) and isinstance(
            values.get("program"), str
        ):  # mailcow's *_MAILLOG
            seconds = str(values.get("time") or "")
            at = float(seconds) if seconds.isdecimal() and len(seconds) < 12 else -1.0
            return self._told("-", str(values["program"]), "", str(values["message"]).rstrip("\r\n"), at)
        return self._found(_FOREIGN, line, 0, "", -1.0)

    def _told(self, host: str, tag: str, pid: str, text: str, at: float) -> bool:
        family = family_of(tag)
        return self._found(Origin(host, tag, pid if pid.isdecimal() else "", family), text, 0, "", at)

    def _labelled(self, line: str, depth: int) -> bool:
        inner = line[25:].lstrip(" ")
        at = (
            float(int(line[1:17], 16) - (1 << 62) - 10) + int(line[17:25], 16) / 1e9
        )  # TAI was 10 s ahead in 1970
        matters = self.open(inner, depth + 1)
        if self.stamp == "":
            self.at = at
            if self.origin.family == BARE:
                match = _SYSLOG.match("- " + inner[: max(0, inner.find(": "))])
                if match and family_of(match[2]) != IGNORED:
                    self.origin = Origin("-", match[2], match[3] or "", family_of(match[2]))
                    self.start = inner.find(": ") + 2
        return matters


def _after_structured_data(line: str, start: int) -> int:
    """Return the position behind the structured data at `start` (RFC 5424, 6.3)."""
    quoted = False
    i = start
    while i < len(line):
        c = line[i]
        if quoted:
            if c == "\\":
                i += 1
            elif c == '"':
                quoted = False
        elif c == '"':
            quoted = True
        elif c == "]" and line[i + 1 : i + 2] != "[":
            return i + 1
        i += 1
    return i


def _journal_text(message: object) -> str:
    """journald writes what is not UTF-8 as an array of bytes."""
    if isinstance(message, str):
        return message
    if isinstance(message, list) and all(isinstance(b, int) and 0 <= b < 256 for b in message):
        return bytes(message).decode("utf-8", "surrogateescape")
    return ""
