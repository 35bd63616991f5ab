"""The link between a node and the fleet: what it sends, what it reads, its sign of life.

A call that fails raises `FleetError` within 3 s, and nothing is connected then: `connect` again, after a pause that
grows and is spread at random.  A call that was cancelled leaves the same.  `send` and `read` change what the link
remembers only once the answer is whole, so a caller that saves `Batch.positions` beside what it did with
`Batch.told` misses nothing and does nothing twice, whenever it dies.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

from guard.fleet import BATCH, BODY, PARTITIONS, Batch, Event, FleetError, Greeting, Told, partition_of
from guard.fleet._address import parse
from guard.fleet._partition import NAME, Partition, register
from guard.fleet._scripts import BEAT, NODES, PUBLISH, keys

PAGE: Final = BATCH // PARTITIONS  # events of one partition in a round trip
DAY: Final = 86400.0


class Link:
    """This node's connection to the fleet.  A call may not run beside another of its own kind.

    `instance` tells two nodes of one name apart; it outlives a restart.  `positions`: what was saved of all
    `Batch.positions`.  `span`: seconds for which a fact matters.
    Raises `FleetError` for a URL or a name that will never do, and where the package for Redis is missing.
    """

    def __init__(
        self, url: str, node: str, instance: str, positions: Mapping[str, str], *, span: float
    ) -> None:
        try:
            from guard.fleet._server import Server  # noqa: PLC0415 - an optional package
        except ImportError as error:
            raise FleetError(f"store.url: redis needs `pip install mailward[redis]`: {error}") from error
        for key, value in (("store.node", node), ("the instance", instance)):
            if not NAME.fullmatch(value):
                raise FleetError(f"{key}: expected at most 64 letters, digits and . _ : -; found {value!r}")
        self._address = parse(url)
        self._server = Server(self._address)
        self._node = node
        self._instance = instance
        self._span = span
        self._partitions = [Partition(positions.get(str(number))) for number in range(PARTITIONS)]
        self._acknowledged: dict[int, int] = {}  # partition -> the last number that the server must have
        self._connected = False

    @property
    def lost(self) -> int:
        """How many events the server had let go before we read them (ours among them, where they were)."""
        return sum(partition.lost for partition in self._partitions)

    async def connect(self) -> Greeting:
        """Connect, and find what the fleet knows.

        Raises `FleetError`, also where another host goes by our name.
        """
        self._connected = False
        await self._server.connect()
        now, _ = await self._beat({})
        seqs = [("HGET", keys(number)[1], self._node) for number in range(PARTITIONS)]
        known = {number: _last(text) for number, text in enumerate(await self._server.call(seqs))}
        registers = [told async for told in self._registers(now)]
        for partition in self._partitions:
            partition.start(now - self._span)
        self._acknowledged = dict(known)
        self._connected = True
        return Greeting(registers, known)

    async def send(self, events: Sequence[Event]) -> None:
        """Tell the others, in rising numbers, all that `Greeting.known` lacks before anything new.

        What was told before is passed over, so the same may be sent again.  Raises `FleetError`; also where the
        server has lost what it had acknowledged; and `ValueError` for an event that no server may be sent.
        """
        self._check()
        for start in range(0, len(events), BATCH):
            told: dict[int, list[bytes]] = {}
            for event in events[start : start + BATCH]:
                told.setdefault(partition_of(event.net), []).extend(_arguments(event))
            await self._publish(told)

    async def read(self) -> Batch:
        """Return what the others told since.  One round trip; does not wait for anything.  Raises `FleetError`."""
        self._check()
        calls = [
            ("XRANGE", keys(number)[0], f"({partition.cursor}", "+", "COUNT", PAGE)
            for number, partition in enumerate(self._partitions)
        ]
        answers = await self._server.call(calls)
        batch = Batch([], {}, more=any(len(answer) >= PAGE for answer in answers))
        for number, (partition, answer) in enumerate(zip(self._partitions, answers, strict=True)):
            for entry, fields in answer:
                told = partition.take(entry, fields, self._node)
                if told is not None:
                    batch.told.append(told)
            if answer:
                batch.positions[str(number)] = partition.text
        return batch

    async def beat(self, info: Mapping[str, object]) -> dict[str, dict[str, object]]:
        """Say that we live, and return what every node said last, with `age`: the seconds since.

        Call it about every 5 s.  Raises `FleetError`; also where the server has lost what it had acknowledged.
        """
        self._check()
        _, nodes = await self._beat(info)
        await self._publish(
            {number: [] for number in range(PARTITIONS)}
        )  # finds losses, and renews what must not expire
        return nodes

    async def close(self) -> None:
        """Give the connection back.  Our last sign of life stays for a day."""
        self._connected = False
        await self._server.close()

    def _check(self) -> None:
        if not self._connected:
            raise FleetError(f"store.url: {self._address}: not connected")

    async def _publish(self, told: Mapping[int, Sequence[bytes]]) -> None:
        keep = math.ceil(max(2 * self._span, DAY))
        order = list(told)
        answers = await self._server.run(
            [
                (PUBLISH, keys(n), [self._node, str(self._acknowledged.get(n, 0)), str(keep), *told[n]])
                for n in order
            ]
        )
        if any(answer < 0 for answer in answers):
            await self.close()
            raise FleetError(f"store.url: {self._address}: the server has lost what it had acknowledged")
        for number, last in zip(order, answers, strict=True):
            self._acknowledged[number] = max(last, self._acknowledged.get(number, 0))

    async def _beat(self, info: Mapping[str, object]) -> tuple[float, dict[str, dict[str, object]]]:
        """Return the server's time, and all nodes."""
        said = json.dumps(info)
        [answer] = await self._server.run([(BEAT, [NODES], [self._node, self._instance, said])])
        if answer[0] == b"taken":
            await self.close()
            raise FleetError(
                f'store.node: another host is "{self._node}", and gave a sign of life {answer[1].decode()} s ago: '
                "give each its own name"
            )
        now = float(answer[0])
        return now, {
            node.decode("utf-8", "replace"): _said(entry, now)
            for node, entry in zip(answer[1::2], answer[2::2], strict=True)
        }

    async def _registers(self, now: float) -> AsyncIterator[Told]:
        for number in range(PARTITIONS):
            cursor, page = 0, None
            seen: set[str] = set()  # a scan may name one twice
            while page is None or int(cursor):
                [page] = await self._server.call([("HSCAN", keys(number)[2], cursor, "COUNT", BATCH)])
                cursor, found = page
                for name, value in found.items():
                    told = register(name, value)
                    if told is not None and told.ends > now and told.register not in seen:
                        seen.add(told.register)
                        yield told


def _arguments(event: Event) -> Iterable[bytes]:
    """Return an event as the script takes it.  Raises `ValueError`."""
    body = event.body.encode("utf-8", "surrogatepass")
    if len(body) > BODY:
        raise ValueError(f"a body of {len(body)} bytes; the most is {BODY}")
    if event.seq <= 0 or math.isnan(event.at) or math.isnan(event.ends) or math.isinf(event.at):
        raise ValueError(f"no number, or no time: {event.seq}, {event.at}, {event.ends}")
    texts = (
        str(event.seq),
        event.net,
        event.register,
        "1" if event.live else "0",
        repr(event.at),
        repr(event.ends),
    )
    return (*(text.encode("utf-8", "surrogatepass") for text in texts), body)


def _last(text: bytes | None) -> int:
    """Return a node's number, as the script reads it: 0 where there is none."""
    digits = (text or b"").partition(b"|")[0]
    return int(digits) if digits.isdigit() else 0


def _said(entry: bytes, now: float) -> dict[str, object]:
    """Return what a node said, with its age."""
    at, _, rest = entry.partition(b"|")
    try:
        said = json.loads(rest.partition(b"|")[2])
        return {**(said if isinstance(said, dict) else {}), "age": max(0.0, round(now - float(at), 3))}
    except ValueError:
        return {"age": DAY}
