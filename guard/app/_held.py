"""What the kernel holds, as far as the enforcer knows: brought up to date by what it does, corrected by each look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from guard.addresses import family
from guard.firewall import Drift
from guard.model import Ban

FAMILIES = ("ipv4", "ipv6")


def _counted(nets: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys(FAMILIES, 0)
    for net in nets:
        counts[family(net)] += 1
    return counts


class Held:
    """Nets, each with the ban that asserted it; None for a foreign one, which nobody decided."""

    def __init__(self) -> None:
        self.foreign = dict.fromkeys(FAMILIES, 0)
        self.strangers: tuple[str, ...] = ()
        self._bans: dict[str, Ban | None] = {}
        self._counts = dict.fromkeys(FAMILIES, 0)
        self._changes: dict[
            str, Ban | None
        ] = {}  # net -> its ban, None where it ended, since the last `watch`
        self._foreign_before = 0

    @classmethod
    def of(cls, drift: Drift, wanted: Mapping[str, Ban]) -> Held:
        """Return what a look has found; takes a tenth of a second at 100,000 bans."""
        held = cls()
        held._bans = {net: wanted.get(net) for net in drift.held}
        held._counts = _counted(held._bans)
        if len(held._bans) > len(wanted) or drift.foreign:
            held.foreign = _counted(net for net, ban in held._bans.items() if ban is None)
        held.strangers = drift.strangers
        return held

    def __contains__(self, net: str) -> bool:
        return net in self._bans

    def get(self, net: str) -> Ban | None:
        """Return the ban by which the kernel holds `net`; None where it does not, or nobody decided it."""
        return self._bans.get(net)

    def count(self) -> dict[str, int]:
        """Return how many nets there are, by family."""
        return dict(self._counts)

    def put(self, ban: Ban) -> None:
        """Note that a ban was asserted."""
        if ban.net not in self._bans:
            self._counts[family(ban.net)] += 1
        elif self._bans[ban.net] is None:  # a look saw it in the kernel and did not know yet that it is ours
            self.foreign[family(ban.net)] -= 1
        self._bans[ban.net] = ban
        self._changes[ban.net] = ban

    def discard(self, net: str) -> None:
        """Note that a ban was ended."""
        if net in self._bans:
            self._counts[family(net)] -= 1
            if self._bans.pop(net) is None:
                self.foreign[family(net)] -= 1
        self._changes[net] = None

    def watch(self) -> None:
        """Begin to remember changes: a look begins."""
        self._changes.clear()

    def after(self, before: Held) -> Held:
        """Take what was done while this look was under way, and return it."""
        for net, ban in before._changes.items():
            if ban is None:
                self.discard(net)
            else:
                self.put(ban)
        self._changes.clear()
        self._foreign_before = before._foreign_before
        return self

    def more(self, foreign: int) -> int:
        """Return how many foreign nets there are now that were not there at the last look."""
        more = max(0, foreign - self._foreign_before)
        self._foreign_before = foreign
        return more
