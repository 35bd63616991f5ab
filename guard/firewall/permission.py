"""Whether this process can enforce anything: asked before the first ban, not found out at it."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Final

from guard.firewall.process import find

LIBRARY: Final = "libnftables.so.1"
CAPABILITIES: Final = {"NET_ADMIN": 12, "NET_RAW": 13}  # linux/capability.h
# xt_set asks for a set's number, and legacy iptables for its tables, through a raw socket.
RIGHTS: Final = {"nftables": ("NET_ADMIN",), "iptables": ("NET_ADMIN", "NET_RAW"), "none": ()}


def missing_capability(backend: str = "nftables") -> str | None:
    """Return what a backend needs and this process lacks, with its remedy; None where nothing is missing.

    It asks for what must be installed and for the rights, in this order; what the kernel has, only `open()` tells.
    """
    missing = missing_programs() if backend == "iptables" else missing_library()
    return missing or missing_right(*RIGHTS[backend])


def missing_programs() -> str | None:
    """Return the remedy where a program that the iptables backend runs is not installed."""
    missing = [program for program in ("iptables", "ip6tables", "ipset") if find(program) is None]
    if not missing:
        return None
    return f"{' and '.join(missing)} not found: install the packages iptables and ipset"


def missing_library() -> str | None:
    """Return the remedy where the Python binding or libnftables itself is not installed."""
    if importlib.util.find_spec("nftables") is None:
        return "the Python module nftables is missing: install pip-nftables"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"{LIBRARY} is missing: install libnftables1 (Debian, Ubuntu) or nftables (elsewhere)"
    return None


def missing_right(*needed: str, status: Path = Path("/proc/self/status")) -> str | None:
    """Return the remedy where a `needed` capability (NET_ADMIN) is not among the effective ones in `status` (proc(5))."""
    effective = 0
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    missing = [name for name in needed or ("NET_ADMIN",) if not effective >> CAPABILITIES[name] & 1]
    if not missing:
        return None
    full = " ".join(f"CAP_{name}" for name in missing)
    return (
        f"{full} is missing: run as root, give the service AmbientCapabilities={full}, "
        f"or the container cap_add {' '.join(missing)} in the host's network"
    )
