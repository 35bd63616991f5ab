"""The source `syslog`: listens for what rsyslog, syslog-ng, Docker's log driver and syslog(3) send.

Configuration: `listen`, one address or several:

* `udp://127.0.0.1:5514`, `tcp://127.0.0.1:5514`, `tls://[2001:db8::1]:6514` (with `certificate`, `key`, `client_ca`)
* `unix:///run/mailward/log`: datagrams, as /dev/log has them; `unix-stream:///run/mailward/log.stream`: a stream

**Whoever can send lines can have anybody banned.**  So the network's senders lie in `from_nets` (at a loopback
address also this host's own), a unix socket's may write to it (`mode`), and `client_ca` asks for a certificate.  Their
addresses are nothing that a line's reader gets to know: the host is the header's.

Nobody can be asked for a message again.  What is received and not yet in the saved state is lost by a kill, as is what
the kernel holds for us; UDP is also lost where it finds no room and while nobody listens, and both are counted: the
latter from `positions`, which say where the kernel's own count stood (guard.sources._udp_gap).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Mapping, Sequence
from typing import Final

from guard.sources import Health, Note, Put
from guard.sources._syslog_datagrams import Datagrams
from guard.sources._syslog_listener import Listener, Net, Terms
from guard.sources._syslog_socket import Address, Tls, address_of
from guard.sources._syslog_streams import Streams

__all__ = ["SyslogSource", "Tls"]

LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class SyslogSource:
    """Listens at every address of `listen` and delivers each message as one line.

    `from_nets`: whose packets and connections are taken; those of this host alone where there are none, of everybody
    with a certificate where `tls` asks for one.  `mode`: of unix sockets.  `connections`: the most streams at once, of
    each address; more wait.  A stream holds at most 512 KiB while the engine is busy, then its sender waits.
    """

    def __init__(
        self,
        name: str,
        listen: Sequence[str],
        *,
        from_nets: Sequence[str] = (),
        mode: int = 0o660,
        connections: int = 64,
        tls: Tls | None = None,
        positions: Mapping[str, str] | None = None,
        note: Note = lambda _: None,
    ) -> None:
        self._name = name
        self._listeners: list[Listener] = []
        host = os.uname().nodename.encode()
        nets = [ipaddress.ip_network(net) for net in from_nets]
        for address in map(address_of, listen):
            asks = tls if address.kind == "tls" else None
            terms = Terms(_nets(address, nets, asks), mode, connections, asks)
            if address.datagrams:
                mark = (positions or {}).get(f"{name}/{address.url}", "")
                self._listeners.append(Datagrams(name, address, terms, host, note, mark=mark))
            else:
                self._listeners.append(Streams(name, address, terms, host, note))

    @property
    def name(self) -> str:
        """The label in metrics."""
        return self._name

    def health(self) -> Health:
        """Up while every address is listened at.  How far behind its senders are, only they know."""
        trouble = [listener.trouble for listener in self._listeners if listener.trouble]
        return Health(
            name=self._name,
            up=all(listener.up for listener in self._listeners),
            lag=max(listener.waiting() for listener in self._listeners),
            lost=sum(listener.lost() for listener in self._listeners),
            detail="; ".join(trouble or [listener.detail() for listener in self._listeners]),
        )

    async def run(self, put: Put) -> None:
        """Listen until the task is cancelled; an address that cannot be listened at is tried again."""
        async with asyncio.TaskGroup() as group:
            for listener in self._listeners:
                group.create_task(listener.run(put))


def _nets(address: Address, nets: Sequence[Net], tls: Tls | None) -> Sequence[Net] | None:
    """Return whose packets are taken at `address`; None where that is asked otherwise."""
    if address.path or (not nets and tls and tls.asks):
        return None
    if not nets or ipaddress.ip_address(address.host).is_loopback:
        return [
            *nets,
            *LOOPBACK,
        ]  # by its own: 127.0.0.1 is within the network's reach where route_localnet is set
    return nets
