"""Whether this process can enforce anything: asked before the first ban, not found out at it."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Final

LIBRARY: Final = "libnftables.so.1"
_CAP_NET_ADMIN: Final = 12  # linux/capability.h
_RIGHT: Final = (
    "CAP_NET_ADMIN is missing: run as root, give the service AmbientCapabilities=CAP_NET_ADMIN, "
    "or the container cap_add NET_ADMIN in the host's network"
)


def missing_capability() -> str | None:
    """Return what nftables needs and this process lacks, with its remedy; None where nothing is missing.

    It asks for the binding, the library and the right, in this order; what the kernel has, only `open()` tells.
    """
    return missing_library() or missing_right()


def missing_library() -> str | None:
    """Return the remedy where the Python binding or libnftables itself is not installed."""
    if importlib.util.find_spec("nftables") is None:
        return "the Python module nftables is missing: install pip-nftables"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"{LIBRARY} is missing: install libnftables1 (Debian, Ubuntu) or nftables (elsewhere)"
    return None


def missing_right(status: Path = Path("/proc/self/status")) -> str | None:
    """Return the remedy where CAP_NET_ADMIN is not among the effective capabilities in `status` (proc(5))."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return None if int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1 else _RIGHT
    return _RIGHT
