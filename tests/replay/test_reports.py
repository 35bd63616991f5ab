"""Dovecot's auth policy reports beside the logs of the same real run: whoever speaks, and in whatever part, each attempt counts once."""

from __future__ import annotations

import itertools
import random

import pytest

from guard.engine import Engine
from tests.replay.cases import (
    RULES,
    Report,
    clock,
    content,
    counted,
    expected,
    fresh,
    of_reports,
    play,
    stream,
)

REPORTED = [case for case in RULES if any(map(of_reports, expected(case)["logs"]))]
REPORTS, DOVECOT, POSTFIX = "dovecot.reports", "dovecot.log", "postfix.log"


def failures(report: Report) -> dict[str, int]:
    return {ip: n for ip, n in counted(report).items() if n}


def due(case: str, logs: list[str]) -> dict[str, int]:
    """Return the truth; 2.3's reports do not tell a broken backend from a wrong password, Dovecot's log does."""
    sources = dict(expected(case)["sources"])
    if DOVECOT not in logs or "quiet" in case:
        sources |= expected(case)["without_logs"]
    return {ip: n for ip, n in sources.items() if n}


@pytest.mark.parametrize("case", REPORTED)
@pytest.mark.parametrize("others", [[], [POSTFIX], [DOVECOT], [DOVECOT, POSTFIX]], ids="+".join)
def test_reports_count_alone_and_with_any_of_the_logs(case, others):
    logs = [REPORTS, *others]
    assert failures(play(case, logs)) == due(case, logs)


@pytest.mark.parametrize("case", REPORTED)
def test_a_login_is_one_success_whoever_tells_of_it(case):
    for others in ([], [POSTFIX], [DOVECOT], [DOVECOT, POSTFIX]):
        report = play(case, [REPORTS, *others])
        found = {source["ip"]: source["successes"] for source in report["sources"] if source["successes"]}
        assert found == expected(case)["successes"], others


@pytest.mark.parametrize("case", ["auth-policy-2.3", "auth-policy-2.4", "auth-policy-2.3-odd"])
def test_a_report_that_was_lost_is_made_up_for_by_the_lines(case):
    """Of Dovecot that logs each attempt; at random, and all from some moment on."""
    logs = [REPORTS, DOVECOT, POSTFIX]
    lines = list(stream(case, logs))
    for seed in range(20):
        drawn = random.Random(seed)
        lose = drawn.random()
        engine = fresh(case, logs)
        for log, line in lines:
            if log != REPORTS or drawn.random() > lose:
                engine.feed(log, line, reports=of_reports(log))
        assert failures(engine.report()) == due(case, logs), f"seed {seed}"


@pytest.mark.parametrize("case", ["auth-policy-2.3", "auth-policy-2.3-chain", "auth-policy-2.4-quiet"])
def test_a_report_may_come_a_second_early_or_late(case):
    """Between a session's lines in any place that a clock of its own allows."""
    lines = {log: content(case, log).splitlines(keepends=True) for log in (REPORTS, DOVECOT, POSTFIX)}
    order = [(log, line) for log, line in stream(case, [DOVECOT, POSTFIX])]
    for first, then in itertools.permutations([REPORTS, "logs"], 2):
        engine = fresh(case, list(lines))
        for part in (first, then):
            for log, line in [(REPORTS, line) for line in lines[REPORTS]] if part == REPORTS else order:
                engine.feed(log, line, reports=of_reports(log))
        assert failures(engine.report()) == due(case, list(lines)), f"{first} first"


def test_a_line_of_a_log_that_looks_like_a_report_counts_nothing():
    report = content("auth-policy-2.4", REPORTS)
    for wrap in (
        b"%b",
        b"Nov 25 18:22:48 mx dovecot: auth: %b",
        b"Nov 25 18:22:48 sogod [99]: SOGoRootPage Login from '192.0.2.1' for user 'x\n%b' might not have worked",
    ):
        for line in report.splitlines():
            for text in (line, line.partition(b" ")[2]):
                engine = Engine(
                    fresh("auth-policy-2.4", [REPORTS])._policy, clock=clock("auth-policy-2.4"), reports=True
                )
                engine.feed("sogo.log", wrap % text + b"\n")
                assert engine.report()["sources"] == []


def test_evidence_shows_a_report_without_the_hash_of_the_password():
    report = play("auth-policy-2.3", [REPORTS])
    [ban] = [ban for ban in report["bans"] if ban["net"] == "198.51.100.2/32"]
    assert ban["failures"] == 5
    assert ban["session_open"] is True
    assert len(ban["evidence"]) == 5
    for line in ban["evidence"]:
        assert line.startswith('auth_policy: {"login": "alice@example.org", "remote": "198.51.100.2"')
        assert "pwhash" not in line
