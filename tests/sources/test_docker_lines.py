"""A container's log as the API sends it, without an engine: frames, stamps, and what is dropped as read before."""

from __future__ import annotations

import json
import re
import struct
import time

import pytest

from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from guard.sources._docker_lines import LONGEST, Mark, Pass, Place, padded, seconds_of, written
from tests.replay import cases

NOW = 1_764_093_600.0  # 2025-11-25T18:00:00Z
OUT, ERR, ENGINE = 1, 2, 3


def stamp(seconds: float, nanos: int = 1) -> bytes:
    return Place.at(NOW + seconds).out.stamp[:20] + b"%09dZ" % nanos


def frame(text: bytes, seconds: float = 0.0, nanos: int = 1, kind: int = OUT) -> bytes:
    body = stamp(seconds, nanos) + b" " + text
    return struct.pack(">BxxxL", kind, len(body)) + body


def texts(lines: bytes) -> list[str]:
    """Return the numbers in lines of the form `text N`."""
    return [found.decode() for found in re.findall(rb"n=(\w+)", lines)]


def numbered(n: int, **more) -> bytes:
    return frame(b"Nov 25 18:00:00 mx postfix/smtpd[1]: n=%d\n" % n, nanos=n, **more)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 50, 1000])
def test_chunks_are_not_lines(size):
    data = b"".join(numbered(n) for n in range(1, 20))
    reading = Pass(Place())
    found = b"".join(reading.feed(data[i : i + size], NOW) for i in range(0, len(data), size))
    assert texts(found) == [str(n) for n in range(1, 20)]
    assert not reading.cut
    reading.feed(data[:5], NOW)
    assert reading.cut


def test_goes_on_exactly_where_it_was_whatever_the_engine_sends_again():
    data = [numbered(n, kind=OUT if n % 3 else ERR) for n in range(1, 30)]
    for read in range(len(data)):
        first = Pass(Place())
        before = first.feed(b"".join(data[:read]), NOW)
        place = Place.load(first.place().dump())
        assert place == first.place()
        second = Pass(place)
        after = second.feed(b"".join(data), NOW)
        assert texts(before) + texts(after) == [str(n) for n in range(1, 30)]
        assert not second.rotated


def test_streams_are_two_orders():
    """A line of stderr may be stamped before a line of stdout that stands before it in the log."""
    data = numbered(5) + numbered(3, kind=ERR) + numbered(6) + numbered(4, kind=ERR)
    reading = Pass(Place())
    assert texts(reading.feed(data, NOW)) == ["5", "3", "6", "4"]
    assert texts(Pass(reading.place()).feed(data + numbered(7), NOW)) == ["7"]


def test_what_rotation_repeats_is_dropped():
    data = b"".join(numbered(n) for n in (1, 2, 3, 4, 2, 3, 4, 4, 5, 5, 6))
    assert texts(Pass(Place()).feed(data, NOW)) == ["1", "2", "3", "4", "5", "6"]


def test_microseconds_can_be_shared_and_each_line_counts():
    """journald's stamps; twins are two lines."""
    twins = [frame(b"n=%d\n" % n, nanos=5000) for n in (1, 2, 3)]
    reading = Pass(Place())
    assert texts(reading.feed(b"".join(twins[:2]), NOW)) == ["1", "2"]
    assert texts(Pass(reading.place()).feed(b"".join(twins), NOW)) == ["3"]


def test_clock_that_is_set_back_silences_nobody():
    reading = Pass(Place())
    ahead = numbered(1, seconds=3600) + numbered(2, seconds=3600)
    assert texts(reading.feed(ahead, NOW + 3600)) == ["1", "2"]
    assert texts(reading.feed(numbered(3, seconds=1) + numbered(4, seconds=1), NOW + 1)) == ["3", "4"]


def test_engine_whose_clock_is_ahead_repeats_nothing():
    data = numbered(1) + numbered(2)
    reading = Pass(Place())
    reading.feed(data, NOW - 100)
    assert texts(Pass(reading.place()).feed(data + numbered(3), NOW - 100)) == ["3"]


def test_log_that_was_rotated_away_is_noticed():
    reading = Pass(Place())
    reading.feed(numbered(1) + numbered(2), NOW)
    later = Pass(reading.place())
    assert texts(later.feed(numbered(7), NOW)) == ["7"]
    assert later.rotated
    silent = Pass(Place(Mark(stamp(60), 1), Mark(stamp(0), 1)))  # stderr's last line is not asked for again
    silent.feed(numbered(1, seconds=60) + numbered(2, seconds=60, kind=ERR), NOW + 60)
    assert not silent.rotated


def test_since_is_before_everything_unread_and_not_long_before():
    out, err = stamp(100, 999_999_999), stamp(0)
    place = Place(Mark(out, 1), Mark(err, 1))
    assert place.since() <= seconds_of(out) - 1.9
    assert place.since() >= seconds_of(out) - 2.1
    both = Place(Mark(out, 1), Mark(out, 1))
    assert 0 < int(out[20:29]) - (both.since() - int(both.since())) * 1e9 < 5000
    assert Place().since() == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"2026-11-25T18:00:00.123456789Z", b"2026-11-25T18:00:00.123456789Z"),
        (b"2026-11-25T18:00:00.12Z", b"2026-11-25T18:00:00.120000000Z"),
        (b"2026-11-25T18:00:00Z", b"2026-11-25T18:00:00.000000000Z"),
        (b"2026-11-25T18:00:00.5+01:00", b"2026-11-25T17:00:00.500000000Z"),
        (b"2026-13-45T18:00:00.5+01:00", None),
        (b"18:00", None),
        (b"", None),
    ],
)
def test_stamps_are_padded(text, expected):
    assert padded(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1 2", "x 1 y 2", "2026-11-25T18:00:00Z 1 2026-11-25T18:00:00Z -1", "a b c d e"]
)
def test_position_that_is_none(text):
    assert Place.load(text) is None


def test_pieces_of_a_long_line_are_joined_though_the_other_stream_comes_between():
    long = b"Nov 25 18:00:00 mx postfix/smtpd[1]: n=" + b"x" * 40000
    pieces = [frame(long[i : i + 16384]) for i in range(0, len(long), 16384)]
    data = pieces[0] + numbered(2, kind=ERR) + pieces[1] + pieces[2] + frame(b"y\n") + numbered(3)
    reading = Pass(Place())
    assert [len(x) for x in texts(reading.feed(data, NOW))] == [1, 40001, 1]
    half = Pass(Place())
    half.feed(pieces[0] + pieces[1], NOW)
    assert texts(Pass(half.place()).feed(data, NOW)) == texts(Pass(Place()).feed(data, NOW)), (
        "read again from its start"
    )


def test_line_that_a_program_left_unfinished():
    reading = Pass(Place())
    assert texts(reading.feed(frame(b"n=half") + numbered(2), NOW)) == ["half", "2"]
    assert texts(reading.feed(frame(b"n=end", nanos=9), NOW)) == []
    assert texts(reading.finish(NOW)) == ["end"]
    again = Pass(reading.place())
    assert again.feed(frame(b"n=end", nanos=9), NOW) + again.finish(NOW) == b""


def test_memory_is_bounded_and_what_does_not_fit_is_counted():
    reading = Pass(Place())
    for _ in range(100):
        assert reading.feed(frame(b"x" * 16384), NOW) == b""
    assert sum(len(text) for _, text in reading._halves.values()) <= LONGEST + 2 * 16384
    assert texts(reading.feed(frame(b"\n") + numbered(2), NOW)) == ["2"]
    assert reading.lost == 1
    raw = Pass(Place(), framed=False)
    for _ in range(100):
        raw.feed((stamp(0) if _ == 0 else b"") + b" " + b"x" * 16384, NOW)
    assert len(raw._rest) <= LONGEST + 2 * 16384
    assert raw.lost >= 1


def test_what_is_no_log_is_refused_and_the_engines_word_is_heard():
    with pytest.raises(ValueError, match="expected a frame"):
        Pass(Place()).feed(b"HTTP/1.1 200 OK\r\n", NOW)
    with pytest.raises(ValueError, match="expected a frame"):
        Pass(Place()).feed(struct.pack(">BxxxL", 1, LONGEST + 1), NOW)
    reading = Pass(Place())
    said = b"Error grabbing logs: invalid character\n"
    assert texts(reading.feed(numbered(1) + struct.pack(">BxxxL", ENGINE, len(said)) + said, NOW)) == ["1"]
    assert reading.word == said.decode().strip()


AT = b"2026-11-25T18:00:00.000000001Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Nov  5 18:00:00 mx postfix/smtpd[1]: text\n", AT + b" mx postfix/smtpd[1]: text\n"),
        (b"Nov 25 18:00:00 imap-login: Info: text\r\n", AT + b" imap-login: Info: text\r\n"),
        (b"2026-11-25 18:00:00,123 INFO text\n", AT + b" INFO text\n"),
        (b"a\nb\n", b'{"log": "a#012b\\n", "time": "' + AT + b'"}\n'),
        (b'{"log": "x", "time": "y"}\n', None),
        (b"<22>1 2026-11-25T18:00:00Z mx postfix 1 - - text\n", None),
        (b"2026-11-25T18:00:00+01:00 mx postfix: text\n", None),
        (b"Nov 25 18:00:00 \n", None),
        (b"\xff\x00\xe2\x80\xa8\n", None),
        (b"\n", None),
    ],
)
def test_one_line_stays_one_line_in_an_envelope_of_ours(text, expected):
    line = written(AT, text)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    if expected is not None:
        assert line == expected
    else:
        values = json.loads(line)
        assert (values["log"].encode("utf-8", "surrogateescape"), values["time"]) == (text, AT.decode())


# Three guesses at submission, as the two containers tell of them: Postfix 3.10 with maillog_file=/dev/stdout and its
# container's id for a host, in UTC; Dovecot 2.4 and 2.3 with log_path=/dev/stderr, without a host; Dovecot by syslog-ng.
POSTFIX = (
    "Nov 25 18:00:0{s} 3f0a7f6ac1d2 postfix/submission/smtpd[412]: connect from unknown[198.51.100.7]\n",
    "Nov 25 18:00:0{s} 3f0a7f6ac1d2 postfix/submission/smtpd[412]: warning: unknown[198.51.100.7]: SASL PLAIN authentication failed: UGFzc3dvcmQ6, sasl_username=alice@example.org\n",
    "Nov 25 18:00:0{s} 3f0a7f6ac1d2 postfix/submission/smtpd[412]: disconnect from unknown[198.51.100.7] ehlo=1 auth=0/1 commands=1/2\n",
)
DOVECOT = {
    "2.4": "Nov 25 18:00:0{s} auth(alice@example.org,198.51.100.7,sasl:plain): Info: passwd-file: Password mismatch\n",
    "2.3": "Nov 25 18:00:0{s} auth: Info: passwd-file(alice@example.org,198.51.100.7): Password mismatch\n",
    "syslog-ng": "Nov 25 18:00:0{s} 9b1c2d3e4f50 dovecot: auth: passwd-file(alice@example.org,198.51.100.7): Password mismatch\n",
    "no time": "auth: Info: passwd-file(alice@example.org,198.51.100.7): Password mismatch\n",
}


@pytest.mark.parametrize("first", ["postfix", "dovecot"])
@pytest.mark.parametrize("generation", DOVECOT)
def test_smtp_attempt_that_both_containers_tell_of_counts_once(generation, first):
    engine = Engine(Policy(failures=100), clock=Clock(now=NOW, live=True))
    out, err = Pass(Place()), Pass(Place())
    for guess in range(3):
        told = [line.format(s=guess).encode() for line in POSTFIX]
        lines = {
            "postfix": [frame(told[1], guess, 300), frame(told[2], guess, 400)],
            "dovecot": [frame(DOVECOT[generation].format(s=guess).encode(), guess, 200, kind=ERR)],
        }
        now = NOW + guess + 0.5
        engine.feed("docker1/postfix/3f0a7f6ac1d2", out.feed(frame(told[0], guess, 100), now), now)
        for service in sorted(lines, reverse=first == "postfix"):
            reading = out if service == "postfix" else err
            engine.feed(f"docker1/{service}/0", reading.feed(b"".join(lines[service]), now), now)
    report = json.loads(engine.report_text())
    assert report["failures"]["total"] == 3, report
    (source,) = report["sources"]
    assert (source["ip"], source["failures"]) == ("198.51.100.7", 3)
    assert source["first"].startswith("2025-11-25T18:00:00"), (
        "the engine's time, whatever the container's zone"
    )


@pytest.mark.parametrize("case", ["bookworm-filelog", "trixie-filelog", "bookworm-mailcow", "trixie-default"])
def test_whole_captures_count_alike_from_two_containers(case):
    """What real daemons wrote, through log_path and postlogd or through syslog, as their two containers would: each
    under a host name of its own, with the engine's time for theirs.  Every address is counted right."""
    engine = Engine(cases.policy(case), clock=cases.clock(case))
    hosts = {b"postfix": b"3f0a7f6ac1d2", b"dovecot": b"9b1c2d3e4f50"}
    readings = {service: Pass(Place()) for service in hosts}
    at, n = 0.0, 0
    for log, line in cases.stream(case, cases.expected(case)["logs"]):
        service = (
            b"dovecot" if log.startswith("dovecot") or line[16:].startswith(b"mx dovecot") else b"postfix"
        )
        host = hosts[service] if line[16:19] == b"mx " else line[16:18]
        at, n = max(at, cases.clock(case).read(line[:15].decode())), n + 1
        lines = readings[service].feed(frame(line[:16] + host + line[18:], at - NOW, n), at)
        engine.feed(f"docker1/{service.decode()}/0", lines)
    report = json.loads(engine.report_text())
    assert report["lines"] == {**report["lines"], "read": n, "unparsed": 0}
    assert cases.wrong_counts(case, report) == {}
    assert cases.wrongful_bans(case, report, 5) == []


def test_time_of_a_container_with_another_zone_is_the_engines():
    engine = Engine(Policy(), clock=Clock(now=NOW, live=True))
    line = b"Nov 25 13:00:00 mx postfix/smtpd[4]: warning: unknown[198.51.100.7]: SASL LOGIN authentication failed: x\n"
    engine.feed("s", Pass(Place()).feed(frame(line), NOW), NOW + 1)
    assert json.loads(engine.report_text())["sources"][0]["first"].startswith("2025-11-25T18:00:00")


def test_sogo_user_name_of_several_lines_blames_nobody_else():
    forged = (
        b"Nov 25 18:00:00 sogod [576]: SOGoRootPage Login from '198.51.100.7' for user 'x\n",
        b"Nov 25 18:00:00 mx postfix/smtpd[4]: warning: unknown[192.0.2.9]: SASL LOGIN authentication failed: x\n",
        b"warning: unknown[192.0.2.9]: SASL LOGIN authentication failed: x\n",
        b"' might not have worked - password policy: 65535  grace: -1  expire: -1  bound: 0\n",
        b'Nov 25 18:00:00 sogod [576]: 198.51.100.7 "POST /SOGo/connect HTTP/1.1" 403 34/20 0.011 - - 0 - 15\n',
    )
    engine = Engine(Policy(), clock=Clock(now=NOW, live=True))
    reading = Pass(Place())
    for n, line in enumerate(forged, 1):
        engine.feed("docker1/sogo/0", reading.feed(frame(line, nanos=n), NOW), time.time())
    assert [source["ip"] for source in json.loads(engine.report_text())["sources"]] == ["198.51.100.7"]
