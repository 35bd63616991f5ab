"""What the page shows: values of one moment.  `status` and `bans` are the documented JSON of docs/json.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

MINUTES: Final = 60  # that the page looks back
LATELY: Final = 10  # of them, from which it says whether there is an attack


class Minute(NamedTuple):
    """What was counted within one minute of the clock; the last of them still runs."""

    at: float  # seconds since the epoch, when it began
    failures: int  # failed logins, without those taken back
    bans: int  # decided by rules or by hand; not those of the deny list


class Hour(NamedTuple):
    """The last hour, as far as this run of the daemon has seen it."""

    minutes: Sequence[Minute]  # oldest first
    failures: Mapping[str, int]  # failed logins by protocol
    unparsed: int
    logins: int  # that followed failures for the same account


class Moment(NamedTuple):
    """Everything on the page."""

    at: float
    host: str
    status: Mapping[str, Any]  # `Status`, without `tracked`
    hour: Hour
    bans: Sequence[Mapping[str, Any]] = ()  # `ActiveBan`, newest first; without those of the deny list
    listed: int = 0  # bans of the deny list
    gap_since: float | None = None  # since when the page has seen bans that are not in force

    def wanted(self) -> int:
        """Return how many bans are decided."""
        return int(sum(self.status["bans"]["wanted"].values()))

    def gap(self) -> int:
        """Return how many of them the kernel does not hold."""
        bans = self.status["bans"]
        held = sum(bans["enforced"].values()) - sum(bans["foreign"].values())
        return int(max(0, self.wanted() - held))

    def observing(self) -> bool:
        """Whether decisions are shown only."""
        return bool(self.status["firewall"]["backend"] == "none")
