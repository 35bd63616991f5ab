"""The source `docker` against a real engine: containers that restart, are recreated and removed, an engine that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from guard.sources import Chunk
from guard.sources.docker import DockerSource
from tests.daemon import Daemon
from tests.system.containers import requires_engine
from tests.system.netns import mail_host
from tests.system.stack import Stack, proxied, seq

pytestmark = [
    pytest.mark.system,
    pytest.mark.docker,
    # The SDK leaves the socket of a connection that is refused to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def collected():
    """Have what the SDK leaves of refused connections collected while the mark above holds, not after the last test."""
    yield
    gc.collect()


LINES = int(os.environ.get("MAILWARD_TEST_DOCKER_LINES", "20000"))
PATIENCE = 60.0 + LINES / 5000


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    requires_engine()
    with mail_host() as lab, Stack(lab, tmp_path_factory.mktemp("engine")) as stack:
        yield stack


@pytest.fixture
def stack(engine):
    yield engine
    engine.clear()


def numbered(data: bytes) -> Counter[bytes]:
    return Counter(re.findall(rb"\]: (\w*=\d+) ", data))


DONE = "while :; do echo 'Nov 25 18:00:00 mx postfix/smtpd[1]: z=0 .'; /bin/busybox usleep 200000; done"


def finished(*writers: Any) -> bool:
    """Have the containers written all that they have to since they were started?"""
    for writer in writers:
        writer.reload()
        stamp, _, line = writer.logs(tail=1, timestamps=True).partition(b" ")
        if stamp.decode() <= writer.attrs["State"]["StartedAt"] or b" z=0 " not in line:
            return False
    return True


class Reader:
    """What the daemon does with chunks, as far as a source can tell."""

    def __init__(self) -> None:
        self.text: dict[str, bytes] = {}
        self.positions: dict[str, str] = {}
        self.counts: Counter[bytes] = Counter()  # of `tag=number`
        self.tags: Counter[bytes] = Counter()
        self.notes: list[str] = []

    async def put(self, chunk: Chunk) -> None:
        assert not chunk.data or chunk.data.endswith(b"\n")
        self.counts.update(numbered(chunk.data))
        self.tags.update(re.findall(rb"\]: ([a-z]+)\d*=\d+ ", chunk.data))
        if len(self.text.get(chunk.stream, b"")) < 1_000_000:
            self.text[chunk.stream] = self.text.get(chunk.stream, b"") + chunk.data
        if chunk.position is None:
            self.positions.pop(chunk.stream, None)
        else:
            self.positions[chunk.stream] = chunk.position.dump()

    def lines(self) -> list[bytes]:
        return b"".join(self.text.values()).splitlines()

    def seen(self, *tags: str) -> int:
        """Return how many lines of some writers, of all without, have arrived."""
        return sum(n for tag, n in self.tags.items() if not tags or tag.decode() in tags)


class Running:
    """A source that runs until the `async with` ends; made again, it goes on where the reader's positions say."""

    def __init__(self, reader: Reader, url: str, **more: Any) -> None:
        self.source = DockerSource("docker1", url, dict(reader.positions), note=reader.notes.append, **more)
        self.reader = reader

    async def __aenter__(self):
        self._task = asyncio.get_running_loop().create_task(self.source.run(self.reader.put))
        return self

    async def __aexit__(self, *_):
        began = time.monotonic()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        assert time.monotonic() - began < 10.0, "it stops at once"

    async def until(self, condition: Callable[[], object], patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            assert not self._task.done(), self._task.exception()
            assert time.monotonic() < deadline, (
                self.source.health(),
                self.reader.notes,
                self.reader.positions,
            )
            await asyncio.sleep(0.02)


async def test_every_line_once_through_restarts_recreations_a_killed_engine_and_our_own(stack):
    """Seven writers: a container that is started three times, each in the midst of it; recreated; the engine killed;
    the source made again twice, and a container started, another recreated while there is none.

    What was written is what the engine has: killed, it forgets what it had not put into the log yet.
    """
    reader, each = Reader(), LINES // 7
    go = asyncio.to_thread
    began = time.monotonic()
    writes = "read -r n _ </proc/uptime; n=${n%.*}${n#*.}; " + seq(each, "a'$n'", DONE)
    async with Running(reader, stack.url) as running:
        await running.until(lambda: running.source._away is None)
        first = await go(stack.run, "postfix", writes)
        for n in (1, 2):
            await running.until(lambda n=n: reader.seen("a") >= each * (n - 0.5))
            await go(first.restart)
        await running.until(lambda: reader.seen("a") >= each)
    async with Running(reader, stack.url) as running:
        await running.until(lambda: finished(first))
        written = numbered(await go(first.logs))
        await running.until(lambda: reader.seen("a") >= sum(n for tag, n in written.items() if tag != b"z=0"))
        await go(first.remove, force=True)
        second = await go(stack.run, "postfix", seq(each, "b", DONE))
        await running.until(lambda: reader.seen("b") >= each // 2)
        await go(stack.kill)
        await running.until(lambda: finished(second))
        await go(second.kill)
        await go(second.rename, "old")  # as compose does it
        third = await go(stack.run, "postfix", seq(each, "c", DONE))
        await running.until(lambda: reader.seen("c") >= each // 3)
    await go(second.start)
    fourth = await go(stack.run, "dovecot", seq(each, "d", DONE))
    await asyncio.sleep(1.0)
    async with Running(reader, stack.url) as running:
        await running.until(lambda: finished(second, third, fourth))
        for writer in (second, third, fourth):
            written += numbered(await go(writer.logs))
        del written[b"z=0"]
        await running.until(lambda: reader.seen("a", "b", "c", "d") >= sum(written.values()))
        await running.until(lambda: running.source.health().lag == 0.0)
        health = running.source.health()
    del reader.counts[b"z=0"]
    print(f"{reader.seen('a', 'b', 'c', 'd')} lines in {time.monotonic() - began:.1f} s")
    assert sum(written.values()) >= 4 * each
    assert (reader.counts - written, written - reader.counts) == ({}, {})
    assert (health.up, health.lost, len(reader.notes)) == (True, 0, 1), reader.notes
    assert {s.split("/")[1] for s in reader.positions} == {"postfix", "dovecot"}
    assert len(reader.positions) == 3, "the first container's is forgotten"


async def test_proxy_that_lets_nothing_else_through_and_its_restart(stack):
    reader = Reader()
    async with proxied(stack.socket) as proxy, Running(reader, proxy.url, project="mail") as running:
        await running.until(lambda: running.source._away is None)
        writer = await asyncio.to_thread(stack.run, "postfix", seq(1000, "p"))
        await running.until(lambda: reader.seen("p") == 1000)
        assert running.source.health()[1:] == (True, 0.0, 0, "mail-postfix-1")
        await proxy.stop()
        await running.until(lambda: not running.source.health().up)
        await running.until(lambda: running.source.health().lag > 0.0)
        await asyncio.to_thread(writer.remove, force=True)
        await asyncio.to_thread(stack.run, "postfix", seq(1000, "q"))
        await proxy.start()
        await running.until(lambda: reader.seen("q") == 1000)
        await running.until(lambda: running.source.health().up)
    assert set(reader.counts.values()) == {1}
    assert proxy.refused == []
    assert proxy.asked == {
        "/version",
        "/events",
        "/containers/json",
        "/containers//json",
        "/containers//logs",
    }


async def test_proxy_without_events_costs_a_wait_and_no_line(stack, monkeypatch):
    monkeypatch.setattr("guard.sources.docker.LOOK", 0.2)
    reader = Reader()
    async with proxied(stack.socket) as proxy:
        proxy.ALLOWED = re.compile(rb"GET (?!\S*/events)")
        async with Running(reader, proxy.url) as running:
            await running.until(lambda: running.source._away is None)
            await asyncio.to_thread(stack.run, "postfix", seq(100, "p"))
            await running.until(lambda: reader.seen("p") == 100)
            assert running.source.health().up
    assert all("/events" in request for request in proxy.refused)


async def test_from_now_start_and_resume(stack):
    await asyncio.to_thread(
        stack.run, "postfix", seq(10, "old", "while read -r _; do :; done; " + seq(5, "new")), stdin_open=True
    )
    begun = Reader()
    async with Running(begun, stack.url, start="start") as running:
        await running.until(lambda: begun.seen("old") == 10)
    fresh, again = Reader(), Reader()
    again.positions = dict(begun.positions)
    async with Running(fresh, stack.url) as one, Running(again, stack.url, start="now") as two:
        await one.until(lambda: one.source.health().up and two.source.health().up)
        await asyncio.to_thread(stack.run, "dovecot", seq(7, "young"))
        await one.until(lambda: fresh.seen("young") == again.seen("young") == 7)
    assert fresh.seen("old") == again.seen("old") == 0
    async with Running(fresh, stack.url) as running:
        await running.until(lambda: running.source.health().detail.count(",") == 1)
    assert fresh.seen("old", "young") == 7


async def test_replicas_are_two_streams_and_strangers_are_none(stack):
    run = stack.run
    await asyncio.to_thread(run, "postfix", seq(5, "one"))
    await asyncio.to_thread(run, "postfix", seq(5, "two"), name="mail-postfix-2")
    await asyncio.to_thread(run, "nginx", seq(5, "web"))
    oneoff = {
        "com.docker.compose.project": "mail",
        "com.docker.compose.service": "postfix",
        "com.docker.compose.oneoff": "True",
    }
    await asyncio.to_thread(run, "x", seq(5, "work"), labels=oneoff)
    await asyncio.to_thread(run, "y", seq(5, "alone"), labels={})
    reader = Reader()
    async with Running(reader, stack.url, start="start") as running:
        await running.until(lambda: reader.seen("one", "two") == 10)
        assert running.source.health().detail == "mail-postfix-1, mail-postfix-2"
    assert reader.seen() == 10
    assert len(reader.positions) == 2


async def test_containers_by_their_labels(stack):
    await asyncio.to_thread(stack.run, "x", seq(5, "mine"), name="mine", labels={"org.example.logs": "mail"})
    await asyncio.to_thread(stack.run, "x", seq(5, "other"), name="other", labels={"org.example.logs": "web"})
    reader = Reader()
    async with Running(reader, stack.url, start="start", labels=["org.example.logs=mail"]) as running:
        await running.until(lambda: reader.seen("mine") == 5)
    assert [stream.rpartition("/")[0] for stream in reader.positions] == ["docker1/mine"]


async def test_container_that_was_renamed_goes_on_under_its_new_name(stack):
    reader, labels = Reader(), {"org.example.logs": "mail"}
    writer = await asyncio.to_thread(stack.run, "x", seq(5, "a"), name="before", labels=labels)
    more = {"labels": ["org.example.logs=mail"], "start": "start"}
    async with Running(reader, stack.url, **more) as running:
        await running.until(lambda: reader.seen("a") == 5)
    await asyncio.to_thread(writer.rename, "after")
    async with Running(reader, stack.url, **more) as running:
        await running.until(lambda: [s.split("/")[1] for s in reader.positions] == ["after"])
        await running.until(lambda: running.source.health().up)
    assert (reader.seen("a"), reader.notes) == (5, [])


async def test_two_projects_are_told_and_none_is_read(stack):
    for project in ("mail", "test"):
        await asyncio.to_thread(stack.run, "postfix", seq(5, project), project=project)
    reader = Reader()
    async with Running(reader, stack.url, start="start") as running:
        await running.until(lambda: reader.notes)
        assert "mail, test; set `project`" in running.source.health().detail
        assert not running.source.health().up
        await asyncio.to_thread(stack.client.containers.get("test-postfix-1").remove, force=True)
        await running.until(lambda: reader.seen("mail") == 5)
        await running.until(lambda: running.source.health().up)
    assert len(reader.notes) == 1
    async with Running(Reader(), stack.url, start="start", project="mail") as running:
        await running.until(lambda: running.source.health().up)


async def test_container_removed_while_nobody_reads_is_counted(stack):
    reader = Reader()
    writer = await asyncio.to_thread(stack.run, "postfix", seq(5, "a"))
    async with Running(reader, stack.url, start="start") as running:
        await running.until(lambda: reader.seen("a") == 5)
    await asyncio.to_thread(writer.remove, force=True)
    await asyncio.to_thread(stack.run, "postfix", seq(5, "b"))
    async with Running(reader, stack.url) as running:
        await running.until(lambda: reader.seen("b") == 5)
        await running.until(lambda: running.source.health().lost == 1)
    assert len(reader.positions) == 1
    assert "removed while nobody read it" in reader.notes[0]
    assert not any("T" not in note for note in reader.notes)


async def test_driver_that_cannot_be_read_is_told_once_with_the_remedy(stack):
    reader = Reader()
    await asyncio.to_thread(stack.run, "postfix", seq(5, "a"), log_config={"Type": "none", "Config": {}})
    await asyncio.to_thread(stack.run, "dovecot", seq(5, "b"), log_config={"Type": "local", "Config": {}})
    async with Running(reader, stack.url, start="start") as running:
        await running.until(lambda: reader.seen("b") == 5)
        await running.until(lambda: reader.notes)
        await asyncio.sleep(1.0)
        assert not running.source.health().up
        assert "json-file, local or journald" in running.source.health().detail
    assert len(reader.notes) == 1


def test_daemon_counts_what_two_containers_tell_once_and_goes_on_after_a_kill(stack, tmp_path):
    postfix = (
        "mx postfix/submission/smtpd[4]: warning: unknown[198.51.100.7]: SASL PLAIN authentication failed: x"
    )
    dovecot = "auth: Info: passwd-file(alice@example.org,198.51.100.7): Password mismatch"
    ends = []
    for service, line in (("postfix", postfix), ("dovecot", dovecot)):
        writer = stack.run(
            service, f"while read -r n; do echo 'Nov 25 18:00:00 {line}'; done", stdin_open=True
        )
        ends.append(writer.attach_socket(params={"stdin": 1, "stream": 1})._sock)

    def guess(times: int) -> None:
        for end in ends:
            end.sendall(b"n\n" * times)

    def failures() -> int:
        total: int = daemon.ask("report")["failures"]["total"]
        return total

    source = f'[[source]]\ntype = "docker"\nurl = "{stack.url}"\n'
    with contextlib.ExitStack() as closing:
        for end in ends:
            closing.enter_context(end)
        daemon = closing.enter_context(Daemon(tmp_path, more=source))
        daemon.until(lambda: all(one["up"] for one in daemon.ask("status")["sources"]))
        guess(3)
        daemon.until(lambda: failures() == 3)
        daemon.has_read(6)
        daemon.has_saved()
        daemon.kill()
        guess(2)
        daemon.start()
        daemon.has_read(4)
        daemon.until(lambda: daemon.ask("bans")["bans"])
        assert failures() == 5
        assert daemon.ask("bans")["bans"][0]["net"] == "198.51.100.7/32"


async def test_long_lines_both_streams_and_text_of_any_kind(stack):
    """The engine cuts at 16 KiB; what the container writes to both streams, with and without a terminal."""
    long = "/bin/busybox printf 'Nov 25 18:00:00 mx postfix/smtpd[1]: %060000d end\\n' 7"
    odd = '/bin/busybox printf \'no time \\000\\377{"log": 1}\\n\\n{"log":"x"}\\nlast\' >&2'
    reader = Reader()
    await asyncio.to_thread(stack.run, "postfix", f"{long}; {odd}; {long}")
    await asyncio.to_thread(stack.run, "dovecot", seq(50, "t"), tty=True)
    async with Running(reader, stack.url, start="start") as running:
        await running.until(lambda: reader.seen("t") == 50 and len(reader.lines()) == 56)
    (stream,) = (s for s in reader.text if "postfix" in s)
    lines = reader.text[stream].splitlines()
    whole = [line for line in lines if line.endswith(b"7 end")]
    assert [len(line) for line in whole] == [30 + len(" mx postfix/smtpd[1]: ") + 60000 + 4] * 2
    assert all(line.startswith(b"20") for line in whole)
    bare = [re.sub(rb"20\d\d-[0-9T:.-]+Z", b"*", line) for line in lines if line not in whole]
    assert bare == [
        rb'{"log": "no time \u0000\ufffd{\"log\": 1}\n", "time": "*"}',
        rb'{"log": "\n", "time": "*"}',
        rb'{"log": "{\"log\":\"x\"}\n", "time": "*"}',
        rb'{"log": "last\n", "time": "*"}',
    ]
