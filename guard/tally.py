"""What each client address did, in all: the `sources` of replay and of `explain --ip`."""

from __future__ import annotations

from typing import Any, Final

from guard.bounded import Bounded, Entry

_USERS: Final = 1000
_SPAN: Final = 40 * 86400.0


class Source(Entry):
    """One client address.  The first user and protocol cost no container of their own: most have no second."""

    __slots__ = ("epoch", "failures", "first", "last", "net", "protocol", "protocols", "role", "successes", "user", "users")

    def __init__(self, at: float) -> None:
        self.epoch = 0  # of the lists by which `role` and `net` were found (guard/bans.py); not saved
        self.role = 0
        self.net = ""
        self.failures = 0
        self.successes = 0
        self.first = at
        self.last = at
        self.user: str | None = None
        self.users: set[str] | None = None
        self.protocol = ""
        self.protocols: dict[str, int] | None = None

    def named(self, user: str) -> None:
        """Note a user name."""
        if self.user is None:
            self.user = user
        elif self.user != user:
            if self.users is None:
                self.users = {self.user}
            if len(self.users) < _USERS:
                self.users.add(user)

    def failed(self, protocol: str, n: int) -> None:
        """Count `n` failures (negative: taken back)."""
        self.failures += n
        if self.protocols is None:
            if not self.protocol or self.protocol == protocol or self.failures == n:
                self.protocol = protocol
                return
            self.protocols = {self.protocol: self.failures - n}
        self.protocols[protocol] = self.protocols.get(protocol, 0) + n

    def moved(self, protocol: str, n: int) -> None:
        """Move `n` failures from the unknown protocol to the one that showed."""
        if self.protocols is None:
            if self.failures == n:
                self.protocol = protocol
                return
            self.protocols = {self.protocol: self.failures}
        self.protocols["unknown"] = self.protocols.get("unknown", 0) - n
        self.protocols[protocol] = self.protocols.get(protocol, 0) + n

    def by_protocol(self) -> dict[str, int]:
        """Return the failures by protocol."""
        if self.protocols is None:
            return {self.protocol: self.failures} if self.failures else {}
        return {name: n for name, n in sorted(self.protocols.items()) if n}

    def user_count(self) -> int:
        """Return how many different user names were tried, at most 1000."""
        return len(self.users) if self.users is not None else (0 if self.user is None else 1)

    def worth_keeping(self, at: float) -> bool:
        """Keep addresses seen more than once."""
        return self.failures > 1

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("failures", "successes", "first", "last", "user", "users", "protocol", "protocols")

    def dump(self) -> list[object]:
        """Return the source as JSON values."""
        values = super().dump()
        values[5] = None if self.users is None else sorted(self.users)
        return values

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        values[5] = None if values[5] is None else set(values[5])
        super().load(values)


class Tally:
    """All client addresses, bounded."""

    __slots__ = ("sources",)

    def __init__(self, limit: int, *, keep: bool) -> None:
        self.sources: Bounded[Source] = Bounded("source", limit * 2, _SPAN, keep=keep)

    def find(self, ip: str, at: float) -> Source:
        """Return the address's record, a new one if need be."""
        source = self.sources.get(ip)
        if source is None:
            source = Source(at)
            self.sources.put(ip, source, at)
        elif at > source.last:
            source.last = at
        elif at < source.first:
            source.first = at
        self.sources.touch(ip)
        return source

    def move(self, ip: str, protocol: str, n: int) -> None:
        """Move attempts to the protocol that showed later."""
        source = self.sources.peek(ip)
        if source is not None:
            source.moved(protocol, n)
            self.sources.touch(ip)
