"""Whose SSH session is open on this host: the administrator, whom no ban may lock out.

Anybody can open a TCP connection to sshd and leave it there.  If that were enough, one idle connection would be a
shield for guessing mail passwords; and no one tells an unprivileged process which connection has logged in: the
owner of every such socket is root, utmp is gone from Debian 13, never saw sessions without a terminal and is not
seen from a container.  What does tell is time.  sshd cuts whoever has not logged in after LoginGraceTime, 120
seconds by default, so that a connection which has lasted longer has logged in.  Therefore

* an address is protected while it has a connection that has lasted GRACE seconds under our eyes, and from then on
  also while it has a younger one: it has logged in before;
* an address that is new to us has the benefit of the doubt, an administrator comes first: any connection protects
  it, for GRACE seconds once a day.  A guesser who keeps coming back gains these two minutes a day;
* IPv6 addresses of one /64 are one: a guesser has as many as he likes.

With `LoginGraceTime 0`, or where something else than sshd listens on the port (a tar pit), anybody lasts: name the
ports of the real sshd in `firewall.ssh_ports`.  Who is in through a container or a jump host shows with that
machine's address.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from guard.firewall.sock_diag import ESTABLISHED, sockets

GRACE: Final = 130.0  # seconds: LoginGraceTime, and some for sshd to act on it
FORGET: Final = 86400.0  # seconds without a connection after which an address is new again
LIMIT: Final = 10_000  # addresses remembered; of more the one unseen for longest is forgotten


class _Client:
    """What an address has shown; times are the monotonic clock's."""

    __slots__ = ("logged_in", "seen", "since")

    def __init__(self, since: float, *, logged_in: bool = False) -> None:
        self.since = since
        self.seen = since
        self.logged_in = logged_in


class SshSessions:
    """Remembers connections between looks; look at least every GRACE seconds, or sessions seem younger than they are."""

    def __init__(
        self,
        ports: Sequence[int] = (22,),
        *,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take sshd's ports; where this very process was started from an SSH session, that one's port is added.

        SSH_CONNECTION holds the client's address and port, the server's address and port (ssh(1)).
        """
        self.ports = frozenset(ports)
        self._clock = clock
        self._began: dict[bytes, float] = {}  # connections that are there -> when we saw them first
        self._clients: dict[str, _Client] = {}  # unseen for longest first
        words = environment.get("SSH_CONNECTION", "").split()
        if len(words) == 4 and words[3].isdecimal() and 0 < int(words[3]) < 65536:
            try:
                self._clients[_client(words[0])] = _Client(clock(), logged_in=True)
            except ValueError:
                return
            self.ports |= {int(words[3])}

    def look(self) -> set[str]:
        """Return the addresses to protect at this moment.  Raises OSError where the kernel does not tell."""
        now = self._clock()
        began: dict[bytes, float] = {}
        found: set[str] = set()
        for port in self.ports:
            for one in sockets(ESTABLISHED, port=port):
                since = began[one.id] = self._began.get(one.id, now)
                if self._is_protected(one.peer, since, now):
                    found.add(one.peer)
        self._began = began
        return found

    def _is_protected(self, peer: str, since: float, now: float) -> bool:
        key = _client(peer)
        client = self._clients.pop(key, None)
        if client is None or now - client.seen > FORGET:
            client = _Client(now)
            if len(self._clients) >= LIMIT:
                del self._clients[next(iter(self._clients))]
        self._clients[key] = client
        client.seen = now
        client.logged_in = client.logged_in or now - since >= GRACE
        return client.logged_in or now - client.since < GRACE


def _client(address: str) -> str:
    """Return what stands for an address: itself, or its /64."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or int(parsed) >> 64)
