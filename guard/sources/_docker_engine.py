"""The Docker engine, or a proxy before it: what of its API the source needs.

| request | for |
|---|---|
| GET /version | which version of the API to speak |
| GET /containers/json | which containers there are; also whether the engine is well |
| GET /containers/ID/json | has it a terminal, does it run, does it still exist |
| GET /containers/ID/logs | the lines |
| GET /events | containers that start, stop and go, at once instead of at the next look |

Nothing is ever written: a proxy that refuses all but these suffices.

The Docker SDK asks what has an answer.  What has no end, logs and events, is read from a socket of our own: the SDK
reads in a thread that cannot be stopped, takes each line out of its HTTP chunk in Python, which costs four times the
processor time, and does not tell stdout from stderr.  HTTP/1.0 keeps the engine from cutting its answer into chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

TIMEOUT: Final = 5.0  # seconds for an answer
PIECE: Final = 128 * 1024  # bytes of a log that are read at once
_HEAD: Final = 16 * 1024
_GONE: Final = (b"404", b"409")  # 409: it is being removed
_REFUSAL: Final = 4096  # bytes of an error's text that are looked at
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

_EVENTS: Final = '{"type": ["container"], "event": ["start", "die", "destroy"]}'


class GoneError(Exception):
    """There is no such container any more."""


class RefusedError(Exception):
    """The engine, or the proxy before it, answers and refuses."""


class Container(NamedTuple):
    """One container as the engine lists it."""

    id: str  # 64 hexadecimal digits
    name: str
    labels: Mapping[str, str]
    created: float  # seconds since the epoch
    running: bool


class State(NamedTuple):
    """How one container is."""

    terminal: bool  # its log comes without frames
    running: bool


class Engine:
    """One engine.  What it raises when the engine is away is in `AWAY`."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._base = url
        self._client: Any = None

    async def connect(self) -> None:
        """Agree on a version of the API, unless that is done: the SDK's connections renew themselves."""
        if self._client is None:
            self._client = await asyncio.to_thread(
                docker.DockerClient, base_url=self._base, version="auto", timeout=TIMEOUT
            )

    def close(self) -> None:
        """Let go of all connections; another engine may speak another version."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def containers(self, labels: Sequence[str]) -> list[Container]:
        """Return the containers that have all `labels`, running or not."""
        found = await asyncio.to_thread(
            self._api().containers, all=True, filters={"label": list(labels)} if labels else None
        )
        try:
            return [
                Container(
                    one["Id"],
                    (one.get("Names") or ["/" + one["Id"][:12]])[0].lstrip("/"),
                    one.get("Labels") or {},
                    float(one["Created"]),
                    one.get("State") == "running",
                )
                for one in found
                if one.get("State") not in ("removing", "dead")
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConnectionResetError(f"expected a list of containers: {error!r}") from None

    async def state(self, container: str) -> State:
        """Return how a container is.  Raises GoneError where there is none."""
        try:
            found = await asyncio.to_thread(self._api().inspect_container, container)
        except NotFound as error:
            raise GoneError(str(error.explanation)) from None
        try:
            return State(bool(found["Config"].get("Tty")), bool(found["State"].get("Running")))
        except (AttributeError, KeyError, TypeError) as error:
            raise ConnectionResetError(f"expected a container: {error!r}") from None

    async def events(self) -> Stream:
        """Return what happens to containers from now on, a line of JSON each.  Raises RefusedError."""
        return await self._stream("events", {"filters": _EVENTS})

    async def log(self, container: str, since: float) -> Stream:
        """Return a container's log from a time on, followed as long as it runs.

        Raises GoneError where there is no such container, RefusedError where its log cannot be read.
        """
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1", "since": f"{since:.6f}"}
        return await self._stream(f"containers/{container}/logs", query)

    async def _stream(self, what: str, query: Mapping[str, str]) -> Stream:
        path = f"/v{self._api().api_version}/{what}?{urlencode(query)}"
        stream = Stream(await self._socket())
        try:
            async with asyncio.timeout(TIMEOUT):
                await stream.ask(path, self._url.netloc or "docker")
        except BaseException:
            stream.close()
            raise
        return stream

    def _api(self) -> Any:
        if self._client is None:
            raise ConnectionRefusedError("the engine is away")
        return self._client.api

    async def _socket(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT):
            if self._url.scheme == "unix":
                return await _connected(socket.socket(socket.AF_UNIX), self._url.path)
            found = await loop.getaddrinfo(
                self._url.hostname, self._url.port or 2375, type=socket.SOCK_STREAM
            )
            for n, (family, kind, protocol, _, address) in enumerate(found, 1):
                connection = socket.socket(family, kind, protocol)
                for level, option, value in _KEEPALIVE:
                    connection.setsockopt(level, option, value)
                try:
                    return await _connected(connection, address)
                except OSError:
                    if n == len(found):
                        raise
            raise OSError(f"{self._url.hostname}: no address")


class Stream:
    """An answer without end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._begun = b""

    async def ask(self, path: str, host: str) -> None:
        """Send the request and read the answer's head."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._connection, f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            piece = await loop.sock_recv(self._connection, _HEAD)
            if not piece or len(got) > _HEAD:
                raise ConnectionResetError("the engine ended the connection before its answer")
            got += piece
        head, _, self._begun = got.partition(b"\r\n\r\n")
        words = head.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            raise ConnectionResetError(f"expected HTTP; found {head[:40]!r}")
        if words[1] != b"200":
            text = self._begun
            while len(text) < _REFUSAL and (piece := await loop.sock_recv(self._connection, _REFUSAL)):
                text += piece
            said = f"{words[1].decode()} {text[:_REFUSAL].decode(errors='replace').strip()[:300]}"
            raise GoneError(said) if words[1] in _GONE else RefusedError(said)
        if b"transfer-encoding: chunked" in head.lower():
            raise RefusedError("the proxy answers HTTP/1.0 in chunks, which only HTTP/1.1 has")

    async def read(self) -> bytes:
        """Return what has arrived, b"" at the end.  It may be cancelled."""
        begun, self._begun = self._begun, b""
        return begun or await asyncio.get_running_loop().sock_recv(self._connection, PIECE)

    def abort(self) -> None:
        """Have `read` return: nothing is expected any more."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._connection.close()


AWAY: Final = (DockerException, RequestException, OSError, TimeoutError)


def why(error: BaseException) -> str:
    """Return in a few words what stands in the way."""
    if isinstance(error, APIError):
        return str(error.explanation or error)[:300]
    cause: BaseException | None = error
    while cause is not None:  # what urllib3, requests and the SDK have wrapped
        if isinstance(cause, TimeoutError) and not cause.args:
            return f"no answer in {TIMEOUT:g} s"
        if isinstance(cause, PermissionError):
            return f"{cause.strerror}: it takes the group docker, or a proxy before the engine"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)[:300] or type(error).__name__


async def _connected(connection: socket.socket, address: Any) -> socket.socket:
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection
