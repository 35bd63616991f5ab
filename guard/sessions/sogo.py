"""SOGo's witnesses: a record of the login page, then the access line of the same worker with the same address text.

User names are written raw, newlines and all, so anything after a *broken* record (one whose own tail is not on its
line) may be the attacker's: it is in quarantine until the access line of that worker and that address text.  Its own
times are his too, so the quarantine ends by lines, never by time.

While its database is away SOGo says wrong to everybody, each time behind an error of the same worker: nobody judged.
"""

from __future__ import annotations

from typing import Final

from guard.model import AuthEvent, Success
from guard.sessions._client import confirm
from guard.sessions._host import Sogo, Worker
from guard.sessions._ledger import Ledger

AWAY: Final = "away"  # the witness of a database that is not reached
_WORKERS: Final = 1024
_QUARANTINE: Final = 4096  # lines


def hear(ledger: Ledger, book: Sogo, event: AuthEvent) -> None:
    """Enter one record of SOGo."""
    witness = event.witness
    if event.process and not event.host:  # elsewhere a host that is not known is "-"
        book.own = True
    access = witness.startswith("access")
    if book.pid:
        if not access or event.pid != book.pid or (book.literal and event.source != book.literal):
            quarantined(ledger, book)
            return
        book.pid = ""
    if not access:
        if witness in ("broken", "dav_broken"):
            book.pid = event.pid
            book.literal = event.source
            book.left = _QUARANTINE
        if len(book.workers) >= _WORKERS:
            book.workers.clear()
        before = book.workers.get(event.pid)
        if before is not None and before.kind == AWAY and witness in ("page", "dav"):
            witness = f"{witness}_{AWAY}"
        book.workers[event.pid] = Worker(witness, event.source, event.user)
        return
    worker = book.workers.pop(event.pid, None)
    if worker is None:
        return
    if worker.kind == "page_success":
        if worker.literal == event.source and event.ip is not None:
            event.user = worker.user
            ledger.successes.append(Success(event.at, event.ip, worker.user, "sogo", "web", 1))
        return
    if witness != "access_refused" or event.ip is None:
        return
    if worker.kind in ("page", "broken", "page_away"):
        if event.protocol != "web" or worker.literal != event.source:
            return
    elif event.protocol == "web":
        return
    if worker.kind.endswith(AWAY):
        ledger.stats.auth_unjudged.add(("sogo",))
        ledger.stats.ignored.add(("unjudged",))
        return
    event.user = worker.user
    event.reason = "password_mismatch" if worker.kind.startswith("dav") else "unspecified"
    client = ledger.client(event.ip, event.at)
    confirm(client, event.at)
    ledger.count(event, client, event.ip, 0)


def quarantined(ledger: Ledger, book: Sogo) -> None:
    """Note a line that may be an attacker's text."""
    ledger.stats.ignored.add(("anomaly",))
    if book.pid:
        book.left -= 1
        if book.left <= 0:
            book.pid = ""
