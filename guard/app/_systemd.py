"""Tells systemd how we do: sd_notify(3) in ten lines, a datagram to the socket that the service manager names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE: Final = 0.5  # seconds to wait where the service manager has not read what was said before


def notify(text: str) -> None:
    """Send `text` (`READY=1`, `STOPPING=1`, `WATCHDOG=1` ...); nothing happens where nobody listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path  # "@": the abstract namespace, unix(7)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.settimeout(PATIENCE)
        connection.sendto(text.encode(), address)


def watchdog_seconds() -> float:
    """Return how often systemd wants to hear from us (half of WATCHDOG_USEC), 0.0 where it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isdigit() else 0.0


async def heartbeat(answer: Callable[[], Awaitable[None]]) -> None:
    """Tell systemd that the loop turns and the firewall's thread answers; a thread that hangs ends the beat.

    The store's thread has no say: a disk that hangs would keep the next start from its state as well.
    """
    pause = watchdog_seconds()
    while pause:
        await answer()
        notify("WATCHDOG=1")
        await asyncio.sleep(pause)
