"""A small HTTP/1.1 server for /metrics, /healthz and /readyz: GET and HEAD, one answer a connection.

It reads a request line and headers of at most 8 KiB within 5 s, never a body, and closes after its answer (RFC 9112,
9.6), so that there is no framing to get wrong.  At most 64 connections are served at once; more are turned away.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

HEAD_BYTES: Final = 8192
PATIENCE: Final = 5.0  # seconds for the request, and again for taking the answer
CONNECTIONS: Final = 64
OPEN: Final = ("/healthz",)  # says no more than that the process lives
# RFC 9112, 3: the target in origin form; what a scraper sends behind "?" is not ours.
_REQUEST: Final = re.compile(rb"\A([A-Z]{1,16}) (/[!-~]{0,2048}) HTTP/1\.[01]\r?\Z")
_FIELD: Final = re.compile(rb"\A([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([ -~\t\x80-\xff]*)\Z")


class Answer(NamedTuple):
    """What a route gives back."""

    body: bytes
    type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


Headers = Mapping[str, str]  # names in lower case
Route = Callable[[Headers], Answer]


class HttpError(Exception):
    """The address cannot be listened on; the text names it and the remedy."""


async def listen(
    address: str, routes: Mapping[str, Route], token: str = "", *, interface: str = ""
) -> asyncio.Server:
    """Serve `routes` by path on `host:port`.  Raises `HttpError`.

    With an interface only what comes in there reaches it: Linux takes a packet for any of its addresses on every wire.

    With a token all but those of `OPEN` want `Authorization: Bearer TOKEN` (RFC 6750, 2.1).
    """
    host, _, port = address.rpartition(":")
    serving = asyncio.Semaphore(CONNECTIONS)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not serving.locked():
                async with serving, asyncio.timeout(2 * PATIENCE):
                    await _serve(reader, writer, routes, token)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that went away, or one that is slow on purpose
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(
            handle, host.strip("[]"), int(port), limit=HEAD_BYTES, start_serving=False
        )
    except OSError as error:
        raise HttpError(
            f'http.listen: {address}: {error.strerror or error}; choose another port, or "" for none'
        ) from None
    try:
        if interface:
            for bound in server.sockets:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        await server.start_serving()
    except OSError as error:
        server.close()
        raise HttpError(f"http.interface: {interface}: {error.strerror or error}; see `ip link`") from None
    return server


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routes: Mapping[str, Route], token: str
) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        method, answer = "GET", _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    else:
        method, answer = _answer(head, routes, token)
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *(["WWW-Authenticate: Bearer"] if answer.status == HTTPStatus.UNAUTHORIZED else []),
        *(["Allow: GET, HEAD"] if answer.status == HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else answer.body))
    async with asyncio.timeout(PATIENCE):
        await writer.drain()
        writer.write_eof()


def _answer(head: bytes, routes: Mapping[str, Route], token: str) -> tuple[str, Answer]:
    first, *fields = head[:-4].split(b"\r\n")
    request = _REQUEST.match(first)
    headers: dict[str, str] = {}
    for field in fields:
        match = _FIELD.match(field)
        if match is None:
            return "GET", _refusal(HTTPStatus.BAD_REQUEST)
        name, value = match[1].decode().lower(), match[2].decode("latin-1").strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if request is None:
        return "GET", _refusal(HTTPStatus.BAD_REQUEST)
    method, path = request[1].decode(), request[2].decode().partition("?")[0]
    if method not in {"GET", "HEAD"}:
        return method, _refusal(HTTPStatus.METHOD_NOT_ALLOWED)
    if token and path not in OPEN and not _may(headers.get("authorization", ""), token):
        return method, _refusal(HTTPStatus.UNAUTHORIZED)
    route = routes.get(path)
    if route is None:
        return method, _refusal(HTTPStatus.NOT_FOUND, f"; there is {', '.join(routes)}")
    return method, route(headers)


def _may(authorization: str, token: str) -> bool:
    return hmac.compare_digest(authorization.encode("latin-1"), f"Bearer {token}".encode())


def _refusal(status: HTTPStatus, more: str = "") -> Answer:
    return Answer(f"{status.phrase}{more}\n".encode(), status=status)
