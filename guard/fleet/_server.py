"""The connection to the servers: standalone, behind Sentinel, or a Cluster; every round trip ends in time.

Nothing is tried again here: what fails is told at once, and the node comes again with `connect`.  The redirections of
a Cluster (MOVED, ASK while slots move) are followed by the library.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)

from guard.fleet import FleetError
from guard.fleet._address import Address
from guard.fleet._scripts import Script

ANSWER: Final = 2.0  # seconds a server has to accept us, and to answer
WHOLE: Final = 2.2  # seconds for a round trip as a whole, with names resolved and Sentinels asked
ASK: Final = 0.9  # seconds one of several servers has to say where the others are: the first may be dead
FAREWELL: Final = 0.8  # seconds to close a connection in peace
PREAMBLE: Final = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
MEANT: Final = {  # what an answer of the server means to the operator
    MovedError: "this is one of a Cluster: expected redis+cluster://",
    NoPermissionError: "docs/fleet.md has the rights that the user needs",
    OutOfMemoryError: "the server's memory is full: maxmemory",
    ReadOnlyError: "this is a replica: name the master, or the Sentinels with redis+sentinel://",
}

# RuntimeError, AttributeError, LookupError: the library's, where a connection is taken away under a call.
FAILURES: Final = (
    RedisError,
    RedisClusterException,
    OSError,
    TimeoutError,
    ValueError,
    RuntimeError,
    AttributeError,
    LookupError,
)

T = TypeVar("T")
Call = tuple[str | int, ...]  # a command and its arguments
ScriptCall = tuple[Script, Sequence[str], Sequence[str | bytes]]  # with KEYS and ARGV


class Server:
    """What answers at an address.  All calls raise `FleetError`, and end within 3 s.

    After an error, or after a call that was cancelled, nothing is connected.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client: Redis | RedisCluster | None = None

    async def connect(self) -> None:
        """Find the server anew.  A standalone one is only reached with the first call."""
        await self.close()
        self._client = await self._within(self._reach())

    async def call(self, calls: Sequence[Call]) -> list[Any]:
        """Return the answers to the commands, in one round trip; one a server, all at once, in a Cluster."""
        answers = await self._within(self._pipeline(calls))
        for answer in answers:
            if isinstance(answer, Exception):
                await self.close()
                raise self._told(answer) from answer
        return answers

    async def run(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Return the answers of the scripts, in one round trip; in two where a server does not know them yet."""
        made = [("EVALSHA", script.sha, len(keys), *keys, *values) for script, keys, values in calls]
        answers = await self._within(self._pipeline(made))
        unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            whole = [("EVAL", calls[n][0].text, *made[n][2:]) for n in unknown]
            for number, answer in zip(unknown, await self._within(self._pipeline(whole)), strict=True):
                answers[number] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                await self.close()
                raise self._told(answer) from answer
        return answers

    async def close(self) -> None:
        """Give the connections back."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*FAILURES):
                async with asyncio.timeout(FAREWELL):
                    await client.aclose()

    async def _leave(self, client: Redis | RedisCluster | None) -> None:
        if client is self._client:  # another call may have failed before us, and another connection may stand
            await self.close()

    async def _within(self, work: Coroutine[Any, Any, T]) -> T:
        client = self._client
        try:
            async with asyncio.timeout(WHOLE):
                return await work
        except asyncio.CancelledError:
            await self._leave(client)
            raise
        except FAILURES as error:
            await self._leave(client)
            raise self._told(error) from error

    async def _pipeline(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self._client is None:
            raise FleetError(f"store.url: {self._address}: not connected")
        pipe = self._client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*call)
        return await pipe.execute(raise_on_error=False)

    def _told(self, error: Exception) -> FleetError:
        text = PREAMBLE.sub("", self._address.hide(str(error))) or "no answer in time"
        meant = next((hint for kind, hint in MEANT.items() if isinstance(error, kind)), "")
        return FleetError(f"store.url: {self._address}: {text[:300]}{f' ({meant})' if meant else ''}")

    # ---------------------------------------------------------------------------------------- the three kinds

    async def _reach(self) -> Redis | RedisCluster:
        address = self._address
        hosts = random.sample(address.hosts, len(address.hosts))
        if address.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in hosts]
            cluster = RedisCluster(startup_nodes=nodes, **self._options(ASK))
            try:
                await cluster.initialize()
            except BaseException:
                await cluster.aclose()
                raise
            return cluster
        if address.kind == "unix":
            return Redis(unix_socket_path=address.path, db=address.db, **self._who(), **self._plain(ANSWER))
        if address.kind == "sentinel":
            hosts = [await self._master(hosts)]
        return Redis(host=hosts[0][0], port=hosts[0][1], db=address.db, **self._options(ANSWER))

    async def _master(self, hosts: list[tuple[str, int]]) -> tuple[str, int]:
        login = {"password": self._address.sentinel_password} if self._address.sentinel_password else {}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            hosts, sentinel_kwargs=self._plain(ASK) | self._tls() | {"socket_timeout": ASK} | login
        )
        try:
            host, port = await sentinel.discover_master(self._address.service)
            return str(host), int(port)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()

    def _options(self, connect: float) -> dict[str, Any]:
        return self._who() | self._plain(connect) | self._tls()

    def _who(self) -> dict[str, Any]:
        return {"username": self._address.user or None, "password": self._address.password or None}

    def _plain(self, connect: float) -> dict[str, Any]:
        return {
            "protocol": 2,
            "driver_info": None,  # one right less: no CLIENT SETINFO
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": connect,
            "socket_timeout": ANSWER,
        }

    def _tls(self) -> dict[str, Any]:
        if not self._address.tls:
            return {}
        return {
            "ssl": True,
            "ssl_ca_certs": self._address.ca or None,
            "ssl_cert_reqs": "none" if self._address.insecure else "required",
            "ssl_check_hostname": not self._address.insecure,
        }
