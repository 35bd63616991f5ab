"""On which line of a TOML text does a key stand?  `tomllib` does not tell.

Reads TOML 1.0 that `tomllib` has already accepted, so that nothing here has to find mistakes.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

KeyPath = tuple[str | int, ...]  # ("source", 1, "path"): the key `path` of the second [[source]]

BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # up to two quotes may stand directly before the closing three
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
SCALAR: Final = re.compile(r"[^,\]}\n#]+")  # numbers, booleans, dates


def locate(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, of every key, table, and element of an array in the valid TOML `text`."""
    return _Reader(text.replace("\r\n", "\n")).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.lines: dict[KeyPath, int] = {}
        self.counts: dict[KeyPath, int] = {}  # how many [[tables]] of a name there were so far

    def read(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self.skip()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip()
        return self.lines

    def header(self) -> KeyPath:
        many = self.text.startswith("[[", self.at)
        self.take(2 if many else 1)
        line = self.line
        path: KeyPath = ()
        parts = self.key()
        for number, part in enumerate(parts, 1):
            path = (*path, part)
            self.lines.setdefault(path, line)
            if path in self.counts and not (many and number == len(parts)):
                path = (*path, self.counts[path] - 1)  # below [[source]], `[source.x]` means its latest
        if many:
            count = self.counts[path] = self.counts.get(path, 0) + 1
            path = (*path, count - 1)
        self.lines[path] = line
        self.take(2 if many else 1)
        return path

    def pair(self, table: KeyPath) -> None:
        line = self.line
        for part in self.key():
            table = (*table, part)
            self.lines.setdefault(table, line)
        self.take(1)  # =
        self.value(table)

    def key(self) -> list[str]:
        parts = []
        while True:
            self.skip()
            quoted = STRING.match(self.text, self.at)
            bare = BARE.match(self.text, self.at)
            if quoted:
                parts.append(str(tomllib.loads(f"k = {quoted[0]}")["k"]))
                self.take(len(quoted[0]))
            elif bare:
                parts.append(bare[0])
                self.take(len(bare[0]))
            self.skip()
            if self.text[self.at] != ".":
                return parts
            self.take(1)

    def value(self, path: KeyPath) -> None:
        self.skip()
        first = self.text[self.at]
        if first in "[{":
            self.take(1)
            self.members(path, "]" if first == "[" else "}")
            return
        match = STRING.match(self.text, self.at) or SCALAR.match(self.text, self.at)
        self.take(len(match[0]) if match else 1)

    def members(self, path: KeyPath, closing: str) -> None:
        count = 0
        self.skip()
        while self.text[self.at] != closing:
            if closing == "]":
                self.lines[*path, count] = self.line
                self.value((*path, count))
                count += 1
            else:
                self.pair(path)
            self.skip()
            if self.text[self.at] == ",":
                self.take(1)
                self.skip()
        self.take(1)

    def skip(self) -> None:
        """Skip blanks, line ends and comments."""
        match = BLANK.match(self.text, self.at)
        self.take(len(match[0]) if match else 0)

    def take(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count
