"""The books that all daemons' witnesses are entered in: hosts, sessions, clients; and what came out of them."""

from __future__ import annotations

from typing import Final

from guard.bounded import Bounded
from guard.model import Attempt, AuthEvent, Success
from guard.sessions._client import NEVER, Client, confirm
from guard.sessions._host import Host, Sogo
from guard.sessions._session import LIFE, Session
from guard.stats import Stats

_HOSTS: Final = 256
_SPAN: Final = 3600.0
REPORTS: Final = (
    "policy reports"  # the book of sessions that only reports have shown: no host has a blank in its name
)


class Ledger:
    """State shared by the daemons' books.  `out` collects what is to be reported; whoever feeds drains it."""

    __slots__ = (
        "_max_sessions",
        "again",
        "clients",
        "dovecot_speaks",
        "hosts",
        "keep",
        "moves",
        "orphans",
        "out",
        "reports",
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
        self.reports: Host | None = None  # Dovecot reports attempts: sessions that no line has shown
        self.again = False  # what the event said had been said before
        self.dovecot_speaks = False  # some Dovecot logs attempts: Postfix's lines have partners

    def reporting(self) -> Host:
        """Return the book of the sessions that only reports have shown."""
        if self.reports is None:
            self.reports = Host(
                REPORTS, Bounded(f"session {REPORTS}", self._max_sessions, LIFE / 2, keep=self.keep)
            )
        return self.reports

    def session(self, host: Host, key: str, at: float) -> Session | None:
        """Return a session of the host, or one that was only reported and is the host's from now on."""
        session = host.sessions.get(key)
        if session is not None or self.reports is None:
            return session
        session = self.reports.sessions.peek(key)
        if session is not None:
            self.reports.sessions.discard(key)
            host.sessions.put(key, session, at)
            host.sessions.touch(key)
        return session

    def reported(self, key: str, at: float) -> tuple[Host, Session | None]:
        """Return the session that a report speaks of, and whose it is: a report names no host, an id is unique."""
        for host in self.hosts.values():
            session = host.sessions.get(key)
            if session is not None:
                return host, session
        host = self.reporting()
        return host, host.sessions.get(key)

    def host(self, name: str) -> Host:
        """Return the host's book."""
        host = self.hosts.get(name)
        if host is None:
            if name == REPORTS:  # a journal's line may hold any name
                return self.host("-")
            if len(self.hosts) >= _HOSTS:
                oldest = self.hosts.pop(next(iter(self.hosts)))
                self.orphans = [other for other in self.orphans if other is not oldest]
            host = self.hosts[name] = Host(
                name, Bounded(f"session {name}", self._max_sessions, LIFE / 2, keep=self.keep)
            )
        return host

    def broken_for(self, user: str | None, at: float) -> bool:
        """Whether some Dovecot's backend could not judge `user` about `at`; Postfix may run on another host."""
        return any(host.broken and host.broken_for(user, at) for host in self.hosts.values())

    def books(self) -> list[tuple[str, Host]]:
        """Return the hosts' books by name, with that of the reports."""
        books = list(self.hosts.items())
        return books if self.reports is None else [*books, (REPORTS, self.reports)]

    def book(self, name: str) -> Host:
        """Return the book that was saved under a name."""
        return self.reporting() if name == REPORTS else self.host(name)

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
        if dovecot in {postfix.name, REPORTS}:
            return True
        other = self.hosts.get(dovecot)
        return not postfix.has_dovecot and (other is None or not other.has_postfix)

    def count(self, event: AuthEvent, client: Client, ip: str, is_open: int) -> None:
        """Report one attempt at the event's time."""
        if client.pairs is not None and event.service in ("postfix", "dovecot"):
            told = client.pairs.of_pam(event.at)
            if told >= 0:
                self.revoke(told, ip, "unknown", "dovecot")
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
            told = client.pairs.of_pam(at) if client.pairs is not None else -1.0
            if told >= 0:  # counted already, and its protocol shows now
                session.stamped(told)
                if session.protocol != "unknown":
                    self.moves.append((session.ip, "unspecified", session.protocol, 1))
                continue
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
        self.revoke(at, ip, protocol, "postfix")

    def revoke(self, at: float, ip: str, protocol: str, service: str) -> None:
        """Report that what was counted at `at` was no failure."""
        self.out.append(
            Attempt(at, ip, None, service, protocol, "unspecified", -1, -1, self.client(ip, at), "")
        )

    def moved(self, session: Session, protocol: str) -> str:
        """Move what was counted before the protocol showed; return the protocol."""
        if session.protocol == "unknown" and protocol != "unknown" and session.counted:
            self.moves.append((session.ip, session.reason, protocol, session.counted))
        return protocol
