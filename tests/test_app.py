"""The daemon from outside: how it begins, what it refuses, what it says, how it ends.  It enforces nothing here."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.daemon import Daemon, environment, failure, mailward, session, stamp

GUESSER = "198.51.100.7"


@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path) as daemon:
        yield daemon


def events(daemon: Daemon, name: str) -> list[dict[str, object]]:
    return [event for event in daemon.events() if event["event"] == name]


def get(port: int, path: str, **headers: str) -> tuple[int, str | None, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_it_says_loudly_that_it_only_observes(daemon):
    assert any("NOBODY IS BANNED" in str(event["event"]) for event in daemon.events())
    assert daemon.ask("status")["firewall"]["up"] is False


def test_a_ban_is_logged_with_its_numbers_and_shown_as_not_enforced(daemon):
    sid = session(GUESSER)
    daemon.write(*(failure(GUESSER, sid=sid) for _ in range(5)))
    daemon.has_read(5)
    [ban] = daemon.ask("bans")["bans"]
    assert (ban["net"], ban["failures"], ban["seconds"], ban["enforced"]) == (f"{GUESSER}/32", 5, 3600, False)
    [event] = events(daemon, "ban")
    assert event | {"net": f"{GUESSER}/32", "rule": "brute_force", "failures": 5, "level": "warning"} == event


def test_a_login_after_failures_is_the_most_urgent_news(daemon):
    sid = session(GUESSER)
    login = f"user=<alice@example.org>, method=PLAIN, rip={GUESSER}, lip=198.18.0.1, mpid=1, TLS, session=<{session(GUESSER, 999)}>"
    end = f"user=<alice@example.org>, method=PLAIN, rip={GUESSER}, lip=198.18.0.1, TLS, session=<{sid}>"
    daemon.write(
        *(failure(GUESSER, sid=sid) for _ in range(4)),
        f"{stamp()} mx dovecot: imap-login: Disconnected: Connection closed (auth failed, 4 attempts in 9 secs): {end}",
        f"{stamp()} mx dovecot: imap-login: Login: {login}",
    )
    daemon.has_read(6)
    daemon.until(lambda: events(daemon, "finding"))
    [event] = events(daemon, "finding")
    assert (
        event | {"level": "error", "rule": "login_after_failures", "ip": GUESSER, "user": "alice@example.org"}
        == event
    )


def test_an_outage_of_the_password_database_is_told_once(daemon):
    pid = "mx postfix/smtpd[77]:"
    for _ in range(3):
        daemon.write(
            f"{stamp()} {pid} connect from unknown[{GUESSER}]",
            f"{stamp()} {pid} warning: SASL: Connect to private/auth failed: Connection refused",
            f"{stamp()} {pid} warning: unknown[{GUESSER}]: SASL LOGIN authentication failed: (reason unavailable), sasl_username=(unavailable)",
        )
    daemon.has_read(9)
    daemon.until(lambda: [e for e in daemon.events() if "password database fails" in str(e["event"])])
    time.sleep(0.6)
    assert len([e for e in daemon.events() if "password database fails" in str(e["event"])]) == 1
    assert daemon.ask("report")["failures"]["total"] == 0


def test_two_daemons_never_share_a_state(daemon):
    second = daemon.command("run")
    assert second.returncode == 3
    assert "another mailward uses this state" in second.stderr
    assert "Traceback" not in second.stderr


def test_two_daemons_never_share_a_socket(daemon, tmp_path):
    (tmp_path / "other").mkdir()
    other = Daemon(tmp_path / "other")
    other.config.write_text(other.config.read_text().replace(other.socket, daemon.socket))
    second = other.command("run")
    assert second.returncode == 3
    assert "already running" in second.stderr
    assert daemon.ask("status")["ready"]


def test_a_socket_that_a_killed_daemon_left_is_no_obstacle(daemon):
    daemon.kill()
    assert Path(daemon.socket).exists()
    daemon.start()


def test_without_the_right_it_refuses_and_names_the_capability(tmp_path):
    daemon = Daemon(tmp_path, backend="nftables")
    lesser = [] if os.geteuid() else ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    command = mailward("check", "--config", str(daemon.config)).args
    done = subprocess.run(
        [*lesser, *command[:4], "run", *command[5:]], capture_output=True, text=True, timeout=30, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 3
    assert "CAP_NET_ADMIN is missing" in done.stderr
    assert 'firewall.backend = "none"' in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[firewall]\nbackend = "none"\n[geo]\ndatabase = "/x.mmdb"', "expected a MaxMind DB file"),
        ("[rules.brute_force]\nfailures = 0\nwindow = 5\nbogus = 1", "bogus"),
        ('[http]\nlisten = "203.0.113.1:1"', "203.0.113.1:1"),
    ],
)
def test_what_it_cannot_run_with_it_refuses_in_one_line(tmp_path, text, expected):
    daemon = Daemon(tmp_path)
    daemon.configure(text if "firewall" in text else '[firewall]\nbackend = "none"\n' + text)
    done = daemon.command("run")
    assert done.returncode == (3 if "listen" in text else 2)
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_and_takes_its_socket_away(daemon, number):
    daemon.write(failure(GUESSER))
    daemon.has_read(1)
    daemon.signal(number)
    assert daemon.process.wait(20) == 0
    assert not Path(daemon.socket).exists()
    assert "Traceback" not in daemon.said()
    daemon.start()
    assert daemon.ask("report")["failures"]["total"] == 1


def test_an_unfinished_line_counts_once_across_a_restart(daemon):
    line = failure(GUESSER) + "\n"
    with daemon.log.open("a") as log:
        log.write(failure(GUESSER) + "\n" + line[:40])
        log.flush()
        daemon.has_read(1)
        daemon.stop()
        daemon.start()
        log.write(line[40:])
    daemon.has_read(2)
    assert daemon.ask("report")["failures"]["total"] == 2


def test_a_log_that_is_not_there_is_in_trouble_until_it_is(tmp_path):
    port = free_port()
    daemon = Daemon(tmp_path)
    daemon.log.unlink()
    daemon.configure(f'[firewall]\nbackend = "none"\n[http]\nlisten = "127.0.0.1:{port}"')
    daemon.launch()
    daemon.until(lambda: listens(port))
    status, kind, body = get(port, "/readyz")
    assert (status, kind) == (503, "application/json")
    assert json.loads(body)["sources"][0]["up"] is False
    daemon.log.touch()
    daemon.until(lambda: daemon.ask("status")["ready"])
    assert get(port, "/readyz")[0] == 200
    assert get(port, "/healthz")[:1] == (200,)
    status, kind, body = get(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert kind is not None
    assert "openmetrics" in kind
    assert body.endswith("# EOF\n")
    assert 'mailward_source_up{source="mail"} 1.0' in body
    daemon.kill()


def test_standard_input_to_its_end_then_it_stops(tmp_path):
    daemon = Daemon(tmp_path)
    text = (
        daemon.config.read_text()
        .replace('type = "file"', 'type = "stdin"')
        .replace(f'path = "{daemon.log}"\n', "")
    )
    daemon.config.write_text(text.replace('listen = ""', 'listen = ""\n[log]\nformat = "json"'))
    lines = "".join(failure(GUESSER, sid="") + "\n" for _ in range(5))
    done = mailward("run", "--config", str(daemon.config), given=lines.encode())
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["net"] for event in said if event["event"] == "ban"] == [f"{GUESSER}/32"]


def test_a_damaged_state_is_set_aside_and_told(daemon):
    daemon.stop()
    (daemon.folder / "state/state.db").write_bytes(b"not a database at all" * 100)
    for name in ("state.db-wal", "state.db-shm"):
        (daemon.folder / "state" / name).unlink(missing_ok=True)
    daemon.start()
    [event] = events(daemon, "the state was damaged")
    assert "set aside" in str(event["reason"])


def test_a_reason_given_by_hand_outlives_a_restart(daemon):
    daemon.ask("ban", net=GUESSER, seconds=600, reason="guesses\x1b[2J at night")
    daemon.stop()
    daemon.start()
    [ban] = daemon.ask("bans")["bans"]
    assert ban["reason"] == "guesses\\x1b[2J at night"
    assert ban["rule"] == "manual"


def test_a_reload_changes_the_rules_at_once(daemon):
    daemon.configure('[rules.brute_force]\nfailures = 2\n[firewall]\nbackend = "none"\n[http]\nlisten = ""')
    daemon.signal(signal.SIGHUP)
    daemon.until(lambda: events(daemon, "the configuration is taken"))
    sid = session(GUESSER)
    daemon.write(failure(GUESSER, sid=sid), failure(GUESSER, sid=sid))
    daemon.until(lambda: daemon.ask("bans")["bans"])


def test_a_reload_with_a_mistake_keeps_the_old_rules(daemon):
    good = daemon.config.read_text()
    daemon.config.write_text(good + "[rules\n")
    daemon.signal(signal.SIGHUP)
    daemon.until(lambda: not daemon.ask("status")["configuration"]["ok"])
    daemon.config.write_text(good)
    daemon.signal(signal.SIGHUP)
    daemon.until(lambda: daemon.ask("status")["configuration"]["ok"])


def bans(daemon: Daemon) -> dict[str, str]:
    return {ban["net"]: ban["rule"] for ban in daemon.ask("bans")["bans"]}


def relist(daemon: Daemon, lists: str) -> None:
    daemon.configure(f'[lists]\n{lists}\n[firewall]\nbackend = "none"\n[http]\nlisten = ""')


def replaced(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


@pytest.fixture
def listed(tmp_path):
    """A daemon with a file for each list, and a guesser who is banned."""
    (tmp_path / "allow").write_text("192.0.2.1\n")
    (tmp_path / "deny").write_text("203.0.113.0/24\n")
    daemon = Daemon(tmp_path)
    relist(daemon, f'allow = ["{tmp_path}/allow"]\ndeny = ["{tmp_path}/deny", "203.0.112.1"]')
    with daemon:
        sid = session(GUESSER)
        daemon.write(*(failure(GUESSER, sid=sid) for _ in range(5)))
        daemon.until(lambda: f"{GUESSER}/32" in bans(daemon))
        yield daemon


DENIED = {"203.0.113.0/24": "deny", "203.0.112.1/32": "deny"}


@pytest.mark.parametrize("way", ["by hand", "file", "configuration"])
def test_a_new_allow_entry_ends_the_bans_that_it_touches_and_its_end_lets_the_denied_in_again(listed, way):
    nets = "198.51.100.0/24\n203.0.113.7\n"
    folder = listed.folder
    assert bans(listed) == {f"{GUESSER}/32": "brute_force"} | DENIED
    if way == "by hand":
        for net in nets.split():
            assert listed.command("allow", "add", net).returncode == 0
    elif way == "file":
        replaced(folder / "allow", nets)
    else:
        relist(listed, f'allow = ["198.51.100.0/24", "203.0.113.7"]\ndeny = ["{folder}/deny", "203.0.112.1"]')
        listed.signal(signal.SIGHUP)
    listed.until(lambda: bans(listed) == {"203.0.112.1/32": "deny"})
    if way == "by hand":
        for net in nets.split():
            assert listed.command("allow", "remove", net).returncode == 0
    elif way == "file":
        replaced(folder / "allow", "")
    else:
        relist(listed, f'allow = ["{folder}/allow"]\ndeny = ["{folder}/deny", "203.0.112.1"]')
        listed.signal(signal.SIGHUP)
    listed.until(lambda: bans(listed) == DENIED)


def test_what_goes_from_file_or_configuration_ends_and_what_was_added_by_hand_stays(listed):
    folder = listed.folder
    listed.ask("deny", net="203.0.111.1")
    listed.ask("deny", net="203.0.113.0/24")
    listed.ask("allow", net="192.0.2.1")
    listed.ask("unban", net=GUESSER)
    replaced(folder / "deny", "203.0.110.1\n")
    by_hand = {"203.0.111.1/32": "deny", "203.0.113.0/24": "deny"}
    listed.until(lambda: bans(listed) == {**by_hand, "203.0.110.1/32": "deny", "203.0.112.1/32": "deny"})
    relist(listed, "")
    listed.signal(signal.SIGHUP)
    listed.until(lambda: bans(listed) == by_hand)
    assert listed.ask("lists")["allow"] == ["192.0.2.1/32"]
    listed.stop()
    listed.start()
    assert bans(listed) == by_hand


def test_a_list_file_with_mistakes_at_a_reload_changes_nothing(listed):
    (listed.folder / "deny").write_text("203.0.113.0/24\n300.1.1.1\n")
    listed.signal(signal.SIGHUP)
    listed.until(lambda: not listed.ask("status")["configuration"]["ok"])
    assert bans(listed) == {f"{GUESSER}/32": "brute_force"} | DENIED
    said = [str(event["problem"]) for event in listed.events() if "problem" in event]
    assert any(f"{listed.folder}/deny:2: expected an address" in problem for problem in said)


def test_a_list_file_with_mistakes_or_missing_at_start_is_refused(listed):
    listed.stop()
    (listed.folder / "deny").write_text("300.1.1.1\nx y\n")
    (listed.folder / "allow").unlink()
    for command in ("run", "check"):
        done = listed.command(command)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 3
        assert "lists.allow[1]: expected a file that can be read" in done.stderr
        assert f"{listed.folder}/deny:1: expected" in done.stderr
        assert f"{listed.folder}/deny:2: expected" in done.stderr


def test_each_entry_shows_where_it_stands(listed):
    folder = listed.folder
    listed.command("deny", "add", "203.0.112.1")
    listed.command("deny", "add", "203.0.111.1")
    shown = [line.split(maxsplit=1) for line in listed.command("deny").stdout.splitlines()]
    assert shown == [
        ["203.0.111.1/32", "by hand"],
        ["203.0.112.1/32", "configuration, by hand"],
        ["203.0.113.0/24", f"{folder}/deny"],
    ]
    again = json.loads(listed.command("deny", "--format", "json").stdout)
    assert again["deny"] == [net for net, _ in shown]
    assert [(origin["from"], origin["nets"]) for origin in again["origins"]] == [
        ("config", ["203.0.112.1/32"]),
        ("file", ["203.0.113.0/24"]),
        ("hand", ["203.0.111.1/32", "203.0.112.1/32"]),
    ]
    (folder / "deny").unlink()
    listed.until(lambda: "No such file" in listed.command("deny").stderr)


def test_what_stands_elsewhere_is_not_taken_away_by_hand(listed):
    folder = listed.folder
    for words, place in (
        (("allow", "remove", "192.0.2.1"), f"{folder}/allow"),
        (("deny", "remove", "203.0.113.0/24"), f"{folder}/deny"),
        (("deny", "remove", "203.0.112.1"), "the configuration's lists.deny"),
        (("unban", "203.0.113.0/24"), f"{folder}/deny"),
    ):
        done = listed.command(*words)
        assert done.returncode == 1, words
        assert place in done.stderr
    listed.ask("deny", net="203.0.112.1")
    done = listed.command("deny", "remove", "203.0.112.1")
    assert done.returncode == 1
    assert "still stands in the configuration's lists.deny" in done.stderr
    assert bans(listed) == {f"{GUESSER}/32": "brute_force"} | DENIED
    listed.ask("deny", net="203.0.111.1")
    assert "mailward deny remove" in listed.command("unban", "203.0.111.1").stderr
    done = listed.command("unban", "203.0.0.0/16")
    assert (done.returncode, done.stdout) == (0, "")
    assert bans(listed) == {f"{GUESSER}/32": "brute_force", "203.0.111.1/32": "deny"} | DENIED
    assert listed.command("deny", "remove", "203.0.111.1").returncode == 0
    assert "203.0.111.1/32" not in bans(listed)


def test_a_long_list_is_told_in_one_line(listed):
    (listed.folder / "deny").write_text("".join(f"203.0.113.{n}\n" for n in range(100)))
    listed.until(lambda: len(bans(listed)) > 100)
    assert [event["nets"] for event in events(listed, "bans of the deny list")] == [100]
    assert len(events(listed, "ban")) == 3, "the guesser and the two of the beginning"


def test_a_name_in_the_allow_list_stands_for_its_addresses(tmp_path):
    with Daemon(tmp_path, more='[lists]\nallow = ["localhost", "no-such-host.invalid"]') as daemon:
        assert "127.0.0.1/32" in daemon.ask("lists")["allow"]
        told = "lists.allow: a name does not resolve: its last addresses stay"
        daemon.until(lambda: events(daemon, told))
        assert events(daemon, told)[0]["name"] == "no-such-host.invalid"
        assert "no-such-host.invalid" in daemon.command("allow").stderr
        assert daemon.command("check").returncode == 0, "asks nobody"
        done = daemon.command("allow", "add", "office.example.org")
        assert done.returncode == 2
        assert "a host name goes into lists.allow" in done.stderr
