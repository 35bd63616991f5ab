"""In what our sets and the bans that are wanted differ: no effects, and no clock."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

from guard.firewall import ipset
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from guard.firewall.nets import Net
    from guard.model import Unban

MEMORY: Final = 30.0  # seconds: bans are compared with the kernel long before they are so old
LATE: Final = 5.0  # seconds by which the kernel may end a ban later than decided


class Differences(NamedTuple):
    """What must be asserted and what must go, and how it is counted in `Drift`."""

    bans: list[tuple[Net, Ban]]  # to be put in, or to get their end anew
    surplus: list[ipset.Member]
    missing: int
    timeout: int
    foreign: list[str]  # nets that nobody decided
    exceptions: int  # foreign ones that open a ban instead of closing a net


class Recent:
    """What was done lately: whoever tells which bans are wanted may not have known of it."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done: dict[str, tuple[float, Ban | Unban]] = {}  # net -> at which moment, oldest first

    def note(self, done: Iterable[tuple[Net, Ban | Unban]], moment: float) -> None:
        """Take what was done at `moment` (seconds, monotonic), and forget what is older than MEMORY."""
        for net, action in done:
            self._done.pop(net.text, None)
            self._done[net.text] = moment, action
        old = [n for n, _ in takewhile(lambda item: item[1][0] < moment - MEMORY, self._done.items())]
        for net_text in old:
            del self._done[net_text]

    def upon(self, wanted: Mapping[str, Ban]) -> dict[str, Ban]:
        """Return `wanted` (net -> ban) with what was done lately."""
        merged = dict(wanted)
        for net, (_, action) in self._done.items():
            if isinstance(action, Ban):
                merged[net] = action
            else:
                merged.pop(net, None)
        return merged

    def clear(self) -> None:
        """Forget all."""
        self._done.clear()


def compare(
    wanted: Sequence[tuple[Net, Ban]],
    ended: Collection[str],
    forbidden: Collection[str],
    held: Iterable[ipset.Member],
    now: float,
    after: float,
    *,
    keep_foreign: bool,
) -> Differences:
    """Compare `held`, which was read between `now` and `after` (seconds since the epoch), with what should be.

    `wanted` are the bans in force; `ended` are nets whose ban is over, `forbidden` those that must not be banned.
    An exception always goes: it is no ban, it is a hole in one.
    """
    members = {member.net: member for member in held}
    bans: list[tuple[Net, Ban]] = []
    missing = timeout = 0
    for net, ban in wanted:
        member = members.pop(net.text, None)
        if member is None or member.exception:
            missing += 1
            bans.append((net, ban))
        elif _early(ban.until, member.seconds, after) or _late(ban.until, member.seconds, now, after):
            # A ban too long for ipset has no end there until it is short enough: that is no drift.
            timeout += not (math.isinf(member.seconds) and ban.seconds > ipset.LONGEST)
            bans.append((net, ban))
    surplus: list[ipset.Member] = []
    foreign: list[str] = []
    exceptions = 0
    for text, member in members.items():
        if member.exception:
            exceptions += 1
            surplus.append(member)
        elif text in ended:
            if member.seconds > LATE:
                timeout += not math.isinf(member.seconds)
                surplus.append(member)
        elif text in forbidden:
            surplus.append(member)
        else:
            foreign.append(text)
            if not keep_foreign:
                surplus.append(member)
    return Differences(bans, surplus, missing, timeout, foreign, exceptions)


def _early(until: float, seconds: float, after: float) -> bool:
    """Tell whether the kernel certainly ends a ban before `until`; it tells whole seconds, rounded down."""
    return after + seconds + 1.0 < until


def _late(until: float, seconds: float, now: float, after: float) -> bool:
    """Tell whether the kernel certainly ends a ban too late, and could do better."""
    return now + seconds > until + LATE and until - after <= ipset.LONGEST
