"""Postfix's postscreen (src/postscreen/): what it found of a client.

PASS NEW [IP]:port | PASS OLD [IP]:port | ALLOWLISTED [IP]:port (WHITELISTED before 3.6) | DENYLISTED [IP]:port
PREGREET 18 after 0 from [IP]:port: AUTH ... | DNSBL rank 3 for [IP]:port | HANGUP after 1.2 from [IP]:port in tests ...
COMMAND PIPELINING from [IP]:port after ... | NON-SMTP COMMAND from ... | BARE NEWLINE from ... | COMMAND COUNT LIMIT from ...
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard.model import VERDICT, MailEvent
from guard.parsers._grammar import stands

NAME: Final = "postfix_verdict"

_OLD: Final = 1
# The words that a line begins with, and the place in VERDICTS.
_WORDS: Final[tuple[tuple[str, int], ...]] = (
    ("PASS NEW [", 0),
    ("ALLOWLISTED [", 2),
    ("WHITELISTED [", 2),
    ("DENYLISTED [", 3),
    ("BLACKLISTED [", 3),
    ("PREGREET ", 4),
    ("DNSBL rank ", 5),
    ("HANGUP after ", 6),
    ("COMMAND PIPELINING from [", 7),
    ("NON-SMTP COMMAND from [", 8),
    ("BARE NEWLINE from [", 9),
    ("COMMAND TIME LIMIT from [", 10),
    ("COMMAND COUNT LIMIT from [", 10),
    ("COMMAND LENGTH LIMIT from [", 10),
)


def read(text: str, start: i64, end: i64, event: MailEvent) -> bool:
    """Fill `event` with a VERDICT."""
    event.kind = VERDICT
    c = ord(text[start]) if start < end else 0
    if end < start + 10:
        return False
    if c == 67 and ord(text[start + 2]) == 78:  # "CONNECT "
        return False
    if c == 80 and ord(text[start + 5]) == 79 and ord(text[start + 9]) == 91:  # "PASS OLD ["
        event.label = _OLD
        return True
    for word, label in _WORDS:
        if stands(word, text, start, end):
            event.label = label
            return True
    return False
