r"""The journal's export format, as `journalctl -o export` writes it: entries of fields, whatever bytes they hold.

    NAME=text\n                               a field of printable text
    NAME\n<8 bytes, size, little endian><data>\n    a field of any bytes: newlines, NUL, what looks like an entry
    \n                                        the end of the entry

(systemd, "Journal Export Formats".)  A size is obeyed before anything inside is looked at, so that no text of a log
line can be taken for an entry or a field.  At most LONGEST bytes of a field and FIELDS fields are kept, the rest passes by.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 64 * 1024  # bytes of a field; a line of journald's stdout stream is cut at 48 KiB
FIELDS: Final = 1024  # of one entry; journald's own limit
_TEXT: Final = re.compile(rb"(?:[A-Z0-9_]+=[^\n]*+\n)++\n")  # a whole entry without a binary field

Fields = dict[bytes, bytes]


class Export:
    """Turns pieces of an export stream into entries.  Holds the fields of one entry and one unfinished field."""

    def __init__(self) -> None:
        self.cut = 0  # fields that were longer than LONGEST
        self._rest = b""
        self._fields: Fields = {}
        self._name = b""  # the field whose value goes on
        self._whole = True  # nothing of it was left out
        self._left = -1  # bytes of it that are to come; -1: up to the next newline

    def feed(self, data: bytes) -> list[Fields]:
        """Return the entries that `data` ends.  Raises ValueError where it is nothing of the kind."""
        data = self._rest + data if self._rest else data
        entries: list[Fields] = []
        at, size = 0, len(data)
        while at < size:
            if not self._fields and not self._name and (whole := _TEXT.match(data, at)):
                at, start = whole.end(), at
                pairs = [field.split(b"=", 1) for field in data[start : at - 2].split(b"\n")]
                fields: Fields = dict(pairs)
                if at - start > LONGEST:
                    fields = {name: self._kept(value) for name, value in fields.items()}
                entries.append(fields)
                continue
            after = self._field(data, at, entries)
            if after < 0:
                break
            at = after
        self._rest = data[at:]
        return entries

    def _kept(self, value: bytes) -> bytes:
        if len(value) <= LONGEST:
            return value
        self.cut += 1
        return value[:LONGEST]

    def _field(self, data: bytes, at: int, entries: list[Fields]) -> int:
        """Take one field, or a piece of one, at `at`; return where it ends, -1 where more bytes must come first."""
        if self._name:
            return self._value(data, at)
        end = data.find(b"\n", at)
        if end == at:
            if self._fields:
                entries.append(self._fields)
            self._fields = {}
            return end + 1
        equals = data.find(b"=", at, end if end >= 0 else len(data))
        if equals >= 0:
            if end >= 0:
                self._keep(data[at:equals], self._kept(data[equals + 1 : end]))
                return end + 1
            if len(data) - at <= LONGEST:
                return -1
            self._begin(data[at:equals], data[equals + 1 :], -1)
            return len(data)
        if end < 0 or len(data) < end + 9:
            if len(data) - at > LONGEST:
                raise ValueError("no export format: a field's name does not end")
            return -1
        self._begin(data[at:end], b"", int.from_bytes(data[end + 1 : end + 9], "little") + 1)
        return end + 9

    def _begin(self, name: bytes, value: bytes, left: int) -> None:
        self._name, self._left, self._whole = name, left, True
        self._keep(name, b"")
        self._add(value)

    def _value(self, data: bytes, at: int) -> int:
        """Go on with a value that is binary, or longer than what is held at once."""
        if self._left < 0:
            end = data.find(b"\n", at)
            after = len(data) if end < 0 else end + 1
            self._add(data[at : end if end >= 0 else after])
            ended = end >= 0
        else:
            after = min(len(data), at + self._left)
            self._left -= after - at
            ended = self._left == 0
            self._add(data[at : after - 1 if ended else after])
        if ended:
            self._name, self._left = b"", -1
        return after

    def _keep(self, name: bytes, value: bytes) -> None:
        if len(self._fields) < FIELDS:
            self._fields[name] = value

    def _add(self, value: bytes) -> None:
        held = self._fields.get(self._name)
        if held is None or not value:
            return
        if self._whole and len(held) + len(value) > LONGEST:
            self.cut += 1
            self._whole = False
        self._fields[self._name] = held + value[: LONGEST - len(held)] if len(held) < LONGEST else held
