"""`mailward replay` and `parse` as a user calls them: what comes out, and how they fail."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.daemon import environment, failure, mailward, session

GUESSER = "198.51.100.7"
SID = session(GUESSER)
AT = 1795480000.0  # 2026-11-24
LINES = [failure(GUESSER, at=AT + n, sid=SID) for n in range(6)]
LOG = "".join(line + "\n" for line in LINES).encode()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "mail.log"
    path.write_bytes(LOG)
    return str(path)


def replayed(*arguments: str, given: bytes = b"") -> dict[str, Any]:
    done = mailward("replay", "--year", "2026", "--format", "json", *arguments, given=given)
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_report_is_one_object_with_its_schema(log):
    report = replayed(log)
    assert list(report) == [
        "schema", "lines", "period", "failures", "unjudged", "refused", "cancelled", "sources", "bans", "findings",
    ]  # fmt: skip
    assert report["schema"] == "mailward.replay/1"
    assert report["lines"] == {"read": 6, "relevant": 6, "unparsed": 0}
    [ban] = report["bans"]
    assert ban == {
        "id": "14b89ab33494", "at": "2026-11-24T00:26:44Z", "net": f"{GUESSER}/32", "rule": "brute_force", "failures": 5, "seconds": 3600,
        "session_open": True, "evidence": LINES[:5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("mail.log.gz", gzip.compress),
        ("mail.log.xz", lzma.compress),
        ("mail.log.bz2", bz2.compress),
        ("mail.log.zst", lambda data: zstandard.ZstdCompressor().compress(data)),
        ("misnamed.txt", gzip.compress),
    ],
)
def test_an_archive_says_the_same_as_the_plain_log(tmp_path, log, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(LOG))
    assert replayed(str(path)) == replayed(log)


def test_standard_input_says_the_same_as_the_file(log):
    assert replayed("-", given=LOG) == replayed(log)
    assert replayed("-", given=gzip.compress(LOG)) == replayed(log)


def test_several_logs_are_merged_by_time(tmp_path, log):
    parts = []
    for number, keep in enumerate((slice(0, None, 2), slice(1, None, 2))):
        path = tmp_path / f"part{number}.log"
        path.write_text("".join(line + "\n" for line in LINES[keep]))
        parts.append(str(path))
    assert replayed(*parts)["bans"] == replayed(log)["bans"]
    assert replayed(*reversed(parts))["bans"] == replayed(log)["bans"]


def test_the_last_line_needs_no_end(tmp_path, log):
    path = tmp_path / "open.log"
    path.write_bytes(LOG.rstrip(b"\n"))
    assert replayed(str(path)) == replayed(log)


def test_a_zone_moves_the_times(log):
    assert replayed("--timezone", "Europe/Berlin", log)["period"] == {
        "first": "2026-11-23T23:26:40Z",
        "last": "2026-11-23T23:26:45Z",
    }


def test_a_configuration_changes_the_rules(tmp_path, log):
    config = tmp_path / "mailward.toml"
    config.write_text('[rules.brute_force]\nfailures = 2\nban = "1m"\n')
    [ban] = replayed("--config", str(config), log)["bans"]
    assert (ban["failures"], ban["seconds"]) == (2, 60)


def test_the_text_names_addresses_bans_and_totals(log):
    done = mailward("replay", "--year", "2026", log)
    assert done.returncode == 0
    for word in ("6 failed logins", GUESSER, f"{GUESSER}/32", "brute_force", "1h"):
        assert word in done.stdout


def test_an_empty_log_is_a_log(tmp_path):
    path = tmp_path / "empty.log"
    path.touch()
    assert replayed(str(path))["lines"] == {"read": 0, "relevant": 0, "unparsed": 0}


@pytest.mark.parametrize("command", ["replay", "parse"])
@pytest.mark.parametrize(
    "content", [b"hello\nworld\n", os.urandom(5000), b"\0" * 100, b"a,b,c\n1,2,3\n" * 50]
)
def test_a_log_that_is_not_a_log_is_refused_with_what_was_expected(tmp_path, command, content):
    path = tmp_path / "what"
    path.write_bytes(content)
    done = mailward(command, str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected a mail log" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["replay", "parse"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/nowhere/mail.log"], "/nowhere/mail.log: there is no such file"),
        (["/tmp"], "is a directory"),
        ([], "which log?"),
        (["--timezone", "Middle/Earth", "LOG"], "no such time zone"),
        (["--config", "/nowhere.toml", "LOG"], "/nowhere.toml"),
        (["--year", "x", "LOG"], "--year"),
        (["--format", "xml", "LOG"], "--format"),
        (["--nonsense", "LOG"], "--nonsense"),
    ],
)
def test_wrong_use_is_one_clear_line_and_exit_2(log, command, arguments, expected):
    done = mailward(command, *(log if word == "LOG" else word for word in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_log_names_its_rotated_neighbours(log):
    Path(log).rename(log + ".1")
    assert "there is mail.log.1" in mailward("replay", log).stderr


def test_a_truncated_archive_shows_what_it_held_and_says_so(tmp_path):
    path = tmp_path / "mail.log.gz"
    path.write_bytes(gzip.compress(LOG + os.urandom(20_000).hex().encode())[:-5000])
    done = mailward("replay", "--year", "2026", "--format", "json", str(path))
    assert done.returncode == 1
    assert "truncated gzip data" in done.stderr
    assert json.loads(done.stdout)["failures"]["total"] == 6


def test_a_pipe_that_closes_early_is_no_error(tmp_path):
    path = tmp_path / "long.log"
    path.write_bytes(LOG * 2000)
    command = f"'{sys.executable}' -P -m guard.cli parse '{path}' | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1\t")


def test_a_terminal_gets_a_progress_bar_and_a_pipe_gets_none(log):
    assert mailward("replay", log).stderr == ""
    master, slave = pty.openpty()
    subprocess.run(
        [sys.executable, "-P", "-m", "guard.cli", "replay", "--format", "json", log],
        env=environment() | {"TERM": "xterm"}, stderr=slave, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    os.close(slave)
    shown = os.read(master, 10_000)
    os.close(master)
    assert b"reading" in shown


def test_replay_loads_nothing_that_only_the_daemon_needs(log):
    code = (
        "import sys; from guard.cli import main; main(['replay', '--format', 'json', sys.argv[1]]);"
        "print([m for m in ('asyncio', 'pydantic', 'rich', 'structlog', 'docker', 'prometheus_client') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, log], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_parse_says_what_each_line_means(log):
    done = mailward("parse", "--year", "2026", "--format", "json", log)
    first = json.loads(done.stdout.splitlines()[0])
    assert first == {
        "n": 1, "at": "2026-11-24T00:26:40Z", "service": "dovecot", "protocol": "unknown", "kind": "failure", "ip": GUESSER,
        "user": "alice@example.org", "session": SID, "count": 1, "reason": "password_mismatch", "method": None, "password": None,
    }  # fmt: skip
    assert len(done.stdout.splitlines()) == len(LINES)


def test_parse_names_the_file_where_there_are_several(log):
    done = mailward("parse", "--format", "json", log, log)
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == [log] * 12


def test_parse_shows_what_nobody_could_read_and_no_password(tmp_path):
    path = tmp_path / "drift.log"
    odd = LINES[0].replace("Password mismatch", "Password mismatch, Jim (given password: secret99)")
    path.write_text(f"{LINES[0]}\n{odd}\n")
    done = mailward("parse", "--unparsed", "--format", "json", str(path))
    for line in done.stdout.splitlines():
        assert json.loads(line)["n"] == 2
    assert "secret99" not in done.stdout
    assert "secret99" not in mailward("parse", "--unparsed", str(path)).stdout
