"""The stack's first start, without Docker."""

from __future__ import annotations


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
