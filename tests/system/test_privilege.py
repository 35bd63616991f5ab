"""From root to a user of our own, in a mount namespace with a user database of its own: real ids, real capabilities."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.daemon import ROOT, Daemon, environment, failure, session
from tests.system.netns import CLIENTS, mail_host, requires_namespaces

pytestmark = pytest.mark.system

GUESSER, IMAP = CLIENTS[0], 143
USER, ADM = 64123, 4  # any number that nobody has; Debian's
CONTAINER = "-all,+net_admin,+setuid,+setgid,+setpcap"  # cap_drop: [ALL], cap_add: [...]
# `$1`: the folder; `$2`: the interpreter.  The checkout may lie where only root can read.
STAGE = f"""
set -e
cd "$1"; shift 2
mount --bind passwd /etc/passwd; mount --bind group /etc/group
mount --bind {sys.prefix} venv; mount --bind {ROOT} checkout
export PYTHONPATH=$PWD/checkout
"""
PROBE = """
import json, os, socket, sys
from pathlib import Path
from guard.app._privilege import become
from guard.firewall.nftables import NftablesFirewall
from guard.model import Ban

become("mailward", [], sys.argv[1])

def outcome(attempt):
    try:
        attempt()
    except Exception as error:
        return type(error).__name__
    return "done"

def netlink():
    firewall = NftablesFirewall([143])
    firewall.open()
    firewall.close()

status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
attempts = {
    "to be root again": lambda: os.setuid(0),
    "another group": lambda: os.setgroups([0]),
    "write to /etc": lambda: Path("/etc/mailward-probe").write_text("x"),
    "write to its own log": lambda: Path(sys.argv[2]).open("ab"),
    "read its own log": lambda: Path(sys.argv[2]).read_bytes(),
    "read /etc/shadow": lambda: Path("/etc/shadow").read_bytes(),
    "signal root": lambda: os.kill(os.getppid(), 0),
    "give files away": lambda: os.chown("/tmp", 0, 0),
    "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "the firewall": netlink,
}
print(json.dumps({"status": {key: text.split() for key, text in status.items()},
                  "attempts": {name: outcome(attempt) for name, attempt in attempts.items()},
                  "child": os.popen("grep CapEff /proc/self/status").read().split()[1]}))
"""


@pytest.fixture
def folder():
    requires_namespaces()
    folder = Path(tempfile.mkdtemp(prefix="mailward-test-"))  # pytest's own lets nobody else in
    folder.chmod(0o755)
    for name in ("venv", "checkout"):
        (folder / name).mkdir()
    (folder / "passwd").write_text(
        f"root:x:0:0::/root:/bin/sh\nmailward:x:{USER}:{USER}::/nonexistent:/usr/sbin/nologin\n"
    )
    (folder / "group").write_text(f"root:x:0:\nadm:x:{ADM}:mailward\nmailward:x:{USER}:\n")
    yield folder
    shutil.rmtree(folder)


def within(folder: Path, capabilities: str = CONTAINER, *options: str, netns: str = "") -> list[str]:
    """Return the command that starts what follows it as a container would; its Python is the stage's."""
    elsewhere = f"ip netns exec {netns}" if netns else "unshare --net"
    python = f'"$PWD/venv/bin/{Path(sys.executable).name}"'
    lesser = f"setpriv --no-new-privs --bounding-set={capabilities} {' '.join(options)}"
    script = f'{STAGE} exec {elsewhere} {lesser} {python} "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(folder)]


def daemon_in(folder: Path, start: list[str], backend: str = "nftables", arguments=("--user", "mailward")):
    daemon = Daemon(folder, within=start, backend=backend, arguments=arguments)
    daemon.socket = str(folder / "run/control.sock")
    daemon.configure(f'[firewall]\nbackend = "{backend}"\n[http]\nlisten = ""')
    os.chown(daemon.log, 0, ADM)
    daemon.log.chmod(0o640)
    return daemon


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        os.chown(folder / name, USER, USER)


def refusal(daemon: Daemon, status: int = 3) -> str:
    """Start what must not start; return what it says, which is one line."""
    done = subprocess.run(
        daemon.started(), env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return line


def probe(folder: Path, backend: str, rights: str = CONTAINER):
    log = folder / "mail.log"
    log.touch()
    os.chown(log, 0, ADM)
    log.chmod(0o640)
    command = [*within(folder, rights), sys.executable, "-P", "-c", PROBE, backend, str(log)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def capabilities(status: dict[str, list[str]]) -> set[int]:
    return {int(status[key][0], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def test_what_is_left_of_root_is_net_admin_and_nothing_else(folder):
    found = probe(folder, "nftables")
    status = found["status"]
    assert capabilities(status) == {0x1000}
    assert status["Uid"] == status["Gid"] == [str(USER)] * 4
    assert status["Groups"] == [str(ADM), str(USER)]
    assert status["NoNewPrivs"] == ["1"]
    attempts = found["attempts"]
    assert attempts.pop("the firewall") == attempts.pop("read its own log") == "done"
    assert set(attempts.values()) == {"PermissionError"}, attempts
    assert int(found["child"], 16) == 0x1000, "ambient: a tool that it executes may do as much, and no more"


def test_iptables_keeps_a_raw_socket_as_well(folder):
    found = probe(folder, "iptables", f"{CONTAINER},+net_raw")
    assert capabilities(found["status"]) == {0x3000}
    assert found["attempts"]["a raw socket"] == "done"


def test_no_thread_may_run_yet(folder):
    program = (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n" + PROBE
    )
    command = [*within(folder), sys.executable, "-P", "-c", program, "nftables", "/dev/null"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "2 threads run already" in done.stderr


def test_who_enforces_nothing_keeps_nothing(folder):
    found = probe(folder, "none")
    assert capabilities(found["status"]) == {0}
    assert found["attempts"]["the firewall"] == "FirewallError"


def test_a_daemon_with_a_containers_rights_bans_as_its_own_user(folder):
    make(folder, "state", "run")
    with (
        mail_host() as lab,
        daemon_in(folder, within(folder, netns=lab.host.name)) as daemon,
    ):
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
        )
        assert capabilities({key: text.split() for key, text in status.items()}) == {0x1000}
        assert {*status["Uid"].split(), *status["Gid"].split()} == {str(USER)}
        for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
            assert "CapPrm:\t0000000000001000" in (task / "status").read_text(), "no thread keeps more"
        assert lab.reaches(GUESSER, IMAP)
        sid = session(GUESSER)
        daemon.write(*(failure(GUESSER, sid=sid) for _ in range(5)))
        daemon.until(lambda: [ban["enforced"] for ban in daemon.ask("bans")["bans"]] == [True])
        assert not lab.reaches(GUESSER, IMAP)
        assert "this is root" not in daemon.said()
        socket = Path(daemon.socket).stat()
        assert (socket.st_mode & 0o777, socket.st_uid, socket.st_gid) == (0o660, USER, USER)
        assert daemon.stop() == 0


def test_its_folders_are_made_and_handed_over_while_it_is_root(folder):
    start = within(folder, f"{CONTAINER},+chown")
    with daemon_in(folder, start) as daemon:
        assert daemon.stop() == 0
    for name, mode in (("state", 0o700), ("run", 0o755)):
        info = (folder / name).stat()
        assert (info.st_mode & 0o777, info.st_uid, info.st_gid) == (mode, USER, USER)
    assert (folder / "state/state.db").stat().st_uid == USER


def test_a_folder_that_is_there_is_never_given_away(folder):
    (folder / "state").mkdir()
    make(folder, "run")
    said = refusal(daemon_in(folder, within(folder, f"{CONTAINER},+chown")))
    assert f"{folder}/state: mailward may not write there; chown -R mailward: {folder}/state" in said
    assert (folder / "state").stat().st_uid == 0


def test_without_chown_it_says_who_must_make_its_folders(folder):
    said = refusal(daemon_in(folder, within(folder)))
    assert f"install -d -m 755 -o {USER} -g {USER} {folder}/run" in said
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("capabilities", "options", "expected"),
    [
        ("-all,+net_admin,+setuid,+setgid", [], "CAP_SETPCAP missing; a container needs cap_add: ["),
        ("-all,+setuid,+setgid,+setpcap", [], "CAP_NET_ADMIN missing"),
        (CONTAINER, ["--securebits=+keep_caps_locked"], "PR_SET_KEEPCAPS 1: Operation not permitted"),
        (CONTAINER, ["--reuid=65534", "--clear-groups"], "only root can become another user"),
    ],
)
def test_where_a_step_fails_nothing_starts(folder, capabilities, options, expected):
    make(folder, "state", "run")
    assert expected in refusal(daemon_in(folder, within(folder, capabilities, *options)))
    assert not list((folder / "state").iterdir())


def test_a_configuration_that_its_user_cannot_read_is_told_at_the_start(folder):
    make(folder, "state", "run")
    daemon = daemon_in(folder, within(folder))
    daemon.config.chmod(0o600)
    assert "mailward.toml" in refusal(daemon, 2)


def test_root_is_told_once_that_it_need_not_be(folder):
    start = within(folder, "-all,+net_admin")
    with daemon_in(folder, start, arguments=()) as daemon:
        assert daemon.stop() == 0
        assert daemon.said().count("this is root") == 1
