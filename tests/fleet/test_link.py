"""The link between nodes, against a real Redis: what was told arrives once, whatever happens to the server."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from guard.fleet import BODY, Event, FleetError, Told, partition_of
from guard.fleet._scripts import LENGTH, keys
from guard.fleet.link import Link
from tests.fleet.proxy import Proxy
from tests.redis_server import RedisServer

pytestmark = pytest.mark.servers

NOW = time.time()
NET = "198.51.100.7"
BAN = "ban 198.51.100.7/32"


def fact(seq: int, net: str = NET, body: str = '{"ip":1}') -> Event:
    return Event(seq, net, "", True, NOW, NOW + 600, body)


def put(seq: int, at: float = 0.0, ends: float = 1000.0, register: str = BAN, *, live: bool = True) -> Event:
    return Event(seq, NET, register, live, NOW + at, NOW + ends, f'"{seq}"')


def lift(seq: int, at: float = 0.0, ends: float = 1000.0, register: str = BAN) -> Event:
    return put(seq, at, ends, register, live=False)


@pytest.fixture
def server(tmp_path):
    with RedisServer(tmp_path / "redis").start() as it:
        yield it


@asynccontextmanager
async def links(
    url: str, *names: str, positions: dict[str, str] | None = None, span: float = 600.0
) -> AsyncIterator[list[Link]]:
    made = [Link(url, name, f"of-{name}", positions or {}, span=span) for name in names]
    try:
        for link in made:
            await link.connect()
        yield made
    finally:
        for link in made:
            await link.close()


async def everything(link: Link) -> tuple[list[Told], dict[str, str]]:
    """Return the numbers (or registers) told, and the positions."""
    told: list[Told] = []
    positions: dict[str, str] = {}
    more = True
    while more:
        batch = await link.read()
        told += batch.told
        positions |= batch.positions
        more = batch.more
    return told, positions


async def numbers(link: Link) -> list[int]:
    return sorted(told.seq for told in (await everything(link))[0])


def test_what_is_told_arrives_as_it_was_and_once(server):
    body = '{"line":"é\\u0000\U0001f4a9 | x"}'

    async def main() -> None:
        async with links(server.url, "a", "b", "c") as (a, b, c):
            events = [fact(5, body=body), put(6, ends=math.inf), fact(7, net="2001:db8:1:2::/64")]
            await a.send(events)
            told, _ = await everything(b)
            assert {t.seq: t for t in told} == {e.seq: Told("a", *e) for e in events}
            assert await numbers(c) == [5, 6, 7]
            assert await numbers(b) == await numbers(c) == await numbers(a) == []
            await a.send(events)  # again: the answer may have been lost
            await a.send([])
            assert await numbers(b) == []
            assert sum(server.client().xlen(key) for key in server.client().keys("*events")) == 3

    asyncio.run(main())


def test_a_node_that_was_away_reads_on_where_it_was(server):
    async def main() -> None:
        async with links(server.url, "a", "b") as (a, b):
            await a.send([fact(1)])
            [first], positions = await everything(b)
            assert first.seq == 1
            await b.close()
            await a.send([fact(2), put(3)])
            async with links(server.url, "b", positions=positions) as [again]:
                assert await numbers(again) == [2, 3]
            async with links(server.url, "b", positions={"1": "nonsense", "2": "{}", "3": '{"id":"x"}'}) as [
                new
            ]:
                assert await numbers(new) == [1, 2, 3]  # of the last `span` seconds

    asyncio.run(main())


def test_a_greeting_has_what_is_in_force_and_our_numbers(server):
    async def main() -> None:
        async with links(server.url, "a") as [a]:
            await a.send(
                [
                    put(1),
                    put(2, ends=-1, register="ban 198.51.100.8/32"),
                    lift(3, register="allow 198.51.100.7/32"),
                ]
            )
        b = Link(server.url, "b", "b", {}, span=600)
        registers, known = await b.connect()
        assert set(known.values()) == {0}
        assert {(t.node, t.seq, t.net, t.register, t.live, t.body) for t in registers} == {
            ("a", 0, "198.51.100.7/32", BAN, True, '"1"'),
            ("a", 0, "198.51.100.7/32", "allow 198.51.100.7/32", False, '"3"'),
        }
        await b.close()
        again = Link(server.url, "a", "of-a", {}, span=600)
        assert (await again.connect()).known[partition_of(NET)] == 3
        await again.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("events", "told", "live", "at", "ends"),
    [
        ([put(1), put(2)], 1, True, 0, 1000),  # all nodes may publish the same
        ([put(1), put(2, ends=900)], 1, True, 0, 1000),
        ([put(1), put(2, ends=1100)], 2, True, 0, 1100),
        ([put(1), put(2, at=5, ends=900)], 2, True, 5, 1000),
        ([put(1), lift(2, at=5)], 2, False, 5, 1000),
        ([lift(1, at=5), put(2)], 1, False, 5, 1000),
        ([lift(1, at=5), put(2, at=6)], 2, True, 6, 1000),
        ([put(1, at=6), lift(2, at=5)], 1, True, 6, 1000),
        ([put(1, at=6), lift(2, at=6)], 2, False, 6, 1000),
        ([lift(1, at=6), put(2, at=6)], 1, False, 6, 1000),
        ([put(1), lift(2, at=5, ends=10)], 2, False, 5, 1000),  # it must outlive what it lifts
        ([put(1, ends=math.inf), lift(2, at=5)], 2, False, 5, math.inf),
    ],
)
def test_a_ban_merges(server, events, told, live, at, ends):
    async def main() -> None:
        async with links(server.url, "a", "b") as (a, b):
            await a.send(events)
            assert len(await numbers(b)) == told
            await b.close()
            [register] = (await b.connect()).registers
            assert register.live == live
            assert register.at == NOW + at
            assert register.ends == NOW + ends

    asyncio.run(main())


@pytest.mark.parametrize(
    ("events", "told", "last"),
    [
        ([put(1), put(2, at=1, ends=500)], 2, 2),  # the administrator's last word, shorter as it may be
        ([put(1, at=1, ends=500), put(2)], 1, 1),
        ([put(1), put(2)], 1, 1),
        ([put(1), lift(2)], 2, 2),
        ([lift(1), put(2)], 1, 1),
        ([lift(1), put(2, at=1)], 2, 2),
    ],
)
def test_an_entry_by_hand_is_the_last_word(server, events, told, last):
    async def main() -> None:
        async with links(server.url, "a", "b") as (a, b):
            await a.send([event._replace(register="allow 198.51.100.7/32") for event in events])
            assert len(await numbers(b)) == told
            await b.close()
            [register] = (await b.connect()).registers
            assert register.body == f'"{last}"'

    asyncio.run(main())


def test_what_the_server_lost_is_told_again(server):
    async def main() -> None:
        async with links(server.url, "a", "b", "c") as (a, b, c):
            await a.send([fact(1), fact(2)])
            assert await numbers(b) == [1, 2]
            server.client().flushall()
            await asyncio.sleep(0.002)  # ids are milliseconds
            with pytest.raises(FleetError, match="lost what it had acknowledged"):
                await a.send([fact(3)])
            greeting = await a.connect()
            assert greeting.known[partition_of(NET)] == 0
            await a.send([fact(1), fact(2), fact(3)])
            assert await numbers(b) == [3]
            assert await numbers(c) == [1, 2, 3]
            server.client().flushall()
            with pytest.raises(FleetError, match="lost what it had acknowledged"):  # with nothing new to tell
                await a.beat({})

    asyncio.run(main())


@pytest.mark.parametrize("kept", [True, False])
def test_a_server_that_is_killed_and_comes_back(tmp_path, kept):
    options = ["--appendonly", "yes", "--appendfsync", "always"] if kept else []

    async def main(server: RedisServer) -> None:
        async with links(server.url, "a", "b") as (a, b):
            await a.send([fact(1), put(2)])
            assert await numbers(b) == [1, 2]
            await a.send([fact(3)])
            server.kill()
            for call in (a.send([fact(4)]), b.read(), a.beat({}), a.connect()):
                with pytest.raises(FleetError, match=r"store\.url: redis://127\.0\.0\.1"):
                    await call
            server.start()
            with pytest.raises(FleetError, match="not connected"):
                await a.send([fact(4)])
            greeting = await a.connect()
            known = greeting.known[partition_of(NET)]
            assert known == (3 if kept else 0)
            assert len(greeting.registers) == kept
            await a.send([event for event in (fact(1), put(2), fact(3), fact(4)) if event.seq > known])
            await b.connect()
            assert await numbers(b) == [3, 4]

    with RedisServer(tmp_path / "r", *options).start() as server:
        asyncio.run(main(server))


def test_ids_that_went_back_after_a_failover(server):
    """A replica that lacked the last events became the master: what is told there has lower ids, some known."""

    async def main() -> None:
        async with links(server.url, "a", "b") as (a, b):
            await a.send([fact(1)])
            client = server.client()
            stream, seqs, _, _ = keys(partition_of(NET))
            before, old = client.dump(stream), client.dump(seqs)
            await asyncio.sleep(0.05)
            await a.send([fact(2), fact(3)])
            assert await numbers(b) == [1, 2, 3]
            [(last, _)] = client.xrevrange(stream, count=1)
            client.restore(stream, 0, before, replace=True)
            client.restore(seqs, 0, old, replace=True)
            millis = int(last.partition(b"-")[0])
            # The new master's clock is behind: it gives ids between the one it knows and the last that was read.
            for link in (a, b):
                await link.close()
            assert (await a.connect()).known[partition_of(NET)] == 1
            for n, seq in ((2, 2), (3, 3), (4, 4)):
                fields = Told("a", seq, NET, "", True, NOW, NOW + 600, "{}")._asdict() | {"n": n, "live": 1}
                client.xadd(stream, fields, id=f"{millis - 10}-{n}")
            await b.connect()
            assert await numbers(b) == [4]

    asyncio.run(main())


def test_an_answer_that_is_lost(server, tmp_path):
    async def main() -> None:
        async with (
            Proxy(server.socket, tmp_path / "proxy") as proxy,
            links(proxy.url, "a") as [a],
            links(server.url, "b") as [b],
        ):
            await a.send([fact(1)])
            proxy.lose()
            with pytest.raises(FleetError):
                await a.send([fact(2)])
            assert await numbers(b) == [1, 2]  # it was executed
            assert (await a.connect()).known[partition_of(NET)] == 2
            await a.send([fact(2), fact(3)])
            assert await numbers(b) == [3]

    asyncio.run(main())


def test_a_server_that_stops_answering_holds_nobody(server, tmp_path):
    async def main() -> None:
        async with (
            Proxy(server.socket, tmp_path / "proxy") as proxy,
            links(proxy.url, "a", "b") as (a, b),
            links(f"redis://127.0.0.1:{proxy.port}", "c", "d") as (c, d),
        ):
            proxy.deaf = True
            ticks = itertools.count()

            async def tick() -> None:
                while True:
                    next(ticks)
                    await asyncio.sleep(0.01)

            ticking = asyncio.ensure_future(tick())
            began = time.monotonic()
            new = Link(proxy.url, "e", "e", {}, span=1)
            calls = (a.send([fact(1)]), b.read(), c.send([fact(1)]), d.beat({}), new.connect())
            found = await asyncio.gather(*calls, return_exceptions=True)
            took = time.monotonic() - began
            ticking.cancel()
            assert [type(error) for error in found] == [FleetError] * 5
            assert took < 15
            assert next(ticks) > 20  # the loop was free
            proxy.deaf = False
            await a.connect()
            await a.send([fact(1)])

    asyncio.run(main())


def test_calls_beside_each_other_fail_together_and_well(server, tmp_path):
    async def main() -> None:
        async with Proxy(server.socket, tmp_path / "proxy") as proxy, links(proxy.url, "a", "b") as (a, b):
            failed = 0
            for seq in range(1, 60):
                if seq % 2:
                    proxy.lose()
                calls = (a.send([fact(seq)]), a.read(), a.beat({}))
                for found in await asyncio.gather(*calls, return_exceptions=True):
                    assert not isinstance(found, BaseException) or type(found) is FleetError
                    failed += isinstance(found, FleetError)
                if seq % 2:
                    await a.connect()
                    await a.send([fact(seq)])
            assert failed >= 30
            assert await numbers(b) == list(range(1, 60))

    asyncio.run(main())


def test_a_call_that_is_cancelled_leaves_nothing_half_done(server, tmp_path):
    async def main() -> None:
        async with Proxy(server.socket, tmp_path / "proxy") as proxy, links(proxy.url, "a", "b") as (a, b):
            await a.send([fact(1)])
            proxy.deaf = True
            for call in (a.send([fact(2)]), b.read()):
                task = asyncio.ensure_future(call)
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            proxy.deaf = False
            with pytest.raises(FleetError, match="not connected"):
                await b.read()
            await b.connect()
            await a.connect()
            await a.send([fact(2), fact(3)])
            assert await numbers(b) == [1, 2, 3]

    asyncio.run(main())


def test_two_hosts_of_one_name(server):
    async def main() -> None:
        async with links(server.url, "a") as [a]:
            other = Link(server.url, "a", "another", {}, span=600)
            with pytest.raises(FleetError, match=r'store\.node: another host is "a"'):
                await other.connect()
            again = Link(server.url, "a", "of-a", {}, span=600)  # we, restarted
            await again.connect()
            await again.close()
            await a.beat({})
            client = server.client()
            client.hset("mailward:1:nodes", "a", f"{NOW - 20:.3f}|of-a|{{}}")
            await other.connect()
            await other.close()
            with pytest.raises(FleetError, match=r"store\.node"):
                await a.beat({})

    asyncio.run(main())


def test_signs_of_life(server):
    async def main() -> None:
        async with links(server.url, "a", "b") as (a, b):
            await a.beat({"lag": 0.5, "version": "1"})
            nodes = await b.beat({"pending": 3})
            assert {name: {k: v for k, v in said.items() if k != "age"} for name, said in nodes.items()} == {
                "a": {"lag": 0.5, "version": "1"},
                "b": {"pending": 3},
            }
            age = nodes["a"]["age"]
            assert isinstance(age, float)
            assert 0 <= age < 30
            client = server.client()
            client.hset("mailward:1:nodes", "old", f"{time.time() - 90_000:.3f}|i|{{}}")
            client.hset("mailward:1:nodes", "odd", "nonsense")
            for number in range(100):
                client.hset("mailward:1:nodes", f"n{number}", f"{time.time() - number - 100:.3f}|i|[]")
            nodes = await a.beat({})
            assert len(nodes) == 64
            assert {"a", "b"} <= nodes.keys()
            assert "old" not in nodes
            assert client.hlen("mailward:1:nodes") == 64

    asyncio.run(main())


def test_every_key_goes_by_itself(server):
    async def main() -> None:
        async with links(server.url, "a") as [a]:
            await a.send([fact(1), put(2), put(3, register="ban 198.51.100.9/32", ends=math.inf)])
            await a.beat({})

    asyncio.run(main())
    client = server.client()
    ttl = {key.decode(): client.ttl(key) for key in client.keys("*")}
    assert all(key.startswith("mailward:1:") for key in ttl)
    assert len(ttl) == 5
    day = 86400
    for key, seconds in ttl.items():
        kind = key.rpartition("}:")[2]
        most = {"events": day, "seq": 30 * day, "registers": 400 * day, "registers:ends": 400 * day}.get(
            kind, day
        )
        assert most - 60 < seconds <= most, key


def test_what_is_kept_is_bounded(server):
    """A node away for too long is told how much it missed; registers that are over go; so do nodes long gone."""

    async def main() -> None:
        async with links(server.url, "a", "b") as (a, b):
            await a.send([fact(1)])
            assert await numbers(b) == [1]
            count = LENGTH + 2000
            began = 10
            await a.send([fact(began + n) for n in range(count)])
            client = server.client()
            stream, seqs, registers, over = keys(partition_of(NET))
            assert LENGTH <= client.xlen(stream) < LENGTH + 200
            found = await numbers(b)
            assert found[-1] == began + count - 1
            assert b.lost == count - len(found) > 0
            await a.send([put(20_000 + n, ends=-1, register=f"ban 198.51.100.{n}/32") for n in range(250)])
            for _ in range(3):
                await a.beat({})
            assert client.hlen(registers) == client.zcard(over) == 0
            await asyncio.gather(*(_say(server.url, f"node{n}") for n in range(70)))
            assert client.hlen(seqs) <= 66

    asyncio.run(main())


async def _say(url: str, name: str) -> None:
    async with links(url, name) as [link]:
        await link.send([fact(1)])


def test_a_large_backlog_comes_in_bounded_batches(server):
    async def main() -> None:
        async with links(server.url, "a", "b") as (a, b):
            nets = [f"10.{n}.0.1" for n in range(64)]
            await a.send([fact(1 + n, net=nets[n % 64]) for n in range(9000)])
            sizes, more = [], True
            while more:
                batch = await b.read()
                sizes.append(len(batch.told))
                more = batch.more
            assert sum(sizes) == 9000
            assert max(sizes) <= 1000

    asyncio.run(main())


def test_entries_of_others_do_no_harm(server):
    async def main() -> None:
        async with links(server.url, "a", "b") as (a, b):
            client = server.client()
            stream, _, registers, _ = keys(partition_of(NET))
            client.xadd(stream, {"hello": "world"})
            client.xadd(
                stream,
                {
                    "n": 1,
                    "node": "x",
                    "seq": "nan",
                    "net": "",
                    "register": "",
                    "live": 1,
                    "at": 0,
                    "ends": 0,
                    "body": b"\xff",
                },
            )
            client.hset(
                registers, mapping={"ban x": "nonsense", BAN: "1|x|y|z|", "ban y": f"1|1|inf|{'n' * 65}|"}
            )
            await a.send([fact(1), put(2)])
            assert await numbers(b) == [1, 2]
            assert b.lost == 2
            await b.close()
            assert [told.register for told in (await b.connect()).registers] == [BAN]

    asyncio.run(main())


def test_what_is_no_event_is_refused(server):
    async def main() -> None:
        async with links(server.url, "a") as [a]:
            for event in (
                fact(1, body="x" * (BODY + 1)),
                fact(0),
                fact(1)._replace(ends=math.nan),
                fact(1, net="x"),
            ):
                with pytest.raises(ValueError, match=r"bytes|no number|address"):
                    await a.send([event])
            await a.send([fact(1, body="x" * BODY)])

    asyncio.run(main())


@pytest.mark.parametrize("node", ["", "a|b", "x" * 65, "a b"])
def test_a_name_that_will_not_do(node):
    with pytest.raises(FleetError, match=r"store\.node: expected"):
        Link("redis://127.0.0.1", node, "i", {}, span=1)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "guard.fleet._server", None)
    with pytest.raises(FleetError, match=r"pip install mailward\[redis\]"):
        Link("redis://127.0.0.1", "a", "i", {}, span=1)


@pytest.mark.parametrize(
    ("net", "around"), [("198.51.100.7", "198.51.0.0/16"), ("2001:db8:1:2::/64", "2001:db8::/33")]
)
def test_a_net_and_what_is_around_it_share_a_partition(net, around):
    assert partition_of(net) == partition_of(around) < 16
    assert len({partition_of(f"10.{n}.0.0/16") for n in range(256)}) == 16
