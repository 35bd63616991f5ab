"""The books that all daemons' witnesses are entered in: hosts, sessions, clients; and what came out of them."""

from __future__ import annotations

from typing import Any, Final

from guard.bounded import Bounded, Entry
from guard.model import Attempt, AuthEvent, Success
from guard.sessions._host import Host, Sogo
from guard.sessions._session import LIFE, Session
from guard.stats import Stats

_HOSTS: Final = 256
_FREE: Final = 64
_ALSO: Final = 16
_SESSIONS: Final = 7
_SPAN: Final = 3600.0
NEVER: Final = -1e18
CONFIRMED: Final = 900.0  # a `Connection lost` counts this long after a judged failure
VISIBLE: Final = 600.0  # Postfix speaks for an address this long after its last line


class Pairs(Entry):
    """Times of one address's SMTP lines that wait for the other daemon's."""

    __slots__ = ("errors", "free", "lost", "recent", "unpaired")

    def __init__(self) -> None:
        self.free: list[float] = []  # auth lines without a session that no Postfix line has claimed
        self.unpaired: list[float] = []  # Postfix failures whose auth line has not come
        self.lost: list[float] = []  # `Connection lost` that nobody has confirmed
        self.errors: list[float] = []  # errors of the password database that no Postfix failure has used
        self.recent: list[
            tuple[float, str]
        ] = []  # time and protocol of Postfix failures counted in the last seconds

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("free", "unpaired", "lost", "errors", "recent")

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        values[4] = [(at, protocol) for at, protocol in values[4]]
        super().load(values)


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
        self.sessions: list[str] | None = None  # and those before it

    def remember(self, session: str) -> None:
        """Note a Dovecot session of the address."""
        if self.session:
            if self.sessions is None:
                self.sessions = []
            elif len(self.sessions) >= _SESSIONS:
                self.sessions.pop(0)
            self.sessions.append(self.session)
        self.session = session

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


class Ledger:
    """State shared by the daemons' books.  `out` collects what is to be reported; whoever feeds drains it."""

    __slots__ = (
        "_max_sessions",
        "clients",
        "dovecot_speaks",
        "hosts",
        "keep",
        "moves",
        "orphans",
        "out",
        "sogo",
        "stats",
        "successes",
    )

    def __init__(self, stats: Stats, max_sessions: int, max_clients: int, *, keep: bool) -> None:
        self.stats = stats
        self.keep = keep
        self._max_sessions = max_sessions
        self.hosts: dict[str, Host] = {}
        self.orphans: list[Host] = []  # hosts that show Postfix and no Dovecot
        self.clients: Bounded[Client] = Bounded("client", max_clients, _SPAN, keep=keep)
        self.out: list[Attempt] = []
        self.successes: list[Success] = []
        self.sogo: dict[str, Sogo] = {}  # by source
        self.moves: list[
            tuple[str, str, str, int]
        ] = []  # address, reason, protocol, attempts: it showed later
        self.dovecot_speaks = False  # some Dovecot logs attempts: Postfix's lines have partners

    def host(self, name: str) -> Host:
        """Return the host's book."""
        host = self.hosts.get(name)
        if host is None:
            if len(self.hosts) >= _HOSTS:
                oldest = self.hosts.pop(next(iter(self.hosts)))
                self.orphans = [other for other in self.orphans if other is not oldest]
            host = self.hosts[name] = Host(
                name, Bounded(f"session {name}", self._max_sessions, LIFE / 2, keep=self.keep)
            )
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

    def visible(self, host: Host, client: Client, at: float) -> bool:
        """Whether Postfix speaks for a client to the Dovecot of `host`.

        A host that shows both daemons speaks for itself; one that shows Dovecot alone belongs to the Postfix that
        shows no Dovecot (one service a container, or a file a daemon).
        """
        if client.seen_at == NEVER:
            return False
        if client.seen_by(host.name, at):
            return True
        if host.has_postfix:
            return False
        return any(not other.has_dovecot and client.seen_by(other.name, at) for other in self.orphans)

    def speaks_for(self, postfix: Host, dovecot: str) -> bool:
        """Whether the Postfix of one host speaks for the Dovecot of another."""
        if postfix.name == dovecot:
            return True
        other = self.hosts.get(dovecot)
        return not postfix.has_dovecot and (other is None or not other.has_postfix)

    def count(self, event: AuthEvent, client: Client, ip: str, is_open: int) -> None:
        """Report one attempt at the event's time."""
        reason = event.reason or "unspecified"
        self.out.append(
            Attempt(
                event.at,
                ip,
                event.user,
                event.service,
                event.protocol,
                reason,
                1,
                is_open,
                client,
                event.line,
            )
        )

    def settle(self, session: Session, at: float, estimate: int, is_open: int, line: str) -> None:
        """Report the difference between the estimate and what was reported of a Dovecot session so far."""
        if session.counted == estimate:
            return
        client = self.client(session.ip, at)
        if session.counted < estimate:
            confirm(client, at)
        while session.counted < estimate:
            session.stamped(at)
            self._report(session, client, at, 1, is_open, line)
        while session.counted > estimate:
            self._report(session, client, session.unstamped(), -1, is_open, line)

    def _report(self, session: Session, client: Client, at: float, n: int, is_open: int, line: str) -> None:
        self.out.append(
            Attempt(
                at,
                session.ip,
                session.user,
                "dovecot",
                session.protocol,
                session.reason,
                n,
                is_open,
                client,
                line,
            )
        )

    def take_back(self, at: float, ip: str, protocol: str) -> None:
        """Report that a Postfix failure counted at `at` was none."""
        self.stats.auth_unjudged.add(("postfix",))
        self.out.append(
            Attempt(at, ip, None, "postfix", protocol, "unspecified", -1, -1, self.client(ip, at), "")
        )


def confirm(client: Client, at: float) -> None:
    """Note a judged failure of a client."""
    client.confirmed = max(client.confirmed, at)


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
