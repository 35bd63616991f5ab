"""Who sends how much: accounts that logged in to send, over the last hour.  A stolen one shows here first.

Nothing is saved: after a restart the hour begins with the first message.  Memory is bounded: `limit` accounts, of each at
most MAX_WHOM recipients and MAX_NETWORKS client networks (/24, /48), exact up to there, and MAX_REMEMBERED recipients in
all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from mypy_extensions import i64, mypyc_attr

from guard import addresses
from guard.bounded import Bounded, Entry

CountryOf = Callable[[str], str | None]

MAX_ACCOUNTS: Final = 10_000
MAX_WHOM: Final = 2_000
MAX_NETWORKS: Final = 64
MAX_REMEMBERED: Final = 200_000
STEP: Final = 300.0  # seconds a bucket; the hour is this one and the twelve before it
_RING: Final = 13
_NAME: Final = 320  # characters of an address
_PLACES: Final = 65_536


@mypyc_attr(acyclic=True)
class Account(Entry):
    """What one account sent over the last hour; a bucket is a number of STEPs since the epoch."""

    __slots__ = ("bucket", "counts", "name", "networks", "pruned", "whom")

    def __init__(self, name: str, bucket: i64) -> None:
        self.name = name
        self.bucket: i64 = bucket  # the newest one
        self.pruned: i64 = bucket
        self.counts = [0] * (3 * _RING)  # messages, recipients and bounces by bucket
        self.whom: dict[str, int] = {}  # recipient -> bucket in which it was last written to
        self.networks: dict[str, int] = {}

    def fields(self) -> tuple[str, ...]:
        """Nothing of it is saved."""
        return ()

    def advance(self, bucket: int) -> None:
        """Let time pass up to `bucket`: what is over counts no more."""
        if bucket <= self.bucket:
            return
        for n in range(self.bucket + 1, min(bucket, self.bucket + _RING) + 1):
            place = n % _RING
            self.counts[place] = self.counts[place + _RING] = self.counts[place + 2 * _RING] = 0
        self.bucket = bucket

    def prune(self) -> None:
        """Forget recipients and networks of which nothing was seen for an hour."""
        if self.pruned == self.bucket:
            return
        self.pruned = self.bucket
        oldest = self.bucket - _RING + 1
        for table in (self.whom, self.networks):
            for key in [key for key, bucket in table.items() if bucket < oldest]:
                del table[key]


class Sender(NamedTuple):
    """One row of the top list."""

    account: str
    messages: int
    recipients: int
    distinct_recipients: int
    networks: int
    countries: int | None
    bounced: int


class Senders:
    """The accounts; `forgotten` counts recipients for which there was no room."""

    __slots__ = ("_places", "_remembered", "_since", "accounts", "forgotten")

    def __init__(self, limit: int) -> None:
        self.accounts: Bounded[Account] = Bounded("account", limit, _RING * STEP, keep=False)
        self.forgotten = 0
        self._remembered = 0  # recipients, at most: those forgotten since the last count among them
        self._since = 0  # the bucket in which they were counted last
        self._places: dict[str, str | None] = {}  # network -> country, as asked before

    def sent(self, user: str, network: str, at: float, recipients: int) -> Account:
        """Count a message that `user` sent from `network`; return the account."""
        bucket: i64 = int(at / STEP)
        account = self.accounts.get(user)  # mostly it is written as we keep it
        if account is None:
            name = user.lower()[:_NAME]
            account = self.accounts.get(name)
            if account is None:
                account = Account(name, bucket)
                self.accounts.put(name, account, at)
        if bucket > account.bucket:
            account.advance(bucket)
        place: i64 = account.bucket % _RING
        account.counts[place] += 1
        account.counts[place + _RING] += recipients
        if network and (network in account.networks or len(account.networks) < MAX_NETWORKS):
            account.networks[network] = account.bucket
        return account

    def written(self, account: Account, whom: str, *, bounced: bool) -> None:
        """Note an attempt to deliver a message of the account to `whom`."""
        if bounced:
            account.counts[account.bucket % _RING + 2 * _RING] += 1
        table = account.whom
        if whom not in table:
            if len(table) >= MAX_WHOM or self._remembered >= MAX_REMEMBERED:
                account.prune()
                if account.bucket > self._since:
                    self._recount(account.bucket)
                if len(table) >= MAX_WHOM or self._remembered >= MAX_REMEMBERED:
                    self.forgotten += 1
                    return
            self._remembered += 1
        table[whom] = account.bucket

    def _recount(self, bucket: int) -> None:
        self._since = bucket
        self._remembered = 0
        for account in self.accounts.values():
            account.advance(bucket)
            account.prune()
            self._remembered += len(account.whom)

    def top(self, now: float, geo: CountryOf | None = None) -> list[Sender]:
        """Return every account that sent over the last hour, most messages first."""
        found = []
        bucket = int(now / STEP)
        for account in self.accounts.values():
            account.advance(bucket)
            account.prune()
            messages = sum(account.counts[:_RING])
            if messages:
                countries = None if geo is None else self._countries(account.networks, geo)
                found.append(
                    Sender(
                        account.name,
                        messages,
                        sum(account.counts[_RING : 2 * _RING]),
                        len(account.whom),
                        len(account.networks),
                        countries,
                        sum(account.counts[2 * _RING :]),
                    )
                )
        found.sort(key=_rank)
        return found

    def _countries(self, networks: dict[str, int], geo: CountryOf) -> int:
        if len(networks) < 2:
            return len(networks)
        found = set()
        for network in networks:
            if network not in self._places:
                if len(self._places) >= _PLACES:
                    self._places.clear()
                self._places[network] = geo(addresses.first_of(network))
            country = self._places[network]
            if country is not None:
                found.add(country)
        return len(found)


def _rank(sender: Sender) -> tuple[int, str]:
    return -sender.messages, sender.account
