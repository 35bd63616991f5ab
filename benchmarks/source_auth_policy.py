"""Dovecot's questions and reports against the real daemon: 2 000 requests a second on one core, and how long each waits.

    python benchmarks/source_auth_policy.py [--rate 2000] [--seconds 10] [--connections 8] [--lines 0]

`mailward run` is a process of its own, bound to one core, with a ban list of 10 000 nets; requests are sent from
another, at a fixed rate on kept-alive connections: a question, then a report, as Dovecot does, each from a new session,
half of them failures of addresses that never come twice.  `--lines`: log lines a second written to its log beside.
Beside it, in the same run: an asyncio server that answers the same requests with a constant.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ipaddress
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from guard import engine
from tests.daemon import Daemon, failure

PORT, ECHO = 14001, 14002
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"status": 0}'
MORE = f"""
[[source]]
type = "auth_policy"
name = "policy"
listen = "127.0.0.1:{PORT}"
[limits]
addresses = 1000000
"""


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(ANSWER)


async def echo() -> None:
    """Serve the constant until killed."""
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", ECHO)
    await server.serve_forever()


def requests() -> Iterator[bytes]:
    """Yield what Dovecot 2.4 sends."""
    for n in range(1 << 24):
        ip = str(ipaddress.ip_address(0xC6120000 + n % 0x20000))  # 198.18.0.0/15: benchmarks
        sid = base64.b64encode(
            n.to_bytes(6, "little") + b"\x10\x27" + ipaddress.ip_address(ip).packed
        ).decode()
        fields = {
            "device_id": "", "fail_type": "", "login": f"user{n % 1000}@example.org", "protocol": "imap",
            "pwhash": "0c62", "remote": ip, "session_id": sid, "tls": "TLS",
        }  # fmt: skip
        yield _request("allow", fields)
        bad = n % 2 == 0
        fields["fail_type"] = "credentials" if bad else ""
        yield _request("report", {**fields, "success": not bad, "policy_reject": False})


def _request(command: str, fields: Mapping[str, object]) -> bytes:
    body = json.dumps(fields, separators=(",", ":")).encode()
    head = (
        f"POST /?command={command} HTTP/1.1\r\nHost: 127.0.0.1:4001\r\nDate: Wed, 25 Nov 2026 18:18:33 GMT\r\n"
        "User-Agent: dovecot/auth-policy-client\r\n"
        f"Content-Length: {len(body)}\r\nConnection: Keep-Alive\r\nContent-Type: application/json\r\n\r\n"
    )
    return head.encode() + body


async def send(port: int, rate: int, seconds: float, connections: int) -> list[float]:
    """Return the seconds that each request waited, from when it was due; a late sender counts against the server."""
    waits: list[float] = []
    source = requests()
    began = time.perf_counter() + 0.2
    total = int(rate * seconds)
    turn = iter(range(total))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in turn:
            due = began + n / rate
            pause = due - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            data = next(source)
            sent = time.perf_counter()
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]))
            waits.append(time.perf_counter() - sent)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(client())
    return waits


def show(name: str, waits: list[float], took: float, cpu: float) -> float:
    """Print the figures of one server; return its p99 in ms."""
    cuts = statistics.quantiles(waits, n=1000)
    print(
        f"  {name:9} {len(waits) / took:7,.0f} requests/s   median {statistics.median(waits) * 1000:.2f} ms, p99 "
        f"{cuts[989] * 1000:.2f} ms, p99.9 {cuts[998] * 1000:.2f} ms, worst {max(waits) * 1000:.1f} ms; "
        f"{cpu / took:.0%} of its core"
    )
    return cuts[989] * 1000


def cpu_of(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(port: int, pid: int, arguments: argparse.Namespace) -> tuple[list[float], float, float]:
    """Return the waits, the seconds it took, the processor seconds used."""
    before, began = cpu_of(pid), time.perf_counter()
    waits = await send(port, arguments.rate, arguments.seconds, arguments.connections)
    return waits, time.perf_counter() - began - 0.2, cpu_of(pid) - before


def main() -> None:
    """Measure both servers, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--lines", type=int, default=0)
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        asyncio.run(echo())
        return
    compiled = not str(engine.__file__).endswith(".py")
    with tempfile.TemporaryDirectory() as folder:
        bare = subprocess.Popen(["taskset", "-c", "0", sys.executable, __file__, "--echo"])
        daemon = Daemon(Path(folder), within=("taskset", "-c", "0"), more=MORE)
        deny = ", ".join(f'"10.{n >> 8}.{n & 255}.1/32"' for n in range(10_000))
        text = daemon.config.read_text()
        daemon.config.write_text(f"{text}\n[lists]\ndeny = [{deny}]\ntrusted = []\n")
        os.sched_setaffinity(0, {1} if (os.cpu_count() or 1) > 1 else {0})
        try:
            with daemon:
                assert daemon.process
                writer = _lines(daemon, arguments.lines, arguments.seconds)
                own = asyncio.run(measure(PORT, daemon.process.pid, arguments))
                if writer is not None:
                    writer.wait()
                daemon.until(lambda: daemon.ask("report")["lines"]["read"] >= len(own[0]) // 2)
                counted = daemon.ask("report")["failures"]["total"]
                [source] = [s for s in daemon.ask("status")["sources"] if s["name"] == "policy"]
            echoed = asyncio.run(measure(ECHO, bare.pid, arguments))
        finally:
            bare.terminate()
            bare.wait()
    print(
        f"auth_policy: {arguments.rate:,} requests/s for {arguments.seconds:g} s on {arguments.connections} connections, core "
        f"{'compiled' if compiled else 'plain Python'}, {arguments.lines:,} log lines/s beside; load {os.getloadavg()[0]:.1f}"
    )
    first = show("mailward", *own)
    second = show("bare", *echoed)
    print(
        f"  p99: {first / second:.2f} times the bare server's; {counted:,} failures counted, {source['lost']} reports lost"
    )


def _lines(daemon: Daemon, rate: int, seconds: float) -> subprocess.Popen[bytes] | None:
    if not rate:
        return None
    block = "".join(failure(f"198.51.100.{n % 250}") + "\n" for n in range(rate // 10))
    code = (
        "import sys, time\nblock = sys.stdin.buffer.read()\n"
        f"with open({str(daemon.log)!r}, 'ab', buffering=0) as log:\n"
        f"    for _ in range({int(seconds * 10)}):\n        log.write(block)\n        time.sleep(0.1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(block.encode())
    process.stdin.close()
    return process


if __name__ == "__main__":
    main()
