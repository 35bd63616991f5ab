"""Reports of SMTP attempts, which have no session: paired with Postfix's and Dovecot's lines of the address.

While Postfix shows the address each report is paired with one of its answers, and the larger side counts.  Where it
does not, reports and Dovecot's lines belong to a session of the address that ends when it is quiet for a minute.
"""

from __future__ import annotations

from typing import Final

from guard.model import FAILURE, REFUSED, SUCCESS, AuthEvent, Success
from guard.sessions import _reports
from guard.sessions._client import Client, confirm, take
from guard.sessions._ledger import REPORTS, Ledger
from guard.sessions._reports import DOVECOT, FAILED, INTERNAL, POSTFIX, REPORT, VAGUE
from guard.sessions._session import Session

_GAP: Final = 60.0  # an exchange this long after another one belongs to another session
_LATE: Final = 2.0
_LOST: Final = 10.0


def report(ledger: Ledger, event: AuthEvent, ip: str) -> None:
    """Enter a report without a session."""
    client = ledger.client(ip, event.at)
    book = client.heard()
    if event.kind == SUCCESS:
        _passed(ledger, client, event, ip)
        return
    at = event.at
    kind = _kind(event)
    told = (INTERNAL,) if kind in {FAILED, VAGUE} else (kind,)
    n = book.find(REPORT, told, at)
    if n >= 0:  # Dovecot's line has told why nobody judged
        book.speaks(n, REPORT)
        ledger.again = True
        return
    answer = book.take(at)
    who = REPORT if answer is None else REPORT | POSTFIX
    if answer is not None and answer[2]:
        who |= _reports.BY_POSTFIX
    book.add(at, kind, who)
    if kind in {FAILED, VAGUE}:
        confirm(client, at)
        if answer is not None and answer[2]:
            ledger.stats.witness_suppressed.add(("dovecot",))
            return
        if answer is not None and client.pairs is not None:
            take(client.pairs.lost, at - _LOST)
        if client.shown(at):
            ledger.count(event, client, ip, -1)
        else:
            alone(ledger, client, event, ip)
        return
    if kind == INTERNAL:
        ledger.stats.ignored.add(("outage",))
        ledger.stats.auth_unjudged.add(("dovecot",))
    if answer is not None and answer[2]:
        ledger.revoke(answer[0], ip, answer[1], "postfix")
        if client.unpaired_at == answer[0]:
            client.unwaits()


def _kind(event: AuthEvent) -> int:
    if event.kind == FAILURE:
        return FAILED if event.reason is not None else VAGUE
    return _reports.REFUSED if event.kind == REFUSED else INTERNAL


def alone(ledger: Ledger, client: Client, event: AuthEvent, ip: str) -> None:
    """Count a failure of an address that Postfix does not show."""
    session = client.alone
    if session is None or event.at - session.last > _GAP:
        session = client.alone = Session(ip, event.at)
        client.alone_host = REPORTS
    session.last = event.at
    session.protocol = ledger.moved(session, event.protocol)
    session.user = event.user
    session.reason = event.reason or session.reason
    told = session.hearing()
    told.heard += 1
    told.reported += 1
    settle(ledger, client, session, event)


def settle(ledger: Ledger, client: Client, session: Session, event: AuthEvent) -> None:
    """Report what the session of an address that Postfix does not show has come to."""
    host = ledger.hosts.get(client.alone_host)
    k = {} if host is None else host.lines_per_attempt
    chained = host is not None and host.chained
    ledger.settle(session, event.at, session.estimate(k, chained=chained, verbose=True), -1, event.line)


def _passed(ledger: Ledger, client: Client, event: AuthEvent, ip: str) -> None:
    """Enter a login: what its chain of passdbs wrote is part of it."""
    session = client.alone
    if session is not None and event.at - session.last <= _GAP:
        session.hearing().passed = event.user or ""
        settle(ledger, client, session, event)
    if client.heard().passes(event.at):
        ledger.successes.append(Success(event.at, ip, event.user, "dovecot", event.protocol, 1))
    else:
        ledger.stats.witness_suppressed.add(("dovecot",))


def line(ledger: Ledger, client: Client, at: float) -> bool:
    """Take Dovecot's line of a failure; whether it is that of an attempt reported before, while Postfix shows the address."""
    book = client.reports
    if book is None:
        return False
    n = book.find(DOVECOT, (FAILED, VAGUE), at)
    if n < 0:
        return False
    book.speaks(n, DOVECOT)
    ledger.stats.witness_suppressed.add(("dovecot",))
    return True


def error(ledger: Ledger, client: Client, event: AuthEvent, ip: str) -> bool | None:
    """Take Dovecot's line that the backend could not judge; whether that is new, None where no report tells."""
    book = client.heard()
    at = event.at
    n = book.find(DOVECOT, (INTERNAL,), at)
    if n >= 0:
        book.speaks(n, DOVECOT)
        return False
    kinds = (VAGUE, FAILED) if event.witness == "auth" else (VAGUE,)
    n = book.find(DOVECOT, kinds, at)
    if n < 0:
        return None
    when, _, who = book.attempts[n]
    book.speaks(n, DOVECOT, INTERNAL)
    session = client.alone
    if session is not None and session.told is not None and session.told.reported and session.first <= when:
        session.told.reported -= 1
        settle(ledger, client, session, event)
    elif who & _reports.BY_POSTFIX:
        ledger.revoke(when, ip, "smtp", "postfix")
    else:
        ledger.revoke(when, ip, "smtp", "dovecot")
    return True


def refused(ledger: Ledger, event: AuthEvent, ip: str) -> None:
    """Enter Dovecot's line that a policy server refused an attempt: the answer that Postfix gives is no failure."""
    client = ledger.client(ip, event.at)
    book = client.heard()
    n = book.find(DOVECOT, (_reports.REFUSED,), event.at)
    if n >= 0:
        book.speaks(n, DOVECOT)
        ledger.again = True
        return
    ledger.dovecot_speaks = True
    if client.unpaired_at >= event.at - _LATE:  # Postfix told of it first
        ledger.revoke(client.unpaired_at, ip, client.unpaired_protocol, "postfix")
        client.unwaits()
        book.add(event.at, _reports.REFUSED, DOVECOT | POSTFIX)
    else:
        book.add(event.at, _reports.REFUSED, DOVECOT)
