"""The Docker engine, or a proxy before it: what of its API the source needs.

| request | for |
|---|---|
| GET /version | which version of the API to speak |
| GET /containers/json | which containers there are; also whether the engine is well |
| GET /containers/ID/json | has it a terminal, does it still exist |
| GET /containers/ID/logs | the lines |
| GET /events | containers that start, stop and go, at once instead of at the next look |

Nothing is ever written: a proxy that refuses all but these suffices.

The Docker SDK asks all but the logs.  Those are read from a socket of our own: for each line the SDK makes two reads
of a chunk in Python, which costs four times the processor time of everything else on the way, and it does not tell stdout
from stderr.  HTTP/1.0 keeps the engine from cutting its answer into chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

TIMEOUT: Final = 5.0  # seconds for an answer
PIECE: Final = 128 * 1024  # bytes of a log that are read at once
_HEAD: Final = 16 * 1024
_REFUSAL: Final = 4096  # bytes of an error's text that are looked at
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

_EVENTS: Final = {"type": "container", "event": ["start", "die", "destroy"]}

Event = Mapping[str, Any]


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


class Engine:
    """One engine.  What it raises when the engine is away is in `AWAY`."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._base = url
        self._client: Any = None

    async def connect(self) -> None:
        """Speak to the engine for the first time."""
        self.close()
        self._client = await asyncio.to_thread(
            docker.DockerClient, base_url=self._base, version="auto", timeout=TIMEOUT
        )

    def close(self) -> None:
        """Let go of the connections that wait for the next question."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def containers(self, labels: Sequence[str]) -> list[Container]:
        """Return the containers that have all `labels`, running or not."""
        found = await asyncio.to_thread(
            self._client.api.containers, all=True, filters={"label": list(labels)} if labels else None
        )
        return [
            Container(
                one["Id"],
                (one.get("Names") or ["/" + one["Id"][:12]])[0].lstrip("/"),
                one.get("Labels") or {},
                float(one["Created"]),
                one.get("State") == "running",
            )
            for one in found
        ]

    async def has_terminal(self, container: str) -> bool:
        """Return whether a container's log comes without frames.  Raises GoneError where there is none."""
        try:
            found = await asyncio.to_thread(self._client.api.inspect_container, container)
        except NotFound as error:
            raise GoneError(str(error.explanation)) from None
        return bool(found["Config"].get("Tty"))

    def listen(self, tell: Callable[[Event | None], None]) -> Callable[[], None]:
        """Have `tell` called, in the loop, with each event of a container; with None when there are no more.

        Returns what ends it.  In a thread of its own: the request has no end, and the SDK knows no other way.
        """
        loop, api = asyncio.get_running_loop(), self._client.api
        streams: list[Any] = []
        over = threading.Event()

        def post(event: Event | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, event)

        def close() -> None:
            over.set()
            for stream in streams:
                with contextlib.suppress(*AWAY, AttributeError, ValueError):  # it is closed already
                    stream.close()

        def listen() -> None:
            with contextlib.suppress(
                *AWAY, AttributeError, ValueError
            ):  # closed, refused, the engine has ended
                streams.append(api.events(filters=_EVENTS, decode=True))
                if over.is_set():
                    close()
                post({})  # what happened before is found by looking
                for event in streams[0]:
                    post(event)
            post(None)

        threading.Thread(target=listen, name="docker events", daemon=True).start()
        return close

    async def log(self, container: str, since: float) -> Log:
        """Return a container's log from a time on, followed as long as it runs.

        Raises GoneError where there is no such container, RefusedError where its log cannot be read.
        """
        query = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": 1, "since": f"{since:.6f}"}
        path = f"/v{self._client.api.api_version}/containers/{container}/logs?{urlencode(query)}"
        log = Log(await self._socket())
        try:
            async with asyncio.timeout(TIMEOUT):
                await log.ask(path, self._url.netloc or "docker")
        except BaseException:
            log.close()
            raise
        return log

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


class Log:
    """The answer to one request for a log."""

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
            raise GoneError(said) if words[1] == b"404" else RefusedError(said)
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
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)[:300] or type(error).__name__


async def _connected(connection: socket.socket, address: Any) -> socket.socket:
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection
