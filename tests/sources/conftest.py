"""An `async def` test runs in an event loop of its own."""

import asyncio
import contextlib
import inspect
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    )
    return True


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def syslog_ng():
    """Return what runs syslog-ng with `ng.conf` of a folder until the end of a `with`; it has come up then."""
    if not os.environ.get("CI") and not (
        shutil.which("syslog-ng") and any(Path("/usr/lib").glob("**/syslog-ng/*/libredis.so"))
    ):
        pytest.skip("no syslog-ng with its redis() destination here")

    @contextlib.contextmanager
    def running(folder):
        own = [f"--{name}={folder}/ng.{name}" for name in ("persist-file", "pidfile", "control")]
        with (folder / "ng.out").open("wb") as out:
            process = subprocess.Popen(
                ["syslog-ng", "-F", "-f", f"{folder}/ng.conf", *own], stdout=out, stderr=out
            )
        try:
            end = time.monotonic() + 20
            while not (folder / "ng.control").exists():
                assert process.poll() is None, (folder / "ng.out").read_text()
                assert time.monotonic() < end
                time.sleep(0.01)
            yield
        finally:
            process.kill()
            process.wait(20)

    return running
