"""The commands that look at a configuration, a line, or a daemon that may not be there."""

from __future__ import annotations

import json

import pytest

from tests.daemon import Daemon, failure, mailward

COMMANDS = ("run", "replay", "parse", "explain", "bans", "ban", "unban", "allow", "deny", "status", "check")
POSTFIX = "Nov 23 17:31:14 mx postfix/smtpd[412]: warning: unknown[198.51.100.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command):
    done = mailward(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"mailward {command}" in done.stdout.partition("For example")[2]


def test_the_help_names_every_command():
    done = mailward("--help")
    assert [command for command in COMMANDS if f"│ {command} " not in done.stdout] == []


def test_an_unknown_command_is_wrong_use():
    done = mailward("dance")
    assert (done.returncode, done.stdout) == (2, "")
    assert "dance" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["bans"],
        ["ban", "198.51.100.7"],
        ["unban", "198.51.100.7"],
        ["allow"],
        ["deny"],
        ["status"],
        ["explain", "--ip", "::1"],
    ],
)
def test_without_a_daemon_the_socket_and_the_remedy_are_named(tmp_path, arguments):
    socket = str(tmp_path / "control.sock")
    done = mailward(*arguments, MAILWARD_CONTROL__SOCKET=socket)
    assert (done.returncode, done.stdout) == (3, "")
    assert socket in done.stderr
    assert "mailward run" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("length", ["0s", "5", "x", "-1h", "1.5h", ""])
def test_a_length_that_is_none_is_wrong_use(length):
    done = mailward("ban", "198.51.100.7", f"--for={length}", MAILWARD_CONTROL__SOCKET="/nowhere")
    assert done.returncode == 2
    assert "--for" in done.stderr


def test_check_lists_every_mistake_with_line_and_key(tmp_path):
    config = tmp_path / "mailward.toml"
    config.write_text(
        '[rules.brute_force]\nfailures = "many"\nwindow = "ten"\n[lists]\nallow = ["999.1.1.1"]\n[firewall]\nprots = [25]\n'
    )
    done = mailward("check", "--config", str(config))
    assert (done.returncode, done.stdout) == (2, "")
    for place in (
        ":2: rules.brute_force.failures",
        ":3: rules.brute_force.window",
        ":5: lists.allow[1]",
        ":7: firewall.prots",
    ):
        assert f"{config}{place}: expected" in done.stderr or f"{config}{place}: no such key" in done.stderr
    shown = json.loads(mailward("check", "--config", str(config), "--format", "json").stdout)
    assert (shown["schema"], shown["ok"], len(shown["problems"])) == ("mailward.check/1", False, 4)


def test_check_says_that_all_is_fine(tmp_path):
    daemon = Daemon(tmp_path)
    assert daemon.command("check").returncode == 0
    assert json.loads(daemon.command("check", "--format", "json").stdout)["ok"] is True


def test_a_line_is_explained_without_a_daemon():
    done = mailward("explain", POSTFIX)
    assert done.returncode == 0
    assert "postfix_smtpd" in done.stdout
    assert "counts    yes" in done.stdout
    line = json.loads(mailward("explain", "--format", "json", POSTFIX).stdout)
    assert line["schema"] == "mailward.explain/1"
    assert line["line"]["event"]["ip"] == "198.51.100.7"
    assert line["line"]["counts"] == "yes"


@pytest.mark.parametrize("text", ["hello", "", "- hello", POSTFIX.replace("warning: ", "")])
def test_a_line_that_says_nothing_is_explained_too(text):
    done = mailward("explain", text)
    assert done.returncode == 1
    assert "counts    no" in done.stdout


def test_explain_wants_one_thing():
    for arguments in ([], [POSTFIX, "--ip", "::1"]):
        done = mailward("explain", *arguments)
        assert done.returncode == 2
        assert "--ip ADDRESS" in done.stderr


def test_an_address_is_explained_by_the_daemon(tmp_path):
    with Daemon(tmp_path) as daemon:
        daemon.write(failure("198.51.100.7"))
        daemon.has_read(1)
        shown = daemon.command("explain", "--ip", "198.51.100.7").stdout
        assert "1 failed logins" in shown
        assert "not banned: 1 of 5 failures within 10m" in shown
        assert "Password mismatch" in shown
        assert "lists.trusted" in daemon.command("explain", "--ip", "10.0.0.1").stdout
        assert daemon.command("explain", "--ip", "nonsense").returncode == 2
        assert "only observing" in daemon.command("ban", "203.0.113.9").stdout
        assert daemon.command("status").returncode == 0
        assert (
            json.loads(daemon.command("status", "--format", "json").stdout)["schema"] == "mailward.status/1"
        )
        assert json.loads(daemon.command("allow", "--format", "json").stdout) == {
            "schema": "mailward.lists/1",
            "allow": [],
            "origins": [],
        }
