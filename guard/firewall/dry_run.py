"""The backend that enforces nothing: `firewall.backend = "none"`.

It keeps account of what a firewall would hold, refusals and expiry included, so that `status` and `bans` show
the same as they would with a real one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from guard.firewall import Drift, Drops, Element, Refused
from guard.firewall.admission import Admission
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from guard.firewall.protected import Protected
    from guard.model import Unban

LIMIT: Final = 1 << 20  # nets at once, as many as one set of the nftables backend holds


class DryRunFirewall:
    """A `Firewall` in memory; nothing reaches the kernel."""

    name: Final = "none"
    aside: Final = False

    def __init__(
        self,
        trusted: Sequence[str] | Protected = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        limit: int = LIMIT,
    ) -> None:
        """Take what is protected or the nets of `lists.trusted`, the clock by which bans end, and how many it keeps at most."""
        self._admission = Admission(trusted)
        self._clock = clock
        self._limit = limit
        self._ends: dict[str, float] = {}  # net -> the clock at its end

    def open(self) -> None:
        """Do nothing: there is nothing to make."""

    def apply(self, actions: Sequence[Ban | Unban], now: float) -> list[Refused]:
        """Keep account of `actions` as of `now`, and return those that a firewall would refuse."""
        wanted, refused = self._admission.sort_out(actions, now)
        self._expire()
        for net, action in wanted:
            if not isinstance(action, Ban):
                self._ends.pop(net.text, None)
            elif net.text in self._ends or len(self._ends) < self._limit:
                self._ends[net.text] = self._clock() + (action.until - now)
            else:
                refused.append(Refused(action, f"the dry run keeps {self._limit} nets at most"))
        return refused

    def reconcile(self, wanted: Mapping[str, Ban], now: float, *, keep_foreign: bool = True) -> Drift:
        """Hold exactly `wanted`: nobody else has a hand in our memory."""
        self.flush()
        refused = self.apply(list(wanted.values()), now)
        return Drift(held=frozenset(self._ends), refused=tuple(refused))

    def banned(self) -> list[Element]:
        """Return what would be shut out at this moment."""
        self._expire()
        clock = self._clock()
        return [Element(net, end - clock) for net, end in self._ends.items()]

    def drops(self) -> Mapping[str, Drops]:
        """Return noughts: nothing is ever dropped."""
        return {"ipv4": Drops(0, 0), "ipv6": Drops(0, 0)}

    def flush(self) -> None:
        """Forget every ban."""
        self._ends.clear()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def remove(self) -> None:
        """Forget every ban."""
        self._ends.clear()

    def _expire(self) -> None:
        clock = self._clock()
        self._ends = {net: end for net, end in self._ends.items() if end > clock}
