"""A small HTTP/1.1 server for /metrics, /healthz, /readyz and the page at /: GET and HEAD, one answer a connection.

It reads a request line and headers of at most 8 KiB within 5 s, never a body, and closes after its answer (RFC 9112,
9.6), so that there is no framing to get wrong.  At most 64 connections are served at once; more are turned away.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from guard.listening import parts, place

HEAD_BYTES: Final = 8192
PATIENCE: Final = 5.0  # seconds for the request, and again for taking the answer
CONNECTIONS: Final = 64
OPEN: Final = ("/healthz",)  # says no more than that the process lives
_CHALLENGES: Final = ("WWW-Authenticate: Bearer", 'WWW-Authenticate: Basic realm="mailward", charset="UTF-8"')
# RFC 9112, 3: the target in origin form; what a scraper sends behind "?" is not ours.
_REQUEST: Final = re.compile(rb"\A([A-Z]{1,16}) (/[!-~]{0,2048}) HTTP/1\.[01]\r?\Z")
_FIELD: Final = re.compile(rb"\A([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([ -~\t\x80-\xff]*)\Z")
_HOST: Final = re.compile(r"\A(?:\[([0-9A-Fa-f:.]{2,45})\]|([^:\[\]]{1,255}?)\.?)(?::[0-9]{1,5})?\Z")


class Answer(NamedTuple):
    """What a route gives back."""

    body: bytes
    type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    fields: tuple[str, ...] = ()  # further header fields, whole


Headers = Mapping[str, str]  # names in lower case
Route = Callable[[Headers], Answer]


class HttpError(Exception):
    """The address cannot be listened on; the text names it and the remedy."""


async def listen(address: str, routes: Mapping[str, Route], token: str = "") -> asyncio.Server:
    """Serve `routes` by path on `host:port` (see guard.listening).  Raises `HttpError`.

    With a token all but those of `OPEN` want `Authorization: Bearer TOKEN` (RFC 6750, 2.1), or, as browsers send it,
    the token as the password of any user (RFC 7617).  Without one, what listens on this host alone answers only who
    calls it by an address or by this host's name: else a web page elsewhere, whose name was made to lead here, could
    read it through a browser on this host (DNS rebinding).
    """
    host, _, _ = parts(address)
    door = _Door(token, () if token or not _is_loopback(host) else _own_names())
    serving = asyncio.Semaphore(CONNECTIONS)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not serving.locked():
                async with serving, asyncio.timeout(2 * PATIENCE):
                    await _serve(reader, writer, routes, door)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that went away, or one that is slow on purpose
        finally:
            writer.close()

    try:
        return await asyncio.start_server(handle, **place(address), limit=HEAD_BYTES)
    except OSError as error:
        raise HttpError(
            f'http.listen: {address}: {error.strerror or error}; choose another port, or "" for none'
        ) from None


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routes: Mapping[str, Route], door: _Door
) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        method, answer = "GET", _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    else:
        method, answer = _answer(head, routes, door)
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *answer.fields,
        *(_CHALLENGES if answer.status == HTTPStatus.UNAUTHORIZED else ()),
        *(["Allow: GET, HEAD"] if answer.status == HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else answer.body))
    async with asyncio.timeout(PATIENCE):
        await writer.drain()
        writer.write_eof()


def _answer(head: bytes, routes: Mapping[str, Route], door: _Door) -> tuple[str, Answer]:
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
    if path not in OPEN:
        refusal = door.objection(headers)
        if refusal is not None:
            return method, refusal
    route = routes.get(path)
    if route is None:
        return method, _refusal(HTTPStatus.NOT_FOUND, f"; there is {', '.join(routes)}")
    return method, route(headers)


class _Door(NamedTuple):
    """Who may come in: who has the `token`, and who calls us by one of `names`, where there are any."""

    token: str
    names: tuple[str, ...]

    def objection(self, headers: Headers) -> Answer | None:
        """Return the refusal of a request that may not be answered."""
        if self.token and not _may(headers.get("authorization", ""), self.token):
            return _refusal(HTTPStatus.UNAUTHORIZED)
        if self.names and not _is_ours(headers.get("host", ""), self.names):
            more = ": call it by an address, localhost or this host's name, or set http.token"
            return _refusal(HTTPStatus.MISDIRECTED_REQUEST, more)
        return None


def _may(authorization: str, token: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2].decode("latin-1")
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode("latin-1"), token.encode())


def _is_ours(host: str, names: tuple[str, ...]) -> bool:
    """Whether a Host field (RFC 9110, 7.2) is an address or one of `names`; "" is HTTP/1.0, which no browser speaks."""
    match = _HOST.match(host)
    return not host or (
        match is not None and (_is_address(match[1] or match[2]) or match[2].lower() in names)
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _own_names() -> tuple[str, ...]:
    own = socket.gethostname().lower()
    return ("localhost", own, own.partition(".")[0])


def _refusal(status: HTTPStatus, more: str = "") -> Answer:
    return Answer(f"{status.phrase}{more}\n".encode(), status=status)
