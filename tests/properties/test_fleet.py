"""Several links and one Redis that forgets, answers that are lost, nodes that die: every fact arrives once.

A node of the test does what the daemon does: it keeps what it tells until the test's end, saves what it was told
together with the positions, and comes again from what it saved.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from guard.fleet import Event, FleetError
from guard.fleet.link import Link
from tests.fleet.proxy import Proxy
from tests.redis_server import RedisServer

NETS = [f"10.{n}.0.1" for n in range(8)]
NAMES = "abc"
STEPS = 120
NOW = time.time()


class Entry(NamedTuple):
    """A register as a node holds it."""

    live: bool
    at: float
    ends: float


def merged(now: Entry | None, new: Entry, *, ban: bool) -> Entry:
    """Return what is in force of two, as the docstring of `guard.fleet` says."""
    if now is None:
        return new
    if now.live != new.live:
        wins = new.at > now.at or (new.at == now.at and not new.live)
        return new if wins else now
    if ban:
        return Entry(new.live, max(now.at, new.at), max(now.ends, new.ends))
    return max(now, new, key=lambda entry: (entry.at, entry.ends))


class Node:
    """What is saved, and what a crash takes: `told` and `positions` stand together."""

    def __init__(self, name: str, proxy: Proxy) -> None:
        self.name = name
        self.proxy = proxy
        self.seq = 1000
        self.kept: list[Event] = []
        self.told: list[tuple[str, int]] = []
        self.registers: dict[str, Entry] = {}
        self.positions: dict[str, str] = {}
        self.up = False
        self.link = self.made()

    def made(self) -> Link:
        return Link(self.proxy.url, self.name, self.name, self.positions, span=600)

    def set(self, register: str, entry: Entry) -> None:
        self.registers[register] = merged(
            self.registers.get(register), entry, ban=register.startswith("ban ")
        )

    async def connect(self) -> None:
        greeting = await self.link.connect()
        for told in greeting.registers:
            self.set(told.register, Entry(told.live, told.at, told.ends))
        self.up = True
        await self.link.send([e for e in self.kept if e.seq > min(greeting.known.values())])

    def emit(self, chance: random.Random) -> Event:
        self.seq += 1
        net = chance.choice(NETS)
        at, ends = NOW + chance.randrange(20), NOW + 1000 + chance.randrange(20)
        register, live = "", True
        if chance.random() < 0.4:
            register = f"{chance.choice(('ban', 'allow'))} {net}/32"
            live = chance.random() < 0.6
            self.set(register, Entry(live, at, ends))
        self.kept.append(Event(self.seq, net, register, live, at, ends, "{}"))
        return self.kept[-1]

    async def read(self) -> None:
        more = True
        while more:
            batch = await self.link.read()
            more = batch.more
            for told in batch.told:
                if told.register:
                    self.set(told.register, Entry(told.live, told.at, told.ends))
                else:
                    self.told.append((told.node, told.seq))
            self.positions |= batch.positions

    async def send(self, events: list[Event]) -> None:
        await self.link.send(events)

    async def beat(self) -> None:
        await self.link.beat({})

    async def crash(self) -> None:
        await self.link.close()
        self.link, self.up = self.made(), False

    async def calmly(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, connected; whatever fails is tried again at another step."""
        try:
            if not self.up:
                await self.connect()
            await work()
        except FleetError:
            self.up = False

    async def until_quiet(self) -> None:
        """Everything kept is told, everything told is read."""
        for _ in range(50):
            try:
                if not self.up:
                    await self.connect()
                await self.link.beat({})
                await self.link.send(self.kept)
                return
            except FleetError:
                self.up = False
        raise AssertionError("does not come to rest")


async def play(seed: int, server: RedisServer, folder: Path) -> None:
    chance = random.Random(seed)
    server.client().flushall()
    async with Proxy(server.socket, folder / f"p{seed}") as proxy:
        nodes = [Node(name, proxy) for name in NAMES]
        for node in nodes:
            await node.connect()
        for _ in range(STEPS):
            node = chance.choice(nodes)
            act = chance.random()
            if act < 0.45:
                events = [node.emit(chance) for _ in range(chance.randrange(1, 4))]
                await node.calmly(partial(node.send, events))
            elif act < 0.8:
                await node.calmly(node.read)
            elif act < 0.86:
                again = node.kept[-chance.randrange(1, 9) :]
                await node.calmly(partial(node.send, again))
            elif act < 0.92:
                proxy.lose()
            elif act < 0.96:
                await node.crash()
            elif act < 0.98:
                server.client().flushall()
                await asyncio.sleep(0.002)  # ids are the server's milliseconds
            else:
                await node.calmly(node.beat)
        proxy._lose = False
        for _ in range(2):  # the second time with what the others told again
            for node in nodes:
                await node.until_quiet()
            for node in nodes:
                await node.calmly(node.read)
        for node in nodes:
            await node.until_quiet()
            await node.read()
            await node.link.close()
    for node in nodes:
        facts = sorted((n.name, e.seq) for n in nodes if n is not node for e in n.kept if not e.register)
        assert sorted(node.told) == facts, (seed, node.name)
    held = [
        {
            name: (entry.live, entry.at if entry.live or name.startswith("allow") else 0)
            for name, entry in node.registers.items()
        }
        for node in nodes
    ]
    assert held[0] == held[1] == held[2], seed


@pytest.mark.parametrize("seed", range(6))
def test_every_fact_arrives_once_and_registers_agree(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("f")
    with RedisServer(folder / "r").start() as server:
        asyncio.run(play(seed, server, folder))
