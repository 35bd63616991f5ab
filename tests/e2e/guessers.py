"""Clients that guess passwords: one open session each, one guess after the other, in every protocol of the stack.

A guesser is made inside the namespace it speaks from.  `guess` returns what the server said, and raises OSError where
nothing came back; the session stays open in between.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import struct
import time
from typing import BinaryIO, Final

PATIENCE: Final = 40.0  # seconds: Dovecot lets who guesses wait for 17 s, Postfix for 12 s


def untrusting() -> ssl.SSLContext:
    """Return a context that takes any certificate: the first one is self-signed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Guesser:
    """A session of lines, as IMAP, POP3, ManageSieve and SMTP have it."""

    port = 0

    def __init__(self, host: str, client: str) -> None:
        self.count = 0
        self.raw = socket.create_connection((host, self.port), PATIENCE, source_address=(client, 0))
        self.raw.settimeout(PATIENCE)
        self._kernel = self.raw.dup()  # TLS takes the socket over
        self._file: BinaryIO = self.raw.makefile("rb")
        self.greet()

    def greet(self) -> None:
        """Get to where a password can be offered."""

    def guess(self, user: str, password: str) -> bytes:
        """Offer a password; return the answer."""
        raise NotImplementedError

    def answers(self, patience: float = 3.0) -> bool:
        """Tell whether the host's kernel acknowledges what is sent on this connection."""
        try:
            self.raw.sendall(b"\r\n")
        except OSError:
            return False
        deadline = patience
        while deadline > 0:
            info = self._kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            if info[0] != 1:  # no longer TCP_ESTABLISHED
                return False
            (unacknowledged,) = struct.unpack_from("=I", info, 24)
            if not unacknowledged:
                return True
            time.sleep(0.05)
            deadline -= 0.05
        return False

    def unanswered(self, patience: float = 4.0) -> bool:
        """Tell whether one guess more gets no byte back."""
        self.raw.settimeout(patience)
        try:
            return not self.guess("nobody@example.test", "one-guess-more")
        except OSError:
            return True

    def secure(self) -> None:
        self.raw = untrusting().wrap_socket(self.raw)
        self._file = self.raw.makefile("rb")

    def line(self) -> bytes:
        line = self._file.readline()
        if not line:
            raise ConnectionError("the server has closed")
        return line

    def ask(self, text: str) -> bytes:
        self.raw.sendall(text.encode() + b"\r\n")
        return self.line()

    def close(self) -> None:
        self._kernel.close()
        self.raw.close()


class Imap(Guesser):
    port = 143

    def greet(self) -> None:
        self.line()
        self.ask("a STARTTLS")
        self.secure()

    def guess(self, user: str, password: str) -> bytes:
        self.count += 1
        return self.ask(f"g{self.count} LOGIN {user} {password}")


class Pop3(Guesser):
    port = 110

    def greet(self) -> None:
        self.line()
        self.ask("STLS")
        self.secure()

    def guess(self, user: str, password: str) -> bytes:
        self.count += 1
        self.ask(f"USER {user}")
        return self.ask(f"PASS {password}")


class Sieve(Guesser):
    port = 4190

    def greet(self) -> None:
        self._capabilities()
        self.ask("STARTTLS")
        self.secure()
        self._capabilities()

    def _capabilities(self) -> None:
        while not self.line().startswith(b"OK"):
            pass

    def guess(self, user: str, password: str) -> bytes:
        self.count += 1
        text = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        return self.ask(f'AUTHENTICATE "PLAIN" "{text}"')


class Submission(Guesser):
    port = 587

    def greet(self) -> None:
        self.line()
        self._hello()
        self.ask("STARTTLS")
        self.secure()
        self._hello()

    def _hello(self) -> None:
        line = self.ask("EHLO client.example.net")
        while line[3:4] == b"-":
            line = self.line()

    def guess(self, user: str, password: str) -> bytes:
        self.count += 1
        return self.ask("AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode())


class Web(Guesser):
    """SOGo's login page; DAV and ActiveSync below ask with a password in each request."""

    port = 443

    def greet(self) -> None:
        self.secure()

    def request(self, method: str, path: str, body: bytes, **headers: str) -> bytes:
        self.count += 1
        fields = {"Host": "mail.example.test", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        self.raw.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answer = http.client.HTTPResponse(self.raw)
        answer.begin()
        answer.read()
        return str(answer.status).encode()

    def guess(self, user: str, password: str) -> bytes:
        body = json.dumps({"userName": user, "password": password}).encode()
        return self.request("POST", "/SOGo/connect", body, Content_Type="application/json")


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class CalDav(Web):
    def guess(self, user: str, password: str) -> bytes:
        path = f"/SOGo/dav/{user}/Calendar/personal/"
        return self.request("PROPFIND", path, b"", Authorization=_basic(user, password), Depth="0")


class ActiveSync(Web):
    def guess(self, user: str, password: str) -> bytes:
        path = f"/Microsoft-Server-ActiveSync?Cmd=FolderSync&User={user}&DeviceId=e2e&DeviceType=test"
        return self.request("POST", path, b"", Authorization=_basic(user, password))


# What a server says to a wrong password.
REFUSALS: Final[dict[type[Guesser], bytes]] = {
    Imap: b"AUTHENTICATIONFAILED",
    Pop3: b"-ERR",
    Sieve: b"NO",
    Submission: b"535",
    Web: b"403",
    CalDav: b"401",
    ActiveSync: b"401",
}
# service and protocol of the guess in mailward_auth_failures_total: one of these
COUNTED: Final[dict[type[Guesser], tuple[str, str]]] = {
    Imap: ("dovecot", "imap"),
    Pop3: ("dovecot", "pop3"),
    Sieve: ("dovecot", "sieve"),
    Submission: ("postfix dovecot", "submission smtp"),  # whoever of the two is heard first
    Web: ("sogo", "web"),
    CalDav: ("sogo", "dav"),
    ActiveSync: ("sogo", "eas"),
}
