"""The daemon sees a log line by line, with a clock that ticks; replay sees it whole.  Both must say the same."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from functools import cache

import pytest

from guard.engine import Engine
from tests.replay.cases import CAPTURES, clock, counted, expected, play, policy, stream

CUTS = 50
_SMTPD = re.compile(r"\A(.{15}) \S+ postfix\S*smtpd\[(\d+)\]: (.*)\Z", re.DOTALL)
_CONNECT = re.compile(r"\Aconnect from [^\[]*\[([^\]]*)\]")
_COUNTS = re.compile(
    r"\Adisconnect from [^\[]*\[([^\]]*)\](?::\d+)?(?: [a-z_]+=\d+(?:/\d+)?)*? auth=(\d+)(?:/(\d+))?(?: |\Z)"
)
_NOT_JUDGED = re.compile(
    r"authentication aborted|Invalid authentication mechanism|Invalid base64|Connection lost to auth|\(unavailable\)|tempfail@|(?:lost connection|timeout) after AUTH"
)


@cache
def lines_of(case: str) -> list[tuple[str, bytes]]:
    return list(stream(case, expected(case)["logs"]))


def fresh(case: str) -> Engine:
    return Engine(policy(case), clock=clock(case))


@pytest.mark.parametrize("case", CAPTURES)
def test_a_log_cut_anywhere_replays_to_what_the_daemon_had_counted_there(case):
    lines = lines_of(case)
    cuts = sorted(random.Random(case).sample(range(1, len(lines)), CUTS))
    daemon = fresh(case)
    replay = fresh(case)
    for start, end in zip([0, *cuts], cuts, strict=False):
        for log, line in lines[start:end]:
            daemon.feed(log, line)
        if len(expected(case)["logs"]) == 1:
            replay.feed(lines[0][0], b"".join(line for _, line in lines[start:end]))
            assert replay.report() == daemon.report()


@pytest.mark.parametrize("case", CAPTURES)
def test_a_daemon_whose_clock_ticks_at_every_line_decides_as_replay_does(case):
    lines = lines_of(case)
    cuts = set(random.Random(case).sample(range(1, len(lines)), 5))
    reader = clock(case)
    daemon = fresh(case)
    now = 0.0
    for n, (log, line) in enumerate(lines):
        if n in cuts:
            cut = fresh(case)
            for other in lines[:n]:
                cut.feed(*other)
            assert counted(cut.report()) == counted(daemon.report())
        text = line.decode("utf-8", "replace")
        if "sogo.log" not in log:  # its stamps are the attacker's, too
            now = max(now, reader.read(text[:15]))
        daemon.feed(log, line, now + 1.0)
        daemon.tick(now)
    replayed = play(case, expected(case)["logs"])
    assert counted(daemon.report()) == counted(replayed)


@pytest.mark.parametrize("case", [case for case in CAPTURES if "sogo" not in case and "filelog" not in case])
def test_no_client_has_more_failures_than_postfixs_disconnect_lines_admit(case):
    """counted <= T - S, equal where nothing was aborted, refused, lost, or the backend's fault."""
    admitted: dict[str, int] = defaultdict(int)
    unclear: set[str] = set()
    client: dict[str, str] = {}
    for _, line in lines_of(case):
        match = _SMTPD.match(line.decode("utf-8", "replace").rstrip("\n"))
        if match is None:
            continue
        pid, text = match[2], match[3]
        if connect := _CONNECT.match(text):
            client[pid] = connect[1]
        elif counts := _COUNTS.match(text):
            admitted[counts[1]] += int(counts[3] or counts[2]) - int(counts[2])
            client.pop(pid, None)
        elif pid in client and _NOT_JUDGED.search(text):
            unclear.add(client[pid])
    unclear |= set(client.values())
    assert len(admitted) > 20
    for source in play(case, expected(case)["logs"])["sources"]:
        n = sum(source["by_protocol"].get(name, 0) for name in ("smtp", "submission"))
        ip = source["ip"]
        assert n <= admitted[ip] or ip in client.values(), ip
        # 530 and 503 (no TLS) write no line of their own, but T counts them: whoever only had those is left out.
        if n and ip not in unclear and isinstance(expected(case)["sources"].get(ip), int):
            assert n == admitted[ip], ip
