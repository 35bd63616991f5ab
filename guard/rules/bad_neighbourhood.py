"""A whole net guesses, from one address after the other."""

from __future__ import annotations

from typing import Final

from guard import addresses
from guard.model import Ban, Policy


class BadNeighbourhood:
    """Rule `bad_neighbourhood`: `members` of a net are banned within `window`; then the net is, and they are folded in.

    Detects: a guesser who owns a net and moves through its addresses, so that each of them has its first ban and no
    more.  What counts are the bans of other rules that are in force and began in (now - window, now], not attempts.
    The widths are `prefix4` and `prefix6`.  Where a family has several, a wide net counts the next narrower nets in
    which somebody is banned: a /48 its /56s.  Five /64s of one /56 are one bad customer, those of five /56s are more.
    Why it is bad: every new address has `failures` guesses free, and a hoster's /24 has 256 addresses.
    Example: `members = 8`; eight addresses of 198.51.100.0/24 are banned within a day: the /24 is, for `ban`, twice as
    long the next time, up to `ban_max`.  Their own bans end with the cause `folded`, but not one that lasts longer.
    False positives: it is collective punishment, and off (`members = 0`) until somebody chooses it.  A provider who
    changes his customers' addresses puts many people into one net; 8 is a cautious start.  A net that holds an allowed,
    trusted or own address is never banned.  When an attempt is taken back, and its ban with it, and too few are left,
    the net is free again at once and the others are banned by themselves for the rest of their time.  The same happens
    when the administrator unbans or allows anything inside the net.
    Options: members, window, prefix4, prefix6; ban, ban_max and forget are those of brute_force.
    """

    __slots__ = ("_policy",)

    name: Final = "bad_neighbourhood"

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def reconfigure(self, policy: Policy) -> None:
        """Take other numbers; what is banned stays banned."""
        self._policy = policy

    def around(self, net: str) -> list[str]:
        """Return the nets that could be banned in the place of the banned `net`, the widest first."""
        if not self._policy.neighbourhood_members:
            return []
        value, own = addresses.parts(net)
        bits = 128 if ":" in net else 32
        widths = self._widths(net)
        return [addresses.text_of(value, width, bits) for width in widths if width < own]

    def grounds(self, net: str, bans: list[Ban], at: float) -> list[Ban]:
        """Return which of the bans in force inside `net` are its ban at `at`; none where they are too few."""
        found = [ban for ban in bans if ban.at > at - self._policy.neighbourhood_window]
        if len(found) < self._policy.neighbourhood_members:
            return []
        width = addresses.parts(net)[1]
        narrower = [other for other in self._widths(net) if other > width]
        if narrower:
            bits = 128 if ":" in net else 32
            members = {addresses.text_of(addresses.parts(ban.net)[0], narrower[-1], bits) for ban in found}
        else:
            members = {ban.net for ban in found}
        return found if len(members) >= self._policy.neighbourhood_members else []

    def _widths(self, net: str) -> list[int]:
        """Return the widths of the net's family, wide nets first."""
        return sorted(
            self._policy.neighbourhood_prefix6 if ":" in net else self._policy.neighbourhood_prefix4
        )
