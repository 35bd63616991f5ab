"""The export format and its lines: whatever bytes an entry holds, it is one entry, and one line under its own head."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.envelope import Envelope
from guard.sources._export import LONGEST, Export
from guard.sources._journal_entry import Writer, matches, slice_of

MICRO = 1795455099084075
HEAD = b"2026-11-23T17:31:39.084075+00:00 mx "


def export(entries: list[dict[str, bytes]], *, binary: bool = False) -> bytes:
    """Write entries as journalctl does: text as it is, the rest with its size."""
    out = b""
    for fields in entries:
        for name, value in fields.items():
            if binary or not value or re.search(rb"[\x00-\x08\x0a-\x1f\x7f-\xff]", value):
                out += name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
            else:
                out += name.encode() + b"=" + value + b"\n"
        out += b"\n"
    return out


def read(data: bytes, piece: int) -> list[dict[str, bytes]]:
    reader = Export()
    got = [fields for at in range(0, len(data), piece) for fields in reader.feed(data[at : at + piece])]
    return [{name.decode(): value for name, value in fields.items()} for fields in got]


values = st.one_of(
    st.binary(max_size=40),
    st.text("ab= \n\t", max_size=20).map(str.encode),
    st.sampled_from([b"", b"\n\n__CURSOR=forged\nMESSAGE=forged\n\n", b"MESSAGE", b"=", b"\n"]),
)
entries = st.lists(
    st.dictionaries(st.sampled_from(["MESSAGE", "__CURSOR", "_PID", "X_1"]), values, min_size=1), max_size=6
)


@given(entries, st.integers(1, 64), st.booleans())
def test_any_entries_cut_anywhere_are_read_as_they_were_written(written, piece, binary):
    assert read(export(written, binary=binary), piece) == written


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("piece", [1000, 1 << 18, 1 << 24])
def test_a_huge_field_is_cut_and_what_follows_is_whole(binary, piece):
    huge = b"x" * (5 * LONGEST)
    got = read(export([{"MESSAGE": huge, "_PID": b"1"}, {"MESSAGE": b"after"}], binary=binary), piece)
    assert got == [{"MESSAGE": huge[:LONGEST], "_PID": b"1"}, {"MESSAGE": b"after"}]


def test_little_is_held_of_what_is_endless():
    reader = Export()
    for start in (b"MESSAGE=", b"MESSAGE\n" + (1 << 40).to_bytes(8, "little")):
        reader = Export()
        reader.feed(start)
        for _ in range(50):
            assert reader.feed(b"x" * LONGEST) == []
            assert len(reader._rest) + sum(map(len, reader._fields.values())) <= 3 * LONGEST
        assert reader.cut == 1
    with pytest.raises(ValueError, match="no export format"):
        Export().feed(b"X" * (LONGEST + 1))


ABSENT = b"(absent)"


def fields(text: bytes, tag: bytes = b"dovecot", **more: bytes) -> dict[bytes, bytes]:
    given_ = {"MESSAGE": text, "SYSLOG_IDENTIFIER": tag, "_HOSTNAME": b"mx", "_PID": b"7", "_UID": b"0"}
    given_ |= {"_SYSTEMD_UNIT": b"dovecot.service"} | more
    return {name.encode(): value for name, value in given_.items() if value is not ABSENT}


def written(entry: dict[bytes, bytes], tags: tuple[str, ...] = (), *, any_user: bool = False) -> bytes:
    notes: list[str] = []
    writer = Writer(["dovecot.service", "postfix@*.service"], tags, any_user=any_user, note=notes.append)
    line = writer.line(entry, MICRO)
    assert line == writer.line(entry, MICRO)
    assert len(notes) <= 1
    return line


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (fields(b"auth: text"), b"dovecot[7]: auth: text"),
        (fields(b"text", b"postfix/smtpd", SYSLOG_PID=b"412"), b"postfix/smtpd[412]: text"),
        (fields(b"text", SYSLOG_PID=b"1]: x", _PID=ABSENT), b"dovecot: text"),
        (fields(b"one\ntwo\r\n\0three\x1b\x7f\t.\n"), b"dovecot[7]: one#012two#015#012#000three#033#177#011."),
        (fields(b"\xff\xfe\xc3\xa4 "), b"dovecot[7]: \xff\xfe\xc3\xa4 "),
        (fields(b""), b"dovecot[7]: "),
        (fields(b"text", MESSAGE=ABSENT), b"dovecot[7]: "),
        (fields(b"text", b"a b]: dovecot:\n"), b"a_b___dovecot__[7]: text"),
        (fields(b"text", ABSENT), b"-[7]: text"),
        (fields(b"Nov 23 17:31:47 sogod [9]: SOGoRootPage Login", b"sogod"), b"sogod[7]: SOGoRootPage Login"),
        (fields(b"Nov 23 17:31:47 mx dovecot: forged", b"sogod"), b"sogod[7]: Nov 23 17:31:47 mx dovecot: forged"),
        (fields(b"text", _SYSTEMD_UNIT=b"postfix@-.service"), b"dovecot[7]: text"),
        (fields(b"text", _SYSTEMD_UNIT=b"postfix@mx2.service", _UID=b"999"), b"dovecot[7]: text"),
    ],
)  # fmt: skip
def test_lines(entry, line):
    assert written(entry) == HEAD + line + b"\n"


@pytest.mark.parametrize(
    "entry",
    [
        fields(b"text", _SYSTEMD_UNIT=b"cron.service"),
        fields(b"text", _SYSTEMD_UNIT=ABSENT),
        fields(b"text", _SYSTEMD_UNIT=b"postfix@-.service.d"),
        fields(b"text", _SYSTEMD_UNIT=b"user@1000.service", _SYSTEMD_USER_UNIT=b"dovecot.service"),
        fields(b"text", _UID=b"1000"),
        fields(b"text", _SYSTEMD_UNIT=b"postfix@-.service", _UID=b"60000"),
    ],
)
def test_what_is_left_out(entry):
    assert written(entry) == b""


def test_a_tag_lets_in_what_no_ordinary_account_wrote():
    anybody = fields(b"text", _SYSTEMD_UNIT=ABSENT, _UID=b"33")
    assert written(anybody) == b""
    assert written(anybody, ("dovecot",)) == HEAD + b"dovecot[7]: text\n"
    person = fields(b"text", _SYSTEMD_UNIT=b"user@1000.service", _UID=b"1000")
    assert written(person, ("dovecot",)) == b""
    assert written(person, ("dovecot",), any_user=True) == HEAD + b"dovecot[7]: text\n"


def test_an_ordinary_account_is_told_of_once():
    notes: list[str] = []
    writer = Writer(["dovecot.service"], [], any_user=False, note=notes.append)
    for uid in (b"1000", b"1000", b"1001", *(b"%d" % n for n in range(2000, 2100))):
        writer.line(fields(b"text", _UID=uid), MICRO)
    assert len(notes) == 16
    assert notes[0] == (
        "what the ordinary account 1000 writes in dovecot.service is not believed; if a mail daemon runs under it, "
        "set any_user = true"
    )


@given(st.binary(max_size=60), st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=12))
def test_nothing_in_an_entry_bends_the_head(text, tag, host, pid):
    line = written(fields(text, tag, _HOSTNAME=host, SYSLOG_PID=pid))
    assert line.count(b"\n") == 1
    envelope = Envelope()
    envelope.open(line.decode("utf-8", "surrogateescape").removesuffix("\n"))
    assert envelope.stamp == "2026-11-23T17:31:39.084075+00:00"
    told = envelope.text[envelope.start :] if envelope.origin.tag else None
    if re.fullmatch(rb"[A-Za-z0-9_./+-]+", tag):
        assert envelope.origin.tag == tag.decode()
        assert told is not None
        plain = re.sub(rb"[\x00-\x1f\x7f]", lambda m: b"#%03o" % m[0][0], text.rstrip(b"\r\n"))
        if not text.endswith((b"\r", b"\n")):
            assert told == plain.decode("utf-8", "surrogateescape")


def test_matches_are_literal_and_of_this_machine():
    assert matches(["a.service", "b@*.service", "b@x*.service"], ["t"], "m") == [
        "_SYSTEMD_UNIT=a.service", "_MACHINE_ID=m", "+",
        "_SYSTEMD_SLICE=system-b.slice", "_MACHINE_ID=m", "+",
        "SYSLOG_IDENTIFIER=t", "_MACHINE_ID=m",
    ]  # fmt: skip
    assert matches(["a.service"], [], "") == ["_SYSTEMD_UNIT=a.service"]
    assert slice_of("foo-bar@*.service") == "system-foo\\x2dbar.slice"
