"""At full speed, with five restarts of Redis and five of our source: every record once, or its loss counted.

MAILWARD_TEST_LINES=1000000 for as many.
"""

import asyncio
import os
import random
from itertools import pairwise
from typing import Any

import pytest

from tests.sources.redis_server import FORGETS, LIVES, Pusher, Running, Server, number, requires_redis

LINES = int(os.environ.get("MAILWARD_TEST_LINES", "20000"))
PATIENCE = 30 + LINES / 2000
pytestmark = [requires_redis, pytest.mark.timeout(PATIENCE + 60), pytest.mark.servers]


async def stormed(server: Server, running: Running, pusher: Pusher, between: Any = lambda: None) -> None:
    """Push everything, with five restarts of the server and five of the source on the way, by turns."""
    chance = random.Random(4)
    events = sorted(chance.randrange(LINES // 20, LINES) for _ in range(10))
    pusher.limit = 0
    pusher.start()
    for turn, at in enumerate(events):
        pusher.limit = at
        while pusher.pushed < at and pusher.is_alive():
            assert not running.task.done()
            running.save()
            between()
            await asyncio.sleep(0.002)
        if turn % 2:
            await running.again()
        else:
            pusher.limit = LINES  # it is at work when the kill comes
            await asyncio.sleep(0.003)
            server.kill()
            pusher.limit = at
            await asyncio.to_thread(server.start)
    pusher.limit = LINES
    while pusher.is_alive():
        running.save()
        between()
        await asyncio.sleep(0.002)
    assert pusher.broken >= 1


@pytest.mark.parametrize("pop", [False, True])
async def test_list_over_restarts_every_record_once(tmp_path, pop):
    with Server(tmp_path, *LIVES) as server:

        def last() -> Any:
            newest = server.admin.lindex("LOG", 0)
            return number(newest.rstrip(b"\n")) if newest else -1

        def trim() -> (
            Any
        ):  # as mailcow does, but of what is read: at this speed its 10 000 are less than a tenth of a second
            tail = None if pop else server.admin.lindex("LOG", -1)
            if tail:
                more = len(running.reader.lines) - 3000 - number(tail.rstrip(b"\n"))
                if more > 0:
                    server.admin.ltrim("LOG", 0, -(more + 1))

        pusher = Pusher(server, LINES, lambda pipe, some: pipe.lpush("LOG", *some), last)
        async with Running(server.url, mode="list", keys=["LOG"], pop=pop, start="start") as running:
            await running.up()
            await stormed(server, running, pusher, trim)
            await running.until(lambda: len(running.reader.lines) >= LINES, PATIENCE)
            assert running.reader.numbers() == list(range(LINES))
            assert running.lost + running.source.health().lost == 0, running.notes
            running.save()
            if pop:
                await running.until(lambda: server.admin.llen("LOG") < 2000)


async def test_a_list_that_is_trimmed_at_each_push_is_read_exactly(tmp_path):
    with Server(tmp_path, *FORGETS) as server:

        def push(pipe: Any, some: Any) -> Any:
            for one in some:
                pipe.lpush("LOG", one).ltrim("LOG", 0, 7999)

        pusher = Pusher(server, LINES, push, lambda: -1, batch=50)
        async with Running(server.url, mode="list", keys=["LOG"], start="start") as running:
            await running.up()
            pusher.start()
            while pusher.is_alive():
                pusher.limit = min(LINES, len(running.reader.lines) + 7000)
                await asyncio.sleep(0.002)
            await running.until(lambda: len(running.reader.lines) >= LINES, PATIENCE)
            assert running.reader.numbers() == list(range(LINES))
            assert running.source.health().lost == 0, running.notes


async def test_stream_over_restarts_every_record_once(tmp_path):
    with Server(tmp_path, *LIVES) as server:

        def last() -> Any:
            newest = server.admin.xrevrange("LOG", count=1)
            return number(newest[0][1][b"line"].rstrip(b"\n")) if newest else -1

        def push(pipe: Any, some: Any) -> Any:
            for one in some:
                pipe.xadd("LOG", {"line": one})

        pusher = Pusher(server, LINES, push, last)
        async with Running(server.url, mode="stream", stream="LOG", start="start") as running:
            await running.up()
            await stormed(server, running, pusher)
            await running.until(lambda: len(running.reader.lines) >= LINES, PATIENCE)
            assert running.reader.numbers() == list(range(LINES))
            assert running.lost + running.source.health().lost == 0, running.notes
            running.save()
            # Not its `lag`: Redis does not know that after some restarts, and says so by null.
            await running.until(
                lambda: (
                    (group := server.admin.xinfo_groups("LOG")[0])["pending"] == 0
                    and group["last-delivered-id"] == server.admin.xinfo_stream("LOG")["last-generated-id"]
                ),
                PATIENCE,  # all are acknowledged at once: the test saves only here
            )


async def test_channel_over_restarts_nothing_twice_and_each_gap_counted(tmp_path):
    with Server(tmp_path, *FORGETS) as server:
        pusher = Pusher(
            server,
            LINES,
            lambda pipe, some: [pipe.publish("LOG", one) for one in some],
            lambda: pusher.pushed + pusher.batch - 1,
        )
        async with Running(server.url, mode="channel", channel="LOG", heads=True) as running:
            await running.up()
            await stormed(server, running, pusher)
            await running.up()
            server.admin.publish("LOG", b"number 999999999")
            await running.until(lambda: running.reader.lines[-1:] == [b"number 999999999"])
            numbers = running.reader.numbers()
            gaps = sum(1 for a, b in pairwise([-1, *numbers[:-1]]) if b != a + 1)
            assert numbers == sorted(set(numbers))
            assert len(numbers) > LINES // 10
            lost = running.lost + running.source.health().lost
            assert 1 <= lost <= 5  # two restarts before we are back are one gap
            assert gaps <= 2 * lost


@pytest.mark.parametrize("mode", ["list", "stream"])
async def test_redis_that_forgets_doubles_nothing_and_the_loss_is_counted(tmp_path, mode):
    with Server(tmp_path, *FORGETS) as server:

        def push(pipe: Any, some: Any) -> Any:
            if mode == "list":
                pipe.lpush("LOG", *some)
            else:
                for one in some:
                    pipe.xadd("LOG", {"line": one})

        pusher = Pusher(server, LINES, push, lambda: pusher.pushed + pusher.batch - 1)  # nothing twice
        options = {"keys": ["LOG"]} if mode == "list" else {"stream": "LOG"}
        async with Running(server.url, mode=mode, start="start", **options) as running:
            await running.up()
            await stormed(server, running, pusher)
            await running.until(lambda: running.reader.numbers()[-1:] == [LINES - 1], PATIENCE)
            numbers = running.reader.numbers()
            assert len(set(numbers)) == len(numbers)
            assert numbers == sorted(numbers)
            assert 5 >= running.lost + running.source.health().lost >= (1 if len(numbers) < LINES else 0)
