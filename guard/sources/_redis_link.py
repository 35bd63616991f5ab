"""One connection to a Redis or Valkey server, and what is known of how it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from guard.sources import Health, Note

PATIENCE: Final = 10.0  # seconds that a server may take to let us in, or to answer

Command = Sequence[str | bytes | int]


class LinkError(Exception):
    """The server cannot be reached or does not answer; the text holds no password."""


class RefusedError(LinkError):
    """The server has answered that it will not do it."""


class Link:
    """A connection to the server that `url` names: redis://, rediss:// with `?ca=`, unix://.  Made anew by `open`."""

    def __init__(self, url: str) -> None:
        values: dict[str, Any] = dict(parse_url(url))
        self._kind: type[AbstractConnection] = values.pop("connection_class", Connection)
        self._secret = values.get("password") or ""
        if self._kind is not UnixDomainSocketConnection:
            values["socket_keepalive"] = True
        if issubclass(self._kind, SSLConnection):
            values["ssl_check_hostname"] = True
        if "ca" in values:
            values["ssl_ca_certs"] = values.pop("ca")
        self._values = values
        self._connection: AbstractConnection | None = None
        parts = urlsplit(url)
        self.place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    async def open(self) -> None:
        """Connect and log in.  Raises `LinkError`."""
        await self.close()
        self._connection = self._kind(
            **self._values,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            async with asyncio.timeout(PATIENCE):
                await self._connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise self._told(error) from None

    async def call(self, *commands: Command, within: float = 0.0) -> list[Any]:
        """Send commands together, return their answers.  Raises `LinkError`, `RefusedError` for the first refusal.

        `within`: seconds that the server was asked to wait before it answers.
        """
        found: list[Any] = []
        refused: ResponseError | None = None
        try:
            async with asyncio.timeout(PATIENCE + within):
                await self.send(*commands)
                for _ in commands:
                    try:
                        found.append(await self.read())
                    except ResponseError as error:
                        refused = refused or error
        except TimeoutError as error:
            raise self._told(error) from None
        if refused is not None:
            raise RefusedError(self._clean(str(refused)))
        return found

    async def together(self, *commands: Command) -> list[Any]:
        """Have commands done with nothing between them; return their answers, an Exception for a refused one."""
        answers = await self.call(["MULTI"], *commands, ["EXEC"])
        return list(answers[-1])

    async def send(self, *commands: Command) -> None:
        """Send commands, wait for no answer.  Raises `LinkError`."""
        if self._connection is None:
            raise LinkError(f"{self.place}: no connection")
        try:
            await self._connection.send_packed_command(self._connection.pack_commands(commands))
        except (RedisError, OSError) as error:
            raise self._told(error) from None

    async def read(self) -> Any:
        """Return the next answer.  Raises `LinkError`, and redis' `ResponseError` for a refusal."""
        if self._connection is None:
            raise LinkError(f"{self.place}: no connection")
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError:
            raise
        except (RedisError, OSError) as error:
            raise self._told(error) from None

    async def close(self) -> None:
        """Give the connection back, without a word to the server."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)

    def _told(self, error: Exception) -> LinkError:
        text = self._clean(str(error)) or type(error).__name__
        if isinstance(error, TimeoutError):
            text = f"no answer within {PATIENCE:g} s"
        return LinkError(f"{self.place}: {text}")

    def _clean(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text


class Standing:
    """How a source does; `note` tells what changes."""

    def __init__(self, name: str, what: str, note: Note) -> None:
        self.lost = 0
        self._name = name
        self._what = what
        self._note = note
        self._up = False
        self._trouble = "not connected yet"
        self._behind = 0.0  # monotonic time since which something waits; 0.0: nothing does
        self._told = False

    def failed(self, text: str) -> None:
        """Take note that something is in the way; it is told once."""
        if not self._told:
            self._note(text)
        self._up, self._told, self._trouble = False, True, text

    def well(self) -> None:
        """Take note that the server answers; told only after trouble."""
        if self._told:
            self._note(f"{self._what}: read again")
        self._up, self._told, self._trouble = True, False, ""

    def tell(self, text: str) -> None:
        """Tell what is neither in the way nor lost."""
        self._note(text)

    def lose(self, text: str, count: int = 1) -> None:
        """Count what could not be delivered, and tell."""
        self.lost += count
        self._note(text)

    def waits(self) -> None:
        """Take note that something is written and not yet delivered."""
        self._behind = self._behind or time.monotonic()

    def caught_up(self) -> None:
        """Take note that everything known has been delivered."""
        self._behind = 0.0

    def health(self) -> Health:
        """Return it as every source does."""
        lag = time.monotonic() - self._behind if self._behind else 0.0
        return Health(self._name, self._up, lag, self.lost, self._trouble or self._what)
