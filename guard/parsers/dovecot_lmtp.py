"""Dovecot's own word on a delivery: LMTP and LDA, with Sieve or without.

    lmtp(USER)<432><EddSIWJ4BGuwAQAAN1yiYg>: msgid=<ID>: saved mail to INBOX                 src/lib-lda/mail-deliver.c
    lmtp(USER)<432><EddSIWJ4BGuwAQAAN1yiYg>: sieve: msgid=<ID>: stored mail into mailbox 'INBOX'  pigeonhole: sieve-actions.c
        ... forwarded to <ADDRESS> | marked message to be discarded if not explicitly delivered (discard action)
        ... rejected message from <SENDER> (reject) | save failed to INBOX: Quota exceeded

The message id is a stranger's text and stands before Dovecot's words: the last ones count.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard.model import STORED, MailEvent
from guard.parsers._grammar import stands

NAME: Final = "dovecot_lmtp"

_STORED: Final = ": stored mail into mailbox '"
# Dovecot's words, and the place in STORES.
_WORDS: Final[tuple[tuple[str, int], ...]] = (
    (": saved mail to ", 0),
    (_STORED, 0),
    (": forwarded to <", 1),
    (": marked message to be discarded", 2),
    (": rejected message from <", 3),
    (": save failed to ", 4),
    (": failed to store into mailbox ", 4),
    (": failed to forward message to ", 4),
)


def read(text: str, start: i64, end: i64, event: MailEvent) -> bool:
    """Fill `event` with what Dovecot did with a message."""
    if (
        start >= end or ord(text[start]) != 108
    ):  # "l": of most of Dovecot's lines this is all that is looked at
        return False
    if end < start + 20:
        return False
    if ord(text[start + 1]) == 109:  # "lmtp("
        if ord(text[start + 2]) != 116 or ord(text[start + 3]) != 112 or ord(text[start + 4]) != 40:
            return False
    elif not stands("lda(", text, start, end):
        return False
    at = start + 5
    while at < end and 48 <= ord(text[at]) <= 57:
        at += 1
    # A session of a process, which has no user yet.
    if at + 2 < end and ord(text[at]) == 41 and ord(text[at + 1]) == 58 and ord(text[at + 2]) == 32:
        return False
    begin: i64 = text.find(": msgid=", start, end)
    if begin < 0:
        return False
    event.kind, event.label = STORED, 0
    if ord(text[end - 1]) == 39 and text.rfind(_STORED, begin, end) > 0:  # "'"
        return True
    last: i64 = -1
    for words, label in _WORDS:
        at = text.rfind(words, begin, end)
        if at > last:
            last = at
            event.label = label
    return last > 0
