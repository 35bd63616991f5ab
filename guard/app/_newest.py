"""The newest bans in force, kept as they are decided: nobody has to look through all of them for each page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from operator import attrgetter
from typing import Final

from guard.model import Action, Ban

KEPT: Final = 1000
AGAIN: Final = (
    10.0  # seconds between two looks through all bans, where those kept have ended before older ones
)
_LISTED: Final = "deny"
_at = attrgetter("at")


class Newest:
    """Follows the actions that are to be enforced, on their way to `enforce`; `active` returns all bans in force."""

    def __init__(
        self, active: Callable[[], Iterable[Ban]], enforce: Callable[[Sequence[Action]], None]
    ) -> None:
        self._active = active
        self._enforce = enforce
        self._bans: dict[str, Ban] = {}  # by net, the newest last; at most `KEPT`
        self._listed: set[str] = set()  # nets of the deny list
        self._looked = 0.0  # monotonic
        self._look()

    @property
    def listed(self) -> int:
        """How many bans are the deny list's."""
        return len(self._listed)

    def take(self, actions: Sequence[Action]) -> None:
        """Note what is decided, and pass it on."""
        self._enforce(actions)
        for action in actions:
            net = action.net
            self._bans.pop(net, None)
            self._listed.discard(net)
            if isinstance(action, Ban):
                if action.rule == _LISTED:
                    self._listed.add(net)
                else:
                    self._bans[net] = action
                    if len(self._bans) > KEPT:
                        del self._bans[next(iter(self._bans))]

    def shown(self, n: int, wanted: int) -> list[Ban]:
        """Return the newest `n` without those of the deny list, newest first; `wanted` is how many bans there are."""
        short = min(n, wanted - len(self._listed))
        if len(self._bans) < short and time.monotonic() - self._looked >= AGAIN:
            self._look()
        return sorted(list(self._bans.values())[-n:], key=_at, reverse=True)

    def _look(self) -> None:
        """Look through all bans: 10 ms at 100,000."""
        active = list(self._active())
        self._listed = {ban.net for ban in active if ban.rule == _LISTED}
        own = (ban for ban in active if ban.rule != _LISTED)
        self._bans = {ban.net: ban for ban in reversed(nlargest(KEPT, own, key=_at))}
        self._looked = time.monotonic()
