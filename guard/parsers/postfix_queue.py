"""A message's way through Postfix's queue.

    QUEUEID: client=NAME[IP]                                           src/smtpd/smtpd.c: it begins to come in
    QUEUEID: uid=1000 from=<alice>                                     src/pickup/pickup.c: from this host
    QUEUEID: from=<SENDER>, size=327, nrcpt=1 (queue active)           src/qmgr/qmgr_active.c: taken, at each turn anew
    QUEUEID: from=<SENDER>, status=expired, returned to sender         src/qmgr/qmgr_active.c
    QUEUEID: removed                                                   src/qmgr/qmgr_active.c

The sender is a stranger's text: what follows it is read from the line's end.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard.model import DELIVERY, MAIL_PROTOCOLS, QUEUED, REMOVED, RESULTS, TAKEN, MailEvent
from guard.parsers._grammar import queue_id, stands

NAME: Final = "postfix_queue"

_EXPIRED: Final = RESULTS.index("expired")
_LOCAL: Final = MAIL_PROTOCOLS.index("local")
_UNKNOWN: Final = MAIL_PROTOCOLS.index("unknown")
_RETURNED: Final = (">, status=expired, returned to sender", ">, status=force-expired, returned to sender")


def read(text: str, start: i64, end: i64, event: MailEvent) -> bool:
    """Fill `event` with what text[start:end] tells of a message; the protocol of a client is its program's."""
    colon = queue_id(text, start, end)
    if colon < 0:
        return False
    event.id_at, event.id_end = start, colon
    at = colon + 2
    c = ord(text[at])
    if c == 114:  # "r"
        event.kind = REMOVED
        return end == at + 7 and ord(text[at + 6]) == 100
    if c == 102:  # "f"
        return (
            at + 7 < end
            and ord(text[at + 4]) == 61
            and ord(text[at + 5]) == 60
            and _from(text, at + 6, end, event)
        )
    if c == 99:  # "c"
        event.kind, event.label = TAKEN, _UNKNOWN
        return at + 7 < end and ord(text[at + 6]) == 61
    if c == 117:  # "u"
        event.kind, event.label = TAKEN, _LOCAL
        return stands("uid=", text, at, end)
    return False


def _from(text: str, at: i64, end: i64, event: MailEvent) -> bool:
    i = end - 16
    if i > at + 7 and ord(text[end - 1]) == 41 and ord(text[end - 14]) == 40:  # " (queue active)"
        count: i64 = 0
        unit: i64 = 1
        while i > at and unit < 1_000_000_000:
            c = ord(text[i])
            if c < 48 or c > 57:
                break
            count += (c - 48) * unit
            unit *= 10
            i -= 1
        event.kind, event.count = QUEUED, count
        return (
            unit > 1 and ord(text[i]) == 61 and ord(text[i - 5]) == 110 and ord(text[i - 7]) == 44
        )  # ", nrcpt="
    for tail in _RETURNED:
        if end - len(tail) >= at and stands(tail, text, end - len(tail), end):
            event.kind, event.label = DELIVERY, _EXPIRED
            event.name_at = event.name_end = 0
            return True
    return False
