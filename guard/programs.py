"""Which program writes under a syslog tag, and so what its lines can tell of mail."""

from __future__ import annotations

from typing import Final

from guard.model import MAIL_PROTOCOLS, TRANSPORTS

# What a program's lines tell; a head's code is this times 16 plus a place in MAIL_PROTOCOLS or TRANSPORTS.
NOTHING: Final = 0
QUEUE: Final = 1  # qmgr
DELIVERS: Final = 2
PICKUP: Final = 3
CLEANUP: Final = 4
SMTPD: Final = 5
POSTSCREEN: Final = 6
TLS_PROXY: Final = 7
DOVECOT: Final = 8
SOGO: Final = 9
POSTFIX: Final = 10  # some program: RFC 5424 through rsyslog cuts the tag
WRAPPED: Final = 8  # added to an smtpd's place: TLS comes before SMTP
ELSEWHERE: Final = 256  # added by guard.mail: of another host than the first

_OTHER: Final = TRANSPORTS.index("other")
_UNKNOWN: Final = MAIL_PROTOCOLS.index("unknown")
_TAGS: Final = 1024
_LOCAL: Final = {"qmgr": QUEUE, "oqmgr": QUEUE, "pickup": PICKUP, "cleanup": CLEANUP, "tlsproxy": TLS_PROXY}
_codes: dict[str, int] = {}


def code_of(tag: str) -> int:
    """Return the code of a syslog tag; tags are remembered, since JSON brings its tag with each line."""
    code = _codes.get(tag, -1)
    if code < 0:
        if len(_codes) >= _TAGS:
            _codes.clear()
        code = _codes[tag] = _code_of(tag)
    return code


def _code_of(tag: str) -> int:
    if tag.endswith("smtpd"):
        return SMTPD * 16 + _protocol(tag[:-5])
    if tag.endswith("postscreen"):
        return POSTSCREEN * 16
    if tag.startswith("dovecot"):
        return DOVECOT * 16
    if tag in ("sogod", "sogo"):
        return SOGO * 16
    before, slash, name = tag.rpartition("/")
    if not slash:
        return (POSTFIX * 16 + _OTHER) if tag.startswith("postfix") else NOTHING
    if name in _LOCAL:
        return _LOCAL[name] * 16 + _OTHER
    if name in TRANSPORTS:
        return DELIVERS * 16 + TRANSPORTS.index(name)
    if name in ("error", "discard", "bounce", "retry") and before.startswith("postfix"):
        return DELIVERS * 16 + _OTHER
    return NOTHING


def _protocol(name: str) -> int:
    """As guard.parsers.postfix_smtpd takes it: a custom syslog_name is port 25."""
    if "smtps" in name or "submissions" in name or "465" in name:
        return MAIL_PROTOCOLS.index("submission") + WRAPPED
    if "submission" in name or "587" in name:
        return MAIL_PROTOCOLS.index("submission")
    return MAIL_PROTOCOLS.index("smtp")


def protocol_of(code: int) -> int:
    """Return the place in MAIL_PROTOCOLS of who takes a message in."""
    return code & 3 if code >> 4 == SMTPD else _UNKNOWN
