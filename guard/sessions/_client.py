"""What ties the lines of several daemons about one address together: SMTP has no session id."""

from __future__ import annotations

from typing import Any, Final

from mypy_extensions import mypyc_attr

from guard.bounded import Entry
from guard.sessions._session import LIFE, Session

_FREE: Final = 64
_ALSO: Final = 16
_SESSIONS: Final = 7
NEVER: Final = -1e18
PAIRING: Final = 12.0  # Postfix gives up on Dovecot after 10 s
CONFIRMED: Final = 900.0  # a `Connection lost` counts this long after a judged failure
VISIBLE: Final = 600.0  # Postfix speaks for an address this long after its last line


@mypyc_attr(acyclic=True)
class Pairs(Entry):
    """Times of one address's SMTP lines that wait for the other daemon's; most addresses have one list at most."""

    __slots__ = ("errors", "free", "lost", "unpaired")

    def __init__(self) -> None:
        self.free: list[float] | None = None  # auth lines without a session that no Postfix line has claimed
        self.lost: list[float] | None = None  # `Connection lost` that nobody has confirmed
        self.errors: list[float] | None = (
            None  # errors of the password database that no Postfix failure has used
        )
        # time and protocol of Postfix failures whose auth line has not come
        self.unpaired: list[tuple[float, str]] | None = None

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("free", "lost", "errors", "unpaired")

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        if values[3] is not None:
            values[3] = [(at, protocol) for at, protocol in values[3]]
        super().load(values)

    def waits(self, at: float, protocol: str) -> None:
        """Note a Postfix failure without its auth line; those that no line can belong to any more go."""
        unpaired = self.unpaired
        if unpaired is None:
            self.unpaired = [(at, protocol)]
            return
        if unpaired and (unpaired[0][0] < at - PAIRING or len(unpaired) >= _FREE):
            self.unpaired = unpaired = [one for one in unpaired[-_FREE + 1 :] if one[0] >= at - PAIRING]
        unpaired.append((at, protocol))

    def meets(self, since: float) -> bool:
        """Take the oldest Postfix failure not before `since` that waits for its auth line; whether there was one."""
        unpaired = self.unpaired
        if unpaired is None:
            return False
        while unpaired and unpaired[0][0] < since:
            unpaired.pop(0)
        if not unpaired:
            return False
        unpaired.pop(0)
        return True


@mypyc_attr(acyclic=True)
class Client(Entry):
    """What ties the lines of several daemons about one address together (SMTP has no session id)."""

    __slots__ = (
        "alone",
        "alone_host",
        "also",
        "confirmed",
        "pairs",
        "seen_at",
        "seen_host",
        "session",
        "session_at",
        "sessions",
        "source",
    )

    def __init__(self) -> None:
        self.confirmed = NEVER  # the last judged failure
        self.seen_host = ""  # the host whose Postfix wrote of the address last, and when
        self.seen_at = NEVER
        self.also: dict[str, float] | None = None  # other hosts whose Postfix did
        self.pairs: Pairs | None = None
        self.alone: Session | None = None  # Dovecot's side, while Postfix shows nothing of the address
        self.alone_host = ""
        self.source: Entry | None = (
            None  # what a later stage keeps of the address: found without a look-up; not saved
        )
        self.session = ""  # the newest Dovecot session of the address, for end lines that name none
        self.session_at = NEVER  # when it began
        self.sessions: list[str] | None = None  # and those before it

    def remember(self, session: str, at: float) -> None:
        """Note a Dovecot session of the address that begins at `at`."""
        if at - self.session_at > LIFE:  # the others are over
            self.sessions = None
        elif self.session:
            if self.sessions is None:
                self.sessions = []
            elif len(self.sessions) >= _SESSIONS:
                self.sessions.pop(0)
            self.sessions.append(self.session)
        self.session = session
        self.session_at = at

    def known(self) -> list[str]:
        """Return the Dovecot sessions of the address, oldest first."""
        if not self.session:
            return []
        return [self.session] if self.sessions is None else [*self.sessions, self.session]

    def waiting(self) -> Pairs:
        """Return the times that wait for a partner."""
        if self.pairs is None:
            self.pairs = Pairs()
        return self.pairs

    def seen(self, host: str, at: float) -> None:
        """Note that Postfix of `host` shows a connection of the address."""
        if self.seen_host != host:
            if self.seen_at != NEVER:
                if self.also is None or len(self.also) >= _ALSO:
                    self.also = {}
                self.also[self.seen_host] = self.seen_at
            self.seen_host = host
        self.seen_at = at

    def seen_by(self, host: str, at: float) -> bool:
        """Whether Postfix of `host` speaks for the address at time `at`."""
        if self.seen_host == host:
            return at - self.seen_at <= VISIBLE
        return self.also is not None and at - self.also.get(host, NEVER) <= VISIBLE

    def worth_keeping(self, at: float) -> bool:
        """Keep what may still be paired or has just failed."""
        return at - self.confirmed < CONFIRMED or at - self.seen_at < VISIBLE

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return (
            "confirmed",
            "seen_host",
            "seen_at",
            "also",
            "pairs",
            "alone",
            "alone_host",
            "session",
            "session_at",
            "sessions",
        )

    def dump(self) -> list[object]:
        """Return the client as JSON values."""
        values = super().dump()
        values[4] = None if self.pairs is None else self.pairs.dump()
        values[5] = None if self.alone is None else self.alone.dump()
        return values

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        if values[4] is not None:
            pairs = Pairs()
            pairs.load(values[4])
            values[4] = pairs
        if values[5] is not None:
            alone = Session("", 0.0)
            alone.load(values[5])
            values[5] = alone
        super().load(values)


def confirm(client: Client, at: float) -> None:
    """Note a judged failure of a client."""
    client.confirmed = max(client.confirmed, at)


def take(times: list[float] | None, since: float) -> bool:
    """Take the oldest time not before `since` from a list, dropping what is older; whether there was one."""
    if times is None:
        return False
    while times and times[0] < since:
        times.pop(0)
    if times:
        times.pop(0)
        return True
    return False


def add(times: list[float] | None, at: float) -> list[float]:
    """Add a time to a bounded list, the oldest going first; return the list."""
    if times is None:
        return [at]
    if len(times) >= _FREE:
        times.pop(0)
    times.append(at)
    return times
