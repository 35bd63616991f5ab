"""The doctor finds what is wrong, and nothing where all is well."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

import pytest

from guard.app import _doctor
from guard.app._doctor import docker_settings, journal, of_status
from guard.app._doctor_logs import sample
from guard.config import Config, load
from tests.daemon import failure, mailward, session, stamp
from tests.system.netns import mail_host, requires_namespaces

TRUSTED = ["127.0.0.0/8", "10.0.0.0/8"]


def config(tmp_path, text: str = "") -> Config:
    file = tmp_path / "mailward.toml"
    file.write_text(f'[[source]]\ntype = "file"\npath = "{tmp_path}/mail.log"\n{text}')
    return load(str(file))


def results(verdicts) -> list[str]:
    return [verdict.result for verdict in verdicts]


def judged(tmp_path, *lines: str, age: float = 0.0) -> list[tuple[str, str]]:
    log = tmp_path / "mail.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    os.utime(log, (time.time() - age, time.time() - age))
    return [
        (v.result, v.text.partition(": ")[2].partition(": ")[2]) for v in sample("mail", str(log), TRUSTED)
    ]


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")


def test_a_good_log_is_fine(tmp_path):
    found = judged(tmp_path, *(failure(f"198.51.100.{n}") for n in range(6)))
    assert found == [("ok", "6 of its last 6 lines speak of logins")]


@pytest.mark.parametrize(
    ("lines", "age", "said"),
    [
        (list, 0, "it is empty"),
        (lambda: [failure("198.51.100.7", at=time.time() - 200_000)], 200_000, "nothing was written for 2 days"),
        (lambda: ["no log at all"], 0, "no line has a form that we read"),
        (lambda: [failure("198.51.100.7", at=time.time() - 7200)], 0, "its newest time is -2.0 h"),
        (lambda: [failure("198.51.100.7", at=time.time() + 7200)], 0, "its newest time is +2.0 h"),
        (lambda: [f"{stamp()} mx dovecot: auth: passwd-file(alice,198.51.100.7,<abc>): some Password mismatch thing"], 0, "1 lines look like failed logins"),
        (lambda: [failure("10.0.0.1") for _ in range(6)], 0, "every client has an address of your own"),
        (lambda: [f"{stamp()} mx dovecot: imap-login: Disconnected: Inactivity (auth failed, 3 attempts in 9 secs): user=<a>, method=PLAIN, rip=198.51.100.7, lip=192.0.2.1, TLS, session=<{session('198.51.100.7')}>"], 0, "Dovecot tells of failures only when a session ends"),
        (lambda: [f"{stamp()} mx dovecot: imap-login: Disconnected: Inactivity (auth failed, 3 attempts in 9 secs): user=<a>, method=PLAIN, rip=198.51.100.7, lip=192.0.2.1, TLS"], 0, "Dovecot's lines have no session id"),
    ],
)  # fmt: skip
def test_a_bad_log_is_told(tmp_path, lines, age, said):
    assert any(r != "ok" and t.startswith(said) for r, t in judged(tmp_path, *lines(), age=age))


def test_a_log_that_is_not_there_is_a_problem(tmp_path):
    assert results(sample("mail", f"{tmp_path}/none*.log", TRUSTED)) == ["problem"]


@pytest.mark.parametrize(
    ("text", "result"),
    [('{"ip6tables": false}', "problem"), ('{"iptables": true}', "ok"), ("{", "problem"), ("[]", "problem")],
)
def test_the_engine_may_not_hide_clients(tmp_path, text, result):
    file = tmp_path / "daemon.json"
    file.write_text(text)
    assert results(docker_settings(file)) == [result]


def test_a_journal_in_memory_is_told(tmp_path):
    gone, kept = list(journal("j", tmp_path / "none")), list(journal("j", tmp_path))
    if "there is no journalctl" not in gone[0].text:
        assert results(gone) == ["warning"]
        assert results(kept) == ["ok"]


def test_a_server_is_reached_or_not_and_its_password_is_not_shown():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://:geheim@127.0.0.1:{server.getsockname()[1]}/0"
        assert _doctor._reached("r", url).result == "ok"
    refused = _doctor._reached("r", url)
    assert refused.result == "problem"
    assert "geheim" not in str(refused)


def status(**changes: object) -> dict[str, Any]:
    return {
        "sources": [{"name": "mail", "up": True, "detail": ""}],
        "firewall": {"up": True, "detail": "", "backend": "nftables"},
        "store": {"up": True, "detail": ""},
        "bans": {"wanted": {"4": 2}, "enforced": {"4": 2}, "foreign": {"4": 0}, "drift": {}},
        "configuration": {"ok": True},
        "started": "2026-11-23T17:31:02Z",
    } | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["ok"]),
        ({"sources": [{"name": "mail", "up": False, "detail": "gone"}]}, ["problem", "ok"]),
        ({"store": {"up": False, "detail": "full"}}, ["problem", "ok"]),
        ({"bans": {"wanted": {"4": 2}, "enforced": {"4": 1}, "foreign": {}, "drift": {}}}, ["problem", "ok"]),
        ({"bans": {"wanted": {}, "enforced": {}, "foreign": {}, "drift": {"missing": 1}}}, ["warning", "ok"]),
        ({"configuration": {"ok": False}}, ["problem", "ok"]),
    ],
)
def test_what_the_daemon_says_of_itself(changes, expected):
    assert results(of_status(status(**changes))) == expected


def test_an_administrator_by_ssh_should_be_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.9 4711 192.0.2.1 22")
    assert results(_doctor._ssh(config(tmp_path))) == ["warning"]
    assert results(_doctor._ssh(config(tmp_path, '[lists]\nallow = ["198.51.100.0/24"]\n'))) == ["ok"]


def test_that_nothing_is_there_to_read_is_a_problem(tmp_path):
    assert results(_doctor._sources(Config(), str(tmp_path))) == ["problem"]


def test_exit_status_and_json(tmp_path):
    config(tmp_path, f'[control]\nsocket = "{tmp_path}/none.sock"\n')
    done = mailward("doctor", "--format", "json", "--config", str(tmp_path / "mailward.toml"))
    assert done.returncode == 1  # nobody answers
    assert json.loads(done.stdout)["ok"] is False
    (tmp_path / "mailward.toml").write_text("[nonsense]\n")
    assert mailward("doctor", "--config", str(tmp_path / "mailward.toml")).returncode == 2


@pytest.mark.system
def test_the_table_must_be_there_and_come_first(tmp_path):
    requires_namespaces()
    chain = "add table inet mailward; add chain inet mailward prerouting {{ type filter hook prerouting priority {}; }}"
    with mail_host() as lab, lab.host.entered():
        assert results(_doctor._table(config(tmp_path))) == ["problem"]
        lab.host.nft(chain.format("raw"))
        assert results(_doctor._table(config(tmp_path))) == ["ok"]
        lab.host.nft("delete table inet mailward; " + chain.format("filter"))
        assert results(_doctor._table(config(tmp_path))) == ["problem"]
