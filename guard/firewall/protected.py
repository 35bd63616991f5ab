"""What no ban may ever touch: this host, the way to the world, and the administrator.

| never banned | read from | label |
|---|---|---|
| this host's own addresses | rtnetlink | own |
| its gateways: every next hop of every routing table | rtnetlink | own |
| its resolvers | resolv.conf | own |
| whoever has an SSH session open (guard/firewall/ssh_sessions.py says who counts) | sock_diag | own |
| loopback, the unspecified address, IPv4-mapped IPv6 | - | own |
| `lists.trusted` | the configuration | trusted |
| a rule's ban wider than /16 (IPv6: /32 and wider) | - | anomaly |

All of it is read when a ban is decided and again when it is enforced.  `--force` opens none of these doors: what it
opens stands in `guard.bans.Bans.refusal`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from guard.firewall.nets import Net, Ranges, read_net
from guard.firewall.next_hops import gateways, resolvers
from guard.firewall.own_addresses import own_addresses
from guard.firewall.ssh_sessions import SshSessions

OWN: Final = "an address of this host"
GATEWAY: Final = "a gateway of this host"
RESOLVER: Final = "a resolver of this host"
SSH: Final = "the client of an SSH session that is open on this host"

WIDEST_BY_RULE: Final = {4: 16, 6: 33}  # fewer bits than this are no client, whatever a rule thinks
_BY_HAND: Final = ("manual", "deny")
_NEVER: Final = ("127.0.0.0/8", "::/127", "::ffff:0:0/96")
# A look is good for this many times the processor's time it took: in a flood of bans there is time for other work.
_REST: Final = 2.0
_LONGEST_REST: Final = 5.0  # seconds


class Objection(NamedTuple):
    """Why a net is not banned: `label` is the metrics' (`mailward_ignored_total`), `text` for the administrator."""

    label: str
    text: str


class _View(NamedTuple):
    """What one look has shown: address -> what it is; these, and these with all else that is never banned."""

    facts: dict[str, str]
    ranges: Ranges
    everything: Ranges


class Protected:
    """One for the whole process: it may be asked from several threads."""

    def __init__(
        self,
        trusted: Sequence[str] = (),
        sessions: SshSessions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        cost: Callable[[], float] = time.thread_time,
    ) -> None:
        """Take the nets of `lists.trusted`; raises ValueError for one that is no net."""
        self.sessions = sessions or SshSessions()
        self.trouble: dict[str, str] = {}  # what cannot be read -> why; then the last answer stands
        self._clock = clock
        self._cost = cost
        self._lock = threading.Lock()
        self._last: dict[str, set[str]] = {}
        self._good_until = 0.0
        self.trusted: tuple[str, ...] = ()
        self._view = self._seen({})
        self.trust(trusted)

    def trust(self, trusted: Sequence[str]) -> None:
        """Take another `lists.trusted`; raises ValueError for what is no net."""
        ranges = Ranges(map(read_net, trusted))
        with self._lock:
            self.trusted = tuple(trusted)
            self._trusted = ranges
            self._view = self._seen(self._view.facts)

    def look(self) -> None:
        """Read everything anew, unless that was done a moment ago."""
        with self._lock:
            if self._clock() < self._good_until:
                return
            began = self._cost()
            facts: dict[str, str] = {}
            # Of an address that is several things the first one is told.
            facts |= dict.fromkeys(self._read(SSH, self.sessions.look), SSH)
            facts |= dict.fromkeys(self._read(RESOLVER, resolvers), RESOLVER)
            facts |= dict.fromkeys(self._read(GATEWAY, gateways), GATEWAY)
            facts |= dict.fromkeys(self._read(OWN, own_addresses), OWN)
            if facts != self._view.facts:
                self._view = self._seen(facts)
            self._good_until = self._clock() + min(_REST * (self._cost() - began), _LONGEST_REST)

    def _seen(self, facts: dict[str, str]) -> _View:
        nets = list(map(read_net, facts))
        return _View(facts, Ranges(nets), Ranges([*nets, *map(read_net, (*_NEVER, *self.trusted))]))

    def _read(self, what: str, ask: Callable[[], Iterable[object]]) -> set[str]:
        try:
            # A link-local address with its zone is no element of a set: without it the address stands on every link.
            self._last[what] = {str(address).partition("%")[0] for address in ask()}
        except OSError as error:
            self.trouble[what] = str(error)
        else:
            self.trouble.pop(what, None)
        return self._last.get(what, set())

    def host(self) -> tuple[str, ...]:
        """Return the addresses of this host, its gateways and its resolvers as nets, as of the last look."""
        facts = self._view.facts
        return tuple(sorted(read_net(address).text for address, what in facts.items() if what != SSH))

    def what(self, address: str) -> str:
        """Return what a protected address is, in words; "" for any other, as of the last look."""
        return self._view.facts.get(address, "")

    def objection(self, net: Net, rule: str) -> Objection | None:
        """Return why a ban of `net` by `rule` may not be, as of the last look; None where it may."""
        view = self._view
        if not view.everything.overlaps(net):  # one question, where 100,000 bans come back after a restart
            if net.width < WIDEST_BY_RULE[net.family] and rule not in _BY_HAND:
                return Objection("anomaly", f"{net.text}: no rule bans a net as wide as that")
            return None
        if view.ranges.overlaps(net):
            return Objection("own", _named(net, view.facts))
        if self._trusted.overlaps(net):
            text = "it overlaps a net in lists.trusted, which are never clients: change that list first"
            return Objection("trusted", f"{net.text}: {text}")
        text = "loopback, the unspecified address and IPv4-mapped IPv6 are never clients"
        return Objection("own", f"{net.text}: {text}")


def _named(net: Net, facts: dict[str, str]) -> str:
    """Return the objection in words, with the address it is about; own addresses before loopback's."""
    inside = [address for address in facts if Ranges([read_net(address)]).overlaps(net)]
    address = next((one for one in inside if not one.startswith("127.") and one != "::1"), inside[0])
    if net.first == net.last:
        return f"{address} is {facts[address]}: never banned, not even with --force"
    return (
        f"{net.text} holds {address}, {facts[address]}: never banned, not even with --force; "
        "ban narrower nets that leave it out"
    )
