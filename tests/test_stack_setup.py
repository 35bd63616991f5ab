"""The stack's first start, without Docker."""

from __future__ import annotations

import base64
import os
import subprocess

import pytest


def test_a_second_start_changes_nothing_and_secrets_are_their_owners(tmp_path, monkeypatch):
    import first_start

    for name in ("SECRETS", "CERTIFICATES"):
        monkeypatch.setattr(first_start, name, tmp_path / name)
    (tmp_path / "SECRETS/setup").mkdir(parents=True)
    (tmp_path / "CERTIFICATES").mkdir()
    monkeypatch.setenv("MAIL_HOSTNAME", "mail.example.org")
    monkeypatch.setenv("MAIL_DOMAIN", "example.org")
    first_start.init()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    secret = [path for path in files if path.name != "fullchain.pem"]
    assert len(secret) > 20
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    first_start.init()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.system
def test_the_dkim_record_holds_the_signing_key_which_only_rspamd_reads(tmp_path, monkeypatch):
    import first_start

    if os.geteuid() != 0:
        pytest.skip("NOT RUN: giving the key to rspamd needs root")
    monkeypatch.setattr(first_start, "DKIM", tmp_path)
    told = first_start.signing_key("example.org")
    key = tmp_path / "example.org.mail.key"
    assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o400, 990)
    der = subprocess.run(
        ["openssl", "rsa", "-in", key, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    assert base64.b64decode(told, validate=True) == der
    assert first_start.signing_key("example.org") == told
