"""Postfix's word on a TLS handshake: what a loglevel of 1 writes for each (smtpd_tls_loglevel, smtp_tls_loglevel).

Anonymous TLS connection established from NAME[IP]: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) ...
Verified TLS connection established to NAME[IP]:25: TLSv1.2 with cipher ...             src/tls/tls_misc.c
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard.model import TLS, TLS_VERSIONS, MailEvent
from guard.parsers._grammar import stands

NAME: Final = "postfix_tls"

_ESTABLISHED: Final = " TLS connection established "
_OTHER: Final = TLS_VERSIONS.index("other")


def read(text: str, start: i64, end: i64, event: MailEvent) -> bool:
    """Fill `event` with a TLS session."""
    c = ord(text[start]) if start < end else 0
    if c != 65 and not 84 <= c <= 86:  # Anonymous, Trusted, Untrusted, Verified
        return False
    at: i64 = text.find(_ESTABLISHED, start, min(end, start + 40))
    if at < 0 or not 7 <= at - start <= 9:
        return False
    at += 28
    event.count = 1 if stands("to ", text, at, end) else 0
    if event.count == 0 and not stands("from ", text, at, end):
        return False
    at = text.find("]: ", at, end) + 3  # or behind a port
    if at == 2:
        at = text.find(": ", text.find("]:", start, end) + 2, end) + 2
    if at < 3:
        return False
    event.kind = TLS
    event.label = _version(text, at, text.find(" ", at, end))
    return True


def _version(text: str, at: i64, end: i64) -> i64:
    if end - at == 7 and stands("TLSv1.", text, at, end):
        minor = ord(text[at + 6]) - 48
        return minor if 1 <= minor <= 3 else _OTHER
    return 0 if end - at == 5 and stands("TLSv1", text, at, end) else _OTHER
