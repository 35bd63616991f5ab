"""A kill at any line and a restart from the saved state: the report is that of an uninterrupted run, to the last key."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.engine import Engine
from guard.model import Policy
from tests.properties import traffic
from tests.replay.cases import CAPTURES, RULES, expected, fresh, of_reports, stream

KILLED = [case for case in CAPTURES if "verbose" not in case and case != "trixie-default"]

LONG = {f"auth-policy-{run}" for run in ("2.3", "2.3-chain", "2.3-odd", "2.3-down")}


@cache
def lines_of(case: str) -> list[tuple[str, bytes]]:
    return list(stream(case, expected(case)["logs"]))


def uninterrupted(case: str, lines: list[tuple[str, bytes]]) -> dict[str, Any]:
    guard = fresh(case, expected(case)["logs"])
    for log, line in lines:
        guard.feed(log, line, reports=of_reports(log))
    return guard.report()


class Store:
    """What a restart finds: the rows and the position of the last checkpoint."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], str] = {}
        self.position = 0

    def checkpoint(self, guard: Engine, position: int) -> None:
        """Save as the daemon does: only what changed, together with the position."""
        for table, key, text in json.loads(json.dumps(guard.changes())):
            if text is None:
                self.rows.pop((table, key), None)
            else:
                self.rows[table, key] = text
        self.position = position

    def restart(self, case: str) -> Engine:
        """Return a fresh engine with the saved state, in no particular order of rows."""
        guard = fresh(case, expected(case)["logs"], keep=True)
        rows = [(table, key, text) for (table, key), text in self.rows.items()]
        random.Random(len(rows)).shuffle(rows)
        guard.restore(rows)
        return guard


def interrupted(
    case: str, lines: list[tuple[str, bytes]], checkpoints: set[int], kills: set[int]
) -> dict[str, Any]:
    store = Store()
    guard = fresh(case, expected(case)["logs"], keep=True)
    n = 0
    while n < len(lines):
        if n in checkpoints:
            store.checkpoint(guard, n)
        if n in kills:
            kills = kills - {n}
            guard = store.restart(case)
            n = store.position
            checkpoints = checkpoints - {n}
            continue
        guard.feed(*lines[n], reports=of_reports(lines[n][0]))
        n += 1
    counts_agree(guard)
    return guard.report()


def counts_agree(guard: Engine) -> None:
    """What is counted as it comes and goes is what there is."""
    sources = guard._tally.sources.values()
    assert guard.tracked()["account"] == sum(source.user_count() for source in sources)
    families = ["ipv6" if ":" in ban.net else "ipv4" for ban in guard.active_bans()]
    assert guard.wanted() == {family: families.count(family) for family in ("ipv4", "ipv6")}


@pytest.mark.parametrize("case", KILLED)
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=3)
def test_a_capture_is_counted_the_same_over_kills(case, seed):
    lines = lines_of(case)
    drawn = random.Random(seed)
    checkpoints = {drawn.randrange(len(lines)) for _ in range(drawn.randint(1, 12))}
    kills = {drawn.randrange(min(checkpoints), len(lines)) for _ in range(drawn.randint(1, 3))}
    assert interrupted(case, lines, checkpoints, kills) == uninterrupted(case, lines)


@pytest.mark.parametrize("case", RULES)
def test_a_rule_survives_a_kill_after_every_single_line(case):
    lines = lines_of(case)
    every = set(range(len(lines)))
    assert interrupted(case, lines, every, every) == uninterrupted(case, lines)


@pytest.mark.parametrize("case", [case for case in RULES if case not in LONG])
def test_a_rule_survives_a_kill_that_loses_the_last_lines(case):
    lines = lines_of(case)
    whole = uninterrupted(case, lines)
    for saved in range(len(lines)):
        assert interrupted(case, lines, {saved}, {len(lines) - 1}) == whole


@given(data=st.data())
@settings(max_examples=60)
def test_any_traffic_is_counted_the_same_over_kills(data):
    drawn = data.draw(traffic.sessions(data.draw(traffic.habits())))
    lines = traffic.log(data.draw(traffic.interleaved(drawn))).splitlines(keepends=True)
    rows: dict[tuple[str, str], str] = {}
    guard = traffic.engine(keep=True)
    for line in lines:
        guard.feed("log0", line)
        if data.draw(st.booleans()):
            for table, key, text in guard.changes():
                if text is None:
                    rows.pop((table, key), None)
                else:
                    rows[table, key] = text
            guard = traffic.engine(keep=True)
            guard.restore([(table, key, text) for (table, key), text in rows.items()])
    assert guard.report() == traffic.report_on(b"".join(lines))


def test_a_state_that_did_not_change_writes_nothing():
    guard = traffic.engine(keep=True)
    guard.feed(
        "log0", b"Nov 23 17:00:00 mx dovecot: auth: passwd-file(a,198.51.100.7): Password mismatch\n" * 6
    )
    assert guard.changes()
    assert guard.changes() == []


def test_a_small_engine_forgets_in_its_state_what_it_forgets_in_memory():
    small = Policy()._replace(max_addresses=64, max_sessions=64)
    guard = traffic.engine(small, keep=True)
    rows: dict[tuple[str, str], str] = {}
    for n in range(3000):
        ip = f"198.51.{n >> 8}.{n & 255}"
        guard.feed(
            "log0",
            f"Nov 23 17:00:00 mx dovecot: auth: sql(a,{ip},<{traffic.session_id(ip, n)}>): unknown user\n".encode(),
        )
        if n % 100 == 0:
            for table, key, text in guard.changes():
                if text is None:
                    rows.pop((table, key), None)
                else:
                    rows[table, key] = text
    assert len(rows) < 600
    assert guard.tracked()["address"] <= 128
    counts_agree(guard)
    again = traffic.engine(small, keep=True)
    again.restore((table, key, text) for (table, key), text in rows.items())
    counts_agree(again)
