"""Dovecot's reports beside its log and Postfix's: shuffled, late, lost; each failed attempt and each login counts once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from tests.properties import traffic
from tests.properties.traffic import REPORT, START, YEAR, Habits, Line, Session

Moment = tuple[float, int, Line]


def play(moments: list[Moment], form: str) -> dict[str, Any]:
    """Return the report on lines and reports in the order of their arrival."""
    guard = Engine(Policy(), clock=Clock(year=YEAR, now=START + 1e8), reports=True)
    for moment, _, line in moments:
        guard.feed(line.tag[:7], (line.at(moment, form) + "\n").encode(), reports=line.tag == REPORT)
    return guard.report()


def failures(report: dict[str, Any]) -> dict[str, int]:
    return {source["ip"]: source["failures"] for source in report["sources"] if source["failures"]}


def successes(report: dict[str, Any]) -> dict[str, int]:
    return {source["ip"]: source["successes"] for source in report["sources"] if source["successes"]}


def truth(drawn: list[Session], attribute: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for session in drawn:
        counts[session.ip] += getattr(session, attribute)
    return {ip: n for ip, n in counts.items() if n}


@given(data=st.data())
@settings(max_examples=80)
def test_login_sessions_count_once_whichever_side_is_lost(data):
    """Each side keeps its own order; where one is whole, the other may lose anything."""
    hosts = [data.draw(traffic.habits("a")), data.draw(traffic.habits("b"))]
    drawn = [s for n, h in enumerate(hosts) for s in data.draw(traffic.sessions(h, 100 * n, "login"))]
    lessons = [traffic.teacher(host) for host in hosts]
    reports = [line for s in [*lessons, *drawn] for step in s.steps for line in step.report]
    lines = [line for s in lessons for step in s.steps for line in step.lines()]
    lines += data.draw(traffic.interleaved(drawn))
    whole = ["reports", *(["lines"] if all(host.verbose for host in hosts) else [])]
    keeps = data.draw(st.sampled_from(whole))
    loses = data.draw(st.sampled_from(["nothing", "some", "all"]))
    gone = data.draw(st.lists(st.booleans(), min_size=61, max_size=61))
    if loses == "all":
        lines, reports = ([], reports) if keeps == "reports" else (lines, [])
    elif (
        loses == "some" and keeps == "reports"
    ):  # an end line alone is believed of a session that has no reports
        lines = [line for n, line in enumerate(lines) if not (gone[n % 61] and line.text.startswith("auth"))]
    elif loses == "some":
        reports = [line for n, line in enumerate(reports) if not gone[n % 61]]
    turns = data.draw(st.permutations([0] * len(lines) + [1] * len(reports)))
    left = [iter(lines), iter(reports)]
    moments = [(START + n / 50, 0, next(left[turn])) for n, turn in enumerate(turns)]
    found = play(moments, data.draw(st.sampled_from(["3164", "iso"])))
    assert failures(found) == truth([*lessons, *drawn], "tried")
    if keeps == "reports":
        assert successes(found) == truth(drawn, "succeeded")


@given(data=st.data())
@settings(max_examples=120)
def test_smtp_attempts_count_once_whichever_side_is_lost(data):
    """Reports, Postfix's lines and Dovecot's, each up to a second and a half early or late, as far as one side is whole."""
    host = Habits("mx", data.draw(st.sampled_from(["2.3", "2.4"])), verbose=True)
    drawn = data.draw(traffic.sessions(host, services="smtp"))
    whole = data.draw(st.sampled_from([REPORT, "postfix"]))
    loses = {
        side: data.draw(st.sampled_from(["nothing", "some", "all"]))
        for side in (REPORT, "postfix", "dovecot")
    }
    loses[whole] = "nothing"
    gone = data.draw(st.lists(st.booleans(), min_size=97, max_size=97))
    shifts = data.draw(st.lists(st.floats(-1.5, 1.5), min_size=97, max_size=97))
    moments: list[Moment] = []
    latest = dict.fromkeys(loses, 0.0)
    now, n = START, 0
    for session in drawn:
        for step in session.steps:
            now += data.draw(st.sampled_from([0.1, 1.0, 5.0]))
            for line in [*step.report, *step.lines()]:
                n += 1
                side = line.tag.partition("/")[0]
                side = "postfix" if side.startswith("postfix") else side
                if loses[side] == "all" or (loses[side] == "some" and gone[n % 97]):
                    continue
                moment = latest[side] = max(
                    latest[side], now + (shifts[n % 97] if side != "postfix" else 0.0)
                )
                moments.append((moment, n, line))
        now += data.draw(st.sampled_from([0.5, 30.0]))
    moments.sort(key=lambda item: item[:2])
    found = play(moments, "iso")
    assert failures(found) == {s: n for s, n in truth(drawn, "failures").items() if n}
    if loses[REPORT] == "nothing" or (whole == "postfix" and loses[REPORT] == "all"):
        assert successes(found) == truth(drawn, "succeeded")


@given(data=st.data())
@settings(max_examples=60)
def test_reports_and_lines_are_counted_the_same_over_kills(data):
    host = data.draw(traffic.habits())
    drawn = data.draw(traffic.sessions(host))
    lines = [line for s in drawn for step in s.steps for line in [*step.report, *step.lines()]]
    rows: dict[tuple[str, str], str] = {}
    guard = Engine(Policy(), clock=Clock(year=YEAR, now=START + 1e8), keep=True, reports=True)
    for n, line in enumerate(lines):
        text = (line.at(START + n / 3, "iso") + "\n").encode()
        guard.feed(line.tag[:7], text, reports=line.tag == REPORT)
        if data.draw(st.booleans()):
            for table, key, row in guard.changes():
                if row is None:
                    rows.pop((table, key), None)
                else:
                    rows[table, key] = row
            guard = Engine(Policy(), clock=Clock(year=YEAR, now=START + 1e8), keep=True, reports=True)
            guard.restore([(table, key, row) for (table, key), row in rows.items()])
    assert guard.report() == play([(START + n / 3, 0, line) for n, line in enumerate(lines)], "iso")


def test_a_state_of_before_the_reports_is_taken():
    guard = traffic.engine(keep=True)
    host = Habits("mx", "2.3", verbose=True)
    lesson = traffic.login_session(host, "198.51.100.7", 1, "imap", ["wrong"], ok=False)
    mail = traffic.smtp_session(host, "198.51.100.8", 2, "postfix/smtpd", ["wrong"], [True])
    guard.feed(
        "log0", traffic.log([line for s in (lesson, mail) for step in s.steps for line in step.lines()])
    )
    old = []
    for table, key, row in guard.changes():
        assert row is not None
        values = json.loads(row)
        if table.startswith("session "):
            values = values[:23]
        elif table == "client":
            values = values[:13]
        old.append((table, key, json.dumps(values)))
    assert {"session mx", "client"} <= {table for table, _, _ in old}
    fresh = traffic.engine(keep=True)
    fresh.restore(old)
    assert fresh.report() == guard.report()
