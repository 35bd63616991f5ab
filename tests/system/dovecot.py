"""A real Dovecot, 2.3 or 2.4, in a folder of its own: IMAP on a high port, its auth policy posted to a guard.

Debian's own by default; MAILWARD_TEST_DOVECOT_ROOT names a root folder (debootstrap) with another version besides.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

IMAP = 10143
POLICY = 14001
PATIENCE = 60.0
_COMMON = """
protocols = imap
listen = *
ssl = no
log_path = {at}/dovecot.log
base_dir = {at}/base
state_dir = {at}/state
first_valid_uid = 100
auth_verbose = yes
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
auth_policy_server_url = http://127.0.0.1:{policy}/
auth_policy_server_api_header = X-API-Key: sesame
auth_policy_hash_nonce = a-nonce-of-the-test
"""
_OLD = """
auth_failure_delay = 0
disable_plaintext_auth = no
mail_location = maildir:{at}/mail/%u
passdb {{
  driver = passwd-file
  args = username_format=%u {at}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home={at}/mail/%u allow_all_users=yes
}}
"""
_NEW = """
auth_failure_delay = 0 s
auth_allow_cleartext = yes
mail_driver = maildir
mail_path = {at}/mail/%{{user}}
passdb passwd-file {{
  passwd_file_path = {at}/users
}}
userdb static {{
  allow_all_users = yes
  fields {{
    uid = 65534
    gid = 65534
    home = {at}/mail/%{{user}}
  }}
}}
"""


def roots() -> list[str]:
    """Return the root folders that hold a Dovecot to be tested."""
    other = os.environ.get("MAILWARD_TEST_DOVECOT_ROOT")
    return ["/", *([other] if other else [])]


def requires_dovecot() -> None:
    """Skip the test, loudly, where there is no Dovecot; fail it in CI."""
    if shutil.which("dovecot", path="/usr/sbin:/usr/bin") is None:
        reason = "NOT RUN: dovecot not found; apt-get install dovecot-imapd"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Dovecot:
    """Runs while it is a context; `within` is a command that runs it elsewhere."""

    def __init__(self, folder: Path, root: str = "/", *, within: Sequence[str] = ()) -> None:
        self._chroot = [] if root == "/" else ["chroot", root]
        self._within = list(within)
        self.folder = folder if root == "/" else Path(root, f"mailward-test-{os.getpid()}")
        self._at = str(folder) if root == "/" else f"/{self.folder.name}"
        self._remove = root != "/"
        self._process: subprocess.Popen[bytes] | None = None
        said = subprocess.run(
            [*self._chroot, "/usr/sbin/dovecot", "--version"], capture_output=True, check=True
        )
        self.version = said.stdout.decode()[:3]

    def __enter__(self) -> Self:
        for name in ("base", "state", "mail"):
            (self.folder / name).mkdir(parents=True)
        for parent in (self.folder, *self.folder.parents[:-2]):
            parent.chmod(0o755)  # its processes run as other users
        os.chown(self.folder / "mail", 65534, 65534)
        (self.folder / "users").write_text("alice@example.org:{PLAIN}good\n")
        new = self.version != "2.3"
        head = "dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\n" if new else ""
        text = (_COMMON + (_NEW if new else _OLD)).format(at=self._at, imap=IMAP, policy=POLICY)
        (self.folder / "dovecot.conf").write_text(head + text)
        with (self.folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [*self._within, *self._chroot, "/usr/sbin/dovecot", "-F", "-c", f"{self._at}/dovecot.conf"],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while "starting up" not in self.log():
            assert self._process.poll() is None, (self.folder / "stderr").read_text()
            assert time.monotonic() < deadline, (self.folder / "stderr").read_text()
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(20)
        if self._remove:
            shutil.rmtree(self.folder)

    def log(self) -> str:
        """Return its log."""
        path = self.folder / "dovecot.log"
        return path.read_text() if path.exists() else ""
