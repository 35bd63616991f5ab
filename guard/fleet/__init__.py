"""What several nodes tell each other: the values, and the link that carries them (`guard.fleet.link`).

A node is one Mailward on one host.  It tells the others *events*.  A *fact* (an attempt) reaches every other node once;
a *register* (a ban, a list entry by hand) stands until its end, so that a node that was away finds it.  The link
decides nothing and knows nothing of what a body means.

Registers merge in any order to the same.  One whose name begins with ``ban``: in force is what was put after the last
lift (a lift beats what was decided at or before its `at`), and two that are in force keep the later `at` and the later
end.  Every other register: the latest `at` wins; of one moment the lift wins, else the later end.  What changes nothing
is told to nobody: all nodes may publish the same ban, and one event comes of it.
"""

from __future__ import annotations

import zlib
from ipaddress import ip_address
from typing import Final, NamedTuple

PARTITIONS: Final = 16
BODY: Final = 4096  # bytes a body may have in UTF-8
BATCH: Final = 1000  # events sent, or read, in one round trip


class FleetError(Exception):
    """The server cannot be reached, refuses us or answers nonsense.  The text is the operator's, without a password."""


class Event(NamedTuple):
    """What this node tells the others."""

    seq: int  # of this node, rising; the first ever is the time in ms: a node that lost its disk starts above its old ones
    net: str  # the address or the canonical net that it is about: says the partition
    register: str  # "" for a fact; else which register it sets: "ban 198.51.100.7/32", "allow 192.0.2.0/24", "deny ..."
    live: bool  # a register is in force, or lifted
    at: float  # when it was decided, seconds since the epoch
    ends: float  # until when it matters; may be math.inf
    body: str  # JSON, opaque to the link, at most BODY bytes


class Told(NamedTuple):
    """An event of another node as it was sent, or a register as it stands (seq 0; of any node, this one too)."""

    node: str
    seq: int
    net: str
    register: str
    live: bool
    at: float
    ends: float
    body: str


class Batch(NamedTuple):
    """What was read."""

    told: list[Told]  # in the order of each partition's stream; never this node's own; never twice
    positions: dict[
        str, str
    ]  # partition -> text, of those that moved: save it together with what `told` changes
    more: bool  # there is more to read at once


class Greeting(NamedTuple):
    """What `connect` found.

    `registers` is all that the server has: what is in force here and missing there was lost, and may be told again.
    """

    registers: list[Told]
    known: dict[
        int, int
    ]  # partition -> our last number there, 0 for none: send every kept event above it, rising;
    # new events get numbers above the highest of them, even where this node's own state is an old copy


def partition_of(net: str) -> int:
    """Return the partition of an address or canonical net: by the first 16 bits of IPv4, the first 32 of IPv6.

    An address, its ban and every net around it that a rule may ban (/16, /33 and narrower) share one.
    """
    packed = ip_address(net.partition("/")[0]).packed
    return zlib.crc32(packed[:2] if len(packed) == 4 else packed[:4]) % PARTITIONS
