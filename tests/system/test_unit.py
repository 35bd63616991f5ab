"""packaging/mailward.service under a real systemd, booted in namespaces of its own: no setting of it is in the way.

The root is an overlay of this machine's, which stays as it is, and what is kernel-wide is read-only; pids, mounts,
network and control groups are its own.  It knows no unit but ours, so that nothing of this machine is started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.daemon import ROOT, failure, session
from tests.system.netns import requires_namespaces

UNIT = ROOT / "packaging/mailward.service"
SYSTEMD = Path("/lib/systemd/systemd")
GUESSER, BY_HAND, IN_JOURNAL = "198.51.100.7", "198.51.100.8", "198.51.101.7"

# Called in `$1`, a folder of the test's.  The control group is left behind by the boot; the test takes it away.
STAGE = f"""
set -e; cd "$1"
mount --make-rprivate /
mkdir groups; mount -t cgroup2 none groups; mkdir groups/"$2"; echo $$ >groups/"$2"/cgroup.procs
exec unshare --pid --net --ipc --uts --cgroup --mount --fork sh -c '
set -e
mount -t tmpfs none space; mkdir space/upper space/work space/root; root=$PWD/space/root
mount -t overlay none -o lowerdir=/,upperdir=$PWD/space/upper,workdir=$PWD/space/work $root
mount -t proc none $root/proc; mount --bind $root/proc/sys $root/proc/sys; mount -o remount,bind,ro $root/proc/sys
mount -t sysfs -o ro none $root/sys; mount -t cgroup2 none $root/sys/fs/cgroup
mount -t tmpfs none $root/dev; cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty $root/dev
mkdir $root/dev/pts $root/dev/shm; mount -t devpts none $root/dev/pts; mount -t tmpfs none $root/dev/shm; ln -s pts/ptmx $root/dev/ptmx
mount -t tmpfs none $root/run; mount -t tmpfs none $root/tmp
rm -rf $root/etc/systemd/system $root/etc/mailward $root/var/lib/mailward
mkdir -p $root/etc/systemd/system/mailward.service.d $root/etc/sysusers.d $root/opt/mailward/bin
mkdir $root/opt/test; cp -r given/. $root/opt/test
for name in venv checkout said; do mkdir $root/opt/test/$name; done
mount --bind {sys.prefix} $root/opt/test/venv
mount --bind {ROOT} $root/opt/test/checkout
mount --bind said $root/opt/test/said
cp {UNIT} $root/opt/test/*.service $root/etc/systemd/system
for name in test sysinit basic shutdown network; do cp $root/opt/test/target $root/etc/systemd/system/$name.target; done
cp {ROOT}/packaging/mailward.sysusers $root/etc/sysusers.d/mailward.conf
cp $root/opt/test/sooner.conf $root/etc/systemd/system/mailward.service.d
install -m 755 $root/opt/test/mailward $root/opt/mailward/bin
ip link set lo up
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system
exec chroot $root {SYSTEMD} --system --unit=test.service --log-target=console --show-status=no
'
"""
GIVEN = {
    "mailward": f"""#!/bin/sh
PYTHONPATH=/opt/test/checkout exec /opt/test/venv/bin/{Path(sys.executable).name} -P -m guard.cli "$@"
""",
    "sooner.conf": "[Service]\nWatchdogSec=2s\nRestartSec=100ms\nStandardOutput=null\nStandardError=append:/opt/test/said/log\n",
    "target": "[Unit]\nDefaultDependencies=no\n",
    "test.service": """[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=-/bin/sh /opt/test/steps
ExecStart=/bin/systemctl poweroff -ff
StandardOutput=append:/opt/test/said/output
StandardError=inherit
TimeoutStartSec=60
""",
    "journald.service": """[Unit]
DefaultDependencies=no
[Service]
Type=notify
ExecStart=/lib/systemd/systemd-journald
StandardOutput=null
""",
    "dovecot.service": """[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/cat /opt/test/entries
StandardOutput=journal
SyslogIdentifier=dovecot
""",
    "steps": f"""set -ex
cd /opt/test/said
mailward() {{ /opt/mailward/bin/mailward "$@"; }}
show() {{ systemctl show mailward --property ActiveState,SubState,MainPID,NRestarts,Result,StatusErrno; }}
in_force() {{ mailward bans --format json >$1 && grep -q $2 $1 && ! grep -q '"enforced": false' $1; }}
until_() {{ for try in $(seq 100); do ! eval "$1" || return 0; sleep 0.1; done; return 1; }}
: >/var/log/mail.log; chown root:adm /var/log/mail.log; chmod 640 /var/log/mail.log
systemd-sysusers
systemctl daemon-reload
systemctl start mailward || systemctl status mailward --no-pager; show >started
pid=$(systemctl show mailward --property MainPID --value)
cat /proc/$pid/status >status
stat -c '%a %U %G %n' /run/mailward /run/mailward/control.sock /var/lib/mailward /var/lib/mailward/* >places
cat /opt/test/lines >>/var/log/mail.log
mailward ban {BY_HAND}
until_ 'in_force bans {GUESSER}'
nft list set inet mailward ban4_32 >kernel
systemctl reload mailward
until_ 'grep -q "configuration is taken" log'
until_ 'systemctl is-active --quiet mailward'; show >reloaded
sleep 2.5; show >later
kill -STOP $pid
until_ '[ $(systemctl show mailward --property NRestarts --value) = 1 ]'
until_ 'mailward status >/dev/null 2>&1'; show >restarted
until_ 'in_force bans_again {GUESSER}'
systemctl stop mailward; show >stopped
install -d -m 2755 -g systemd-journal /var/log/journal; mkdir -p /run/systemd/journal; touch /run/systemd/journal/flushed
systemctl start journald
systemctl start dovecot
systemctl start mailward
until_ 'mailward status --format json >journal_status'
systemctl restart dovecot
until_ 'in_force bans_of_journal {IN_JOURNAL}'
systemctl stop mailward
touch done
""",
}


def missing(reason: str) -> None:
    """Fail in CI, where a skip proves nothing; skip, loudly, elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def said():
    requires_namespaces()
    if not SYSTEMD.exists():
        missing("NOT RUN: no systemd here; apt-get install systemd")
    folder = Path(tempfile.mkdtemp(prefix="mailward-test-"))
    group = f"mailward-test-{os.getpid()}"
    for name in ("given", "said", "space"):
        (folder / name).mkdir()
    sid = session(GUESSER)
    for name, text in GIVEN.items():
        (folder / "given" / name).write_text(text)
    entries = [failure(IN_JOURNAL, sid=session(IN_JOURNAL)).partition("dovecot: ")[2]] * 5
    (folder / "given/entries").write_text("\n".join(entries) + "\n")
    (folder / "given/lines").write_text("".join(failure(GUESSER, sid=sid) + "\n" for _ in range(5)))
    command = ["unshare", "--mount", "sh", "-c", STAGE, "sh", str(folder), group]
    try:
        booted = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        result = {path.name: path.read_text() for path in (folder / "said").iterdir()}
        if "output" not in result:
            missing(f"NOT RUN: systemd does not boot here: {booted.stdout}{booted.stderr}")
        assert "done" in result, result["output"] + result.get("log", "")
        yield result
    finally:
        forget_group(folder, group)
        shutil.rmtree(folder)


def forget_group(folder: Path, group: str) -> None:
    """Take away the control groups that the boot has left, the innermost first."""
    remove = 'mount -t cgroup2 none "$1" && find "$1/$2" -depth -type d -exec rmdir {} +'
    with contextlib.suppress(OSError):
        subprocess.run(
            ["unshare", "--mount", "sh", "-c", remove, "sh", str(folder / "space"), group],
            capture_output=True, check=False, timeout=20,
        )  # fmt: skip


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.system
def test_it_starts_with_one_capability_and_every_filter(said):
    assert properties(said["started"]) | {"ActiveState": "active", "SubState": "running"} == properties(
        said["started"]
    )
    status = {
        key: value.split() for key, value in (line.split(":", 1) for line in said["status"].splitlines())
    }
    sets = {int(status[key][0], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == {0x1000}
    assert status["Uid"][0] != "0"
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    places = {line.split()[3]: line.split()[:3] for line in said["places"].splitlines()}
    assert places["/run/mailward/control.sock"] == ["660", "mailward", "mailward"]
    assert places["/var/lib/mailward"] == ["700", "mailward", "mailward"]
    assert places["/var/lib/mailward/state.db"] == ["600", "mailward", "mailward"]


@pytest.mark.system
def test_it_bans_under_every_filter(said):
    bans = {ban["net"]: ban["enforced"] for ban in json.loads(said["bans"])["bans"]}
    assert bans == {f"{GUESSER}/32": True, f"{BY_HAND}/32": True}
    assert GUESSER in said["kernel"]
    assert BY_HAND in said["kernel"]


@pytest.mark.system
def test_it_reloads_beats_and_is_started_anew_where_it_hangs(said):
    started, later, restarted = (properties(said[step]) for step in ("started", "later", "restarted"))
    assert properties(said["reloaded"])["MainPID"] == started["MainPID"] == later["MainPID"]
    assert later["NRestarts"] == "0", "it beat for longer than WatchdogSec"
    assert restarted["NRestarts"] == "1"
    assert restarted["MainPID"] != started["MainPID"]
    again = {ban["net"]: ban["enforced"] for ban in json.loads(said["bans_again"])["bans"]}
    assert again == {f"{GUESSER}/32": True, f"{BY_HAND}/32": True}
    stopped = properties(said["stopped"])
    assert (stopped["ActiveState"], stopped["Result"]) == ("inactive", "success")


@pytest.mark.system
def test_it_reads_the_journal_under_every_filter_and_goes_by_it_before_syslogs_file(said):
    sources = {source["name"]: source for source in json.loads(said["journal_status"])["sources"]}
    assert set(sources) == {"journal1"}
    assert sources["journal1"]["up"], sources
    bans = {ban["net"]: ban["enforced"] for ban in json.loads(said["bans_of_journal"])["bans"]}
    assert bans[f"{IN_JOURNAL}/32"] is True


def test_the_exposure_that_systemd_sees_is_2_or_better():
    if shutil.which("systemd-analyze") is None:
        missing("NOT RUN: no systemd-analyze here; apt-get install systemd")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"Overall exposure level for mailward\.service: (\S+)", done.stdout)
    assert found, done.stdout
    assert float(found[1]) <= 2.0
