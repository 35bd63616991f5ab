"""How many datagrams came while nobody listened: the kernel counts those for a port that nobody has open.

`NoPorts` of Udp in /proc/net/snmp and `Udp6NoPorts` in /proc/net/snmp6 (RFC 4113, udpNoPorts) count for the whole
host, so that a difference says at most how many were meant for us.  They begin anew with each boot and belong to one
network namespace: a mark names both, and one of another time or place says nothing.
"""

from __future__ import annotations

from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def mark() -> str:
    """Return where the counters stand, as text for `missed`; "" where they cannot be read."""
    try:
        return f"{_place()} {_count()}"
    except (OSError, ValueError, IndexError):
        return ""


def missed(earlier: str) -> int:
    """Return how many datagrams found no port open since the mark `earlier` was taken; 0 where that is not known."""
    place, _, count = earlier.rpartition(" ")
    try:
        return max(0, _count() - int(count)) if place and place == _place() else 0
    except (OSError, ValueError, IndexError):
        return 0


def _place() -> str:
    return f"{_BOOT.read_text().strip()}/{Path('/proc/thread-self/ns/net').stat().st_ino}"


def _count() -> int:
    total = 0
    names: list[str] = []
    for line in Path("/proc/thread-self/net/snmp").read_text().splitlines():
        kind, _, rest = line.partition(":")
        if kind == "Udp":
            if names:
                total += int(rest.split()[names.index("NoPorts")])
            else:
                names = rest.split()
    six = Path("/proc/thread-self/net/snmp6")
    if six.exists():  # IPv6 may be off
        total += sum(
            int(line.split()[1]) for line in six.read_text().splitlines() if line.startswith("Udp6NoPorts")
        )
    return total
