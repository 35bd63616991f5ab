"""The books that all daemons' witnesses are entered in: hosts, sessions, clients; and what came out of them."""

from __future__ import annotations

from typing import Any, Final

from guard.bounded import Bounded, Entry
from guard.model import Attempt, AuthEvent, Success
from guard.sessions._host import VISIBLE, Host, Seen, Sogo
from guard.sessions._session import LIFE, Session
from guard.stats import Stats

_HOSTS: Final = 256
_STAMPS: Final = 1024
_CONFIRMED: Final = 900.0
_FREE: Final = 64


class Client(Entry):
    """What ties the two servers' lines about one address together (SMTP has no session id)."""

    __slots__ = ("alone", "alone_host", "errors", "free", "lost", "recent", "sessions", "unpaired")

    def __init__(self) -> None:
        self.free: list[float] = []  # auth lines without a session that no Postfix line has claimed
        self.unpaired: list[float] = []  # Postfix failures whose auth line has not come
        self.lost: list[float] = []  # `Connection lost` that nobody has confirmed
        self.errors: list[float] = []  # errors of the password database that no Postfix failure has used
        self.recent: list[tuple[float, str]] = []  # time and protocol of Postfix failures counted in the last seconds
        self.alone: Session | None = None  # Dovecot's side, while Postfix shows nothing of the address
        self.alone_host = ""
        self.sessions: list[str] = []  # Dovecot sessions of the address, for end lines that name none

    def worth_keeping(self, at: float) -> bool:
        """Keep what may still be paired."""
        return any(times and at - times[-1] < VISIBLE for times in (self.free, self.unpaired, self.lost))

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("free", "unpaired", "lost", "errors", "recent", "alone", "alone_host", "sessions")

    def dump(self) -> list[object]:
        """Return the client as JSON values."""
        values = super().dump()
        values[5] = None if self.alone is None else self.alone.dump()
        return values

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        alone = values[5]
        if alone is not None:
            values[5] = Session("", 0.0)
            values[5].load(alone)
        values[4] = [(at, protocol) for at, protocol in values[4]]
        super().load(values)


class Ledger:
    """State shared by the daemons' books.  `out` collects what is to be reported; whoever feeds drains it."""

    __slots__ = ("_max_sessions", "clients", "confirmed", "dovecot_speaks", "hosts", "keep", "moves", "orphans", "out", "sogo", "stats", "successes")

    def __init__(self, stats: Stats, max_sessions: int, max_clients: int, *, keep: bool) -> None:
        self.stats = stats
        self.keep = keep
        self._max_sessions = max_sessions
        self.hosts: dict[str, Host] = {}
        self.orphans: list[Host] = []  # hosts that show Postfix and no Dovecot
        self.clients: Bounded[Client] = Bounded("client", max_clients, VISIBLE, keep=keep)
        self.confirmed: Bounded[Seen] = Bounded("confirmed", max_clients, _CONFIRMED, keep=keep)
        self.out: list[Attempt] = []
        self.successes: list[Success] = []
        self.sogo: dict[str, Sogo] = {}  # by source
        self.moves: list[tuple[str, str, str, int]] = []  # address, reason, protocol, attempts: it showed later
        self.dovecot_speaks = False  # some Dovecot logs attempts: Postfix's lines have partners

    def host(self, name: str) -> Host:
        """Return the host's book."""
        host = self.hosts.get(name)
        if host is None:
            if len(self.hosts) >= _HOSTS:
                del self.hosts[next(iter(self.hosts))]
            host = self.hosts[name] = Host(name, Bounded(f"session {name}", self._max_sessions, LIFE / 2, keep=self.keep))
        return host

    def sogo_book(self, source: str) -> Sogo:
        """Return SOGo's book for a source."""
        book = self.sogo.get(source)
        if book is None:
            if len(self.sogo) >= _HOSTS:
                del self.sogo[next(iter(self.sogo))]
            book = self.sogo[source] = Sogo()
        return book

    def client(self, ip: str, at: float) -> Client:
        """Return the client's book, a new one if need be."""
        client = self.clients.get(ip)
        if client is None:
            client = Client()
            self.clients.put(ip, client, at)
        self.clients.touch(ip)
        return client

    def visible(self, host: Host, ip: str, at: float) -> bool:
        """Whether Postfix speaks for `ip` to the Dovecot of `host`.

        A host that shows both daemons speaks for itself; one that shows Dovecot alone belongs to the Postfix that
        shows no Dovecot (one service a container, or a file a daemon).
        """
        if host.sees(ip, at):
            return True
        if host.has_postfix:
            return False
        return any(not other.has_dovecot and other.sees(ip, at) for other in self.orphans)

    def speaks_for(self, postfix: Host, dovecot: str) -> bool:
        """Whether the Postfix of one host speaks for the Dovecot of another."""
        if postfix.name == dovecot:
            return True
        other = self.hosts.get(dovecot)
        return not postfix.has_dovecot and (other is None or not other.has_postfix)

    def count(self, event: AuthEvent, ip: str, is_open: int, *, confirms: bool = True) -> None:
        """Report one attempt at the event's time."""
        if confirms:
            self._confirm(ip, event.at)
        reason = event.reason or "unspecified"
        self.out.append(Attempt(event.at, ip, event.user, event.service, event.protocol, reason, 1, is_open))

    def settle(self, session: Session, at: float, estimate: int, is_open: int) -> None:
        """Report the difference between the estimate and what was reported of a Dovecot session so far."""
        if session.counted < estimate:
            self._confirm(session.ip, at)
        while session.counted < estimate:
            session.counted += 1
            if len(session.stamps) < _STAMPS:
                session.stamps.append(at)
            self._report(session, at, 1, is_open)
        while session.counted > estimate:
            session.counted -= 1
            self._report(session, session.stamps.pop() if session.stamps else at, -1, is_open)

    def _report(self, session: Session, at: float, n: int, is_open: int) -> None:
        self.out.append(
            Attempt(at, session.ip, session.user, "dovecot", session.protocol, session.reason, n, is_open)
        )

    def _confirm(self, ip: str, at: float) -> None:
        seen = self.confirmed.get(ip)
        if seen is None:
            seen = Seen()
            self.confirmed.put(ip, seen, at)
        seen.at = max(seen.at, at)
        self.confirmed.touch(ip)

    def take_back(self, at: float, ip: str, protocol: str) -> None:
        """Report that a Postfix failure counted at `at` was none."""
        self.stats.auth_unjudged.add(("postfix",))
        self.out.append(Attempt(at, ip, None, "postfix", protocol, "unspecified", -1, -1))

    def was_confirmed(self, ip: str, at: float) -> bool:
        """Whether the address had a judged failure a short time ago."""
        seen = self.confirmed.peek(ip)
        return seen is not None and at - seen.at <= _CONFIRMED


def take(times: list[float], since: float) -> bool:
    """Take the oldest time not before `since` from a list, dropping what is older; whether there was one."""
    while times and times[0] < since:
        times.pop(0)
    if times:
        times.pop(0)
        return True
    return False


def add(times: list[float], at: float) -> None:
    """Add a time to a bounded list, the oldest going first."""
    if len(times) >= _FREE:
        times.pop(0)
    times.append(at)
