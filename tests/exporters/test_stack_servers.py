"""The stack exporter against the real servers: Postfix, Dovecot, clamd."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import io
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporters.stack import certificates, daemons, spool
from exporters.stack.certificates import Port
from tests.exporters.certificates import NAME, Authority
from tests.exporters.postfix import Postfix, free_ports, wait

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(os.getuid() != 0, reason="NOT RUN: needs root"),
]
ROOT = Path(__file__).parent.parent.parent


def requires(program: str, package: str) -> None:
    """Skip the test, loudly, where there is no such program; fail it in CI."""
    if shutil.which(program, path="/usr/sbin:/usr/bin") is None:
        reason = f"NOT RUN: {program} not found; apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def postfix(tmp_path_factory, authority):
    requires("postfix", "postfix")
    with Postfix(tmp_path_factory.mktemp("postfix"), authority.signed(days=12)) as running:
        yield running


def queues(postfix: Postfix, now: float) -> dict[tuple[str, ...], float]:
    return dict(spool.measured(postfix.spool, now).values)


def test_a_spool_is_counted_queue_by_queue_with_ages_since_arrival(postfix):
    before = queues(postfix, time.time())
    assert set(before.values()) == {0.0}
    assert len(before) == 3 * len(spool.QUEUES)
    sent = time.time()
    for size in (10, 100_000, 10):
        postfix.send("x" * 70 + "\r\n" + "y\r\n" * (size // 3))
    wait(lambda: len(postfix.names("deferred")) == 3)
    postfix.command("postsuper", "-h", postfix.names("deferred")[0])
    # What Postfix writes into the file names its next attempt, not its arrival.
    assert any(
        file.stat().st_mtime > sent + 60 for file in (postfix.spool / "deferred").rglob("*") if file.is_file()
    )
    values = queues(postfix, sent + 1000)
    assert (values["queue_messages", "deferred"], values["queue_messages", "hold"]) == (2, 1)
    for queue in ("deferred", "hold"):
        assert 990 <= values["queue_oldest_seconds", queue] <= 1060
    assert values["queue_bytes", "deferred"] + values["queue_bytes", "hold"] > 100_000
    assert values["queue_messages", "active"] == values["queue_oldest_seconds", "active"] == 0
    postfix.command("postsuper", "-d", "ALL")
    assert set(queues(postfix, sent + 1000).values()) == {0.0}


def test_the_owner_of_the_spool_can_read_it_and_nobody_else(postfix):
    postfix.send("private")
    wait(lambda: postfix.names("deferred"))

    def as_user(uid: int) -> str:
        # From a copy that others may read; the tree of the tests may not be theirs to see.
        code = "import os,sys; from exporters.stack.__main__ import main; os.setgroups([]); os.setgid(65534); os.setuid(int(sys.argv.pop(1))); sys.exit(main())"
        run = subprocess.run(
            [sys.executable, "-c", code, str(uid), "--once", "--queue", str(postfix.spool)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return run.stdout

    owner = (postfix.spool / "active").stat().st_uid
    assert owner
    assert 'mailward_stack_queue_messages{queue="deferred"} 1.0' in as_user(owner)
    nobody = as_user(65534)
    assert 'mailward_stack_check_ok{check="queue"} 0.0' in nobody
    assert "queue_messages{" not in nobody
    postfix.command("postsuper", "-d", "ALL")


def seen(authority: Authority, *ports: Port, name: str = NAME) -> dict[tuple[str, ...], float]:
    context = ssl.create_default_context(cafile=authority.file)
    found = asyncio.run(certificates.look(ports, name, context, 10))
    return dict(found.values)


def test_postfix_shows_its_certificate_by_starttls_and_at_once(postfix, authority):
    ports = (Port("127.0.0.1", postfix.smtp, "smtp"), Port("127.0.0.1", postfix.smtps, "tls"))
    for name, trusted in ((NAME, 1.0), ("other.example.org", 0.0)):
        values = seen(authority, *ports, name=name)
        for port in ports:
            label = str(port.number)
            assert values["certificate_up", label] == 1.0
            assert values["certificate_trusted", label] == trusted
            left = values["certificate_expiry_timestamp_seconds", label] - time.time()
            assert abs(left - 12 * 86400) < 3600


DOVECOT = """
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
log_path = {at}/log
base_dir = {at}/base
state_dir = {at}/state
service imap-login {{
  inet_listener imap {{
    port = {0}
  }}
  inet_listener imaps {{
    port = {1}
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {2}
  }}
  inet_listener pop3s {{
    port = {3}
  }}
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
"""


@contextlib.contextmanager
def dovecot(folder: Path, certificate: Path) -> Iterator[list[int]]:
    ports = free_ports(4)
    text = DOVECOT.format(*ports, at=folder, certificate=certificate, key=certificate.with_suffix(".key"))
    (folder / "dovecot.conf").write_text(text)
    for parent in (folder, *folder.parents[:-2]):
        parent.chmod(0o755)
    with subprocess.Popen(["/usr/sbin/dovecot", "-F", "-c", str(folder / "dovecot.conf")]) as process:
        try:
            wait(lambda: (folder / "log").exists() and "starting up" in (folder / "log").read_text())
            yield ports
        finally:
            process.terminate()


@pytest.mark.parametrize("trusted", [True, False])
def test_dovecot_shows_its_certificate_on_every_port(tmp_path, authority, trusted):
    requires("dovecot", "dovecot-imapd dovecot-pop3d")
    if not Path("/usr/lib/dovecot/pop3-login").exists():
        requires("pop3-login", "dovecot-pop3d")
    certificate = authority.signed(days=9) if trusted else authority.self_signed()
    with dovecot(tmp_path, certificate) as numbers:
        modes = ("imap", "tls", "pop3", "tls")
        values = seen(
            authority, *(Port("127.0.0.1", n, mode) for n, mode in zip(numbers, modes, strict=True))
        )
    for number in numbers:
        assert values["certificate_up", str(number)] == 1.0
        assert values["certificate_trusted", str(number)] == float(trusted)
        assert values["certificate_expiry_timestamp_seconds", str(number)] > time.time()


def unsigned(made: int) -> bytes:
    """Return a database of one signature, as freshclam's are but unsigned, made at `made`, a full minute."""
    signature = (ROOT / "stack/clamd/eicar.ndb").read_bytes()
    head = f"ClamAV-VDB:{dt.datetime.fromtimestamp(made, dt.UTC):%d %b %Y %H-%M} +0000:27475:1:90:X:X:test:{made}"
    info = f"{head}\ndaily.ndb:{len(signature)}:{hashlib.sha256(signature).hexdigest()}\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (("COPYING", b"none\n"), ("daily.info", info), ("daily.ndb", signature)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return head.ljust(512).encode() + packed.getvalue()


def test_freshclam_is_judged_by_its_own_words(tmp_path):
    requires("freshclam", "clamav-freshclam")
    database = tmp_path / "clamav"
    database.mkdir()
    log = database / "freshclam.log"
    log.touch(0o644)
    text = (ROOT / "stack/clamd/freshclam.conf").read_text().replace("/var/lib/clamav", str(database))
    text = text.replace("DatabaseOwner clamav", "DatabaseOwner root").replace(
        "database.clamav.net", "127.0.0.1:9"
    )
    custom = f"DatabaseCustomURL file://{ROOT}/stack/clamd/eicar.ndb\n"
    none = "".join(f"ExcludeDatabase {name}\n" for name in ("main", "daily", "bytecode"))

    def checked(more: str) -> float:
        (tmp_path / "freshclam.conf").write_text(text + "DNSDatabaseInfo no\nMaxAttempts 1\n" + more)
        subprocess.run(["/usr/bin/freshclam", f"--config-file={tmp_path}/freshclam.conf"], check=False, capture_output=True)  # fmt: skip
        return asyncio.run(daemons.freshclam(log, 3600)).values["service_up", "freshclam"]

    assert checked(custom + none) == 1  # updated
    assert checked("") == 0  # no mirror there
    assert checked(custom + none) == 1
    assert log.stat().st_mode & 0o777 == 0o644  # as the stack's entry point made it
    assert log.read_text().count("Update failed.") == 1


@pytest.mark.parametrize("made", [1733132280, None])
def test_clamd_tells_its_signatures_age(tmp_path, made):
    requires("clamd", "clamav-daemon")
    database = tmp_path / "database"
    database.mkdir()
    shutil.copy(ROOT / "stack/clamd/eicar.ndb", database)
    if made:
        (database / "daily.cud").write_bytes(unsigned(made))
    [port] = free_ports(1)
    path = tmp_path / "clamd.ctl"
    (tmp_path / "clamd.conf").write_text(
        f"Foreground yes\nDatabaseDirectory {database}\nLocalSocket {path}\nTCPSocket {port}\nTCPAddr 127.0.0.1\n"
    )
    with subprocess.Popen(
        ["/usr/sbin/clamd", f"--config-file={tmp_path}/clamd.conf"],
        env={**os.environ, "TZ": "UTC"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            wait(path.exists, 30)
            for where in (str(path), f"127.0.0.1:{port}"):
                found = asyncio.run(daemons.clamd(where))
                assert found.values["service_up", "clamd"] == 1
                assert found.values.get(("clamav_signatures_timestamp_seconds",)) == made
                assert bool(found.troubles) == (made is None)
        finally:
            process.kill()
    with pytest.raises(OSError, match=r"[Cc]onnect|No such"):
        asyncio.run(daemons.clamd(str(path)))
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        asyncio.run(daemons.clamd(f"127.0.0.1:{port}"))
