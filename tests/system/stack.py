"""Containers of a compose project that write what a test says, on an engine of one's own; and a proxy before it.

    with mail_host() as lab, Stack(lab, folder) as stack:
        postfix = stack.run("postfix", seq(1000))
        postfix.restart()
        stack.kill()                        # the engine is killed and comes back; containers run on (live-restore)

No compose is needed: it is labels to the engine, and recreating a service is a new container under the old name.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import docker

from tests.system.containers import STARTS, Engine, _image, until
from tests.system.netns import Lab

_PIECE = 64 * 1024
# As containers.py has it, and a line on standard input kills the engine alone and starts another.
_ENTRY = """
mount -t tmpfs tmpfs /run
exec 3<&0
while :; do
    "$@" 3<&- &
    engine=$!
    read -r _ <&3 || break
    kill -KILL $engine
    wait $engine
    rm -f /run/docker.pid /run/docker/containerd/containerd.pid  # containerd died with it, and is nobody's to reap
done
kill $engine
wait $engine
"""


class Stack(Engine):
    """An engine whose containers outlive it."""

    ENTRY = _ENTRY

    def __init__(self, lab: Lab, folder: Path) -> None:
        super().__init__(lab, folder, {"live-restore": True})
        self.socket = self._socket
        self.url = f"unix://{self._socket}"

    def __enter__(self) -> Self:
        super().__enter__()
        self.client = docker.DockerClient(base_url=self.url, version="auto", timeout=60)
        self.client.api.import_image_from_data(_image(), repository="mail")
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        super().__exit__(*error)

    def run(
        self,
        service: str,
        script: str,
        *,
        project: str = "mail",
        name: str = "",
        labels: Any = None,
        **more: Any,
    ) -> Any:
        """Run busybox's shell in a container of a service."""
        composed = {"com.docker.compose.project": project, "com.docker.compose.service": service}
        return self.client.containers.run(
            "mail", ["/bin/busybox", "sh", "-c", script], name=name or f"{project}-{service}-1", detach=True,
            network_mode="none", labels=composed if labels is None else labels, stop_signal="SIGKILL", **more,
        )  # fmt: skip

    def kill(self) -> None:
        """Kill the engine, and wait until its successor answers."""
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        until(lambda: not self.answers(), STARTS)
        until(self.answers, STARTS)

    def clear(self) -> None:
        """Remove all containers."""
        for container in self.client.containers.list(all=True):
            container.remove(force=True)


def seq(count: int, tag: str = "", then: str = "exec /bin/busybox sleep 600") -> str:
    """Return a script that writes `count` numbered lines as Postfix would, as fast as it can."""
    line = f"Nov 25 18:00:00 mx postfix/smtpd[%d]: {tag}=%d connect from client.example.org[198.51.100.7]"
    program = f'BEGIN {{ for (i = 0; i < {count}; i++) printf "{line}\\n", 1000 + i % 500, i }}'
    return f"/bin/busybox awk '{program}'; {then}"


class Proxy:
    """A read-only proxy before the engine: it passes on what a pattern allows, answers 403 to all else, and remembers."""

    ALLOWED = re.compile(
        rb"GET (?:/v1\.\d+)?/(?:version|events|containers/json|containers/[0-9a-f]{12,64}/(?:json|logs))(?:\?\S*)? HTTP"
    )

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.asked: set[str] = set()
        self.refused: list[str] = []

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                there, onwards = await asyncio.open_unix_connection(self._socket)
                self._open.add(onwards)
                async with asyncio.TaskGroup() as group:
                    back = group.create_task(_pass_on(there, writer))
                    while head := await _head(reader):
                        line = head.partition(b"\r\n")[0]
                        if not self.ALLOWED.match(line):
                            self.refused.append(line.decode())
                            writer.write(
                                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                            )
                            break
                        self.asked.add(
                            re.sub(r"/v1\.\d+|[0-9a-f]{12,}|\?.*", "", line.decode().split(" ")[1])
                        )
                        onwards.write(head)
                    back.cancel()
                onwards.close()
                self._open.discard(onwards)
        finally:
            self._open.discard(writer)
            writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(asyncio.IncompleteReadError):
        return await reader.readuntil(b"\r\n\r\n")
    return b""


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def proxied(socket: str) -> AsyncIterator[Proxy]:
    """Run a proxy before an engine's socket."""
    proxy = Proxy(socket)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
