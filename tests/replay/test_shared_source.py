"""One source may carry every daemon, with or without a host's name: what one of them writes never silences another."""

from __future__ import annotations

import json

import pytest

from guard.engine import Engine
from tests.replay.cases import clock, content, counted, expected, play, policy

GUESS = "warning: unknown[198.51.100.7]: SASL PLAIN authentication failed: x, sasl_username=a"
LOGIN = "SOGoRootPage successful login from '192.0.2.204' for user 'a' - expire = -1  grace = -1"
ACCESS = '192.0.2.204 "POST /SOGo/connect HTTP/1.0" 200 49/103 0.041 - - 536K - 13'


def rfc5424(tag: str, pid: str, text: str) -> str:
    return f"<22>1 2026-11-23T17:00:00Z - {tag} {pid} - - {text}\n"


def journal(tag: str, pid: str, text: str) -> str:
    fields = {
        "__REALTIME_TIMESTAMP": "1795453200000000",
        "SYSLOG_IDENTIFIER": tag,
        "_PID": pid,
        "MESSAGE": text,
    }
    return json.dumps(fields) + "\n"


def mailcow(tag: str, pid: str, text: str) -> str:
    return (
        json.dumps(
            {"time": "1795453200", "program": tag, "message": f"[{pid}]: {text}" if tag == "sogod" else text}
        )
        + "\n"
    )


@pytest.mark.parametrize("form", [rfc5424, journal, mailcow])
def test_a_line_of_sogos_without_a_host_does_not_silence_postfix(form):
    log = form("sogod", "576", LOGIN) + form("sogod", "576", ACCESS) + form("postfix/smtpd", "41", GUESS) * 5
    engine = Engine(policy("smtp-twins"), clock=clock("smtp-twins"))
    engine.feed("all", log.encode())
    assert counted(engine.report())["198.51.100.7"] == 5


def test_logs_may_be_joined_into_one_stream():
    case = "bookworm-sogo"
    engine = Engine(policy(case), clock=clock(case))
    engine.feed("-", content(case, "mail.log") + content(case, "sogo.log"))
    assert counted(engine.report()) == counted(play(case, expected(case)["logs"]))
