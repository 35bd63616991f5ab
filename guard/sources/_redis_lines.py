"""What is read from Redis -> lines: a record stays one line, and its text never becomes a head.

| what | becomes |
|---|---|
| a message of a channel | the text; one that looks as if it had a time or an envelope gets a space before it |
| an element of a list, the field `line` of a stream | the same line: bare text, any syslog form, or mailcow's JSON |
| the fields `time`, `host`, `program`, `pid`, `message` of a stream | RFC 5424, the message at its end |

mailcow's lists hold `{"time": "...", "program": "...", "priority": "...", "message": "..."}` and a newline: JSON keeps
what the message holds from being anything else.  But SOGo writes user names raw to the pipe that syslog-ng reads line
by line, so a record of SOGO_LOG that names another program is the work of whoever chose the name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

from guard.sources import CHUNK_BYTES

LONGEST: Final = CHUNK_BYTES // 2  # bytes of a line; syslog-ng cuts a message at 64 KiB
_HEAD: Final = 96  # bytes that hold the first 16 letters
_WRITERS: Final = {
    "SOGO_LOG": b'"program":"sogo'
}  # what every record of a list holds; JSON escapes quotes in text
_WORD: Final = re.compile(rb"[!-~]{1,255}")
_PROGRAM: Final = re.compile(rb"[!-~]{1,48}")
_ISO: Final = re.compile(rb"[0-9T:.+Z-]{19,35}")


def one_line(record: bytes) -> bytes:
    """Return a record as one line, its newline included; what would break it is written as rsyslog does."""
    record = record.rstrip(b"\r\n")
    if b"\n" in record or b"\r" in record:
        record = record.replace(b"\n", b"#012").replace(b"\r", b"#015")
    return record + b"\n"


def bare(message: bytes) -> bytes:
    """Return a message as a line that is text alone: what looks like an envelope (guard/envelope.py) is none."""
    head = message[:_HEAD].decode("utf-8", "surrogateescape")
    first = head[:1]
    if (
        first in ("<", "{", "@")
        or (first.isdigit() and head[4:5] == "-")
        or (head[3:4] == " " and head[6:7] == " " and head[12:13] == ":")
    ):
        return b" " + one_line(message)
    return one_line(message)


def of_list(key: str, record: bytes) -> bytes:
    """Return an element of the list `key` as a line."""
    writer = _WRITERS.get(key)
    if writer is not None and writer not in record:
        return b" " + one_line(record)
    return one_line(record)


def of_stream(fields: Sequence[bytes]) -> bytes:
    """Return an entry of a stream, fields and values in turn, as a line; b"" for one that holds none."""
    if len(fields) == 2 and fields[0] == b"line":
        return one_line(fields[1])
    values: Mapping[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=False))
    if b"line" in values:
        return one_line(values[b"line"])
    message = values.get(b"message")
    if message is None:
        return b""
    host = _fitting(_WORD, values.get(b"host"))
    program = _fitting(_PROGRAM, values.get(b"program"))
    pid = values.get(b"pid", b"")
    return b"<22>1 %b %b %b %b - - %b" % (
        _stamp(values.get(b"time", b"")),
        host,
        program,
        pid if pid.isdigit() and len(pid) <= 10 else b"-",
        one_line(message),
    )


def _fitting(pattern: re.Pattern[bytes], value: bytes | None) -> bytes:
    return value if value is not None and pattern.fullmatch(value) else b"-"


def _stamp(value: bytes) -> bytes:
    """Return a time, seconds since the epoch or ISO 8601, as RFC 5424 has it; `-` for anything else."""
    seconds, _, part = value.partition(b".")
    if seconds.isdigit() and len(seconds) <= 11 and (not part or (part.isdigit() and len(part) <= 6)):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(seconds))).encode()
        return stamp + (b"." + part if part else b"") + b"Z"
    return value if _ISO.fullmatch(value) else b"-"
