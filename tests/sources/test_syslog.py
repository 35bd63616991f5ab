"""The syslog listener against real sockets: every message one line, whatever it holds and however it is cut."""

import asyncio
import contextlib
import itertools
import os
import random
import re
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.envelope import Envelope
from guard.sources import Chunk
from guard.sources._syslog_messages import LONGEST, Frames, lines_of
from guard.sources.syslog import SyslogSource, Tls

BSD = b"<22>Nov 23 17:31:14 mx postfix/smtpd[412]: text"
NEW = b"<22>1 2026-11-23T17:31:14Z mx postfix/smtpd 412 - - text"
HEADLESS = BSD.removeprefix(b"<22>")


def counted(*messages: bytes) -> bytes:
    return b"".join(b"%d %s" % (len(message), message) for message in messages)


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("message", "line"), [
    (BSD, HEADLESS),
    (BSD + b"\n", HEADLESS),
    (BSD + b"\0", HEADLESS),
    (BSD + b"\r\n\0", HEADLESS),
    (b"<22>Nov  3 17:31:14 mx postfix/smtpd[412]: text", b"Nov  3 17:31:14 mx postfix/smtpd[412]: text"),
    # syslog(3) and Docker's default format name no host
    (b"<22>Nov 23 17:31:14 postfix/smtpd[412]: text", b"Nov 23 17:31:14 here postfix/smtpd[412]: text"),
    (b"<22>Nov 23 17:31:14 dovecot: auth: text", b"Nov 23 17:31:14 here dovecot: auth: text"),
    (b"<30>Nov 23 17:31:14 213f1d8cdff8[3]: text", b"Nov 23 17:31:14 here 213f1d8cdff8[3]: text"),
    (b"<22>Nov 23 17:31:14 sogod [576]: text", b"Nov 23 17:31:14 here sogod [576]: text"),
    (b"<22>Nov 23 17:31:14 2001:db8::1 dovecot: text", b"Nov 23 17:31:14 2001:db8::1 dovecot: text"),
    (b"<22>Nov 23 17:31:14 mx: text", b"Nov 23 17:31:14 here mx: text"),
    (NEW, NEW),
    (b"<22>2026-11-23T17:31:14Z mx dovecot: text", b"<22>2026-11-23T17:31:14Z mx dovecot: text"),
    (b"no header", b"no header"),
    (b"", b""), (b"\n\n", b""), (b"\0", b""),
    # no text makes a second line of itself, nor another header
    (BSD + b"\n" + BSD, HEADLESS + b"#012" + BSD),
    (BSD + b"\0" + BSD, HEADLESS + b"#000" + BSD),
    (NEW + b"\n117 " + NEW, NEW + b"#012117 " + NEW),
    (BSD + b" a\r\nb", HEADLESS + b" a\r#012b"),
    (BSD + b" " + BSD, HEADLESS + b" " + BSD),
])  # fmt: skip
def test_a_message_is_one_line(message, line):
    assert lines_of([message], b"here") == (line + b"\n" if line else b"")
    assert lines_of([NEW, message, NEW], b"here") == b"\n".join([NEW, *([line] if line else []), NEW, b""])


def test_no_message_is_no_line():
    assert lines_of([], b"here") == b""
    assert lines_of([b"", b"\n"], b"here") == b""


@given(st.lists(st.binary(max_size=60).map(lambda text: BSD + text), min_size=1, max_size=6))
def test_no_bytes_make_another_number_of_lines(messages):
    lines = lines_of(messages, b"here").split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == len(messages)
    assert all(line.startswith(HEADLESS) for line in lines)


def fed(data: bytes, *cuts: int) -> tuple[bytes, Frames]:
    frames = Frames(b"here")
    ends = [0, *sorted(cuts), len(data)]
    got = b"".join(frames.feed(data[a:b]) for a, b in itertools.pairwise(ends) if a < b)
    return got, frames


STREAMS = {
    "newlines": (BSD + b"\n" + NEW + b"\n", [HEADLESS, NEW]),
    "NULs": (BSD + b"\0" + NEW + b"\0", [HEADLESS, NEW]),
    "carriage returns": (BSD + b"\r\n" + NEW + b"\r\n", [HEADLESS + b"\r", NEW + b"\r"]),
    "counted": (counted(BSD, NEW, BSD), [HEADLESS, NEW, HEADLESS]),
    "counted, with newlines within": (counted(NEW + b"\n" + BSD, NEW), [NEW + b"#012" + BSD, NEW]),
    "counted, with a trailer within": (counted(NEW + b"\n", BSD + b"\0"), [NEW, HEADLESS]),
    "counted, with a trailer behind": (b"%b\n%b\0" % (counted(NEW), counted(BSD)), [NEW, HEADLESS]),
    "by turns": (
        BSD + b"\n" + counted(NEW, NEW) + BSD + b"\0" + counted(BSD) + BSD + b"\n",
        [HEADLESS, NEW, NEW, HEADLESS, HEADLESS, HEADLESS],
    ),
    "a number is no count": (b"12 monkeys\n2026-11-23 x\n" + BSD + b"\n", [b"12 monkeys", b"2026-11-23 x", HEADLESS]),
    "nothing between": (b"\n\n" + BSD + b"\n\n\n" + NEW + b"\n", [HEADLESS, NEW]),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "lines"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_cut_into_its_messages_wherever_it_is_torn(stream, lines):
    def plain(got: bytes) -> list[bytes]:  # a carriage return at a line's end is the engine's to drop
        return [line.removesuffix(b"\r") for line in got.split(b"\n")]

    want = [*[line.removesuffix(b"\r") for line in lines], b""]
    assert plain(fed(stream)[0]) == want
    for cut in range(1, len(stream)):
        got, frames = fed(stream, cut)
        assert plain(got) == want
        assert not frames.unfinished
        assert frames.too_long == 0
    assert plain(fed(stream, *range(len(stream)))[0]) == want


@pytest.mark.parametrize("step", [1000, 65536, 1 << 20])
@pytest.mark.parametrize("excess", [0, 1, 200_000])
@pytest.mark.parametrize("trailer", [b"", b"\n", b"\0"], ids=["counted", "newline", "NUL"])
def test_a_message_that_is_too_long_is_dropped_and_the_stream_stays_in_step(trailer, excess, step):
    long = BSD + b"x" * (LONGEST - len(BSD) + excess)
    stream = b"".join(m + trailer for m in (BSD, long, NEW)) if trailer else counted(BSD, long, NEW)
    got, frames = fed(stream, *range(0, len(stream), step))
    whole = [] if excess else [long.removeprefix(b"<22>")]
    assert got == b"\n".join([HEADLESS, *whole, NEW, b""])
    assert frames.too_long == bool(excess)


@pytest.mark.parametrize(
    "rest",
    [b"47", b"47 ", counted(BSD)[:-1], counted(BSD + b"x" * 70000)[:-1], BSD + b"x" * 70000, BSD[:-1], b"<"],
)
def test_what_a_stream_ends_within_is_no_line(rest):
    got, frames = fed(BSD + b"\n" + rest)
    assert got == HEADLESS + b"\n"
    assert frames.unfinished


def test_a_stream_holds_no_more_than_one_message():
    frames = Frames(b"here")
    for _ in range(64):
        frames.feed(b"x" * 65536)
        assert len(frames._rest) <= LONGEST
    assert frames.too_long == 1


# -- sockets -----------------------------------------------------------------------------------------------------------


class Listening:
    """A source at work, and what it has delivered."""

    def __init__(self, *listen: str, **more: Any) -> None:
        self.lines: list[bytes] = []
        self.notes: list[str] = []
        self.positions: dict[str, str] = {}
        self.room = asyncio.Event()
        self.room.set()
        self.source = SyslogSource("sys", listen, note=self.notes.append, **more)

    async def put(self, chunk: Chunk) -> None:
        assert chunk.data.endswith(b"\n"), "whole lines alone"
        assert chunk.stream.startswith("sys/")
        assert (chunk.position is not None) == chunk.stream.startswith("sys/udp:")
        await self.room.wait()
        if chunk.position is not None:
            self.positions[chunk.stream] = chunk.position.dump()
        self.lines += chunk.data.splitlines()

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.source.run(self.put))
        await self.until(
            lambda: self.source.health().up or self.source.health().detail.count("\n") or self.notes
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def until(self, condition: Callable[[], object], patience: float = 60.0) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, (len(self.lines), self.notes, self.source.health())
            await asyncio.sleep(0.002)

    async def has(self, count: int) -> None:
        await self.until(lambda: len(self.lines) >= count)


def free(kind: int = socket.SOCK_STREAM, host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def dial(url: str) -> socket.socket:
    kind, _, where = url.partition("://")
    made = socket.socket(
        socket.AF_UNIX if "unix" in kind else socket.AF_INET6 if "[" in where else socket.AF_INET,
        socket.SOCK_DGRAM if kind in {"udp", "unix"} else socket.SOCK_STREAM,
    )
    host, _, port = where.rpartition(":")
    try:
        made.connect(where if "unix" in kind else (host.strip("[]"), int(port)))
    except OSError:
        made.close()
        raise
    return made


def send(out: socket.socket, lines: list[bytes]) -> None:
    for line in lines:
        out.sendall(b"<22>" + line + b"\n")


@pytest.fixture(params=["udp", "udp6", "tcp", "tcp6", "unix", "unix-stream"])
def url(request, tmp_path):
    kind = request.param
    if kind.startswith("unix"):
        return f"{kind}://{tmp_path}/log"
    host, shown = ("::1", "[::1]") if kind.endswith("6") else ("127.0.0.1",) * 2
    return f"{kind[:3]}://{shown}:{free(socket.SOCK_DGRAM if kind[0] == 'u' else socket.SOCK_STREAM, host)}"


async def test_what_is_sent_arrives_in_order(url):
    sent = [b"%s %d" % (HEADLESS, n) for n in range(200)]
    async with Listening(url) as listening:
        with dial(url) as out:
            await asyncio.to_thread(send, out, sent)
            await listening.until(lambda: len(listening.lines) == len(sent))
    assert listening.lines == sent
    assert listening.source.health()[1:4] == (False, 0.0, 0)
    assert not listening.notes


async def test_what_has_been_sent_is_taken_before_it_stops(url):
    sent = [b"%s %d" % (HEADLESS, n) for n in range(200)]
    async with Listening(url) as listening:
        with dial(url) as out:
            await asyncio.to_thread(send, out, sent)
    assert listening.lines == sent


async def test_it_can_be_made_again_at_once_and_senders_see_it_go(url, monkeypatch):
    monkeypatch.setattr("guard.sources._syslog_streams.FAREWELL", 0.1)
    async with Listening(url):
        out = dial(url)
    with out:
        if out.type == socket.SOCK_STREAM:
            assert out.recv(1) == b"", "a sender that looks knows that nobody reads on"
        async with Listening(url) as again:
            with dial(url) as other:
                other.sendall(BSD + b"\n")
                await again.until(lambda: again.lines == [HEADLESS])


async def test_several_addresses(tmp_path):
    urls = [
        f"udp://127.0.0.1:{free(socket.SOCK_DGRAM)}",
        f"tcp://127.0.0.1:{free()}",
        f"unix://{tmp_path}/log",
    ]
    async with Listening(*urls) as listening:
        for url in urls:
            with dial(url) as out:
                out.sendall(BSD + url.encode() + b"\n")
        await listening.until(lambda: len(listening.lines) == 3)
        assert sorted(listening.lines) == sorted(HEADLESS + url.encode() for url in urls)
        assert all(url in listening.source.health().detail for url in urls)


async def test_a_busy_engine_makes_a_stream_wait_and_loses_nothing(tmp_path):
    url = f"unix-stream://{tmp_path}/log"
    async with Listening(url, f"tcp://127.0.0.1:{free()}") as listening:
        listening.room.clear()
        with dial(url) as out:
            out.settimeout(0.2)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 64 << 20:
                    sent += await asyncio.to_thread(out.send, (BSD + b"\n") * 1000)
            assert sent < 4 << 20, "it holds little"
            assert listening.source.health().lag > 0.1
            listening.room.set()
            whole = sent // len(BSD + b"\n")
            await listening.until(lambda: len(listening.lines) == whole)
            assert listening.source.health().lag == 0.0
        await listening.until(lambda: "(0 connected)" in listening.source.health().detail)
    assert set(listening.lines) <= {HEADLESS, HEADLESS[: (sent % len(BSD + b"\n")) - 4]}
    assert listening.source.health().lost == 0


@pytest.mark.parametrize("kind", ["unix", "unix-stream"])
async def test_what_waits_for_a_busy_engine_is_taken_at_a_stop_or_counted(tmp_path, monkeypatch, kind):
    for place in ("datagrams", "streams"):
        monkeypatch.setattr(f"guard.sources._syslog_{place}.FAREWELL", 0.3)
    for in_time in (True, False):
        async with Listening(f"{kind}://{tmp_path}/log") as listening:
            listening.room.clear()
            with dial(f"{kind}://{tmp_path}/log") as out:
                out.sendall(BSD + b"\n")
                await listening.until(lambda: listening.source.health().lag > 0)
            if in_time:
                asyncio.get_running_loop().call_later(0.05, listening.room.set)
        assert listening.lines == [HEADLESS] * in_time
        assert listening.source.health().lost == (not in_time)


async def test_one_busy_sender_does_not_keep_the_others_waiting(tmp_path):
    url = f"tcp://127.0.0.1:{free()}"
    async with Listening(url) as listening:
        with dial(url) as busy, dial(url) as other:
            stop = asyncio.Event()

            async def flood() -> None:
                busy.setblocking(False)
                while not stop.is_set():
                    with contextlib.suppress(BlockingIOError):
                        busy.send((BSD + b" busy\n") * 5000)
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                group.create_task(flood())
                await listening.until(lambda: len(listening.lines) > 20_000)
                before = len(listening.lines)
                other.sendall(BSD + b"\n")
                await listening.until(lambda: HEADLESS in listening.lines[before:])
                stop.set()
            assert len(listening.lines) > before


async def test_more_connections_than_allowed_wait(tmp_path):
    url = f"tcp://127.0.0.1:{free()}"
    async with Listening(url, connections=2) as listening:
        with dial(url) as one, dial(url) as two, dial(url) as three:
            for out in (one, two, three):
                out.sendall(BSD + b"\n")
            await listening.until(lambda: listening.notes)
            assert len(listening.lines) == 2
            one.close()
            await listening.until(lambda: len(listening.lines) == 3)
    assert len(listening.notes) == 1
    assert "2 are connected" in listening.notes[0]


async def test_a_connection_that_breaks_within_a_message_is_counted():
    url = f"tcp://127.0.0.1:{free()}"
    async with Listening(url) as listening:
        with dial(url) as out:
            out.sendall(counted(BSD) + b"9999 " + BSD)
            await listening.until(lambda: listening.lines)
            out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        await listening.until(lambda: listening.source.health().lost == 1)
        assert listening.source.health().up
        assert any("broke" in note for note in listening.notes)


async def test_messages_that_are_too_long_are_counted(tmp_path):
    url, other = f"unix://{tmp_path}/log", f"tcp://127.0.0.1:{free()}"
    async with Listening(url, other) as listening:
        for where in (url, other):
            with dial(where) as out:
                for text in (b"", b"x" * LONGEST, b""):
                    await asyncio.to_thread(out.sendall, BSD + text + b"\n")
            await listening.until(lambda: len(listening.lines) % 2 == 0 and listening.lines)
        await listening.until(lambda: listening.lines == [HEADLESS] * 4)
        assert listening.source.health().lost == 2
    assert sum("over 65536 bytes" in note for note in listening.notes) == 2


@pytest.mark.parametrize(("kind", "options"), [
    ("unix", ["-u", "{path}"]),
    ("unix-stream", ["-u", "{path}"]),
    ("tcp", ["-n", "127.0.0.1", "-P", "{port}", "-T"]),
    ("tcp", ["-n", "127.0.0.1", "-P", "{port}", "-T", "--octet-count", "--rfc3164"]),
    ("udp", ["-n", "127.0.0.1", "-P", "{port}", "-d"]),
], ids=str)  # fmt: skip
async def test_logger_of_util_linux_is_understood(tmp_path, kind, options):
    port = free(socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    url = f"{kind}://{tmp_path}/log" if "unix" in kind else f"{kind}://127.0.0.1:{port}"
    async with Listening(url) as listening:
        where = [option.format(path=f"{tmp_path}/log", port=port) for option in options]
        command = ["logger", *where, "-p", "mail.info", "-t", "postfix/smtpd", "--id=412", "some text"]
        await asyncio.to_thread(subprocess.run, command, check=True)
        await listening.has(1)
    envelope = Envelope()
    assert envelope.open(listening.lines[0].decode())
    assert envelope.origin.host == os.uname().nodename
    assert (envelope.origin.tag, envelope.origin.pid) == ("postfix/smtpd", "412")
    assert envelope.record(1.0).text == "some text"


# -- who may send ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["udp", "tcp"])
async def test_who_is_not_in_from_nets_is_not_heard(kind):
    port = free(socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM, "0.0.0.0")
    async with Listening(f"{kind}://0.0.0.0:{port}", from_nets=["127.0.0.2/32", "192.0.2.0/24"]) as listening:
        for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as out:
                out.bind((source, 0))
                out.connect(("127.0.0.1", port))
                with contextlib.suppress(ConnectionError):
                    for _ in range(20):
                        out.sendall(BSD + source.encode() + b"\n")
        await listening.until(lambda: len(listening.lines) == 20)
        await asyncio.sleep(0.05)
    assert set(listening.lines) == {HEADLESS + b"127.0.0.2"}
    assert len(listening.notes) == 1, "a flood of strangers is no flood of notes"
    assert "from_nets" in listening.notes[0]


async def test_without_from_nets_only_this_hosts_own_are_heard():
    """The configuration refuses that; a defect there must not open it to everybody."""
    source = SyslogSource("sys", ["tcp://0.0.0.0:5514", "tcp://127.0.0.1:5514"])
    for listener in source._listeners:
        assert listener._may("127.0.0.1")
        assert not listener._may("192.0.2.7")
    assert (
        not SyslogSource("sys", ["tcp://127.0.0.1:5514"], from_nets=["::/0"])._listeners[0]._may("192.0.2.7")
    )


async def test_a_unix_socket_has_its_mode_and_goes_with_the_source(tmp_path):
    for kind, mode in (("unix", 0o600), ("unix-stream", 0o666)):
        path = tmp_path / kind
        async with Listening(f"{kind}://{path}", mode=mode):
            assert stat.S_IMODE(path.stat().st_mode) == mode
        assert not path.exists()


async def test_a_socket_left_behind_is_taken_over_and_nothing_else_is(tmp_path):
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    async with Listening(f"unix://{path}") as first:
        assert first.source.health().up
        async with Listening(f"unix://{path}") as second:
            assert not second.source.health().up
            assert "another program listens there" in second.source.health().detail
        with dial(f"unix://{path}") as out:
            out.sendall(BSD)
        await first.until(lambda: first.lines)
    path.write_text("precious")
    async with Listening(f"unix://{path}") as third:
        assert not third.source.health().up
        assert len(third.notes) == 1
        path.unlink()
        await third.until(lambda: third.source.health().up)
        assert "is listened at now" in third.notes[-1]


# -- TLS ---------------------------------------------------------------------------------------------------------------


def certify(folder: Path, name: str, ca: str | None = None) -> None:
    extra = ["-CA", f"{folder}/{ca}.pem", "-CAkey", f"{folder}/{ca}.key"] if ca else []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem", *extra],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    certify(folder, "server")
    certify(folder, "client")
    certify(folder, "stranger")
    return folder


def secured(url: str, trusted: Path, own: str | None = None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(trusted))
    if own:
        context.load_cert_chain(f"{own}.pem", f"{own}.key")
    return context.wrap_socket(dial(url), server_hostname="127.0.0.1")


async def test_tls(certificates):
    url = f"tls://127.0.0.1:{free()}"
    tls = Tls(f"{certificates}/server.pem", f"{certificates}/server.key")
    async with Listening(url, tls=tls) as listening:
        with await asyncio.to_thread(secured, url, certificates / "server.pem") as out:
            await asyncio.to_thread(out.sendall, counted(*[BSD] * 1000))
            await listening.until(lambda: listening.lines == [HEADLESS] * 1000)
        with dial(url) as plain:
            plain.sendall(BSD + b"\n")
            await listening.until(lambda: listening.notes)
        assert len(listening.lines) == 1000
        assert listening.source.health().up


async def test_a_sender_over_tls_sees_the_source_go(certificates, monkeypatch):
    monkeypatch.setattr("guard.sources._syslog_streams.SILENCE", 0.1)
    url = f"tls://127.0.0.1:{free()}"
    async with Listening(
        url, tls=Tls(f"{certificates}/server.pem", f"{certificates}/server.key")
    ) as listening:
        out = await asyncio.to_thread(secured, url, certificates / "server.pem")
        await asyncio.to_thread(out.sendall, BSD + b"\n")
        await listening.has(1)
    out.settimeout(30)
    with out, contextlib.suppress(ssl.SSLError, ConnectionError):  # it need not be told in TLS's own words
        assert await asyncio.to_thread(out.recv, 1) == b""


async def test_tls_with_a_certificate_of_the_sender(certificates):
    url = f"tls://127.0.0.1:{free()}"
    tls = Tls(f"{certificates}/server.pem", f"{certificates}/server.key", f"{certificates}/client.pem")
    async with Listening(url, tls=tls) as listening:

        def send(own: str | None) -> None:
            with (
                contextlib.suppress(OSError),
                secured(url, certificates / "server.pem", own) as out,
            ):
                out.sendall(BSD + (own or "").rpartition("/")[2].encode() + b"\n")

        for own in (None, f"{certificates}/stranger", f"{certificates}/client"):
            await asyncio.to_thread(send, own)
        await listening.until(lambda: listening.lines)
        assert listening.lines == [HEADLESS + b"client"]


async def test_a_renewed_certificate_is_taken_and_a_missing_one_told(certificates, tmp_path):
    own, key = tmp_path / "own.pem", tmp_path / "own.key"
    url = f"tls://127.0.0.1:{free()}"
    async with Listening(url, tls=Tls(str(own), str(key))) as listening:
        assert not listening.source.health().up
        for count, name in enumerate(("server", "stranger"), 1):
            for file, ending in ((own, "pem"), (key, "key")):
                fresh = file.with_suffix(".new")
                fresh.write_bytes((certificates / f"{name}.{ending}").read_bytes())
                fresh.rename(file)
            await listening.until(lambda: listening.source.health().up)
            with await asyncio.to_thread(secured, url, certificates / f"{name}.pem") as out:
                await asyncio.to_thread(out.sendall, BSD + b"\n")
            await listening.has(count)


# -- loss --------------------------------------------------------------------------------------------------------------


async def test_what_the_kernel_has_no_room_for_is_counted(monkeypatch):
    monkeypatch.setattr("guard.sources._syslog_socket.RECEIVE_BYTES", 16384)
    url = f"udp://127.0.0.1:{free(socket.SOCK_DGRAM)}"
    async with Listening(url) as listening:
        with dial(url) as out:
            for _ in range(5000):
                out.send(BSD)
        await listening.until(lambda: len(listening.lines) + listening.source.health().lost == 5000)
        assert 0 < len(listening.lines) < 5000
        await listening.until(lambda: re.search(r"no room for \d+ datagrams", "".join(listening.notes)))
    assert listening.source.health().lost == 5000 - len(listening.lines), "it is known after the end, too"


async def test_what_came_while_nobody_listened_is_counted():
    url = f"udp://127.0.0.1:{free(socket.SOCK_DGRAM)}"
    host, _, port = url.removeprefix("udp://").rpartition(":")
    async with Listening(url) as listening:
        with dial(url) as out:
            out.send(BSD)
        await listening.has(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for _ in range(50):
            out.sendto(BSD, (host, int(port)))
    async with Listening(url, positions=listening.positions) as again:
        assert 50 <= again.source.health().lost <= 60  # the host's other closed ports count as well
        assert "while nobody listened" in again.notes[0]
    place = listening.positions[f"sys/{url}"].partition(" ")[0]
    for other in (
        "",
        "x",
        f"{place}x 0",
        f"{place} x",
    ):  # another boot, another namespace, rubbish: nothing is known
        async with Listening(url, positions={f"sys/{url}": other}) as again:
            assert again.source.health().lost == 0


async def test_twenty_thousand_lines_the_connection_cut_and_the_source_made_again(tmp_path):
    """What a sender that looks before it sends, as rsyslog does, gets through a restart: all of it, once."""
    url = f"tcp://127.0.0.1:{free()}"
    sent = [b"%s %d" % (HEADLESS, n) for n in range(20_000)]
    lines: list[bytes] = []
    rng = random.Random(3)
    restarts = 5
    position = 0

    def talk() -> None:
        nonlocal position
        while position < len(sent):
            try:
                out = dial(url)
            except OSError:
                time.sleep(0.01)
                continue
            with out:
                cut = position + rng.randrange(2000, 5000)
                while position < min(cut, len(sent)):
                    try:
                        if out.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b"":
                            break
                    except BlockingIOError:
                        pass
                    out.sendall(b"<22>" + sent[position] + b"\n")
                    position += 1

    sending = asyncio.create_task(asyncio.to_thread(talk))
    for n in range(restarts + 1):
        async with Listening(url) as listening:
            last = n == restarts
            goal = len(sent) - len(lines) if last else min(2500, len(sent) - len(lines))
            await listening.has(goal)
        lines += listening.lines
    await sending
    assert sorted(lines) == sorted(sent)
