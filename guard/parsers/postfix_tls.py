"""Postfix's word on a TLS handshake: what a loglevel of 1 writes for each (smtpd_tls_loglevel, smtp_tls_loglevel).

Anonymous TLS connection established from NAME[IP]: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) ...
Verified TLS connection established to NAME[IP]:25: TLSv1.2 with cipher ...             src/tls/tls_misc.c
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard.model import TLS, TLS_VERSIONS, MailEvent

NAME: Final = "postfix_tls"

_OTHER: Final = TLS_VERSIONS.index("other")


def read(text: str, start: i64, end: i64, event: MailEvent) -> bool:
    """Fill `event` with a TLS session."""
    c = ord(text[start]) if start < end else 0
    if c != 65 and not 84 <= c <= 86:  # Anonymous, Trusted, Untrusted, Verified
        return False
    at = start + 7
    if end < start + 60:
        return False
    while ord(text[at]) != 32 and at < start + 10:
        at += 1
    # " TLS connection established "; of one used again it says "reused".
    if ord(text[at + 1]) != 84 or ord(text[at + 4]) != 32 or ord(text[at + 16]) != 101 or ord(text[at]) != 32:
        return False
    at += 28
    event.count = 1 if ord(text[at]) == 116 else 0  # "to " or "from "
    at = text.find("]:", at, end) + 2
    if at < 2:
        return False
    while at < end and 48 <= ord(text[at]) <= 57:  # a port
        at += 1
    at += 2 if at < end and ord(text[at]) == 58 else 1
    event.kind = TLS
    event.label = _version(text, at, end)
    return True


def _version(text: str, at: i64, end: i64) -> i64:
    if (
        at + 8 > end
        or ord(text[at]) != 84  # "TLSv1"
        or ord(text[at + 1]) != 76
        or ord(text[at + 2]) != 83
        or ord(text[at + 3]) != 118
        or ord(text[at + 4]) != 49
    ):
        return _OTHER
    c = ord(text[at + 5])
    if c == 46 and ord(text[at + 7]) == 32:
        minor = ord(text[at + 6]) - 48
        return minor if 1 <= minor <= 3 else _OTHER
    return 0 if c == 32 else _OTHER
