"""Runs the looks, each on its own interval, and keeps what each saw last: a scrape reads memory and waits for nobody.

A look that fails or takes too long never raises from here: what stands for it is its `failed`, and its
`mailward_stack_check_ok` is 0.  Before the first look has ended nothing stands for it but a time stamp of 0: any other
number would be a verdict, and a queue of 0 would look like one that grows.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Series = tuple[str, ...]  # a metric's name without its prefix, and the values of its labels
Values = Mapping[Series, float]

GAUGES: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "queue_messages": (("queue",), "Messages in Postfix' queues"),
    "queue_bytes": (("queue",), "Bytes of their files"),
    "queue_oldest_seconds": (("queue",), "Age of the oldest message; 0 where there is none"),
    "certificate_expiry_timestamp_seconds": (("port",), "When the certificate that a port shows ends"),
    "certificate_trusted": (("port",), "Whether its chain and its name verify"),
    "certificate_up": (("port",), "Whether the handshake worked"),
    "mta_sts_ok": (("domain", "check"), "Whether MTA-STS is as it should be"),
    "dns_ok": (("domain", "record"), "Whether the record is published as it should be"),
    "clamav_signatures_timestamp_seconds": ((), "When the signatures that clamd has were made"),
    "service_up": (("service",), "Whether the service answers; freshclam: whether it gets signatures"),
    "check_ok": (("check",), "Whether the last look could be taken"),
    "check_seconds": (("check",), "How long the last look took"),
    "check_timestamp_seconds": (("check",), "When the last look ended; 0 before the first has"),
}


class Found(NamedTuple):
    """What one look saw, and in words what is not as it should be."""

    values: Values
    troubles: tuple[str, ...] = ()


class Look(NamedTuple):
    """One thing to look at.  Times in seconds; `failed` are the series that stand while the look fails."""

    name: str
    interval: float
    patience: float
    take: Callable[[], Awaitable[Found]]
    failed: Values = MappingProxyType({})


def joined(parts: Iterable[Found]) -> Found:
    """Return several findings as one."""
    values: dict[Series, float] = {}
    troubles: list[str] = []
    for part in parts:
        values.update(part.values)
        troubles += part.troubles
    return Found(values, tuple(troubles))


def words(error: BaseException) -> str:
    """Return what went wrong in one line of printable text: parts of it come from other hosts."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = ascii(f"{type(error).__name__}: {error}"[:200])
    return text[1:-1]


def _note(text: str) -> None:
    print(f"stack exporter: {text}", file=sys.stderr, flush=True)


class Board(Collector):
    """The looks and what they saw last."""

    def __init__(self, looks: Iterable[Look], note: Callable[[str], None] = _note) -> None:
        self._looks = tuple(looks)
        self._note = note
        # A look's values are replaced whole: another thread reads them.
        self._seen: dict[str, Values] = {
            look.name: {("check_timestamp_seconds", look.name): 0.0} for look in self._looks
        }
        self._told: dict[str, tuple[str, ...]] = {}

    async def look(self, look: Look) -> None:
        """Take one look; raises nothing but what ends the process."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(look.patience):
                found = await look.take()
            ok = True
        except Exception as error:  # noqa: BLE001 - whatever the world does: the other looks go on
            found, ok = Found(look.failed, (words(error),)), False
        took = time.monotonic() - began
        self._seen[look.name] = {
            **found.values,
            ("check_ok", look.name): float(ok),
            ("check_seconds", look.name): took,
            ("check_timestamp_seconds", look.name): time.time(),
        }
        before = self._told.get(look.name, ())
        for trouble in found.troubles:
            if trouble not in before:
                self._note(f"{look.name}: {trouble}")
        if before and not found.troubles:
            self._note(f"{look.name}: well again")
        self._told[look.name] = found.troubles

    async def once(self) -> None:
        """Take every look once, all at the same time."""
        await asyncio.gather(*map(self.look, self._looks))

    async def run(self) -> None:
        """Take every look, at once and after each interval; ends with its task."""
        async with asyncio.TaskGroup() as tasks:
            for look in self._looks:
                tasks.create_task(self._repeat(look))

    async def _repeat(self, look: Look) -> None:
        while True:
            await self.look(look)
            await asyncio.sleep(look.interval)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names cannot clash in a registry of our own."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what was seen last."""
        values: dict[Series, float] = {}
        for seen in tuple(self._seen.values()):
            values.update(seen)
        for name, (labels, text) in GAUGES.items():
            metric = GaugeMetricFamily(f"mailward_stack_{name}", text, labels=labels)
            for (of, *label_values), value in values.items():
                if of == name:
                    metric.add_metric(label_values, value)
            if metric.samples:
                yield metric
