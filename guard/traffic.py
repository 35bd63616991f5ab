"""What goes through the mail host: counts of the mail flow.

Plain numbers in lists, since a host writes thousands of such lines a second.  Nothing here decides anything, and
nothing is saved: after a restart the counters begin at zero.  Memory is bounded: MAX_MESSAGES between their coming in
and their end; guard/senders.py has the accounts that send.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64, mypyc_attr

from guard import addresses
from guard.bounded import Bounded, Entry
from guard.model import (
    MAIL_PROTOCOLS,
    REJECTS,
    RESULTS,
    STORES,
    TLS_VERSIONS,
    TRANSPORTS,
    VERDICTS,
    WEB,
    MailEvent,
)
from guard.senders import MAX_ACCOUNTS, Account, Senders
from guard.stats import Counter, Histogram

MAX_MESSAGES: Final = 100_000
_NAME: Final = 320  # characters of an address
_QUEUED_FOR: Final = 6 * 86400.0  # maximal_queue_lifetime is 5 days
MILLION: Final = 1_000_000
DELAYS: Final[tuple[float, ...]] = (
    0.1,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14400.0,
    43200.0,
    86400.0,
)
WEB_SECONDS: Final[tuple[float, ...]] = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STAGES: Final = ("before_queue", "queue", "connection", "transmission")
SERVICES: Final = ("postfix", "dovecot")
DIRECTIONS: Final = ("in", "out")
_NO_TLS: Final = TLS_VERSIONS.index("none")
_ANY_TLS: Final = TLS_VERSIONS.index("other")
_BOUNCED: Final = RESULTS.index("bounced")


@mypyc_attr(acyclic=True)
class Count:
    """One count.  In a list of numbers each step would make a new object, compiled or not."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n: i64 = 0


def _counts(size: int) -> list[Count]:
    return [Count() for _ in range(size)]


class Spread:
    """A histogram over microseconds, filled without a float."""

    __slots__ = ("_bounds", "_micros", "bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._micros = [int(bound * MILLION) for bound in bounds]
        self._bounds: i64 = len(bounds)
        self.counts = _counts(len(bounds) + 1)
        self.total: i64 = 0

    def add(self, micros: i64) -> None:
        """Count one."""
        self.total += micros
        place: i64 = 0
        while place < self._bounds and micros > self._micros[place]:
            place += 1
        self.counts[place].n += 1

    def histogram(self) -> Histogram:
        """Return it as the exporters know it."""
        found = Histogram(self.bounds)
        counts = [count.n for count in self.counts]
        found.counts = counts[:-1]
        found.count = sum(counts)
        found.total = self.total / MILLION
        return found


@mypyc_attr(acyclic=True, free_list_len=1)
class Message(Entry):
    """A message between its coming in and its end."""

    __slots__ = ("account", "at", "network", "protocol", "user")

    def __init__(self, at: float, protocol: i64, user: str | None, network: str) -> None:
        self.at = at
        self.protocol: i64 = protocol  # -1: counted already
        self.user = user  # who logged in to send it
        self.network = network
        self.account: Account | None = None

    def fields(self) -> tuple[str, ...]:
        """Nothing of it is saved."""
        return ()

    def worth_keeping(self, at: float) -> bool:
        """Whoever floods us with connections logs in to none."""
        return self.user is not None


class Traffic:
    """Counts; remembers the messages under way, and who sends."""

    __slots__ = (
        "_spreads", "deliveries", "errors", "life", "messages", "received", "rejected", "requests", "seconds", "senders", "stages",
        "stored", "tls", "verdicts",
    )  # fmt: skip

    def __init__(self, max_accounts: int = MAX_ACCOUNTS, max_messages: int = MAX_MESSAGES) -> None:
        self.messages: Bounded[Message] = Bounded("message", max_messages, _QUEUED_FOR, keep=False)
        self.senders = Senders(max_accounts)
        self.received = _counts(len(MAIL_PROTOCOLS))
        self.deliveries = _counts(len(TRANSPORTS) * len(RESULTS))
        self.rejected = _counts(len(REJECTS))
        self.stages = _counts(len(STAGES))  # microseconds
        self.tls = _counts(len(SERVICES) * len(DIRECTIONS) * len(TLS_VERSIONS))
        self.verdicts = _counts(len(VERDICTS))
        self.stored = _counts(len(STORES))
        self.requests = _counts(len(WEB) * 5)
        self.errors = 0
        self.life = Spread(DELAYS)
        self.seconds = [Spread(WEB_SECONDS) for _ in WEB]
        self._spreads = [Spread(DELAYS) for _ in TRANSPORTS]

    # -- what lines tell -------------------------------------------------------------------------------------------

    def taken(
        self, key: str, at: float, protocol: i64, user: str | None = None, ip: str | None = None
    ) -> None:
        """A message begins to come in, `user` has logged in for it."""
        network = "" if user is None or ip is None else addresses.vicinity(ip)
        self.messages.put(key, Message(at, protocol, user, network), at)

    def queued(self, message: Message, at: float, recipients: int) -> None:
        """A message is in the queue: whole, and taken on."""
        self.received[message.protocol].n += 1
        message.protocol = -1
        user = message.user
        if user is not None:
            message.account = self.senders.sent(user, message.network, at, recipients)

    def delivered(self, key: str, transport: i64, event: MailEvent, text: str) -> None:
        """One attempt to deliver to one recipient."""
        self.deliveries[transport * 4 + event.label].n += 1
        if event.label == 0:
            self._spreads[transport].add(event.micros)
            before, queue, connection, transmission = event.stages
            stages = self.stages
            stages[0].n += before
            stages[1].n += queue
            stages[2].n += connection
            stages[3].n += transmission
        message = self.messages.get(key)
        if message is not None:
            account = message.account
            if account is not None:
                whom = text[event.name_at : min(event.name_end, event.name_at + _NAME)]
                self.senders.written(account, whom, bounced=event.label == _BOUNCED)

    def removed(self, message: Message, at: float) -> None:
        """A message has left the queue."""
        if at >= message.at:
            self.life.add(int((at - message.at) * MILLION))

    def session(self, service: i64, direction: i64, version: i64) -> None:
        """A session with TLS of a version, or without."""
        self.tls[(service * 2 + direction) * 6 + version].n += 1

    def request(self, protocol: i64, status: i64, micros: i64) -> None:
        """A request that SOGo has answered."""
        self.requests[protocol * 5 + status - 1].n += 1
        self.seconds[protocol].add(micros)

    # -- what is told ----------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, Counter]:
        """Return the counters by the names of their metrics, every series of them."""
        versions = len(TLS_VERSIONS)
        tls = Counter()
        for n, count in enumerate(self.tls):
            line = n // versions
            if line < 3:  # Dovecot connects to nobody
                tls.values[SERVICES[line // 2], DIRECTIONS[line % 2], TLS_VERSIONS[n % versions]] = count.n
        deliveries, requests, evicted = Counter(), Counter(), Counter()
        for n, count in enumerate(self.deliveries):
            deliveries.values[TRANSPORTS[n // 4], RESULTS[n % 4]] = count.n
        for n, count in enumerate(self.requests):
            requests.values[WEB[n // 5], f"{n % 5 + 1}xx"] = count.n
        evicted.values["account",] = self.senders.accounts.evicted
        evicted.values["queue_id",] = self.messages.evicted
        evicted.values["recipient",] = self.senders.forgotten
        return {
            "mail_received": _counter(MAIL_PROTOCOLS, self.received),
            "mail_deliveries": deliveries,
            "mail_rejected": _counter(REJECTS, self.rejected),
            "tls_sessions": tls,
            "postscreen_verdicts": _counter(VERDICTS, self.verdicts),
            "lmtp_deliveries": _counter(STORES, self.stored),
            "sogo_requests": requests,
            "traffic_evicted": evicted,
        }

    def delays(self) -> dict[str, Histogram]:
        """Return the delays of what was delivered, by transport."""
        return {name: self._spreads[n].histogram() for n, name in enumerate(TRANSPORTS)}

    def web_seconds(self) -> dict[str, Histogram]:
        """Return what SOGo's requests took, by protocol."""
        return {name: self.seconds[n].histogram() for n, name in enumerate(WEB)}


def _counter(names: tuple[str, ...], counts: list[Count]) -> Counter:
    counter = Counter()
    for name, count in zip(names, counts, strict=True):
        counter.values[name,] = count.n
    return counter
