"""PAM's word of an attempt at Dovecot: it has no session, comes before Dovecot's own words, and they may never come.

It counts at once, and each attempt that Dovecot or Postfix tell of the same address afterwards is one of PAM's first
(`Ledger.settle`, `Ledger.count`).  It is left out where others tell each attempt anyway: a Dovecot that logs
them, a Postfix that shows the address; and on a host where PAM refuses whom another passdb lets in a moment later.
Whether a host is such a one nobody knows before, and a ban would keep his login from going through: so of users that
PAM does not know Dovecot's own lines tell, where there are any.
"""

from __future__ import annotations

from typing import Final

from guard.model import AuthEvent
from guard.sessions._client import add
from guard.sessions._host import Host
from guard.sessions._ledger import Ledger

_CHAIN: Final = 5.0  # seconds between PAM's no and the login that it was a part of: pam_unix waits for two


def hear(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter a line of PAM's."""
    ip = event.ip
    if ip is None:
        return
    client = ledger.client(ip, event.at)
    others = host.has_dovecot and event.reason == "unknown_user"
    if others or host.verbose or host.chained or client.shown(event.at):
        ledger.stats.witness_suppressed.add(("dovecot",))
        return
    pairs = client.waiting()
    before, pairs.pam = pairs.pam, []  # none of them is this one
    ledger.count(event, client, ip, -1)
    add(before, event.at)
    pairs.pam = before


def login(ledger: Ledger, host: Host, event: AuthEvent) -> None:
    """Enter a success: what PAM said a moment ago was a link of its chain."""
    client = None if event.ip is None else ledger.clients.peek(event.ip)
    pairs = None if client is None else client.pairs
    if event.ip is None or pairs is None:
        return
    while pairs.pam and pairs.pam[-1] >= event.at - _CHAIN:
        host.chained = True
        ledger.revoke(pairs.pam.pop(), event.ip, "unknown", "dovecot")
