"""Dovecot's auth policy reports: one for each attempt, whatever becomes of it.  No attacker can forge their text.

A report is a further kind of witness, with a column of its own in a session's book.  It names no host: its session id
says which host's session it is, and what no line has shown yet waits in a book of its own (`Ledger.reports`) until a
line of the session comes.  SMTP attempts have no id: guard/sessions/policy_smtp.py.
"""

from __future__ import annotations

from guard import addresses
from guard.model import FAILURE, REFUSED, SUCCESS, AuthEvent, Success
from guard.sessions import dovecot, policy_smtp
from guard.sessions._ledger import Ledger
from guard.sessions._session import LIFE, Session


def report(ledger: Ledger, event: AuthEvent) -> None:
    """Enter one report."""
    ledger.reporting()
    ip = event.ip
    if ip is None:
        return
    key = event.session
    if key is None:
        policy_smtp.report(ledger, event, ip)
        return
    host, session = ledger.reported(key, event.at)
    if host.held:
        dovecot.release(ledger, host, event.at)
    if session is None or event.at - session.first > LIFE:
        if not addresses.is_of_session(
            key, ip
        ):  # a proxy's id, or a client's address behind one: the report is right
            ledger.stats.ignored.add(("anomaly",))
        session = Session(ip, event.at)
        host.sessions.put(key, session, event.at)
        ledger.client(ip, event.at).remember(key, event.at)
    host.sessions.touch(key)
    session.last = event.at
    session.protocol = ledger.moved(session, event.protocol)
    told = session.hearing()
    if event.kind == SUCCESS:
        if not session.success and told.passed is None:
            session.held = None
            told.passed = event.user or ""
            ledger.successes.append(Success(event.at, session.ip, event.user, "dovecot", event.protocol, 1))
            ledger.settle(
                session,
                event.at,
                session.estimate(host.lines_per_attempt, chained=host.chained, verbose=host.verbose),
                0,
                event.line,
            )
        return
    told.heard += 1
    if event.kind == FAILURE:
        told.reported += 1
        session.user = event.user
        session.reason = event.reason or session.reason
    elif event.kind == REFUSED:
        told.rejected += 1
        ledger.again = told.rejected <= told.refused
    elif told.internal() > session.errors:
        dovecot.outage(ledger)
    dovecot.reckon(ledger, host, session, event)
