"""The real daemon as a process, with everything of its own in one folder, and the real commands against it."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from guard.control import ControlError
from guard.control.client import ask

ROOT = Path(__file__).parent.parent
STARTS = 60.0  # seconds: a machine that runs five tests at once may be slow, only a failure waits for it


def environment() -> dict[str, str]:
    """Return ours without what would configure a daemon, and with the checkout unless the installed package is meant."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILWARD_")}
    clean["TZ"] = "UTC"
    if not os.environ.get("MAILWARD_TEST_INSTALLED"):
        clean["PYTHONPATH"] = str(ROOT)
    return clean


def mailward(*arguments: str, given: bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "guard.cli", *arguments],
        input=given, capture_output=True, env=environment() | variables, timeout=60, check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def stamp(at: float | None = None) -> str:
    """Return a time as RFC 3164 writes it."""
    return time.strftime("%b %e %H:%M:%S", time.gmtime(at))


def session(ip: str, port: int = 40000) -> str:
    """Return a session id as Dovecot 2.3 makes it: the time, the client's port and address."""
    packed = ipaddress.ip_address(ip).packed
    head = time.time_ns().to_bytes(8, "little")[:6] + port.to_bytes(2, "little")
    return base64.b64encode(head + packed).decode().rstrip("=")


def failure(ip: str, user: str = "alice@example.org", at: float | None = None, sid: str = "") -> str:
    """Return the line of Dovecot 2.3 with auth_verbose=yes about one wrong password."""
    return f"{stamp(at)} mx dovecot: auth: passwd-file({user},{ip},<{sid or session(ip)}>): Password mismatch"


class Daemon:
    """`mailward run` in `folder`.

    `within` is a command that runs it elsewhere, `rules` and `more` are TOML, `source` more keys of the source's table,
    `store` a URL in the place of a file in `folder`, `arguments` its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        within: Sequence[str] = (),
        backend: str = "none",
        rules: str = "",
        more: str = "",
        source: str = "",
        store: str = "",
        arguments: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.log = folder / "mail.log"
        self.socket = str(folder / "control.sock")
        self.config = folder / "mailward.toml"
        self.errors = folder / "stderr"
        self.process: subprocess.Popen[bytes] | None = None
        self._within = list(within)
        self._arguments = list(arguments)
        self._source = source
        self._store = store or f"sqlite://{folder}/state/state.db"
        self.log.touch()
        self.configure(
            f'[rules.brute_force]\n{rules}\n[firewall]\nbackend = "{backend}"\n[http]\nlisten = ""\n{more}'
        )

    def configure(self, text: str) -> None:
        """Write the configuration."""
        self.config.write_text(
            f'[[source]]\ntype = "file"\nname = "mail"\npath = "{self.log}"\n{self._source}\n{text}\n'
            f'[store]\nurl = "{self._store}"\nfile = "{self.folder}/state/state.db"\n[control]\nsocket = "{self.socket}"\n'
        )

    def started(self) -> list[str]:
        """Return the command that starts it."""
        command = [sys.executable, "-P", "-m", "guard.cli", "run", "--config", str(self.config)]
        return [*self._within, *command, *self._arguments]

    def launch(self) -> None:
        """Start it."""
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                self.started(),
                env=environment(), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it reads."""
        self.launch()
        self.until(lambda: self.ask("status")["ready"])

    def until(self, condition: Callable[[], object], patience: float | None = None) -> None:
        """Wait until `condition` holds; it may fail with ControlError while the daemon starts."""
        patience = STARTS if patience is None else patience
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(ControlError):
                if condition():
                    return
            assert self.process
            status = self.process.poll()
            assert status is None, f"it ended, status {status}: {self.said()}"
            assert time.monotonic() < deadline, f"not in {patience} s: {self.said()}"
            time.sleep(0.005)

    def ask(self, do: str, **more: object) -> Any:
        """Send one request; a failure tells how the daemon ended, where it did."""
        try:
            return ask(self.socket, {"do": do, **more}, STARTS)
        except ControlError as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.process:  # one that crashes has closed its socket before it can be waited for
                    error.add_note(f"it ended, status {self.process.wait(1.0)}: {self.said()}")
            raise

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command against it."""
        return mailward(*arguments, "--config", str(self.config))

    def write(self, *lines: str) -> None:
        """Append lines to its log, in one write."""
        with self.log.open("ab", buffering=0) as log:
            log.write(b"".join(line.encode("utf-8", "surrogateescape") + b"\n" for line in lines))

    def has_read(self, lines: int) -> None:
        """Wait until it has read that many lines in all."""
        self.until(lambda: self.ask("report")["lines"]["read"] >= lines)

    def has_saved(self) -> None:
        """Wait until what it has read by now is saved."""
        time.sleep(2.2)

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process
        self.process.send_signal(number)

    def stop(self) -> int:
        """Stop it as systemd does; return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it on the spot."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        assert self.process
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.process = None
        return status

    def said(self) -> str:
        """Return its log."""
        return self.errors.read_text()

    def events(self) -> list[dict[str, object]]:
        """Return its log, an object a line."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
