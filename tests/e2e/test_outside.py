"""What the stack shows to the world: ten ports.  And what it keeps to itself: its secrets, and who the guard is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import HERE4, HERE6, HOST, NET4, NET6, PUBLIC, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

GUARD = {4001, 9780}
PUBLISHERS = {"nginx", "postfix", "dovecot"}


def containers(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return what the engine knows of each running service."""
    ids = stack.compose("ps", "-q").split()
    told = json.loads(stack.engine("inspect", *ids))
    return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in told}


def listening(pid: int) -> set[int]:
    """Return the ports that TCP sockets in a process' namespace listen on (proc(5): state 0A)."""
    rows = [
        row.split()
        for family in ("tcp", "tcp6")
        for row in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]
    ]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


async def scan(
    client: dict[socket.AddressFamily, str], targets: list[tuple[str, int]]
) -> set[tuple[str, int]]:
    """Return which of the targets take a connection."""
    gate = asyncio.Semaphore(200)

    async def one(target: tuple[str, int]) -> bool:
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        async with gate:
            with socket.socket(family) as end:
                end.setblocking(False)
                end.bind((client[family], 0))
                with contextlib.suppress(OSError):
                    async with asyncio.timeout(3):
                        await asyncio.get_running_loop().sock_connect(end, target)
                    return True
        return False

    opened = await asyncio.gather(*map(one, targets))
    return {target for target, is_open in zip(targets, opened, strict=True) if is_open}


def test_only_the_ports_of_mail_and_web_answer_from_outside(stack: Stack):
    """On every address: this host's, the bridge's, which the guard listens on, and each container's own."""
    known = containers(stack)
    own = {name: listening(one["State"]["Pid"]) for name, one in known.items() if name != "guard"}
    assert listening(known["guard"]["State"]["Pid"]) >= GUARD  # the host's own namespace
    assert {6379, 3306, 9090, 11334, 12345, 20000} <= set().union(*own.values())
    ports = set().union(*own.values()) | GUARD
    host = [HERE4, HERE6, f"{NET4}.1", f"{NET6}::1"]
    targets = [(address, port) for address in host for port in ports]
    expected = {(address, port) for address in host for port in PUBLIC}
    for name, one in known.items():
        for network in one["NetworkSettings"]["Networks"].values():
            for address in filter(None, (network["IPAddress"], network["GlobalIPv6Address"])):
                targets += [(address, port) for port in own[name]]
                if name in PUBLISHERS:
                    expected |= {(address, port) for port in own[name] & set(PUBLIC)}

    with stack.internet.entered():
        client = {socket.AF_INET: "198.51.100.92", socket.AF_INET6: "2001:db8:e2e:8::7"}
        found = asyncio.run(scan(client, targets))

    assert found == expected
    published = {name for name, one in known.items() if one["HostConfig"]["PortBindings"]}
    assert published == PUBLISHERS


def test_the_guard_may_change_the_firewall_and_nothing_else(stack: Stack):
    pid = containers(stack)["guard"]["State"]["Pid"]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert {
        name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")
    } == dict.fromkeys(("CapEff", "CapPrm", "CapBnd", "CapAmb"), 0x1000)
    assert status["Uid"].split() == ["991"] * 4
    assert status["NoNewPrivs"] == "1"


def held(stack: Stack) -> dict[str, tuple[str, str]]:
    """Return every secret's file with its mode and its text."""
    look = "import os, pathlib, json; print(json.dumps({str(f): [oct(f.stat().st_mode & 0o777), f.read_text()] for f in pathlib.Path('/secrets').rglob('*') if f.is_file()}))"
    text = stack.compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "python3", "setup", "-c", look)
    return {file: (mode, secret) for file, (mode, secret) in json.loads(text).items()}


def test_secrets_are_made_once_lie_in_files_of_their_owner_and_show_nowhere(stack: Stack):
    before = held(stack)
    assert len(before) > 10
    assert {mode for mode, _ in before.values()} == {"0o600"}
    stack.setup("init")
    stack.setup("provision")
    assert held(stack) == before

    known = containers(stack)
    seen = json.dumps(list(known.values())) + stack.compose("config") + stack.compose("logs", "--no-color")
    images = sorted({one["Config"]["Image"] for one in known.values()})
    seen += stack.engine("inspect", *images) + "".join(
        stack.engine("history", "--no-trunc", i) for i in images
    )
    for commands in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            seen += commands.read_text(errors="replace")
    assert HOST in seen
    assert [file for file, (_, text) in before.items() if text in seen] == []


def test_every_service_is_looked_after(stack: Stack):
    """A health check, a limit, a restart and logs that are turned over, for whatever goes on running."""
    services = json.loads(stack.compose("config", "--format", "json"))["services"]
    for name, one in services.items():
        if name in {"lab", "browser"}:  # the test's own
            continue
        assert one["mem_limit"], name
        assert one["logging"]["options"] == {"max-size": "64m", "max-file": "4"}, name
        if name not in {"setup", "provision"}:
            assert one["restart"] == "unless-stopped", name
    assert {name for name, one in containers(stack).items() if "Health" not in one["State"]} <= {
        "lab",
        "freshclam",
    }
