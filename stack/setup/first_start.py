"""The first start: secrets, DKIM keys, a certificate until there is a real one.  Every step is safe to run again."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

SECRETS = Path("/secrets")  # one folder a service, each a volume that only that service mounts
CERTIFICATES = Path("/certs")
DKIM = Path("/dkim")
PUBLIC_KEYS = Path("/dkim-public")  # of DKIM's pairs the half that anybody may read: a volume of its own
RSPAMD = 990  # the user that signs, as stack/rspamd/Dockerfile makes it
# Which secret goes to which services; the first one named is where it is looked for at the next start.
WHO_KNOWS = {
    "database_root": ("setup", "mariadb"),
    "database_mail": ("setup", "mariadb", "dovecot", "postfix"),
    "database_sogo": ("setup", "mariadb", "sogo"),
    "database_exporter": ("setup", "mariadb", "exporters"),
    "redis": ("setup", "redis", "rspamd", "guard", "exporters"),
    "rspamd_controller": ("setup", "rspamd", "dovecot", "exporters"),
    "guard_auth_policy": ("setup", "guard", "dovecot"),
    "guard_metrics": ("setup", "guard", "exporters"),
    "auth_policy_nonce": ("setup", "dovecot"),
    "sogo_encryption": ("setup", "sogo"),
}


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file that nobody sees half written or with another mode."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    fresh.rename(path)


def secret(name: str) -> str:
    """Return a secret, made at the first call."""
    path = SECRETS / "setup" / name
    if not path.exists():
        write(path, secrets.token_urlsafe(32))
    return path.read_text()


def init() -> None:
    """Make secrets and a certificate, where they are missing, and write the signing keys' public halves."""
    for name, services in WHO_KNOWS.items():
        text = secret(name)
        for service in services[1:]:
            folder = SECRETS / service
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)
            if not (folder / name).exists() or (folder / name).read_text() != text:
                write(folder / name, text)
    for key in DKIM.glob("*.mail.key"):
        signing_key(key.name.removesuffix(".mail.key"))
    self_signed(os.environ["MAIL_HOSTNAME"], os.environ["MAIL_DOMAIN"])


def self_signed(host: str, domain: str) -> None:
    """Make a certificate of our own until ACME has a real one: services must start, and say who they are."""
    if (CERTIFICATES / "fullchain.pem").exists():
        return
    names = ",".join(
        f"DNS:{n}" for n in (host, f"mta-sts.{domain}", f"autoconfig.{domain}", f"autodiscover.{domain}")
    )
    key, chain = CERTIFICATES / "privkey.pem.new", CERTIFICATES / "fullchain.pem.new"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650",
         "-subj", f"/CN={host}", "-addext", f"subjectAltName={names}", "-keyout", key, "-out", chain],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    key.rename(CERTIFICATES / "privkey.pem")
    chain.rename(CERTIFICATES / "fullchain.pem")
    print(
        f"made a self-signed certificate for {host}: browsers and mail programs will ask until ACME has issued one"
    )


def signing_key(domain: str) -> str:
    """Return the public key with which others verify a domain's mail; makes the pair where there is none.

    The key's own file is read each time, and its public half written beside the others' where it is another one.
    """
    path = DKIM / f"{domain}.mail.key"
    if not path.exists():
        made = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True, text=True)
        write(path, made.stdout, 0o400)
        os.chown(path, RSPAMD, RSPAMD)
    told = subprocess.run(
        ["openssl", "rsa", "-in", path, "-pubout", "-outform", "PEM"],
        check=True,
        capture_output=True,
        text=True,
    )
    public = PUBLIC_KEYS / f"{domain}.mail.pub"
    if not public.exists() or public.read_text() != told.stdout:
        write(public, told.stdout, 0o644)
    return "".join(line for line in told.stdout.splitlines() if not line.startswith("-----"))
