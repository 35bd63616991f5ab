"""A real redis-server of a test's own: on a unix socket and a free port of loopback, in the test's folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest
import redis

PATIENCE = 60.0  # seconds
SERVER = os.environ.get("MAILWARD_TEST_REDIS", "redis-server")  # another version, or Valkey: its path


def requires_redis(program: str = "redis-server") -> str:
    """Return the program's path; skip the test, loudly, where it is missing; fail it in CI."""
    found = shutil.which(program)
    if found is None:
        reason = f"NOT RUN: {program} not found; apt-get install redis-server (redis-sentinel for Sentinel)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """Runs redis-server with these options; it may be killed and started again, with its data where `save` says so."""

    def __init__(self, folder: Path, *options: str, port: int | None = None, program: str = SERVER) -> None:
        self.program = requires_redis(program) if "/" not in program else program
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port() if port is None else port
        self.socket = self.folder / "r.sock"
        self.options = options
        self.password = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"redis+unix://{self.socket}"

    def start(self) -> Self:
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        settings += ["--dir", str(self.folder), "--save", "", "--daemonize", "no", "--protected-mode", "no"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, *settings, *self.options], stdout=log, stderr=log)
        self.wait()
        return self

    def wait(self) -> None:
        """Until it answers; an error that is an answer counts."""
        until = time.monotonic() + PATIENCE
        while True:
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.folder / "log").read_text())
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.exceptions.AuthenticationError:
                return
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
                time.sleep(0.01)

    def client(self, **options: object) -> redis.Redis:
        """Return a client of the test's own."""
        return redis.Redis(unix_socket_path=str(self.socket), password=self.password or None, **options)  # type: ignore[arg-type]

    def do(self, *command: str | int | bytes) -> Any:
        """Return the answer to a command, over a connection of its own."""
        with self.client() as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """With signal 9: what it had not written is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """In peace: it writes what `save` asks for."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self.start() if self.process is None else self

    def __exit__(self, *_: object) -> None:
        self.kill()
