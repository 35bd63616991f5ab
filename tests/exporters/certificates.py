"""Certificates of a test authority, and TLS servers that show them, at once or after STARTTLS."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Self

NAME = "mail.example.org"
# `openssl ca`, because no other command of every OpenSSL makes a certificate that is over already.
_CONFIGURATION = """
[ca]
default_ca = test
[test]
certificate = ca.pem
private_key = ca.key
database = index
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""
OFFERS = {  # what the server says, and what the client must say before the next
    "smtp": [(b"220-wait\r\n220 mail ESMTP\r\n", b"EHLO"), (b"250-mail\r\n250-STARTTLS\r\n250 OK\r\n", b"STARTTLS"), (b"220 go\r\n", b"")],
    "imap": [(b"* OK ready\r\n", b"a STARTTLS"), (b"* CAPABILITY IMAP4\r\na OK go\r\n", b"")],
    "pop3": [(b"+OK ready\r\n", b"STLS"), (b"+OK go\r\n", b"")],
    "sieve": [(b'"STARTTLS"\r\nOK ready\r\n', b"STARTTLS"), (b'OK "go"\r\n', b"")],
    "tls": [],
}  # fmt: skip


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


class Authority:
    """Signs what it is asked to; `file` is what its certificates are trusted by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "ca.pem"
        self._self_signed("ca", "Test authority", ca=True)
        (folder / "index").touch()
        (folder / "ca.cnf").write_text(_CONFIGURATION)

    def _self_signed(self, file: str, name: str, *, ca: bool = False) -> Path:
        openssl(
            self.folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{file}.key", "-out", f"{file}.pem", "-days", "30", "-subj", f"/CN={name}",
            "-addext", "keyUsage=keyCertSign" if ca else f"subjectAltName=DNS:{name}",
        )  # fmt: skip
        return self.folder / f"{file}.pem"

    def self_signed(self, name: str = NAME) -> Path:
        return self._self_signed("selfsigned", name)

    def signed(self, name: str = NAME, days: int = 20) -> Path:
        """Return the certificate; its key is beside it.  Negative days: over already."""
        file = f"{name}.{days}"
        openssl(
            self.folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{file}.key", "-out", f"{file}.csr", "-addext", f"subjectAltName=DNS:{name}",
        )  # fmt: skip
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        begins = ends - dt.timedelta(days=40)
        openssl(
            self.folder, "ca", "-batch", "-config", "ca.cnf", "-in", f"{file}.csr", "-out", f"{file}.pem", "-notext",
            "-startdate", f"{begins:%Y%m%d%H%M%SZ}", "-enddate", f"{ends:%Y%m%d%H%M%SZ}",
        )  # fmt: skip
        return self.folder / f"{file}.pem"


class TlsServer:
    """Shows `certificate` after the words of `mode`; `reply` is what it answers to anything then; without one it hangs up,
    or, where `hangs`, waits for the client to do so.
    """

    def __init__(self, certificate: Path, mode: str = "tls", reply: bytes = b"") -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self.mode, self.reply, self.hangs = mode, reply, False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._server.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), plain:
                plain.settimeout(5)
                for said, wanted in OFFERS[self.mode]:
                    plain.sendall(said)
                    if wanted and not plain.recv(100).startswith(wanted):
                        break
                else:
                    with self.context.wrap_socket(plain, server_side=True) as secret:
                        if secret.recv(1000) and self.reply:
                            secret.sendall(self.reply)
                        if self.hangs:
                            secret.recv(1)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)
