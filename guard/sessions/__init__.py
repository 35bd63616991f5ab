"""AuthEvent -> Attempt, exactly once: the ledger.

A *witness* is an event that speaks of attempts.  Each kind of witness has its own column in a session's book; the
session's count is the best estimate from all columns, never their sum.  When a witness arrives the estimate rises
and each unit is one Attempt at that line's time, or it does not; a success or a session's end can make it fall, and
the difference is taken back.  The result after a line depends only on the lines up to it.

| witness | of | says |
|---|---|---|
| auth | Dovecot | one passdb said no to one attempt |
| pam | PAM | the same, without a session |
| anonymous, illegal_chars | Dovecot 2.3 | somebody failed; neither user nor address |
| error | Dovecot | the password database is broken |
| backend | Dovecot (mailcow) | the password database could not be asked about one user |
| refused | Dovecot, Postfix | nothing was judged |
| report | Dovecot's auth policy | what became of one attempt; no line of a log, see `report` |
| unreported | Dovecot | that could not be told |
| authenticate | Dovecot 2.4 | one exchange was cancelled or refused |
| login | Dovecot | a success |
| end_2.3, end_2.4 | Dovecot | the session is over; N attempts of some kind |
| connect, disconnect, lost | Postfix | a connection begins, ends |
| sasl, unavailable | Postfix | one attempt was answered with 535 (or, without a backend, 454) |
| unanswered | Postfix | one attempt got no judgement in time |
| client | Postfix | a message of an authenticated client |
| socket | Postfix | Dovecot could not be reached |
| page, page_success, dav, broken, access ... | SOGo | the halves of a web login |
| ui | mailcow | a failed login of the web interface |
"""

from __future__ import annotations

from typing import Final

from guard.model import AuthEvent
from guard.sessions import dovecot, pam, policy, smtp, sogo
from guard.sessions._ledger import Ledger
from guard.stats import Stats

_REFUSALS: Final = ("refused", "aborted", "abuse", "ui_abuse", "postscreen", "lost")


class Sessions:
    """The ledger of all hosts.  `feed` enters one event; what it leads to is in `ledger.out` until drained."""

    __slots__ = ("ledger",)

    def __init__(self, stats: Stats, *, max_sessions: int, max_clients: int, keep: bool) -> None:
        self.ledger = Ledger(stats, max_sessions, max_clients, keep=keep)

    def report(self, event: AuthEvent) -> None:
        """Enter one report of Dovecot's.  Only a stream of reports leads here: no line of a log can be one."""
        policy.report(self.ledger, event)

    def feed(self, event: AuthEvent, source: str) -> None:
        """Enter one event of a source (a file, a container ...)."""
        ledger = self.ledger
        if ledger.sogo:
            book = ledger.sogo.get(source)
            if book is not None and (book.pid or book.own) and event.service != "sogo":
                sogo.quarantined(ledger, book)  # a SOGo user name may hold lines of every daemon
                return
        host = ledger.host(event.host)
        if host.held:
            dovecot.release(ledger, host, event.at)
        witness = event.witness
        if event.service == "postfix":
            if witness not in _REFUSALS:
                smtp.hear(ledger, host, event)
            return
        if event.service == "dovecot":
            if witness == "auth":
                dovecot.auth(ledger, host, event)
            elif witness == "login":
                pam.login(ledger, host, event)
                dovecot.login(ledger, host, event)
            elif witness == "pam":
                pam.hear(ledger, host, event)
            elif witness == "end_2.3" or witness == "end_2.4":  # noqa: PLR1714
                dovecot.end(ledger, host, event)
            elif witness == "anonymous" or witness == "illegal_chars":  # noqa: PLR1714
                dovecot.anonymous(ledger, host, event)
            elif witness == "authenticate":
                dovecot.authenticate(ledger, host, event)
            elif witness == "error":
                dovecot.error(ledger, host, event)
            elif witness == "refused":
                dovecot.refused(ledger, host, event)
            elif witness == "unreported":
                dovecot.unreported(ledger, host, event)
            elif witness == "backend":
                dovecot.backend(ledger, host, event)
            return
        if event.service == "sogo":
            sogo.hear(ledger, ledger.sogo_book(source), event)
        elif witness == "ui" and event.ip is not None:
            ledger.count(event, ledger.client(event.ip, event.at), event.ip, -1)
