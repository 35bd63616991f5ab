"""Every transport around a message gives the same event; no line, however damaged, is more than a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.clock import Clock
from guard.engine import Engine
from guard.envelope import Envelope
from guard.model import DOVECOT, POSTFIX, SMTPD, SOGO, AuthEvent, Policy
from guard.reader import Reader, describe
from guard.stats import Stats

AT = datetime(2026, 11, 23, 17, 31, 14, tzinfo=UTC)
NOW = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
SASL = "warning: unknown[198.51.100.7]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=müller"
AUTH = "auth: passwd-file(alice@example.org,198.51.100.28,<zk4L4/RgiaHGM2Qc>): Password mismatch"
END = "imap-login: Disconnected: Connection closed (auth failed, 2 attempts in 2 secs): user=<a>, method=PLAIN, rip=198.51.100.28, lip=10.0.0.1, TLS, session=<zk4L4/RgiaHGM2Qc>"
TAIL = " might not have worked - password policy: 65535  grace: -1  expire: -1  bound: 203"
PAGE = f"SOGoRootPage Login from '198.51.100.9' for user 'alice'{TAIL}"
MICRO = "1795455074000000"
BYTES = list(SASL.encode())


def docker(line: str, **more: str) -> str:
    return json.dumps(
        {"log": line + "\n", "stream": "stdout", "time": "2026-11-23T17:31:14.000000000Z", **more}
    )


def journal(tag: str, message: object, **more: str) -> str:
    fields = {"__REALTIME_TIMESTAMP": MICRO, "_HOSTNAME": "mx", "SYSLOG_IDENTIFIER": tag, "SYSLOG_PID": "412"}
    return json.dumps({**fields, "MESSAGE": message, **more})


def mailcow(program: str, message: str) -> str:
    return json.dumps({"time": "1795455074", "program": program, "priority": "info", "message": message})


POSTFIX_FORMS = {
    "RFC 3164": f"Nov 23 17:31:14 mx postfix/smtpd[412]: {SASL}",
    "RFC 3164 with a priority": f"<22>Nov 23 17:31:14 mx postfix/smtpd[412]: {SASL}",
    "ISO": f"2026-11-23T17:31:14.000000+00:00 mx postfix/smtpd[412]: {SASL}",
    "ISO, Z": f"2026-11-23T17:31:14Z mx postfix/smtpd[412]: {SASL}",
    "ISO, another zone": f"2026-11-23T18:31:14.000+01:00 mx postfix/smtpd[412]: {SASL}",
    "RFC 5424": f"<22>1 2026-11-23T17:31:14.000000+00:00 mx postfix/smtpd 412 - - {SASL}",
    "RFC 5424 through rsyslog": f"<22>1 2026-11-23T17:31:14.000000+00:00 mx postfix 412 - -  {SASL}",
    "RFC 5424 with a byte order mark": f"<22>1 2026-11-23T17:31:14Z mx postfix/smtpd 412 - - \ufeff{SASL}",
    "RFC 5424 with structured data": f'<22>1 2026-11-23T17:31:14Z mx postfix/smtpd 412 id [a@1 k="v ] \\" x"][b@1 x="y"] {SASL}',
    "journal": journal("postfix/smtpd", SASL),
    "journal, bytes": journal("postfix/smtpd", BYTES),
    "journal, _PID": journal("postfix/smtpd", SASL, SYSLOG_PID="", _PID="412"),
    "journal, source's time": journal("postfix/smtpd", SASL, _SOURCE_REALTIME_TIMESTAMP=MICRO, __REALTIME_TIMESTAMP="1795455099000000"),
    "Docker, bare": docker(SASL),
    "Docker, RFC 3164": docker(f"Nov 23 17:31:14 mx postfix/smtpd[412]: {SASL}"),
    "Docker, ISO": docker(f"2026-11-23T17:31:14+00:00 mx postfix/smtpd[412]: {SASL}", time="2026-11-23T17:31:15Z"),
    "Docker's syslog driver": f"Nov 23 17:31:14 vm 213f1d8cdff8[3]: Nov 23 15:02:03 mx postfix/smtpd[412]: {SASL}",
    "Docker's syslog driver, a tag": f"<30>Nov 23 17:31:14 vm docker/mail[3]: Nov 23 15:02:03 mx postfix/smtpd[412]: {SASL}",
    "Docker's syslog driver, a service's tag": f"Nov 23 17:31:14 vm postfix[3]: 2026-11-23T15:02:03Z mx postfix/smtpd[412]: {SASL}",
    "Docker's syslog driver, RFC 5424": f"<30>1 2026-11-23T17:31:14.000000Z vm any_name-1 3 any_name-1 - Nov 23 15:02:03 mx postfix/smtpd[412]: {SASL}",
    "mailcow's list": mailcow("postfix/smtpd", SASL),
    "TAI64N": f"@400000006b04786c00000000 postfix/smtpd[412]: {SASL}",
    "bare": SASL,
}  # fmt: skip
DOVECOT_FORMS = {
    "RFC 3164": f"Nov 23 17:31:14 mx dovecot: {AUTH}",
    "RFC 5424 through rsyslog": f"<22>1 2026-11-23T17:31:14.000000+00:00 mx dovecot - - -  {AUTH}",
    "ISO": f"2026-11-23T17:31:14+00:00 mx dovecot: {AUTH}",
    "with a pid": f"Nov 23 17:31:14 mx dovecot[24941]: {AUTH}",
    "log_path": f"Nov 23 17:31:14 {AUTH.replace('auth: ', 'auth: Info: ', 1)}",
    "log_path with ISO time": f"2026-11-23 17:31:14 {AUTH.replace('auth: ', 'auth: Info: ', 1)}",
    "journal": journal("dovecot", AUTH),
    "Docker": docker(f"Nov 23 17:31:14 {AUTH.replace('auth: ', 'auth: Info: ', 1)}"),
    "Docker's syslog driver": f"Nov 23 17:31:14 vm 213f1d8cdff8[3]: Nov 23 15:02:03 {AUTH.replace('auth: ', 'auth: Info: ', 1)}",
    "Docker's syslog driver, a tag, no stamp": f"Nov 23 17:31:14 vm docker/dovecot[3]: {AUTH.replace('auth: ', 'auth: Info: ', 1)}",
    "Docker's syslog driver, RFC 5424": f"<30>1 2026-11-23T17:31:14Z vm dovecot 3 dovecot - Nov 23 15:02:03 {AUTH.replace('auth: ', 'auth: Info: ', 1)}",
    "mailcow's list": mailcow("dovecot", AUTH),
    "TAI64N": f"@400000006b04786c00000000 dovecot: {AUTH}",
    "bare": AUTH,
}
END_FORMS = {
    "RFC 3164": f"Nov 23 17:31:14 mx dovecot: {END}",
    "log_path": f"Nov 23 17:31:14 {END.replace('login: ', 'login: Info: ', 1)}",
    "bare": END,
}
SOGO_FORMS = {
    "sogo.log": f"Nov 23 17:31:14 sogod [576]: {PAGE}",
    "RFC 3164": f"Nov 23 17:31:14 mx sogod[576]: {PAGE}",
    "RFC 3164, a blank": f"Nov 23 17:31:14 mx sogod [576]: {PAGE}",
    "ISO": f"2026-11-23T17:31:14+00:00 mx sogod [576]: {PAGE}",
    "RFC 5424": f"<22>1 2026-11-23T17:31:14+00:00 mx sogod 576 - - {PAGE}",
    "Docker": docker(f"Nov 23 17:31:14 sogod [576]: {PAGE}"),
    "Docker's syslog driver": f"Nov 23 17:31:14 vm 213f1d8cdff8[3]: Nov 23 15:02:03 sogod [576]: {PAGE}",
    "Docker's syslog driver, a tag": f"Nov 23 17:31:14 vm docker/sogo-mailcow_1[3]: Nov 23 15:02:03 sogod [576]: {PAGE}",
    "mailcow's list": mailcow("sogod", f"[576]: {PAGE}"),
    "bare": f"[576]: {PAGE}",
}
FORMS = [
    (f"{service}: {name}", service, name, line)
    for service, forms in (
        ("postfix", POSTFIX_FORMS),
        ("auth", DOVECOT_FORMS),
        ("end", END_FORMS),
        ("sogo", SOGO_FORMS),
    )
    for name, line in forms.items()
]
WANT: dict[str, dict[str, object]] = {
    "postfix": {"service": "postfix", "kind": "failure", "ip": "198.51.100.7", "user": "müller", "method": "plain"},
    "auth": {"service": "dovecot", "kind": "failure", "ip": "198.51.100.28", "user": "alice@example.org", "session": "zk4L4/RgiaHGM2Qc"},
    "end": {"service": "dovecot", "protocol": "imap", "kind": "summary", "count": 2, "ip": "198.51.100.28"},
    "sogo": {"service": "sogo", "protocol": "web", "kind": "failure", "ip": "198.51.100.9", "user": "alice"},
}  # fmt: skip


def read(line: str, **how: Any) -> AuthEvent | None:
    return Reader(Clock(**{"now": NOW, **how}), Stats()).read(line, -1.0)


def time_of(line: str, **how: Any) -> float:
    event = read(line, **how)
    assert event is not None
    return event.at


@pytest.mark.parametrize(
    ("service", "name", "line"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS]
)
def test_every_transport_gives_the_same_event(service, name, line):
    event = read(line)
    assert event is not None
    shown = describe(event, b"")
    assert {key: shown[key] for key in WANT[service]} == WANT[service]
    if name != "bare":
        assert event.at == AT.timestamp()
    if service == "sogo":
        assert event.pid == "576"


@pytest.mark.parametrize(("name", "host", "tag", "pid", "family"), [
    ("RFC 3164", "mx", "postfix/smtpd", "412", SMTPD),
    ("RFC 5424", "mx", "postfix/smtpd", "412", SMTPD),
    ("RFC 5424 through rsyslog", "mx", "postfix", "412", POSTFIX),
    ("journal", "mx", "postfix/smtpd", "412", SMTPD),
])  # fmt: skip
def test_the_head_says_who_wrote(name, host, tag, pid, family):
    opened = Envelope()
    assert opened.open(POSTFIX_FORMS[name])
    origin = opened.origin
    assert (origin.host, origin.tag, origin.pid, origin.family) == (host, tag, pid, family)
    assert opened.record(1.0).text == SASL


def test_a_container_is_a_host_where_its_line_names_none():
    for line, host in (
        (POSTFIX_FORMS["Docker's syslog driver"], "mx"),
        (DOVECOT_FORMS["Docker's syslog driver"], "vm/213f1d8cdff8"),
        (SOGO_FORMS["Docker's syslog driver, a tag"], "vm/docker/sogo-mailcow_1"),
        (DOVECOT_FORMS["with a pid"], "mx"),
    ):
        event = read(line)
        assert event is not None
        assert event.host == host


def test_files_of_the_daemons_own_are_known_by_their_form():
    opened = Envelope()
    assert opened.open(SOGO_FORMS["sogo.log"])
    assert opened.origin.family == SOGO
    assert opened.open(DOVECOT_FORMS["log_path"])
    assert opened.origin.family == DOVECOT


@pytest.mark.parametrize("line", [
    "Nov 23 17:31:14 mx sshd[7]: Failed password for root from 198.51.100.7 port 22 ssh2",
    f"Nov 23 17:31:14 mx sshd[7]: {SASL}",
    f"Nov 23 17:31:14 mx postfix/qmgr[7]: {SASL}",
    f"<22>1 2026-11-23T17:31:14Z mx cron 7 - - {SASL}",
    journal("sshd", SASL),
    mailcow("rspamd", SASL),
    json.dumps({"level": "info", "msg": SASL}),
    json.dumps([SASL]),
    docker(docker(docker(SASL))),
    f"<22>{'<22>' * 9}{SASL}",
    # only what is known to be a container carries another's line: many programs' texts begin as somebody likes
    f"Nov 23 17:31:14 vm myapp[3]: {POSTFIX_FORMS['RFC 3164']}",
    f"Nov 23 17:31:14 vm docker[3]: {POSTFIX_FORMS['RFC 3164']}",
    f"Nov 23 17:31:14 vm 213f1d8cdff8: {POSTFIX_FORMS['RFC 3164']}",
    f"<30>1 2026-11-23T17:31:14Z vm myapp 3 - - {POSTFIX_FORMS['RFC 3164']}",
    f"<30>1 2026-11-23T17:31:14Z vm myapp 3 other - {POSTFIX_FORMS['RFC 3164']}",
    # a user name of SOGo may hold newlines and what follows them: its container is nobody else's
    f"Nov 23 17:31:14 vm docker/sogo-mailcow_1[3]: {POSTFIX_FORMS['RFC 3164']}",
    f"<30>1 2026-11-23T17:31:14Z vm mail-sogo-1 3 mail-sogo-1 - {SASL}",
    f"Nov 23 17:31:14 vm dovecot[3]: {POSTFIX_FORMS['RFC 3164']}",
    f"Nov 23 17:31:14 vm 213f1d8cdff8[3]: Nov 23 17:31:14 vm 213f1d8cdff8[3]: Nov 23 17:31:14 vm 213f1d8cdff8[3]: {SASL}",
])  # fmt: skip
def test_other_programs_are_left_alone(line):
    assert read(line) is None


def test_a_year_may_be_given_and_a_zone():
    line = POSTFIX_FORMS["RFC 3164"]
    assert time_of(line, year=2024) == datetime(2024, 11, 23, 17, 31, 14, tzinfo=UTC).timestamp()
    berlin = ZoneInfo("Europe/Berlin")
    assert time_of(line, year=2026, zone=berlin) == AT.timestamp() - 3600
    july = datetime(2026, 7, 23, 15, 31, 14, tzinfo=UTC).timestamp()
    assert time_of("Jul" + line[3:], year=2026, zone=berlin) == july


def test_a_log_runs_over_new_year():
    reader = Reader(Clock(year=2025, now=NOW), Stats())
    times = []
    for stamp in (
        "Dec 31 23:59:58",
        "Dec 31 23:59:59",
        "Jan  1 00:00:00",
        "Jan  1 00:00:01",
        "Dec 31 23:59:59",
    ):
        event = reader.read(f"{stamp} mx postfix/smtpd[412]: {SASL}", -1.0)
        assert event is not None
        times.append(event.at)
    newyear = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert [t - newyear for t in times] == [-2, -1, 0, 1, -1]


def test_live_times_are_never_in_the_future_nor_older_than_an_hour():
    for shift, want in ((-10, -10), (0, 0), (5, 0), (-3600, -3600), (-3601, -3600), (-86400, -3600)):
        moment = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=shift)
        event = Reader(Clock(now=NOW, live=True), Stats()).read(
            f"{moment.isoformat()} mx postfix/smtpd[1]: {SASL}", NOW
        )
        assert event is not None
        assert event.at - NOW == want


@given(st.datetimes(datetime(1971, 1, 2), datetime(2099, 1, 1)), st.integers(-14 * 4, 14 * 4))  # noqa: DTZ001
def test_iso_stamps_keep_their_microseconds_and_zone(moment, quarters):
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=15 * quarters)))
    at = time_of(f"{aware.isoformat(timespec='microseconds')} mx postfix/smtpd[1]: {SASL}")
    assert abs(at - aware.timestamp()) < 1e-5


# -- through the engine ------------------------------------------------------------------------------------------------

GOOD = f"Nov 23 17:31:14 mx postfix/smtpd[412]: {SASL}\n".encode()


def counted(*pieces: bytes) -> int:
    engine = Engine(Policy(), clock=Clock(now=NOW))
    for piece in pieces:
        engine.feed("log", piece)
    engine.finish("log")
    failures = engine.report()["failures"]
    assert isinstance(failures, dict)
    json.dumps(engine.report()).encode()
    return int(failures["total"])


@pytest.mark.parametrize("data", [
    b"\xff\xfe\xfa\n", b"\x00" * 5000 + b"\n", b"\n\n\r\n", b"{\n", b"[" * 5000 + b"\n", b'{"a":' * 5000 + b"\n", b"<\n<>\n<22>1\n<22>1 \n",
    b"@\n@400000006b04786c00000000\n@400000006b03316c00000000 \n@400000006b03316c00000000 x\n", b"2026-11-23\n2026-11-23T17:31:14 \n",
    b"Nov 23 17:31:14 \nNov 23 17:31:14 mx\nNov 23 17:31:14 mx postfix/smtpd[1]:\nNov 99 99:99:99 mx postfix/smtpd[1]: x\n",
    b'{"MESSAGE": null}\n{"MESSAGE": [1, 300]}\n{"MESSAGE": {}, "__REALTIME_TIMESTAMP": 5}\n{"log": "x", "time": "never"}\n{"log": ""}\n',
    b'{"time": "9e999", "program": "postfix/smtpd", "message": "x"}\n{"__REALTIME_TIMESTAMP": "99999999999999999999", "MESSAGE": "x"}\n',
    "Nov 23 17:31:14 mx postfix/smtpd[١]: x\n".encode(), "<22>1 ２026-11-23T17:31:14Z mx postfix 1 - - x\n".encode(),
])  # fmt: skip
def test_what_is_no_line_of_a_log_harms_nothing_around_it(data):
    assert counted(GOOD, data, GOOD) == 2
    assert counted(GOOD + data + GOOD) == 2


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_line_of_megabytes_is_survived_and_dropped(size):
    long = b"x" * size
    chunks = [long[n : n + (1 << 16)] for n in range(0, size, 1 << 16)]
    assert counted(GOOD, *chunks, b"\n", GOOD) == 2
    assert counted(GOOD, b"Nov 23 17:31:14 mx dovecot: auth: " + long + b"\n", GOOD) == 2
    assert counted(GOOD, GOOD[:-1] + long + b"\n" + GOOD) in {2, 3}


def test_an_oversized_line_is_not_kept_in_memory():
    engine = Engine(Policy(), clock=Clock(now=NOW))
    for _ in range(64):
        engine.feed("log", b"x" * (1 << 16))
        assert sum(map(len, engine._halves.values())) <= 1 << 20


def test_carriage_returns_before_the_line_feed_are_no_part_of_the_line():
    lines = [form[3] for form in FORMS]
    plain = "".join(line + "\n" for line in lines).encode()
    dos = "".join(line + "\r\n" for line in lines).encode()
    assert counted(dos) == counted(plain)


def test_half_a_line_waits_for_its_other_half():
    for cut in range(len(GOOD)):
        assert counted(GOOD[:cut], GOOD[cut:]) == 1
    assert counted(GOOD[:-1]) == 1, "the last line has no end"


def test_two_sources_do_not_share_their_halves():
    engine = Engine(Policy(), clock=Clock(now=NOW))
    engine.feed("a", GOOD[:50])
    engine.feed("b", GOOD[:60])
    engine.feed("a", GOOD[50:])
    engine.feed("b", GOOD[60:])
    assert engine.report()["failures"] == {
        "total": 2,
        "by_service": {"postfix": 2},
        "by_protocol": {"smtp": 2},
    }


def test_invalid_utf8_in_a_name_is_a_name():
    engine = Engine(Policy(), clock=Clock(now=NOW))
    engine.feed(
        "log",
        b"Nov 23 17:31:14 mx postfix/smtpd[412]: warning: unknown[198.51.100.7]: SASL PLAIN authentication failed: x, sasl_username=\xff\xfe\x00\n"
        * 5,
    )
    text = json.dumps(engine.report())
    assert "\\udcff" not in text
    assert counted(GOOD) == 1


def test_evidence_of_a_line_in_bytes_holds_no_password():
    message = b"auth: passwd-file(a,198.51.100.7): Password mismatch (given password: s\xfcsame)"
    engine = Engine(Policy(), clock=Clock(now=NOW))
    engine.feed("log", (journal("dovecot", list(message)) + "\n").encode() * 5)
    told = json.dumps([engine.report()["bans"], engine.changes()])
    assert '"failures": 5' in told
    assert ", ".join(map(str, b"same")) not in told
