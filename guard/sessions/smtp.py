"""Postfix's witnesses: one line an attempt, at the moment of the answer; it speaks for an address while it shows it."""

from __future__ import annotations

from typing import Final

from guard.model import AuthEvent, Success
from guard.sessions import dovecot_smtp
from guard.sessions._client import CONFIRMED, PAIRING, Client, add, confirm, take
from guard.sessions._host import Host
from guard.sessions._ledger import Ledger
from guard.sessions._reports import INTERNAL, REFUSED

_CLAIMS: Final = 1024
_LOGINS: Final = 64


def hear(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter one line of a smtpd process."""
    ip = event.ip
    witness = event.witness
    if not host.has_postfix:
        host.has_postfix = True
        ledger.orphans.append(host)
    process = event.process
    if witness == "socket":
        if process:
            host.connection(process, "", event.at).socket_error = True
        ledger.stats.ignored.add(("outage",))
        return
    if witness == "disconnect":
        _disconnect(ledger, host, event)
        return
    if witness == "connect" and process:
        host.connects(process, ip or "", event.at)
    if ip is None:
        return
    if witness == "client":
        _succeeded(ledger, host, event, ip)
        return
    client = ledger.client(ip, event.at)
    if client.alone is not None:
        dovecot_smtp.postfix_shows(ledger, host, client, event.at)
    client.seen(host.name, event.at)
    if witness == "sasl" or witness == "unavailable":  # noqa: PLR1714
        _failed(ledger, host, client, event, ip)
    elif witness == "unanswered":
        _unanswered(ledger, host, client, event, ip)


def _disconnect(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    served = host.hangs_up(event.process) if event.process else None
    ok = event.count
    if served is not None:
        ledger.stats.session_ended("postfix", served.counted)
        ok -= served.ok
    if ok > 0 and ledger.reports is not None and event.ip is not None:
        book = ledger.client(event.ip, event.at).heard()
        ok = sum(book.logs_in(event.at) for _ in range(min(ok, _LOGINS)))
    if ok > 0 and event.ip is not None:
        ledger.successes.append(Success(event.at, event.ip, None, "postfix", event.protocol, ok))


def _succeeded(ledger: Ledger, host: Host, event: AuthEvent, ip: str) -> None:
    if event.process:
        served = host.connection(event.process, ip, event.at)
        if served.ok:
            return  # another message of the same login
        served.ok = 1
    if ledger.reports is not None and not ledger.client(ip, event.at).heard().logs_in(event.at):
        ledger.stats.witness_suppressed.add(("postfix",))
        return
    ledger.successes.append(Success(event.at, ip, event.user, "postfix", event.protocol, 1))


def _failed(ledger: Ledger, host: Host, client: Client, event: AuthEvent, ip: str) -> None:
    served = host.connection(event.process, ip, event.at) if event.process else None
    if served is not None:
        if event.witness == "unavailable" and served.socket_error:
            served.socket_error = False
            _outage(ledger)
            return
        if served.ip and served.ip != ip:
            ledger.stats.ignored.add(("anomaly",))  # XCLIENT: the line's own address is right
        served.counted += 1
    if client.reports is not None:
        reported = client.reports.answered(event.at)
        if reported >= 0:
            if not _was_failure(ledger, client, reported, event.at) and served is not None:
                served.counted -= 1
            return
    if ledger.broken_for(event.user, event.at) or not (
        _paired(ledger, host, client, event, ip) if ledger.dovecot_speaks else not _erred(client, event.at)
    ):
        if served is not None:
            served.counted -= 1
        _outage(ledger)
        return
    confirm(client, event.at)
    ledger.count(event, client, ip, 1 if served is not None else -1)
    if ledger.reports is not None:
        client.heard().wait(event.at, event.protocol, counted=True)


def _was_failure(ledger: Ledger, client: Client, reported: int, at: float) -> bool:
    """Take an answer whose attempt was reported before; whether it was a failure."""
    if reported == INTERNAL:
        _outage(ledger)
    if reported in {INTERNAL, REFUSED}:
        return False
    confirm(client, at)
    ledger.stats.witness_suppressed.add(("postfix",))
    if client.pairs is not None:
        take(client.pairs.free, at - PAIRING)
    return True


def _paired(ledger: Ledger, host: Host, client: Client, event: AuthEvent, ip: str) -> bool:
    """Find the auth line of a Postfix failure, or what stands for it; False when Dovecot was broken."""
    pairs = client.pairs
    if pairs is not None:
        if take(pairs.free, event.at - PAIRING):
            ledger.stats.witness_suppressed.add(("dovecot",))
            return True
        if _erred(client, event.at):
            return False
    if host.faceless and not host.claim(event.at - PAIRING, event.at + 1.0):
        host.claims.append((event.at, ip))
        if len(host.claims) > _CLAIMS:
            del host.claims[: _CLAIMS // 2]
    client.waits(event.at, event.protocol)
    return True


def _erred(client: Client, at: float) -> bool:
    """Whether an error of the password database explains the answer."""
    return client.pairs is not None and take(client.pairs.errors, at - PAIRING)


def _unanswered(ledger: Ledger, host: Host, client: Client, event: AuthEvent, ip: str) -> None:
    """`Connection lost`: usually a guess that came too fast, but it also hits the innocent."""
    if client.reports is not None:
        reported = client.reports.answered(event.at)
        if reported >= 0:
            _was_failure(ledger, client, reported, event.at)
            return
    pairs = client.waiting()
    claimed = take(pairs.free, event.at - PAIRING)
    if claimed or event.at - client.confirmed <= CONFIRMED:
        served = host.connection(event.process, ip, event.at) if event.process else None
        if served is not None:
            served.counted += 1
        if claimed:
            confirm(client, event.at)
        ledger.count(event, client, ip, 1 if served is not None else -1)
        if ledger.reports is not None:
            client.heard().wait(event.at, event.protocol, counted=True)
        return
    if ledger.reports is not None:
        client.heard().wait(event.at, event.protocol, counted=False)
    add(pairs.lost, event.at)
    ledger.stats.auth_unjudged.add(("postfix",))
    ledger.stats.ignored.add(("unjudged",))


def _outage(ledger: Ledger) -> None:
    ledger.stats.auth_unjudged.add(("postfix",))
    ledger.stats.ignored.add(("outage",))
