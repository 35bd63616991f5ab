"""What each client address did, in all: the `sources` of replay and of `explain --ip`."""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from guard.bounded import Bounded, Entry

_USERS: Final = 1000
_NAMES: Final = 1 << 16
_LONGEST: Final = 254  # characters kept of a name: no mail address is longer (RFC 5321, 4.5.3.1.3)
_SPAN: Final = 40 * 86400.0


_names: dict[str, str] = {}


def one_name(name: str) -> str:
    """Return the one copy of a name in lower case: guessers try the same names from everywhere."""
    if len(name) > _LONGEST:
        name = name[:_LONGEST]
    known = _names.get(name)
    if known is not None:
        return known
    if len(_names) >= _NAMES:
        _names.clear()
    lower = name.lower()
    lower = _names.setdefault(lower, lower)
    _names[name] = lower
    return lower


@mypyc_attr(acyclic=True)
class Source(Entry):
    """One client address.  The first user and two protocols cost no container of their own: most have no others."""

    __slots__ = (
        "also", "also_failures", "epoch", "failures", "first", "last", "net", "protocol", "protocol_failures", "protocols", "role", "successes",
        "user", "user_failures", "users", "window",
    )  # fmt: skip

    def __init__(self, at: float) -> None:
        self.epoch = 0  # of the lists by which `role` and `net` were found (guard/bans/_lists.py); not saved
        self.role = 0
        self.net = ""
        self.window: Entry | None = None  # what a rule keeps of `net`: found without a look-up; not saved
        self.failures = 0
        self.successes = 0
        self.first = at
        self.last = at
        self.user: str | None = None
        self.user_failures = 0
        self.users: dict[str, int] | None = None  # failures by user, all but the first
        # failures by protocol: the first two, and the others
        self.protocol = ""
        self.protocol_failures = 0
        self.also = ""
        self.also_failures = 0
        self.protocols: dict[str, int] | None = None

    def seen(self, at: float) -> None:
        """Note when it was active."""
        if at > self.last:
            self.last = at
        elif at < self.first:
            self.first = at

    def named(self, user: str, n: int) -> bool:
        """Note a user name, and `n` failures for it (0: a success; negative: taken back); whether the name is new here."""
        name = one_name(user)
        if self.user == name:
            self.user_failures += n
            return False
        if self.user is None:
            self.user = name
            self.user_failures += n
            return True
        users = self.users
        if users is None:
            self.users = {name: n}
            return True
        known = users.get(name)
        if known is not None:
            users[name] = known + n
            return False
        if len(users) < _USERS:
            users[name] = n
            return True
        return False

    def failures_for(self, user: str) -> int:
        """Return how often the address failed for one user."""
        name = one_name(user)
        if self.user == name:
            return self.user_failures
        return 0 if self.users is None else self.users.get(name, 0)

    def forgive(self, user: str) -> bool:
        """Forget the failures for one user; whether the name is new here."""
        return self.named(user, -self.failures_for(user))

    def failed(self, protocol: str, n: int) -> None:
        """Count `n` failures (negative: taken back)."""
        self.failures += n
        self._add(protocol, n)

    def moved(self, protocol: str, n: int) -> None:
        """Move `n` failures from the unknown protocol to the one that showed."""
        self._add("unknown", -n)
        self._add(protocol, n)

    def _add(self, protocol: str, n: int) -> None:
        if self.protocol == protocol or not self.protocol_failures:
            self.protocol = protocol
            self.protocol_failures += n
        elif self.also == protocol or not self.also_failures:
            self.also = protocol
            self.also_failures += n
        else:
            if self.protocols is None:
                self.protocols = {}
            self.protocols[protocol] = self.protocols.get(protocol, 0) + n

    def by_protocol(self) -> dict[str, int]:
        """Return the failures by protocol."""
        counts = {} if self.protocols is None else dict(self.protocols)
        for name, n in ((self.protocol, self.protocol_failures), (self.also, self.also_failures)):
            if n:
                counts[name] = counts.get(name, 0) + n
        return {name: n for name, n in sorted(counts.items()) if n}

    def user_count(self) -> int:
        """Return how many different user names were tried, at most 1000."""
        return (0 if self.user is None else 1) + (0 if self.users is None else len(self.users))

    def worth_keeping(self, at: float) -> bool:
        """Keep addresses seen more than once."""
        return self.failures > 1

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return (
            "failures",
            "successes",
            "first",
            "last",
            "user",
            "user_failures",
            "users",
            "protocol",
            "protocol_failures",
            "also",
            "also_failures",
            "protocols",
        )


class Sources(Bounded[Source]):
    """The addresses; `accounts` is how many (address, user) pairs are remembered."""

    __slots__ = ("accounts",)

    def __init__(self, limit: int, *, keep: bool) -> None:
        super().__init__("source", limit, _SPAN, keep=keep)
        self.accounts = 0

    def restore(self, key: str, entry: Source) -> None:
        """Take an entry from the saved state."""
        super().restore(key, entry)
        self.accounts += entry.user_count()

    def forgotten(self, old: dict[str, Source], kept: dict[str, Source]) -> None:
        """Take note of what is dropped."""
        for key, entry in old.items():
            if key not in kept:
                self.accounts -= entry.user_count()


class Tally:
    """All client addresses, bounded."""

    __slots__ = ("sources",)

    def __init__(self, limit: int, *, keep: bool) -> None:
        self.sources = Sources(limit * 2, keep=keep)

    def add(self, ip: str, at: float) -> Source:
        """Return a new record for an address that has none."""
        source = Source(at)
        self.sources.put(ip, source, at)
        return source

    def move(self, ip: str, protocol: str, n: int) -> None:
        """Move attempts to the protocol that showed later."""
        source = self.sources.peek(ip)
        if source is not None:
            source.moved(protocol, n)
            self.sources.touch(ip)
