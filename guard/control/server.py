"""Answers on the control socket.  What is answered, and how, is the caller's: see `Handler`."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from guard.control import PATIENCE, REQUEST_BYTES, ControlError

CONNECTIONS: Final = 64
IDLE: Final = 60.0  # seconds between two requests of one connection
GROUP: Final = "mailward"

Handler = Callable[[dict[str, Any]], Awaitable[object]]


class ControlServer:
    """Listens on a unix socket and hands every request to `handler`; a ControlError is an answer too."""

    def __init__(self, path: str, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._serving = asyncio.Semaphore(CONNECTIONS)
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen.  Raises `ControlError` where another daemon answers there, or the place is not ours to use."""
        path = Path(self._path)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._clear(path)
            mask = os.umask(0o117)  # born with mode 0660: nobody else gets in between
            try:
                self._server = await asyncio.start_unix_server(self._serve, self._path, limit=REQUEST_BYTES)
            finally:
                os.umask(mask)
            with contextlib.suppress(KeyError, PermissionError):  # no such group, or not root
                os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
        except OSError as error:
            text = error.strerror or str(error)
            raise ControlError(
                3, f"control.socket: {self._path}: {text}; set [control] socket to another path"
            ) from None

    def _clear(self, path: Path) -> None:
        """Take away a socket that nobody answers on."""
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ControlError(
                3, f"control.socket: {path}: something that is no socket stands there; remove it"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                return
        raise ControlError(
            3,
            f"{path}: a mailward is already running there; stop it first, or give this one its own [control] socket",
        )

    async def close(self) -> None:
        """Stop listening and take the socket away."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.close()
            await self._server.wait_closed()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - pathlib in a coroutine is taken for blocking
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._serving.locked():
                return
            async with self._serving:
                while line := await asyncio.wait_for(reader.readline(), IDLE):
                    writer.write(await self._answer(line))
                    await asyncio.wait_for(writer.drain(), PATIENCE)
        except ValueError:  # the line is longer than the limit
            with contextlib.suppress(OSError):
                writer.write(_refusal(2, f"a request is one line of at most {REQUEST_BYTES} bytes"))
        except (OSError, TimeoutError):
            pass  # a client that went away
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
        except ValueError:
            return _refusal(2, "a request is one line of JSON")
        if not isinstance(request, dict) or not isinstance(request.get("do"), str):
            return _refusal(2, 'a request is an object with the key "do"')
        try:
            async with asyncio.timeout(PATIENCE):
                result = await self._handler(request)
        except ControlError as error:
            return _refusal(error.status, str(error))
        except TimeoutError:
            return _refusal(3, "the daemon did not get it done in time")
        return (
            json.dumps({"ok": True, "result": result}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        )


def _refusal(status: int, text: str) -> bytes:
    return json.dumps({"ok": False, "status": status, "error": text}).encode() + b"\n"
