"""Postfix's delivery agents: one line for each attempt to deliver to one recipient.

    QUEUEID: to=<RCPT>, orig_to=<RCPT>, relay=HOST[IP]:25, conn_use=2, delay=0.52, delays=0.22/0.05/0.25/0.01,
        dsn=2.0.0, status=sent (250 2.0.0 <RCPT> Saved)                                        src/global/log_adhoc.c

Recipients are strangers' text, and so is what the server at the other end said, in the brackets at the end.  So the
line is read from the left, each field in its place, and what stands behind the status is never looked at.  Behind the
addresses all is Postfix's own: there a character or two tell the field.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard.model import DELIVERY, MailEvent
from guard.parsers._grammar import after_address, micros, queue_id, stands

NAME: Final = "postfix_delivery"

_DELAY: Final = ", delay="


def read(text: str, start: i64, end: i64, event: MailEvent) -> bool:
    """Fill `event` with a DELIVERY where text[start:end] tells of one."""
    colon = queue_id(text, start, end)
    if (
        colon < 0
        or colon + 12 > end
        or ord(text[colon + 2]) != 116  # "to=<"
        or ord(text[colon + 3]) != 111
        or ord(text[colon + 4]) != 61
        or ord(text[colon + 5]) != 60
    ):
        return False
    event.id_at, event.id_end = start, colon
    at = after_address(text, colon + 6, end)
    if at < 0:
        return False
    event.name_at, event.name_end = colon + 6, at - 1
    if at + 40 < end and ord(text[at + 2]) == 111 and stands(", orig_to=<", text, at, end):
        at = after_address(text, at + 11, end)
    if (
        at < 0
        or at + 40 > end
        or ord(text[at + 1]) != 32
        or ord(text[at + 2]) != 114  # ", relay="
        or ord(text[at + 3]) != 101
        or ord(text[at + 4]) != 108
        or ord(text[at + 5]) != 97
        or ord(text[at + 6]) != 121
        or ord(text[at + 7]) != 61
        or ord(text[at]) != 44
    ):
        return False
    at = text.find(_DELAY, at, end)
    if at < 0:
        return False
    event.micros, at = micros(text, at + 8, end)
    if event.micros < 0 or at + 30 > end or ord(text[at]) != 44 or ord(text[at + 8]) != 61:  # ", delays="
        return False
    before, at = micros(text, at + 9, end)
    queue, at = micros(text, at + 1, end)
    connection, at = micros(text, at + 1, end)
    transmission, at = micros(text, at + 1, end)
    if (
        before < 0
        or queue < 0
        or connection < 0
        or transmission < 0
        or at + 24 > end
        or ord(text[at + 5]) != 61
    ):
        return False
    event.stages = (before, queue, connection, transmission)
    at += 6
    while at < end and (ord(text[at]) == 46 or 48 <= ord(text[at]) <= 57):
        at += 1
    if at + 13 > end or ord(text[at]) != 44 or ord(text[at + 8]) != 61:  # ", status="
        return False
    event.kind = DELIVERY
    event.label = _result(text, at + 9)
    return event.label >= 0


def _result(text: str, at: i64) -> i64:
    """Return the place of the word at `at` in RESULTS, -1 for others: a probe is deliverable or undeliverable."""
    c = ord(text[at])
    if c == 115:  # "sent"
        return 0 if ord(text[at + 1]) == 101 else -1
    if c == 100:  # "deferred", not "deliverable"
        return 1 if ord(text[at + 2]) == 102 else -1
    return 2 if c == 98 else -1  # "bounced"
