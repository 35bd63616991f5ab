"""Dovecot's witnesses: auth lines, the login process's success or end line, and anonymous lines.

The estimate of a session is made anew after each of its lines (guard/sessions/_session.py); it may fall, and what was
reported too much is taken back.
"""

from __future__ import annotations

from typing import Final

from guard import addresses
from guard.model import MECHANISMS, AuthEvent, Success
from guard.sessions import dovecot_smtp, policy_smtp
from guard.sessions._client import Client
from guard.sessions._host import Host
from guard.sessions._ledger import Ledger
from guard.sessions._session import LIFE, Session

_LATE: Final = 2.0  # lines of the two daemons may come this much out of order
_CHAIN_WAIT: Final = 2.0  # a success follows its chain's refusals within milliseconds
_SESSIONLESS: Final = 5.0
_UNHELD: Final = 1024


def auth(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter a line that one passdb wrote of one attempt."""
    if not host.verbose:
        host.verbose = True
        _believe_no_more(ledger, host, event.at)
    host.has_dovecot = True
    ledger.dovecot_speaks = True
    ip = event.ip
    if ip is None:
        return
    if host.broken_for(event.user, event.at):
        error(ledger, host, event)
        return
    if event.session is None:
        dovecot_smtp.auth(ledger, host, event, ip)
        return
    session = find(ledger, host, event, event.session, ip)
    session.hear(event.source, event.user, event.reason or "unspecified", event.at)
    if session.success:
        return
    if (
        (session.told is None or session.told.passed is None)
        and host.chained
        and event.reason == "unknown_user"
        and not session.ended
        and event.source not in MECHANISMS
    ):
        session.hold(event.source, 1)
        host.held.append((event.at + _CHAIN_WAIT, event.session, event.source, event.line))
        if len(host.held) > _UNHELD:
            _, key, passdb, line = host.held.pop(0)
            _release(ledger, host, event.at, key, passdb, line)
    reckon(ledger, host, session, event)


def reckon(ledger: Ledger, host: Host, session: Session, event: AuthEvent) -> None:
    """Estimate a session anew after one of its witnesses, and report the difference."""
    before = session.counted
    estimate = session.estimate(host.lines_per_attempt, chained=host.chained, verbose=host.verbose)
    if estimate == before and not session.held:
        ledger.stats.witness_suppressed.add(("dovecot",))
    is_open = 0 if session.ended or session.success else 1
    ledger.settle(session, event.at, estimate, is_open, event.line)


def find(ledger: Ledger, host: Host, event: AuthEvent, key: str, ip: str) -> Session:
    """Return the session of an id, a new one if need be; the address inside the id is right where they disagree."""
    session = ledger.session(host, key, event.at)
    host.sessions.touch(key)
    if session is not None and event.at - session.first <= LIFE:
        if session.ip != ip:
            ledger.stats.ignored.add(("anomaly",))
        return session
    if not addresses.is_of_session(key, ip):
        ledger.stats.ignored.add(("anomaly",))
        ip = addresses.of_session(key) or ip
    session = Session(ip, event.at)
    host.sessions.put(key, session, event.at)
    ledger.client(ip, event.at).remember(key, event.at)
    return session


def release(ledger: Ledger, host: Host, at: float) -> None:
    """Count the held lines that no success has explained in time."""
    while host.held and host.held[0][0] <= at:
        until, key, passdb, line = host.held.pop(0)
        _release(ledger, host, until, key, passdb, line)  # its own time, whoever finds that it has come


def _release(ledger: Ledger, host: Host, at: float, key: str, passdb: str, line: str) -> None:
    session = host.sessions.peek(key)
    if session is None or session.success or session.held is None or not session.hold(passdb, -1):
        return
    host.sessions.touch(key)
    estimate = session.estimate(host.lines_per_attempt, chained=host.chained, verbose=host.verbose)
    ledger.settle(session, at, estimate, 0 if session.ended else 1, line)


def login(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter a success: what its chain of passdbs wrote is part of it, not a failure."""
    host.has_dovecot = True
    ip = event.ip
    if ip is None:
        return
    session = None
    if event.session is not None:
        session = ledger.session(host, event.session, event.at)
        if session is None and ledger.reports is not None:  # its report may still come
            session = find(ledger, host, event, event.session, ip)
    elif (client := ledger.clients.peek(ip)) is not None:
        session = _of_address(host, client, event)
    if session is not None and not session.success:
        session.success = True
        session.last = event.at
        session.protocol = ledger.moved(session, event.protocol)
        session.held = None
        if event.session is not None:
            host.sessions.touch(event.session)
        lines = session.attempts(host.lines_per_attempt, chained=host.chained)
        told = session.told
        k = {} if told is None or not told.heard else host.lines_per_attempt
        estimate = session.before_success(event.user, k, chained=host.chained)
        if estimate < lines and session.unknown:
            host.chained = True
        if told is not None:
            estimate = max(estimate, session.by_reports())
        ledger.settle(session, event.at, estimate, 0, event.line)
        ledger.stats.session_ended("dovecot", session.counted)
        ip = session.ip
    elif event.session is not None:
        ip = addresses.of_session(event.session) or ip
    if session is None or session.told is None or session.told.passed is None:
        if session is not None and ledger.reports is not None:
            session.hearing().passed = event.user or ""
        ledger.successes.append(Success(event.at, ip, event.user, "dovecot", event.protocol, 1))
    else:
        ledger.stats.witness_suppressed.add(("dovecot",))


def authenticate(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter 2.4's line of a cancelled or refused exchange; for `Inactivity` it comes after the end line."""
    host.has_dovecot = True
    if event.ip is None or event.session is None:
        return
    session = find(ledger, host, event, event.session, event.ip)
    session.authenticate += 1
    session.last = event.at
    session.protocol = ledger.moved(session, event.protocol)
    if session.ended:
        reckon(ledger, host, session, event)


def end(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter a session's end: N only adds what nobody has seen."""
    host.has_dovecot = True
    ip = event.ip
    if ip is None:
        return
    session = _ending(ledger, host, event, ip)
    if session is None:
        return
    if session.success or session.ended:
        return
    session.ended = event.witness
    session.cause = event.source
    session.said = event.count
    session.last = event.at
    session.held = None
    session.protocol = ledger.moved(session, event.protocol)
    if session.counted == 0 or event.user:
        session.user = event.user or session.user
    lines = session.attempts(host.lines_per_attempt, chained=host.chained)
    if host.verbose and event.count:
        _learn(host, session, event)
        lines = session.attempts(host.lines_per_attempt, chained=host.chained)
        if event.witness == "end_2.3" and event.source != "other" and lines < event.count:
            missing = event.count - (0 if session.told is None else session.told.unjudged()) - lines
            if event.method != "APOP":  # cannot be cancelled; 2.3 writes no line of its mismatch
                missing = host.anonymous(event.at - event.seconds - 1.0, event.at + 1.0, max(0, missing))
            session.anonymous = max(0, missing)
    estimate = session.estimate(host.lines_per_attempt, chained=host.chained, verbose=host.verbose)
    if event.count and session.counted:
        ledger.stats.witness_suppressed.add(("dovecot",), min(session.counted, event.count))
    ledger.settle(session, event.at, estimate, 0, event.line)
    ledger.stats.session_ended("dovecot", session.counted)


def _ending(ledger: Ledger, host: Host, event: AuthEvent, ip: str) -> Session | None:
    """Return the session that an end line ends; None where it ends nothing that matters."""
    if event.session is not None:
        if event.count == 0 and ledger.session(host, event.session, event.at) is None:
            return None
        return find(ledger, host, event, event.session, ip)
    client = ledger.clients.peek(ip)
    session = None if client is None else _of_address(host, client, event)
    if session is None and event.count:
        session = Session(ip, event.at)
        host.sessions.put(f"{ip} {event.at} {event.user}", session, event.at)
    return session


def _of_address(host: Host, client: Client, event: AuthEvent) -> Session | None:
    """Return the open session that a line without an id speaks of: of its address, of its user if one fits."""
    since = event.at - event.seconds - _SESSIONLESS
    best: Session | None = None
    for key in client.known():
        session = host.sessions.peek(key)
        if session is None or session.ended or session.success or session.last < since:
            continue
        fits = (
            session.user is not None and event.user is not None and session.user.lower() == event.user.lower()
        )
        if best is None or fits:
            best = session
            host.sessions.touch(key)
            if fits:
                break
    return best


def _learn(host: Host, session: Session, event: AuthEvent) -> None:
    """Learn from an end line how many lines one attempt writes."""
    names = session.by_name()
    passdbs = [name for name in names if name not in MECHANISMS]
    said = event.count
    if event.source != "failed" or session.odd or session.nameless or session.authenticate or session.errors:
        return
    if session.told is not None and session.told.unjudged():
        return
    if said == 1:
        if len(names) > 1:
            host.chained = True
        elif passdbs and names[passdbs[0]] == 1:
            host.chained = False
    elif len(passdbs) > 1 and min(names[name] for name in passdbs) >= said:
        host.chained = True
    if len(passdbs) < len(names):
        return
    for name, lines in names.items():
        if lines > said and lines % said == 0:
            host.learn(name, lines // said)
            host.chained = True
        elif lines == said == 1:
            host.learn(name, 1)


def anonymous(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter a failure line that names nobody: it belongs to a Postfix failure or to a session that has not ended."""
    if not host.verbose:
        host.verbose = True
        _believe_no_more(ledger, host, event.at)
    host.has_dovecot = True
    ledger.dovecot_speaks = True
    host.faceless = True
    while host.claims and host.claims[0][0] < event.at - _LATE:
        host.claims.pop(0)
    if host.claims:
        host.claims.pop(0)
    else:
        host.leave(event.at)


def _believe_no_more(ledger: Ledger, host: Host, at: float) -> None:
    """The host turns out to log each attempt: what was believed of N alone is reckoned again."""
    for session in host.sessions.values():
        if session.ended:
            estimate = session.estimate(host.lines_per_attempt, chained=host.chained, verbose=True)
            ledger.settle(session, at, min(estimate, session.counted), 0, "")


def error(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter an error of the password database: the client is not at fault."""
    host.has_dovecot = True
    ip = event.ip
    if ip is None:
        return
    if event.session is None:
        if dovecot_smtp.error(ledger, event, ip):
            outage(ledger)
        return
    session = find(ledger, host, event, event.session, ip)
    session.errors += 1
    session.last = event.at
    if session.told is None or session.errors > session.told.internal():
        outage(ledger)
    if session.told is not None and session.told.heard:
        reckon(ledger, host, session, event)


def outage(ledger: Ledger) -> None:
    """Count an attempt that the backend could not judge."""
    ledger.stats.ignored.add(("outage",))
    ledger.stats.auth_unjudged.add(("dovecot",))


def refused(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter an attempt that was refused before any judgement: by a policy server, or for its form."""
    ip = event.ip
    if ip is None:
        return
    if event.session is None:
        if event.source == "policy":
            policy_smtp.refused(ledger, event, ip)
        return
    session = find(ledger, host, event, event.session, ip)
    told = session.hearing()
    told.refused += 1
    session.last = event.at
    ledger.again = told.refused <= told.rejected
    if session.ended and not session.success:
        reckon(ledger, host, session, event)


def unreported(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter a line that a policy server, ours perhaps, could not be reached: a report may be lost."""
    host.has_dovecot = True
    if event.session is None or event.ip is None:
        return
    find(ledger, host, event, event.session, event.ip).hearing().lost += 1


def backend(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter a backend's word that it could not judge one user: the refusal that follows is none."""
    host.has_dovecot = True
    ledger.dovecot_speaks = True
    host.breaks_for(event.user or "", event.at)
