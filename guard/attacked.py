"""Who is guessed at: accounts that failed logins named over the last hour, and from how many networks.

A guesser with many networks stays below every ban: what shows him is the account.  Nothing is saved: after a restart
the hour begins with the first failure.  A name is an attacker's text, and need not be anybody's, so memory is bounded:
MAX_ACCOUNTS, MAX_NETWORKS of each (/24, /48), exact up to there, and MAX_REMEMBERED networks in all; where there is no
room, those attacked longest ago go, those with few networks first.  Times are the log's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mypy_extensions import mypyc_attr

from guard import addresses
from guard.bounded import Bounded, Entry
from guard.senders import MAX_ACCOUNTS, STEP
from guard.tally import one_name

MAX_NETWORKS: Final = 256
MAX_REMEMBERED: Final = 200_000
_STEPS: Final = 13  # the hour is this step and the twelve before it
_FEW: Final = 3  # networks: people move between so many
_COUNT: Final = 1 << 32  # a network's value is its newest step times this, plus its failures


@mypyc_attr(acyclic=True)
class Target(Entry):
    """One account; a step is a number of STEPs since the epoch."""

    __slots__ = ("networks", "pruned")

    def __init__(self, step: int) -> None:
        self.pruned = step
        self.networks: dict[str, int] = {}

    def fields(self) -> tuple[str, ...]:
        """Nothing of it is saved."""
        return ()

    def worth_keeping(self, at: float) -> bool:
        """A flood of names from one network must not hide an account that several guess at."""
        self.prune(int(at / STEP))
        return len(self.networks) > 1

    def prune(self, step: int) -> None:
        """Forget networks that have not failed for an hour."""
        if step <= self.pruned:
            return
        self.pruned = step
        oldest = (step - _STEPS + 1) * _COUNT
        for network in [network for network, value in self.networks.items() if value < oldest]:
            del self.networks[network]


class Attacked(NamedTuple):
    """One row of the top list."""

    account: str
    networks: int
    failures: int  # from these networks, of each since its last quiet hour


class Targets:
    """The accounts; `evicted` says how many were forgotten to make room."""

    __slots__ = ("_dropped", "_remembered", "_room", "accounts")

    def __init__(self, limit: int = MAX_ACCOUNTS, room: int = MAX_REMEMBERED) -> None:
        self.accounts: Bounded[Target] = Bounded("attacked", limit, _STEPS * STEP, keep=False)
        self._dropped = 0
        self._room = room
        self._remembered = 0  # networks, at most: those forgotten since the last count among them

    def failed(self, user: str, ip: str, at: float, n: int) -> None:
        """Count a failed login that named `user` (`n` = 1), or take one back (`n` = -1)."""
        name = one_name(user)
        dot = ip.rfind(".")
        network = ip[:dot] if dot > 0 else _network6(ip)  # the text before the last dot is IPv4's /24
        account = self.accounts.get(name)
        if account is not None:
            value = account.networks.get(network, 0)
            if value:
                self._again(account, network, value, at, n)
                return
        if n < 0:
            return
        step = int(at / STEP)
        if self._remembered >= self._room:
            self._make_room(step)
            account = self.accounts.get(name)
        if account is None:
            account = Target(step)
            self.accounts.put(name, account, at)
        elif step > account.pruned:
            account.prune(step)
        if step <= account.pruned - _STEPS or len(account.networks) >= MAX_NETWORKS:
            return
        self._remembered += 1
        account.networks[network] = step * _COUNT + 1

    def _again(self, account: Target, network: str, value: int, at: float, n: int) -> None:
        step, failures = value // _COUNT, value % _COUNT
        newest = int(at / STEP)
        if n < 0:
            newest = step
            if failures <= 1:
                del account.networks[network]
                return
        elif newest - step >= _STEPS:
            failures = 0  # it was quiet for an hour
        account.networks[network] = max(newest, step) * _COUNT + min(failures + n, _COUNT - 1)

    def _make_room(self, step: int) -> None:
        """Forget what is over; then whom few attack, then anybody, the longest ago first, until a quarter is free."""
        items = self.accounts.items()
        self._remembered = 0
        for _, account in items:
            account.prune(step)
            self._remembered += len(account.networks)
        for most in (0, _FEW, MAX_NETWORKS):
            for name, account in items:
                held = len(account.networks)
                if held <= most and (not held or self._remembered > self._room // 4 * 3):
                    if self.accounts.take(name) is not None and held:
                        self._dropped += 1
                    self._remembered -= held
                    account.networks = {}

    def evicted(self) -> int:
        """Return how many accounts were forgotten to make room."""
        return self.accounts.evicted + self._dropped

    def networks(self, now: float) -> list[int]:
        """Return from how many networks each account was attacked over the last hour, in no order."""
        step = int(now / STEP)
        found = []
        for account in self.accounts.values():
            account.prune(step)
            if account.networks:
                found.append(len(account.networks))
        return found

    def top(self, now: float) -> list[Attacked]:
        """Return every account attacked over the last hour, most networks first."""
        step = int(now / STEP)
        found = []
        for name, account in self.accounts.items():
            account.prune(step)
            if account.networks:
                failures = sum([value % _COUNT for value in account.networks.values()])
                found.append(Attacked(name, len(account.networks), failures))
        found.sort(key=_rank)
        return found


def _network6(ip: str) -> str:
    """Return what stands for the /48 of an address: its first three groups where no zero may be written in two ways."""
    end = ip.find(":", ip.find(":", ip.find(":") + 1) + 1)
    head = ip[: end + 1]
    if end < 0 or "::" in head or ":0:" in head:
        return addresses.widen(ip, 24, 48)
    return head


def _rank(row: Attacked) -> tuple[int, int, str]:
    return -row.networks, -row.failures, row.account
