"""Who is guessed at: accounts that failed logins named over the last hour, and from how many networks.

A guesser with many networks stays below every ban: what shows him is the account.  Nothing is saved: after a restart
the hour begins with the first failure.  A name is an attacker's text, and need not be anybody's, so memory is bounded:
MAX_ACCOUNTS, and of each PLACES bytes once a second network has failed.  Times are the log's.

How many networks (/24, /48) there are is estimated from how many of these places they fall into (linear counting: Whang,
Vander-Zanden, Taylor 1990): of ten one too few in one case of fifty and never too many; 1.7 % (rms) at 100 and at 1000.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from mypy_extensions import i64, mypyc_attr

from guard import addresses
from guard.bounded import Bounded, Entry
from guard.senders import MAX_ACCOUNTS, STEP
from guard.tally import one_name

PLACES: Final = 2048
_STEPS: Final = 13  # the hour is this step of STEP seconds and the twelve before it
_MARKS: Final = 255  # a place holds its newest step, modulo this, plus one; 0: none
_SWEEP: Final = 200  # steps after which what is over is wiped out, before its mark is taken for a new one
_FEW: Final = 64  # places in use up to which two networks in one are left out of account
_MASK: Final = 0x7FFFFFFF
_SPREAD: Final = 1_327_217_885  # 2^31 divided by the golden ratio


@mypyc_attr(acyclic=True)
class Target(Entry):
    """One account; a step is a number of STEPs since the epoch."""

    __slots__ = ("counts", "first", "places", "step", "swept")

    def __init__(self, place: i64, step: i64) -> None:
        self.first: i64 = place  # of its one network: most names have no other
        self.step: i64 = step  # the newest
        self.swept: i64 = step
        self.places: bytearray | None = None
        self.counts: list[int] = []  # by step, modulo _STEPS: places whose newest step it is

    def fields(self) -> tuple[str, ...]:
        """Nothing of it is saved."""
        return ()

    def worth_keeping(self, at: float) -> bool:
        """A flood of names from one network must not hide an account that several guess at."""
        return self.places is not None and int(at / STEP) - self.step < _STEPS

    def failed(self, place: i64, step: i64) -> None:
        """Note a network by its place."""
        if step >= self.step + _STEPS:  # it was quiet for an hour
            self.first, self.step, self.swept, self.places = place, step, step, None
            return
        if step <= self.step - _STEPS:
            return
        places = self.places
        if places is None:
            if place == self.first:
                self.step = max(self.step, step)
                return
            places = self.places = bytearray(PLACES)
            places[self.first] = self.step % _MARKS + 1
            self.counts = [0] * _STEPS
            self.counts[self.step % _STEPS] = 1
            self.swept = self.step
        if step > self.step:
            for n in range(self.step + 1, step + 1):
                self.counts[n % _STEPS] = 0
            self.step = step
            if step - self.swept >= _SWEEP:
                self._sweep(places)
        if places[place]:
            known = self.step - self._age(places[place])
            if known >= step:
                return
            if known > self.step - _STEPS:
                self.counts[known % _STEPS] -= 1
        places[place] = step % _MARKS + 1
        self.counts[step % _STEPS] += 1

    def networks(self, step: i64) -> int:
        """Return about how many networks failed in the hour up to `step`."""
        newest = max(step, self.step)
        if newest >= self.step + _STEPS:
            return 0
        if self.places is None:
            return 1
        used = 0
        for n in range(newest - _STEPS + 1, self.step + 1):
            used += self.counts[n % _STEPS]
        return used if used < _FEW else round(-PLACES * math.log1p(-min(used, PLACES - 1) / PLACES))

    def _age(self, mark: i64) -> i64:
        return (self.step - (mark - 1)) % _MARKS

    def _sweep(self, places: bytearray) -> None:
        self.swept = self.step
        for place in range(PLACES):
            if places[place] and self._age(places[place]) >= _STEPS:
                places[place] = 0


class Attacked(NamedTuple):
    """One row of the top list."""

    account: str
    networks: int


class Targets:
    """The accounts; `accounts.evicted` says how many were forgotten to make room."""

    __slots__ = ("accounts",)

    def __init__(self, limit: int = MAX_ACCOUNTS) -> None:
        self.accounts: Bounded[Target] = Bounded("attacked", limit, _STEPS * STEP, keep=False)

    def failed(self, user: str, ip: str, at: float) -> None:
        """Count a failed login that named `user`."""
        name = one_name(user)
        account = self.accounts.get(name)
        if account is None:
            self.accounts.put(name, Target(_place(ip), int(at / STEP)), at)
        else:
            account.failed(_place(ip), int(at / STEP))

    def networks(self, now: float) -> list[int]:
        """Return from how many networks each account was attacked over the last hour, in no order."""
        step: i64 = int(now / STEP)
        return [n for n in [account.networks(step) for account in self.accounts.values()] if n]

    def top(self, now: float) -> list[Attacked]:
        """Return every account attacked over the last hour, most networks first."""
        step: i64 = int(now / STEP)
        found = [Attacked(name, account.networks(step)) for name, account in self.accounts.items()]
        return sorted([row for row in found if row.networks], key=_rank)


def _place(ip: str) -> i64:
    """Return the place of an address' network, 0 to PLACES - 1."""
    size: i64 = len(ip)
    folded: i64 = 0
    dots: i64 = 0
    at: i64 = 0
    while at < size:
        c = ord(ip[at])
        if c == 58:  # ":"
            return _place6(ip)
        if c == 46:  # "."
            dots += 1
            if dots == 3:
                break
        folded = (folded * 31 + c) & _MASK
        at += 1
    return (folded * _SPREAD >> 16) & (PLACES - 1)


def _place6(ip: str) -> i64:
    folded: i64 = 0
    for c in addresses.vicinity(ip):
        folded = (folded * 31 + ord(c)) & _MASK
    return (folded * _SPREAD >> 16) & (PLACES - 1)


def _rank(row: Attacked) -> tuple[int, str]:
    return -row.networks, row.account
