"""Where a decision becomes a closed door: the interface behind which every backend stands.

A backend has effects and no opinion.  It bans what it is told for as long as it is told, says what it could
not do and why, and refuses only what would harm the host itself (`guard.firewall.admission`).
A backend belongs to one thread at a time: the libraries underneath are not thread-safe.  The one exception is
`reconcile` of a backend that says `aside`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from guard.model import Ban, Unban


class FirewallError(Exception):
    """The firewall as a whole cannot be used; the message names what is missing and the remedy."""


class Element(NamedTuple):
    """One net that is shut out, and for how many more seconds; `math.inf` is without end."""

    net: str
    seconds: float


class Refused(NamedTuple):
    """One action that was not done, and why.

    `label` is set where the ban may not be at all (`guard.firewall.protected`): no use in trying again.
    """

    action: Ban | Unban
    reason: str
    label: str = ""


class Drops(NamedTuple):
    """What was dropped since the table was made."""

    packets: int
    bytes: int


class Drift(NamedTuple):
    """In what the kernel and the bans that are wanted differed, and what was done about it."""

    missing: int = 0  # wanted bans that the kernel did not hold: asserted anew
    foreign: int = 0  # nets in our sets that nobody decided: kept, or taken away
    timeout: int = (
        0  # bans whose end in the kernel was earlier than decided, or later by more than a few seconds
    )
    structure: int = 0  # tables, chains, sets or rules that were gone or other than ours: made again
    held: AbstractSet[str] = frozenset()  # what the kernel holds now, ours and foreign, as canonical CIDR
    strangers: tuple[str, ...] = ()  # foreign nets that stay, at most STRANGERS of them
    refused: tuple[Refused, ...] = ()  # wanted bans that could not be asserted, and why


STRANGERS: Final = 1000


class Firewall(Protocol):
    """The ways to shut a net out.  Nets are CIDR text; a bare address is a net of one address."""

    @property
    def name(self) -> str:
        """The backend's name in the configuration: `nftables`, `iptables`, `none`."""

    @property
    def aside(self) -> bool:
        """Whether `reconcile` may run in a second thread while `apply` and `drops` go on in the first."""

    def open(self) -> None:
        """Make what is missing, and keep what is there, bans included.

        Raises FirewallError where the right, a library or the kernel's support is missing.
        """

    def apply(self, actions: Sequence[Ban | Unban], now: float) -> list[Refused]:
        """Do `actions` as of `now` (seconds since the epoch) and return those that could not be done.

        When it returns, all others are in force.  The last action on a net decides; a ban that has ended by
        `now` is skipped; a ban of a banned net sets its end anew; an unban of a net not banned is no error.
        """

    def reconcile(self, wanted: Mapping[str, Ban], now: float, *, keep_foreign: bool = True) -> Drift:
        """Compare what the kernel holds with `wanted` (net -> its ban), mend the difference, and say what it was.

        `wanted` holds every ban that should be in force as of `now` and that `apply` was given, or is given here for
        the first time: after `open` this is how bans come back.  What `apply` does meanwhile is not undone.  At no
        moment a ban that is held and wanted is gone.  Nets that nobody wants stay, or go with `keep_foreign=False`.
        Raises FirewallError where it cannot be mended.
        """

    def banned(self) -> list[Element]:
        """Return what is shut out at this moment; costs time in proportion, never call it at a scrape."""

    def drops(self) -> Mapping[str, Drops]:
        """Return what was dropped, under `ipv4` and `ipv6`; cheap, whatever the number of bans."""

    def flush(self) -> None:
        """End every ban of ours, and keep the structure."""

    def close(self) -> None:
        """Let go of the firewall; what is banned stays banned until its end."""

    def remove(self) -> None:
        """Take away everything of ours, bans and structure."""
