"""In what the elements of our sets and the bans that are wanted differ: no effects.

A comparison of 100,000 bans takes a tenth of a second of one thread's work with the GIL, and runs beside the thread
that bans: `paced` lets the others have their turn.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from guard.firewall.ruleset import LONGEST
from guard.model import Action, Ban

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

EARLY: Final = (
    0.1  # seconds by which the kernel may seem to end a ban before its time: what the reading takes
)
LATE: Final = 5.0  # seconds by which it may end it after its time: rounding, and waiting for the kernel
SOON: Final = 2.0  # seconds: what ends by then may be gone or not
MEMORY: Final = 10.0  # seconds: bans are compared with the kernel at once when they were told
_BURST: Final = 500
_PAUSE: Final = 0.0002  # seconds; 0 would not make another thread run

T = TypeVar("T")


class Differences(NamedTuple):
    """What must be asserted, what must get its end anew, and what nobody wants."""

    missing: list[Ban]
    timeout: list[Ban]
    foreign: list[str]


def paced(items: Iterable[T]) -> Iterator[T]:
    """Yield `items`, and let other threads run every now and then, about half a millisecond's work apart."""
    for n, item in enumerate(items, 1):
        yield item
        if n % _BURST == 0:
            time.sleep(_PAUSE)


class Recent:
    """What `apply` did within the last seconds, and does at this moment.

    Bans that are wanted are told as of a moment, and the kernel is read at another: what was decided in between must
    not look like a difference.
    """

    __slots__ = ("_actions",)

    def __init__(self) -> None:
        self._actions: dict[str, tuple[float, Action]] = {}  # net -> when it was done, math.inf: under way

    def begin(self, actions: Mapping[str, Action]) -> None:
        """Note that `actions` (net -> action) are under way."""
        self._actions.update((net, (math.inf, action)) for net, action in actions.items())

    def end(self, actions: Mapping[str, Action], failed: Collection[Action]) -> None:
        """Note that `actions` are done, but for those that failed; and forget what is old."""
        now = time.monotonic()
        for net, action in actions.items():
            self._actions.pop(net, None)
            if not failed or action not in failed:
                self._actions[net] = now, action
        for net, (done, _) in list(
            itertools.takewhile(lambda item: item[1][0] < now - MEMORY, self._actions.items())
        ):
            if done < math.inf:
                del self._actions[net]

    def nets(self) -> Collection[str]:
        """Return the nets of them all."""
        return self._actions.keys()

    def told(self, began: float) -> tuple[dict[str, Action], set[str]]:
        """Return what was done before `began` (monotonic), and the nets of what was done since or is under way."""
        before = {net: action for net, (done, action) in self._actions.items() if done < began}
        return before, self._actions.keys() - before.keys()


def compare(
    wanted: Mapping[str, Ban],
    held: Mapping[str, float],
    now: float,
    before: Mapping[str, Action],
    since: Collection[str],
) -> Differences:
    """Compare `held` (net -> its end in the kernel, seconds since the epoch) with what is wanted as of `now`.

    `before` are actions of the last seconds, which may be later than `wanted`; nets in `since` were changed while they
    were read, and are left out.
    """
    found = Differences([], [], [])

    def judge(net: str, ban: Ban) -> None:
        end = held.get(net)
        if net in since or ban.until <= now + SOON:
            return
        if end is None:
            found.missing.append(ban)
        elif _wrong(end, ban.until, now):
            found.timeout.append(ban)

    for net, ban in paced(wanted.items()):
        if net not in before:
            judge(net, ban)
    for net, action in before.items():
        if isinstance(action, Ban):
            judge(net, action)
    for net, end in paced(held.items()):
        if net not in wanted and net not in before and net not in since and end > now + SOON:
            found.foreign.append(net)
    return found


def _wrong(end: float, until: float, now: float) -> bool:
    """Tell whether a ban until `until` may not end at `end`."""
    if until - now > LONGEST:  # without end, or longer than the kernel is told
        return end < (until if math.isinf(until) else now + LONGEST / 2)
    return end < until - EARLY or end > until + LATE
