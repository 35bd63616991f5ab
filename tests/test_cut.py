"""A log cut at any line: what replay says of the part is what the live daemon had said at that line."""

from __future__ import annotations

import json
import os
import random
import time
from datetime import UTC
from pathlib import Path

import pytest

from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from tests.daemon import Daemon, failure, mailward, session, stamp
from tests.replay.cases import CAPTURES, clock, expected, policy, stream

CUTS = 50
CAPTURE_CUTS = int(os.environ.get("MAILWARD_TEST_CUTS", "5"))
LIVE_CUTS = 8
LINES = 400


def log_of(seed: int, now: float) -> list[str]:
    """Return lines of several clients at several servers, interleaved, stamped within the hour before `now`."""
    random.seed(seed)
    at = now - 1500.0
    lines: list[str] = []
    sessions = {f"198.51.100.{n}": session(f"198.51.100.{n}") for n in range(1, 12)}
    sessions |= {f"2001:db8:1:{n}::7": session(f"2001:db8:1:{n}::7") for n in range(1, 5)}
    while len(lines) < LINES:
        at = min(now - 5, at + random.expovariate(0.4))
        ip = random.choice(list(sessions))
        sid = sessions[ip]
        pid = 400 + sum(ip.encode()) % 50
        kind = random.random()
        if kind < 0.5:
            lines.append(failure(ip, random.choice(["alice@example.org", "bob@example.org"]), at, sid))
        elif kind < 0.6:
            n = random.randint(1, 3)
            lines.append(
                f"{stamp(at)} mx dovecot: imap-login: Disconnected: Connection closed (auth failed, {n} attempts in 4 secs): "
                f"user=<alice@example.org>, method=PLAIN, rip={ip}, lip=198.18.0.1, TLS, session=<{sid}>"
            )
            sessions[ip] = session(ip, random.randint(1024, 65535))
        elif kind < 0.7:
            lines.append(
                f"{stamp(at)} mx dovecot: imap-login: Login: user=<bob@example.org>, method=PLAIN, rip={ip}, lip=198.18.0.1, "
                f"mpid=17, TLS, session=<{sid}>"
            )
            sessions[ip] = session(ip, random.randint(1024, 65535))
        elif kind < 0.9:
            head = f"{stamp(at)} mx postfix/smtpd[{pid}]:"
            lines.append(f"{head} connect from unknown[{ip}]")
            lines += [
                f"{head} warning: unknown[{ip}]: SASL LOGIN authentication failed: UGFzc3dvcmQ6"
            ] * random.randint(1, 4)
            lines.append(f"{head} disconnect from unknown[{ip}] ehlo=1 auth=0/2 quit=1 commands=2/4")
        else:
            lines.append(f"{stamp(at)} mx postfix/qmgr[99]: 4ABC: removed")
    return lines


def engine_of(now: float) -> Engine:
    return Engine(Policy(), clock=Clock(zone=UTC, now=now, live=True))


def replayed(path: Path, lines: list[str]) -> dict[str, object]:
    path.write_text("".join(line + "\n" for line in lines))
    done = mailward("replay", "--format", "json", str(path))
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    assert report.pop("schema") == "mailward.replay/1"
    return report


def test_the_live_engine_says_after_a_line_what_replay_says_of_the_file_cut_there(tmp_path):
    now = time.time()
    lines = log_of(1, now)
    assert sum(len(line) for line in lines) > 10_000
    cuts = sorted(random.Random(2).sample(range(1, len(lines) + 1), CUTS))
    live = engine_of(now)
    fed = 0
    for cut in cuts:
        for line in lines[fed:cut]:
            live.feed("mail", line.encode() + b"\n", now)
            live.tick(now)
        fed = cut
        cold = Engine(Policy(), clock=Clock(zone=UTC, now=now))
        cold.feed("mail", "".join(line + "\n" for line in lines[:cut]).encode())
        cold.finish("mail")
        assert live.report() == cold.report(), f"cut after line {cut}"
    assert live.report()["bans"], "the log must hold enough to decide"
    assert live.report() == replayed(tmp_path / "whole.log", lines[: cuts[-1]])


@pytest.mark.parametrize("case", CAPTURES)
def test_a_capture_cut_anywhere_says_what_the_live_engine_said(case):
    """The live clock runs with the log, and the engine is told the time between all lines, as the daemon does."""
    logs = expected(case)["logs"]
    lines = list(stream(case, logs))
    stamps = clock(case)
    now = stamps.read(lines[0][1][:15].decode())
    live = Engine(policy(case), clock=Clock(zone=UTC, now=now, live=True))
    fed = 0
    for cut in sorted(random.Random(case).sample(range(1, len(lines) + 1), min(CAPTURE_CUTS, len(lines)))):
        for log, line in lines[fed:cut]:
            now = max(now, stamps.read(line[:15].decode("utf-8", "replace")) + 0.9)
            live.feed(log, line, now)
            live.tick(now)
        fed = cut
        cold = Engine(policy(case), clock=clock(case))
        for log, line in lines[:cut]:
            cold.feed(log, line)
        assert live.report() == cold.report(), f"cut after line {cut}"


@pytest.mark.timeout(180)
def test_the_real_daemon_says_after_a_line_what_replay_says_of_the_file_cut_there(tmp_path):
    folder = tmp_path / "daemon"
    folder.mkdir()
    lines = log_of(3, time.time())
    with Daemon(folder) as daemon:
        fed = 0
        for cut in sorted(random.Random(4).sample(range(1, len(lines) + 1), LIVE_CUTS)):
            daemon.write(*lines[fed:cut])
            fed = cut
            daemon.has_read(cut)
            assert daemon.ask("report") == replayed(tmp_path / "cut.log", lines[:cut]), (
                f"cut after line {cut}"
            )
            if cut % 2:
                daemon.kill()
                daemon.start()
                daemon.has_read(cut)
                assert daemon.ask("report") == replayed(tmp_path / "cut.log", lines[:cut]), (
                    f"kill after line {cut}"
                )
