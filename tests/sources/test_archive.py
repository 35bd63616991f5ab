"""Archives: what is written comes out, whatever they are called; what is broken says so after what is readable."""

import bz2
import gzip
import lzma
import os

import pytest
import zstandard

from guard.sources.archive import PIECE, Archive, ArchiveError

TEXT = b"".join(b"line %07d %s\n" % (i, os.urandom(8).hex().encode()) for i in range(60_000))
PACK = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,  # as the command does
    "bzip2": bz2.compress,
}


def read(path) -> tuple[bytes, str]:
    with Archive(str(path)) as archive:
        pieces = list(archive)
        assert all(0 < len(piece) <= PIECE for piece in pieces)
        assert archive.done == archive.size
        return b"".join(pieces), archive.format


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", ["mail.log", "mail.log.gz"])
def test_content_decides_not_the_name(tmp_path, kind, name):
    path = tmp_path / name
    path.write_bytes(PACK[kind](TEXT))
    assert read(path) == (TEXT, kind)


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd", "bzip2"])
def test_members_one_after_the_other_are_one_log(tmp_path, kind):
    path = tmp_path / "log"
    path.write_bytes(PACK[kind](b"one\n") + PACK[kind](b"") + PACK[kind](TEXT) + b"\0" * 8)
    assert read(path)[0] == b"one\n" + TEXT


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd", "bzip2"])
def test_truncated_archive_gives_what_is_readable_and_says_so(tmp_path, kind):
    path = tmp_path / "log"
    packed = PACK[kind](TEXT)
    path.write_bytes(packed[: len(packed) * 3 // 4])
    got: list[bytes] = []
    with Archive(str(path)) as archive, pytest.raises(ArchiveError, match=f"{path}: truncated {kind} data"):
        got.extend(archive)
    text = b"".join(got)
    assert TEXT.startswith(text)
    assert len(text) > len(TEXT) // 4  # bzip2 and zstd work in blocks


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd", "bzip2"])
def test_damaged_archive_says_so(tmp_path, kind):
    path = tmp_path / "log"
    packed = bytearray(PACK[kind](TEXT))
    middle = len(packed) // 2
    packed[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(packed)
    with Archive(str(path)) as archive, pytest.raises(ArchiveError, match=str(path)):
        list(archive)


def test_empty_file_is_an_empty_log(tmp_path):
    path = tmp_path / "log"
    path.touch()
    assert read(path) == (b"", "plain")


def test_what_cannot_be_opened_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        Archive(str(tmp_path / "no"))
    with pytest.raises(IsADirectoryError):
        Archive(str(tmp_path))


def test_standard_input_is_unpacked_too(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(gzip.compress(TEXT))
    saved, file = os.dup(0), os.open(path, os.O_RDONLY)
    try:
        os.dup2(file, 0)
        with Archive("-") as archive:
            assert b"".join(archive) == TEXT
            assert archive.size is None
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(file)
