"""One connection of Dovecot's HTTP client: requests in, answers out, in order (RFC 9112).

Dovecot keeps connections open and sends `POST /?command=report HTTP/1.1` with a Content-Length (seen: 2.3.19 and
2.4.1); of everything else only what is needed to say no is understood, and the connection ends with it, so that there
is no framing to get wrong.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple, cast

HEAD_BYTES: Final = 8192
BODY_BYTES: Final = 8192
CONNECTIONS: Final = 256  # each auth process of Dovecot opens at most 100
UNREAD: Final = 65536  # bytes of answers that a client has not taken
PATIENCE: Final = 5.0  # seconds for a request to be complete
IDLE: Final = 120.0  # Dovecot closes after 10 s without one
_REQUEST: Final = re.compile(rb"\APOST (/[!-~]{0,2048}) HTTP/1\.([01])\Z")
_COMMAND: Final = re.compile(r"\A.*[?&]command=(allow|report)\Z")
_FIELD: Final = re.compile(rb"\A([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([ -~\t\x80-\xff]*)\Z")
_LENGTH: Final = re.compile(rb"\A[0-9]{1,9}\Z")


class Request(NamedTuple):
    """What Dovecot asks or tells; `command` is "allow", "report" or ""."""

    command: str
    body: bytes


Answer = Callable[[Request], bytes]


class _RefusedError(Exception):
    """The request is not taken; the text is the status line's."""


class Connection(asyncio.Protocol):
    """Answers the requests of one client; enters itself in `open_` while it lasts."""

    def __init__(self, answer: Answer, open_: set[Connection], header: str, secret: bytes) -> None:
        self._answer = answer
        self._open = open_
        self._header = header.encode()  # in lower case; empty: no key is asked for
        self._secret = secret
        self._data = b""
        self._head: tuple[str, int, bool] | None = (
            None  # command, body's length, whether to keep the connection
        )
        self._since = time.monotonic()  # of the first byte of the unfinished request, or the last answer
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._open) >= CONNECTIONS:
            self._transport.abort()
            return
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._open.discard(self)

    def expire(self, now: float) -> None:
        """End the connection if its client has been slow."""
        if now - self._since > (PATIENCE if self._data or self._head else IDLE):
            self.close()

    def close(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not self._data and self._head is None:
            self._since = time.monotonic()
        self._data += data
        try:
            while self._data or self._head:
                request, keep = self._next()
                if request is None:
                    break
                body = self._answer(request)
                transport.write(_response(b"200 OK", body, keep=keep))
                self._since = time.monotonic()
                if not keep:
                    transport.close()
                    return
        except _RefusedError as refusal:
            transport.write(_response(str(refusal).encode(), b'{"status": 0}', keep=False))
            transport.close()
            return
        if transport.get_write_buffer_size() > UNREAD:
            self.close()

    def _next(self) -> tuple[Request | None, bool]:
        """Take one request off the data; None until it is complete."""
        if self._head is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0 or end > HEAD_BYTES:
                if len(self._data) > HEAD_BYTES:
                    raise _RefusedError("431 Request Header Fields Too Large")
                return None, True
            head, self._data = self._data[:end], self._data[end + 4 :]
            self._head = self._read_head(head)
        command, length, keep = self._head
        if len(self._data) < length:
            return None, keep
        body, self._data = self._data[:length], self._data[length:]
        self._head = None
        return Request(command, body), keep

    def _read_head(self, head: bytes) -> tuple[str, int, bool]:
        first, *lines = head.split(b"\r\n")
        match = _REQUEST.match(first)
        if match is None:
            raise _RefusedError(
                "400 Bad Request" if not first.startswith((b"GET ", b"HEAD ")) else "405 Method Not Allowed"
            )
        fields: dict[bytes, bytes] = {}
        for line in lines:
            field = _FIELD.match(line)
            if field is None or (name := field[1].lower()) in fields:
                raise _RefusedError("400 Bad Request")
            fields[name] = field[2].strip()
        if self._header and not hmac.compare_digest(fields.get(self._header, b""), self._secret):
            raise _RefusedError("401 Unauthorized")
        length = fields.get(b"content-length", b"")
        if b"transfer-encoding" in fields or not _LENGTH.match(length):
            raise _RefusedError("411 Length Required")
        if int(length) > BODY_BYTES:
            raise _RefusedError("413 Content Too Large")
        command = _COMMAND.match(match[1].decode("ascii"))
        keep = match[2] == b"1" and fields.get(b"connection", b"").lower() != b"close"
        return command[1] if command else "", int(length), keep


def _response(status: bytes, body: bytes, *, keep: bool) -> bytes:
    end = b"" if keep else b"Connection: close\r\n"
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b" % (
        status,
        len(body),
        end,
        body,
    )
