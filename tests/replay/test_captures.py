"""What real servers wrote, and what their clients really did: every address right, every ban in time, none wrong."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address, ip_network

import pytest

from tests.replay.cases import CAPTURES, Report, content, counted, expected, play, wrong_counts, wrongful_bans

SHARED = [
    "bookworm-inject", "bookworm-mailcow", "bookworm-postscreen", "bookworm-sogo", "bookworm-verbose",
    "trixie-authdown", "trixie-default", "trixie-filelog", "trixie-multipass", "trixie-sqlcache",
]  # fmt: skip
RUNS = [(case, expected(case)["logs"]) for case in CAPTURES]
RUNS += [(case, [log]) for case in CAPTURES for log in expected(case)["also"]]
IDS = [f"{case}-{'+'.join(logs)}" for case, logs in RUNS]


def untimely(case: str, report: Report) -> list[str]:
    """Return the clients that had to be banned and were not, or too early, or too late."""
    dated = [
        (ip_network(ban["net"]), datetime.fromisoformat(ban["at"]).timestamp()) for ban in report["bans"]
    ]
    wrong = []
    for ip, (earliest, latest) in expected(case)["due"].items():
        first = min((at for net, at in dated if ip_address(ip) in net), default=None)
        if first is None or not earliest <= first <= latest:
            wrong.append(f"{ip}: banned {first}, due {earliest}..{latest}")
    return wrong


def test_all_captures_are_here():
    assert set(SHARED) <= set(CAPTURES)
    assert sum(len(expected(case)["due"]) for case in CAPTURES) > 300
    assert sum(len(expected(case)["sources"]) for case in CAPTURES) > 10_000


@pytest.mark.parametrize(("case", "logs"), RUNS, ids=IDS)
def test_every_address_is_counted_right_and_every_ban_is_timely_and_rightful(case, logs):
    report = play(case, logs)
    assert wrong_counts(case, report) == {}
    assert untimely(case, report) == []
    assert wrongful_bans(case, report, 5) == []
    assert not set(expected(case)["never"]) & set(counted(report)), "a victim of forged lines is blamed"
    assert report["lines"]["unparsed"] <= (2 if "sogo" in case else 0), "two forged lines in sogo.log"
    assert report["lines"]["read"] == sum(content(case, log).count(b"\n") for log in logs)


@pytest.mark.parametrize(
    ("case", "ip"),
    [
        ("bookworm-verbose", "192.0.2.163"),
        ("bookworm-verbose", "198.51.100.34"),
        ("bookworm-verbose", "203.0.113.136"),
        ("bookworm-verbose", "192.0.2.234"),
    ],
)
def test_a_guesser_is_banned_at_his_fifth_guess_while_he_is_still_connected(case, ip):
    [ban] = [ban for ban in play(case, expected(case)["logs"])["bans"] if ban["net"] == f"{ip}/32"]
    assert (ban["failures"], ban["session_open"], ban["seconds"]) == (5, True, 3600)
    assert len(ban["evidence"]) == 5


@pytest.mark.parametrize("case", [case for case in CAPTURES if expected(case)["also"]])
def test_the_same_run_in_three_forms_gives_the_same_counts(case):
    plain = counted(play(case, expected(case)["logs"]))
    iso, rfc5424 = (counted(play(case, [log])) for log in expected(case)["also"])
    assert iso == rfc5424
    # RFC 3164 says seconds only: what no log can tell from a failure may fall on the other side there.
    other = {ip for ip in iso.keys() | plain.keys() if iso.get(ip, 0) != plain.get(ip, 0)}
    assert [ip for ip in other if isinstance(expected(case)["sources"][ip], int)] == []
    assert len(other) <= 1


@pytest.mark.parametrize("case", [case for case in CAPTURES if "mailcow" in case or "inject-" in case])
def test_evidence_holds_no_password_and_no_hash(case):
    evidence = [line for ban in play(case, expected(case)["logs"])["bans"] for line in ban["evidence"]]
    assert evidence
    told = [line for line in evidence if "given password: " in line]
    assert told
    assert all(line.endswith("given password: ***)") for line in told)
