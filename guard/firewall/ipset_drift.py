"""In what our sets and the bans that are wanted differ: no effects, and no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from guard.firewall import ipset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from guard.firewall.admission import Net
    from guard.model import Ban

LATE: Final = 5.0  # seconds by which the kernel may end a ban later than decided


class Differences(NamedTuple):
    """What must be asserted and what must go, and how it is counted in `Drift`."""

    bans: list[tuple[Net, Ban]]  # to be put in, or to get their end anew
    surplus: list[ipset.Member]
    missing: int
    timeout: int
    foreign: list[str]  # nets that nobody decided
    exceptions: int  # foreign ones that open a ban instead of closing a net


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
