"""Captured logs for `replay` and `parse`: plain, gzip, xz, zstd or bzip2, from a file or standard input (`-`).

What it is the first bytes say, not the name.  Archives of several members (logrotate and `cat a.gz b.gz` make them)
are read through.
"""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol, Self

import zstandard

PIECE: Final = 64 * 1024  # the most that one piece holds: it stays in the processor's cache
BLOCK: Final = 32 * 1024  # compressed bytes taken at once: bounds what they can become


class ArchiveError(Exception):
    """The archive is truncated or damaged; everything readable before that place has been delivered."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _zstd() -> _Decoder:
    return zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()


FORMATS: Final[dict[str, tuple[bytes, Callable[[], _Decoder]]]] = {
    "gzip": (b"\x1f\x8b", lambda: zlib.decompressobj(31)),  # RFC 1952
    "xz": (b"\xfd7zXZ\x00", lzma.LZMADecompressor),
    "zstd": (b"\x28\xb5\x2f\xfd", _zstd),  # RFC 8878
    "bzip2": (b"BZh", bz2.BZ2Decompressor),
}
ERRORS: Final = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError)


class Archive:
    """Iterates over the content in pieces of at most 64 KiB.  Raises OSError when it cannot be opened or read.

    `size` is the file's size in bytes where it has one, `done` how much of it has been read: for a progress bar.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size: int | None = os.fstat(self._fd).st_size if path != "-" else None
        self.done = 0
        try:
            self._first = self._read(BLOCK)
        except OSError:  # a directory
            os.close(self._fd)
            raise
        start = self._first
        self.format = next((name for name, (magic, _) in FORMATS.items() if start.startswith(magic)), "plain")

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self._fd)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the content, once.  Raises `ArchiveError` after what could be read."""
        if self.format == "plain":
            return self._plain()
        return self._unpack(FORMATS[self.format][1])

    def _read(self, count: int) -> bytes:
        data = os.read(self._fd, count)
        self.done += len(data)
        return data

    def _plain(self) -> Iterator[bytes]:
        data, self._first = self._first, b""
        while data:
            yield data
            data = self._read(PIECE)

    def _unpack(self, make: Callable[[], _Decoder]) -> Iterator[bytes]:
        decoder = make()
        data, self._first = self._first, b""
        while data:
            try:
                text = decoder.decompress(data)
            except ERRORS as error:
                raise ArchiveError(
                    f"{self.path}: damaged {self.format} data near byte {self.done}: {error}"
                ) from error
            for start in range(0, len(text), PIECE):
                yield text[start : start + PIECE]
            data = b""
            if decoder.eof:
                data = decoder.unused_data.lstrip(b"\0") or self._read(BLOCK).lstrip(
                    b"\0"
                )  # padding is allowed
                if not data:
                    return
                decoder = make()
            data = data or self._read(BLOCK)
        raise ArchiveError(f"{self.path}: truncated {self.format} data: it ends after {self.done} bytes")
