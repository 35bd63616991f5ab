"""Ends the connections that a banned client has open to services of this host.

The drop in the kernel leaves Dovecot and Postfix with connections that never answer again, each with a process and a
place in `mail_max_userip_connections` or `smtpd_client_connection_count_limit`, until a timeout of minutes.  Once a
ban is in force our side of them is closed.  Off the ban's way: in a thread, one look at the sockets for all
the bans that have piled up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from guard.firewall.nets import Net, read_net
from guard.firewall.sock_diag import cannot_destroy, destroy
from guard.log import logger
from guard.model import Ban

LIMIT: Final = 100_000  # nets that wait; the connections of further ones end by their timeouts


class Closer:
    """Closes sockets of banned peers on local `ports` (None: on all), never those of `spared` ports."""

    def __init__(self, ports: Sequence[int] | None, spared: frozenset[int]) -> None:
        self._ports = None if ports is None else frozenset(ports)
        self._spared = spared
        self._nets: dict[str, Net] = {}
        self._limit = LIMIT
        self._ready = asyncio.Event()

    def take(self, bans: Sequence[Ban]) -> None:
        """Close what the peers in these bans have open; returns at once."""
        if not bans:
            return
        for ban in bans:
            if len(self._nets) < self._limit:
                self._nets[ban.net] = read_net(ban.net)
        self._ready.set()

    async def run(self) -> None:
        """Close until cancelled; where this host cannot, say so once and be gone."""
        trouble = await asyncio.to_thread(cannot_destroy)
        while trouble is None:
            await self._ready.wait()
            self._ready.clear()
            nets, self._nets = list(self._nets.values()), {}
            try:
                closed = await asyncio.to_thread(destroy, nets, self._closes)
            except OSError as error:
                trouble = str(error)
            else:
                if closed:
                    logger().info("connections of banned clients are closed", connections=closed)
        self._limit = 0
        logger().warning("firewall.close_sockets: connections of banned clients time out", reason=trouble)

    def _closes(self, port: int) -> bool:
        return port not in self._spared and (self._ports is None or port in self._ports)
