"""The source auth_policy: what Dovecot really sends is answered and delivered; what it never sends is refused; nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import lzma
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from guard.sources import Chunk
from guard.sources import auth_policy as module
from guard.sources._policy_requests import BODY_BYTES, CONNECTIONS, HEAD_BYTES
from guard.sources.auth_policy import AuthPolicySource

RECORDED = sorted((Path(__file__).parent.parent.parent / "fixtures/auth_policy").glob("*.jsonl.xz"))
BANNED, KNOWN, NEW = "198.51.100.7", "198.51.100.8", "198.51.100.9"
STANDING = {BANNED: -1, KNOWN: 3}
REFUSE, PASS = {"status": -1}, {"status": 0}


class Running:
    """A source that runs, what it has delivered and noted, and clients of it."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.path = str(folder / "policy.sock")
        self.notes: list[str] = []
        self.chunks: asyncio.Queue[Chunk] = asyncio.Queue(more.pop("room", 0))
        standing = more.pop("standing", lambda ip: STANDING.get(ip, 0))
        self.source = AuthPolicySource(
            "policy", more.pop("listen", f"unix://{self.path}"), standing, note=self.notes.append, **more
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Run it for a while."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.source.run(self.chunks.put))
            async with asyncio.timeout(20):
                await until(lambda: self.source.health().up)
                yield self
            task.cancel()

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect."""
        return await asyncio.open_unix_connection(self.path)

    async def ask(self, *requests: bytes) -> list[tuple[int, Any]]:
        """Send requests at once, on one connection; return (status, JSON) of the answers until it has as many."""
        reader, writer = await self.client()
        writer.write(b"".join(requests))
        found = []
        for _ in requests:
            answer = await answered(reader)
            if answer is None:
                break
            found.append(answer)
        writer.close()
        return found

    async def lines(self, count: int) -> list[tuple[str, Any]]:
        """Return (time, JSON) of the next reports."""
        found: list[tuple[str, Any]] = []
        while len(found) < count:
            chunk = await self.chunks.get()
            assert chunk.reports
            assert chunk.position is None
            assert chunk.data.endswith(b"\n")
            for line in chunk.data.decode("utf-8", "surrogateescape").splitlines():
                at, _, text = line.partition(" ")
                found.append((at, json.loads(text)))
        return found


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    while not condition():  # noqa: ASYNC110 - what it asks about tells nobody
        await asyncio.sleep(0.002)


async def answered(reader: asyncio.StreamReader) -> tuple[int, Any] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


def request(command: str, body: bytes | dict[str, Any], *fields: str, version: str = "1.1") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST /?command={command} HTTP/{version}",
        "Host: x",
        f"Content-Length: {len(data)}",
        *fields,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + data


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
async def test_every_request_that_a_real_dovecot_sent_is_answered_and_every_report_delivered(path, tmp_path):
    sent = [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
    want = [json.loads(row["body"]) for row in sent if "command=report" in row["head"]]
    assert len(want) > 40
    async with Running(tmp_path, key="sesame").running() as running:
        for connection in {row["connection"] for row in sent}:
            own = [row for row in sent if row["connection"] == connection]
            answers = await running.ask(*(row["head"].encode() + row["body"].encode() for row in own))
            assert answers == [(200, PASS)] * len(own)
        got = await running.lines(len(want))
        assert sorted(map(str, (fields for _, fields in got))) == sorted(map(str, want))
        assert running.source.health().lag < 20.0


async def test_the_banned_are_refused_others_wait_if_that_is_wanted_and_trouble_locks_nobody_out(tmp_path):
    def standing(ip: str) -> int:
        if ip == "203.0.113.1":
            raise RuntimeError("a defect of ours")
        return STANDING.get(ip, 0)

    asked = [
        request("allow", {"remote": ip})
        for ip in (BANNED, f"::ffff:{BANNED}", KNOWN, NEW, "203.0.113.1", "", "x")
    ]
    asked += [request("allow", body) for body in (b"junk", b"[]", b'{"remote": 7}', b"{}")]
    asked += [request("report", {"remote": BANNED}), request("unknown", {"remote": BANNED})]
    async with Running(tmp_path, standing=standing, delay=4).running() as running:
        answers = await running.ask(*asked)
        assert answers == [(200, REFUSE), (200, REFUSE), (200, {"status": 4}), *[(200, PASS)] * 10]
        assert len(running.notes) <= 3, "it is told once while it lasts"
        assert len(await running.lines(1)) == 1
    async with Running(tmp_path).running() as running:
        assert await running.ask(request("allow", {"remote": KNOWN})) == [(200, PASS)], (
            "delay is off by default"
        )


@pytest.mark.parametrize(
    ("key", "field", "status"),
    [
        ("sesame", "X-API-Key:  sesame", 200),
        ("X-API-Key: sesame", "x-api-key:sesame", 200),
        ("Authorization: Basic abc=", "Authorization:  Basic abc=", 200),
        ("sesame", "X-API-Key: Sesame", 401),
        ("sesame", "Authorization: sesame", 401),
        ("sesame", "X-Other: sesame", 401),
    ],
)
async def test_the_key_is_what_dovecots_setting_says(key, field, status, tmp_path):
    async with Running(tmp_path, key=key).running() as running:
        report = request("report", {"remote": NEW}, field)
        assert [found for found, _ in await running.ask(report)] == [status]
        assert running.chunks.empty() == (status != 200) or len(await running.lines(1)) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 405),
        (b"hello\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}", 411),
        (b"POST / HTTP/1.1\r\nContent-Length : 2\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES + 1), 413),
        (b"POST /" + b"x" * HEAD_BYTES, 431),
    ],
)
async def test_what_dovecot_never_sends_is_refused_and_ends_the_connection(sent, status, tmp_path):
    async with Running(tmp_path).running() as running:
        reader, writer = await running.client()
        writer.write(sent)
        answer = await answered(reader)
        assert answer is not None
        assert answer[0] == status
        assert await reader.read() == b""
        writer.close()
        assert running.chunks.empty()


async def test_a_request_may_come_in_any_pieces_and_an_old_client_closes(tmp_path):
    whole = request("report", {"remote": NEW}) * 3 + request("report", {"remote": NEW}, version="1.0")
    async with Running(tmp_path).running() as running:
        reader, writer = await running.client()
        for n in range(0, len(whole), 7):
            writer.write(whole[n : n + 7])
            await asyncio.sleep(0)
        assert [await answered(reader) for _ in range(4)] == [(200, PASS)] * 4
        assert await reader.read() == b""
        writer.close()
        assert len(await running.lines(4)) == 4


async def test_one_report_is_one_line_whatever_it_holds_and_its_time_is_ours(tmp_path):
    body = b'{"login":\r\n"a\\nb\\u2028",\n"remote": "198.51.100.9"}'
    async with Running(tmp_path).running() as running:
        await running.ask(request("report", body), request("report", b"\xff\n\n"))
        chunk = await running.chunks.get()
        first, *rest = chunk.data.split(b"\n")
        if len(rest) == 1:
            rest += (await running.chunks.get()).data.split(b"\n")
        assert json.loads(first.partition(b" ")[2]) == {"login": "a\nb\u2028", "remote": "198.51.100.9"}
        written = chunk.written
        assert written is not None
        assert abs(datetime.fromisoformat(first.partition(b" ")[0].decode()).timestamp() - written) < 0.01


async def test_a_guard_that_is_slow_keeps_no_dovecot_waiting_and_what_it_cannot_hold_is_counted(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "REPORTS", 100)
    async with Running(tmp_path, room=1).running() as running:
        for _ in range(4):
            answers = await running.ask(*[request("report", {"remote": NEW})] * 100)
            assert answers == [(200, PASS)] * 100
        health = running.source.health()
        assert health.lost > 0
        assert health.lag > 0
        assert len([note for note in running.notes if "lost" in note]) == 1
        assert len(await running.lines(400 - health.lost)) == 400 - health.lost
        await running.ask(request("report", {"remote": NEW}))
        assert len(await running.lines(1)) == 1
        assert running.source.health().lost == health.lost


async def test_slow_clients_and_too_many_of_them_are_turned_away(tmp_path, monkeypatch):
    monkeypatch.setattr("guard.sources._policy_requests.PATIENCE", 0.05)
    monkeypatch.setattr(module, "_SWEEP", 0.02)
    async with Running(tmp_path).running() as running:
        idle = [await running.client() for _ in range(CONNECTIONS)]
        reader, writer = await running.client()
        assert await reader.read() == b""
        writer.close()
        idle[0][1].write(b"POST /")
        assert await idle[0][0].read() == b""
        for _, end in idle:
            end.close()
        await until(lambda: running.source.health().detail.split()[-2] == "0")
        assert await running.ask(request("allow", {"remote": BANNED})) == [(200, REFUSE)]


async def test_an_address_that_is_taken_is_told_once_and_listened_on_as_soon_as_it_is_free(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = Running(tmp_path, listen=f"127.0.0.1:{port}")
        task = asyncio.create_task(running.source.run(running.chunks.put))
        await until(lambda: running.notes)
        assert not running.source.health().up
        assert str(port) in running.source.health().detail
    async with asyncio.timeout(20):
        await until(lambda: running.source.health().up)
    assert len(running.notes) == 1
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_socket_left_behind_is_taken_and_a_file_is_not(tmp_path):
    path = tmp_path / "policy.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    async with Running(tmp_path).running() as running:
        assert path.stat().st_mode & 0o777 == 0o660
        assert await running.ask(request("allow", {"remote": BANNED})) == [(200, REFUSE)]
    path.unlink(missing_ok=True)
    path.write_text("precious")
    running = Running(tmp_path)
    task = asyncio.create_task(running.source.run(running.chunks.put))
    await until(lambda: running.notes)
    assert "no socket" in running.notes[0]
    assert path.read_text() == "precious"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
