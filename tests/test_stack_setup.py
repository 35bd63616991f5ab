"""The stack's first start, without Docker."""

from __future__ import annotations

import base64
import os
import subprocess

import pytest

from exporters.stack import dkim_keys


def test_a_second_start_changes_nothing_and_secrets_are_their_owners(tmp_path, monkeypatch):
    import first_start

    for name in ("SECRETS", "CERTIFICATES", "DKIM", "PUBLIC_KEYS"):
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
    keys, public = tmp_path / "dkim", tmp_path / "public"
    for name, folder in (("DKIM", keys), ("PUBLIC_KEYS", public)):
        folder.mkdir()
        monkeypatch.setattr(first_start, name, folder)
    told = first_start.signing_key("example.org")
    key = keys / "example.org.mail.key"
    assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o400, 990)
    der = subprocess.run(
        ["openssl", "rsa", "-in", key, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    assert base64.b64decode(told, validate=True) == der
    assert first_start.signing_key("example.org") == told
    # What the exporter compares DNS with, and where there is nothing else to see.
    [file] = public.iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("example.org.mail.pub", 0o644)
    assert dkim_keys.of_file(file) == dkim_keys.of_file(key) == ("rsa", der)


@pytest.mark.system
def test_the_public_half_follows_a_key_that_was_there_before_or_is_another_now(tmp_path, monkeypatch):
    import first_start

    if os.geteuid() != 0:
        pytest.skip("NOT RUN: giving the key to rspamd needs root")
    for name in ("SECRETS", "CERTIFICATES", "DKIM", "PUBLIC_KEYS"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(first_start, name, tmp_path / name)
    (tmp_path / "SECRETS/setup").mkdir()
    monkeypatch.setenv("MAIL_HOSTNAME", "mail.example.org")
    monkeypatch.setenv("MAIL_DOMAIN", "example.org")
    first_start.signing_key("example.net")
    public = tmp_path / "PUBLIC_KEYS/example.net.mail.pub"
    public.unlink()
    first_start.init()
    before = dkim_keys.of_file(public)
    (tmp_path / "DKIM/example.net.mail.key").unlink()
    first_start.signing_key("example.net")
    assert dkim_keys.of_file(public) != before
