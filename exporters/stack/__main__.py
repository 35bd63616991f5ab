"""`python -m exporters.stack`: takes the looks that the configuration asks for, and serves what they saw."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import dns.exception
from dns.asyncresolver import Resolver
from prometheus_client import start_http_server

from exporters import exposition, registry_of
from exporters.stack import certificates, daemons, dns_records, mta_sts, settings, spool
from exporters.stack.board import Board, Look
from exporters.stack.settings import Settings, Wrong, complain

WRONG = 2
REFUSED = 3


def looks(wanted: Settings) -> Iterator[Look]:
    """Yield the looks.  Raises OSError where --ca or the system's resolver configuration cannot be read."""
    patience = wanted.timeout
    every = wanted.intervals
    try:
        context = ssl.create_default_context(cafile=wanted.ca)
    except OSError as error:  # it names no file, and for one without a certificate no reason
        raise OSError(f"--ca (EXPORTER_CA) {wanted.ca}: {error}; expected: certificates in PEM") from error
    if wanted.queue:
        yield Look("queue", every["queue"], patience, partial(spool.look, wanted.queue))
    if wanted.ports:
        take = partial(certificates.look, wanted.ports, wanted.hostname, context, patience)
        # A port has two handshakes at most, and its own patience for each.
        yield Look(
            "certificates", every["certificates"], 3 * patience, take, certificates.failed(wanted.ports)
        )
    if wanted.domains:
        resolver = resolver_of(wanted)
        take = partial(
            dns_records.look, wanted.domains, wanted.hostname, wanted.selectors, resolver, patience, wanted.key_path
        )  # fmt: skip
        failed = dns_records.failed(wanted.domains, wanted.selectors)
        yield Look("dns", every["dns"], 2 * patience, take, failed)
        take = partial(mta_sts.look, wanted.domains, resolver, context, patience)
        yield Look("mta_sts", every["mta_sts"], 4 * patience, take, mta_sts.failed(wanted.domains))
    for service, take_service in (
        ("clamd", partial(daemons.clamd, wanted.clamd) if wanted.clamd else None),
        ("olefy", partial(daemons.olefy, wanted.olefy) if wanted.olefy else None),
        (
            "freshclam",
            partial(daemons.freshclam, wanted.freshclam, wanted.freshclam_age) if wanted.freshclam else None,
        ),
    ):
        if take_service:
            yield Look(service, every[service], patience, take_service, {("service_up", service): 0.0})


def resolver_of(wanted: Settings) -> Resolver:
    """Return the resolver that the settings name.  Raises OSError where the system has none."""
    if not wanted.resolver:
        try:
            return Resolver()
        except dns.exception.DNSException as error:
            raise OSError(f"/etc/resolv.conf: {error}; name a server with --resolver") from error
    resolver = Resolver(configure=False)
    resolver.nameservers = [wanted.resolver[0]]
    resolver.port = wanted.resolver[1]
    return resolver


async def _until_told(board: Board, address: tuple[str, int]) -> None:
    """Serve until SIGTERM or SIGINT.  Raises OSError where the address cannot be had."""
    loop = asyncio.get_running_loop()
    serving = loop.create_task(_serve(board, address))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()


async def _serve(board: Board, address: tuple[str, int]) -> None:
    server, thread = start_http_server(address[1], address[0], registry_of(board))
    print(f"stack exporter: listening on {address[0]}:{server.server_port}", file=sys.stderr, flush=True)
    try:
        await board.run()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status."""
    try:
        wanted = settings.read(arguments)
        board = Board(list(looks(wanted)))
        if wanted.once:
            asyncio.run(board.once())
            text, _ = exposition(registry_of(board), "application/openmetrics-text")
            sys.stdout.write(text.decode())
        else:
            asyncio.run(_until_told(board, wanted.listen))
    except Wrong as error:
        complain(str(error))
        return WRONG
    except OSError as error:
        complain(str(error))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
