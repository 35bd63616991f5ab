"""What Postfix turned away: smtpd, postscreen and cleanup, each with the same form.

    NOQUEUE: reject: RCPT from NAME[IP]: 554 5.7.1 <RCPT>: Relay access denied; from=<> to=<> proto=ESMTP helo=<>
    QUEUEID: milter-reject: END-OF-MESSAGE from NAME[IP]: 5.7.1 TEXT; from=<> to=<> proto=ESMTP helo=<>
    QUEUEID: reject: header Subject: TEXT from NAME[IP]; from=<> ...: 5.7.1 TEXT      src/cleanup/cleanup_message.c

Only Postfix's own words tell the class: the reply's codes, and the reason behind them.  Where the reason stands behind
an address, that address is written without its quotes and may hold any reason; but then the same address is quoted in
`from=` or `to=`.  So in a line with a quotation mark the codes alone count.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard.model import REJECTED, REJECTS, MailEvent
from guard.parsers._grammar import queue_id, stands

NAME: Final = "postfix_reject"

_CLASSES: Final[dict[str, int]] = {name: place for place, name in enumerate(REJECTS)}
# The reason behind an address.
_REASONS: Final[tuple[tuple[str, str], ...]] = (
    ("Relay access denied", "relay"),
    ("Recipient address rejected: ", "recipient"),
    ("Sender address rejected: ", "sender"),
    ("Helo command rejected: ", "helo"),
    ("Client host rejected: ", "client"),
    ("Data command rejected: ", "protocol"),
    ("End-of-data rejected: ", "policy"),
)
# The reply's text where no address stands before it.
_TEXTS: Final[tuple[tuple[str, str], ...]] = (
    ("Service unavailable; ", "blocklist"),
    ("Service currently unavailable", "greylisted"),  # postscreen's tests: come again
    ("Must issue a STARTTLS command first", "tls"),
    ("Session encryption is required", "tls"),
    ("Authentication required", "auth"),
    ("Client host rejected: ", "client"),
    ("Protocol error", "protocol"),
    ("Error: too ", "policy"),
    ("Error: ", "protocol"),
    ("Message size exceeds ", "size"),
)
# The reply's enhanced code without its first digit (RFC 3463).
_CODES: Final = {
    "1.1": "recipient", "1.2": "recipient", "1.3": "recipient", "1.6": "recipient", "2.1": "recipient", "2.2": "recipient",
    "1.0": "sender", "1.7": "sender", "1.8": "sender", "2.0": "greylisted", "3.4": "size", "7.25": "client",
    "5.0": "protocol", "5.1": "protocol", "5.2": "protocol", "5.4": "protocol",
}  # fmt: skip
_POLICY: Final = _CLASSES["policy"]
_GREYLISTED: Final = _CLASSES["greylisted"]


def read(text: str, start: i64, end: i64, event: MailEvent) -> bool:
    """Fill `event` with a REJECTED; a `reject_warning` turned nobody away."""
    at = start + 7 if stands("NOQUEUE", text, start, end) else queue_id(text, start, end)
    if at < 0:
        return False
    event.kind = REJECTED
    if stands(": reject: ", text, at, end):
        if stands("header ", text, at + 10, end) or stands("body ", text, at + 10, end):
            event.label = _POLICY
            return True
        milter = False
        at += 10
    elif stands(": milter-reject: ", text, at, end):
        milter = True
        at += 17
    else:
        return False
    bracket: i64 = text.find("]", at, end)
    at = text.find(": ", bracket, min(end, bracket + 10)) + 2 if bracket > 0 else 1
    if at < 2:
        return False
    event.label = _milters(text, at, end) if milter else _class(text, at, end)
    return True


def _milters(text: str, at: i64, end: i64) -> i64:
    near = min(end, at + 60)
    stop: i64 = text.find(";", at, near)
    near = stop if stop > 0 else near
    if (
        text.find("reylist", at, near) > 0 or text.find("4.7.1 Try again later", at, near) > 0
    ):  # rspamd's own words
        return _GREYLISTED
    return _CLASSES["milter"]


def _class(text: str, at: i64, end: i64) -> i64:
    code: i64 = text.find(" ", at, end) + 1
    gap: i64 = text.find(" ", code, min(end, code + 10))
    if code != at + 4 or gap < 0:
        return _CLASSES["other"]
    dsn = text[code + 2 : gap]
    at = gap + 1
    by_code = _CLASSES[_CODES.get(dsn, "other")]
    if not stands("<", text, at, end):
        for words, name in _TEXTS:
            if stands(words, text, at, end):
                return _CLASSES[name]
        return by_code
    if text.find('"', at, end) >= 0:
        return by_code
    at = text.find(">: ", at, end) + 3
    stop: i64 = text.find("; from=<", at, end)
    for words, name in _REASONS:
        if at > 2 and stands(words, text, at, end):
            if name == "recipient":
                return _recipients(text, at, stop, dsn)
            return _CLASSES[name]
    return by_code


def _recipients(text: str, at: i64, stop: i64, dsn: str) -> i64:
    """Policy servers answer for the recipient too."""
    if text.find("reylist", at, stop) > 0:
        return _GREYLISTED
    if dsn.startswith("7.") and not stands("Access denied", text, at + 28, stop):
        return _POLICY
    return _CLASSES["recipient"]
