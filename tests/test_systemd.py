"""What the service manager hears: sd_notify(3) and the watchdog, on a real socket, from the real daemon."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from guard.app._systemd import notify, watchdog_seconds
from tests.daemon import Daemon, failure, session

GUESSER = "198.51.100.7"
BEAT = 0.1  # seconds: half of WATCHDOG_USEC
# The daemon with a fault to come: the loop hangs at SIGUSR1, or the firewall's thread at its first ban.
FAULTY = """
import signal, sys, time
from guard.cli import main
from guard.firewall.dry_run import DryRunFirewall
def hang(*_):
    time.sleep(3600)
if sys.argv[1] == "loop":
    signal.signal(signal.SIGUSR1, hang)
else:
    DryRunFirewall.apply = lambda self, actions, now: hang() if actions else []
sys.exit(main(sys.argv[sys.argv.index("run"):]))
"""


@contextmanager
def listening(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if name.startswith("@") else name)
        systemd.settimeout(20)
        yield systemd


def heard(systemd: socket.socket) -> list[str]:
    return systemd.recv(1000).decode().splitlines()


def beats(systemd: socket.socket) -> bool:
    """Tell whether the heart beats: some ten beats' time without one is silence."""
    deadline = time.monotonic() + 10 * BEAT
    while (left := deadline - time.monotonic()) > 0:
        systemd.settimeout(left)
        try:
            if "WATCHDOG=1" in heard(systemd):
                return True
        except TimeoutError:
            return False
    return False


def falls_silent(systemd: socket.socket) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not beats(systemd):
            return True
    return False


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_every_step_of_a_life_is_told(tmp_path, kind):
    name = str(tmp_path / "notify") if kind == "path" else f"@mailward-test-{os.getpid()}"
    with listening(name) as systemd:
        within = ("env", f"NOTIFY_SOCKET={name}", "WATCHDOG_USEC=200000")
        with Daemon(tmp_path, within=within) as daemon:
            assert daemon.process
            assert heard(systemd) == ["READY=1", f"MAINPID={daemon.process.pid}"]
            assert beats(systemd)
            before = time.monotonic_ns() // 1000
            daemon.signal(signal.SIGHUP)
            while (said := heard(systemd)) == ["WATCHDOG=1"]:
                pass
            assert said[0] == "RELOADING=1"
            at = int(said[1].removeprefix("MONOTONIC_USEC="))
            assert before <= at <= time.monotonic_ns() // 1000
            while (said := heard(systemd)) == ["WATCHDOG=1"]:
                pass
            assert said == ["READY=1"]
            assert beats(systemd)
            assert daemon.stop() == 0
        while (said := heard(systemd)) == ["WATCHDOG=1"]:
            pass
        assert said == ["STOPPING=1"]
        assert not beats(systemd)


@pytest.mark.parametrize("part", ["loop", "firewall"])
def test_the_heart_stops_where_a_part_hangs(tmp_path, part):
    name = str(tmp_path / "notify")
    with listening(name) as systemd:
        environment = ("env", f"NOTIFY_SOCKET={name}", f"WATCHDOG_USEC={2 * BEAT * 1e6:.0f}")
        within = (*environment, sys.executable, "-P", "-c", FAULTY, part)
        with Daemon(tmp_path, within=within) as daemon:
            assert beats(systemd)
            assert beats(systemd)
            if part == "loop":
                daemon.signal(signal.SIGUSR1)
            else:
                sid = session(GUESSER)
                daemon.write(*(failure(GUESSER, sid=sid) for _ in range(5)))
                daemon.has_read(5)
            assert falls_silent(systemd)
            if part == "firewall":
                assert daemon.ask("status")["ready"], "the loop turns on: a timer would go on beating"
            assert daemon.process
            daemon.signal(signal.SIGABRT)  # what systemd does then
            assert daemon.process.wait(20) == -signal.SIGABRT
            assert "in hang" in daemon.said(), "the log says where"


def test_nobody_listens_and_nothing_happens(monkeypatch, tmp_path):
    for name in ("", str(tmp_path / "nobody"), "@mailward-nobody", "vsock:2:1", "/" + "x" * 200):
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


@pytest.mark.parametrize(
    ("pid", "usec", "seconds"),
    [(None, "60000000", 30.0), ("ours", "60000000", 30.0), ("1", "60000000", 0.0), (None, "", 0.0)],
)
def test_the_watchdog_is_asked_for_by_the_environment(monkeypatch, pid, usec, seconds):
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    assert watchdog_seconds() == seconds
