"""Dovecot's side of SMTP: auth lines without a session, and a password database that is broken.

Postfix writes a line for each attempt too.  While it shows the address its lines alone count, and Dovecot's only
confirm; where nobody ships Postfix's log, Dovecot's count.
"""

from __future__ import annotations

from typing import Final

from guard.model import AuthEvent
from guard.sessions import policy_smtp
from guard.sessions._client import PAIRING, Client, add, confirm, take
from guard.sessions._host import Host
from guard.sessions._ledger import REPORTS, Ledger
from guard.sessions._reports import DOVECOT, INTERNAL, POSTFIX
from guard.sessions._session import Session

_LATE: Final = 2.0  # lines of the two daemons may come this much out of order
_BEFORE: Final = 60.0  # lines this old belong to a Postfix session that shows only now


def error(ledger: Ledger, event: AuthEvent, ip: str) -> bool:
    """Enter an error of the password database about a client without a session; whether it is news."""
    client = ledger.client(ip, event.at)
    if ledger.reports is not None:
        known = policy_smtp.error(ledger, client, event, ip)
        if known is not None:
            return known
        client.heard().add(event.at, INTERNAL, DOVECOT | POSTFIX)  # `errors` waits for Postfix's answer
    if client.unpaired_at >= event.at - _LATE:  # Postfix told of it first
        ledger.take_back(client.unpaired_at, ip, client.unpaired_protocol)
        client.unwaits()
    else:
        add(client.waiting().errors, event.at)
    return True


def auth(ledger: Ledger, host: Host, event: AuthEvent, ip: str) -> None:
    """Enter an auth line without a session.  While Postfix shows the address its lines alone count."""
    client = ledger.client(ip, event.at)
    if ledger.visible(host, client, event.at):
        client.alone = None
        if client.reports is not None and policy_smtp.line(ledger, client, event.at):
            return
        pairs = client.waiting()
        if pairs.lost and take(pairs.lost, event.at - 10.0):
            confirm(client, event.at)
            ledger.count(event, client, ip, -1)
            if client.reports is not None:
                client.reports.confirmed()
        elif client.meets(event.at - PAIRING):
            host.claims = [claim for claim in host.claims if claim[1] != ip] if host.claims else host.claims
            ledger.stats.witness_suppressed.add(("dovecot",))
        elif not (host.chained and pairs.free and event.at - pairs.free[-1] < 1.0):
            add(pairs.free, event.at)
        return
    if client.shown(event.at) and policy_smtp.line(ledger, client, event.at):
        return
    alone = client.alone
    if alone is not None and client.alone_host == REPORTS:  # a report was first
        client.alone_host = host.name
    if alone is None or event.at - alone.last > _BEFORE or client.alone_host != host.name:
        alone = client.alone = Session(ip, event.at)
        client.alone_host = host.name
    alone.hear(event.source, event.user, event.reason or "unspecified", event.at)
    ledger.settle(
        alone,
        event.at,
        alone.estimate(host.lines_per_attempt, chained=host.chained, verbose=True),
        -1,
        event.line,
    )


def postfix_shows(ledger: Ledger, host: Host, client: Client, at: float) -> None:
    """Postfix shows an address that Dovecot alone spoke of: its lines of the last minute are taken back."""
    alone = client.alone
    if alone is None or not ledger.speaks_for(host, client.alone_host):
        return
    client.alone = None
    times = alone.times()
    old = sum(1 for stamp in times if stamp < at - _BEFORE)
    pairs = client.waiting()
    kept = max(old, min(alone.counted, alone.by_reports()))  # reports count, and wait for Postfix's answer
    for stamp in times[kept:]:
        add(pairs.free, stamp)
    ledger.settle(alone, at, kept, -1, "")
