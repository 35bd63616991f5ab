r"""Postfix's postscreen: clients that do not speak SMTP.  It never judges a password; its lines are signs of abuse.

PREGREET 18 after 0 from [IP]:port: AUTH LOGIN\r\n...                                  src/postscreen/
CONNECT from [IP]:port to [IP]:25 / DISCONNECT [IP]:port / NON-SMTP COMMAND from [IP]:port after CONNECT: ...
"""

from __future__ import annotations

import re
from typing import Final

from guard import addresses
from guard.model import ABUSE, CONNECT, DISCONNECT, AuthEvent, Record
from guard.parsers._grammar import ADDRESS

NAME: Final = "postfix_postscreen"
SERVICE: Final = "postfix"

_LONGEST: Final = 16384
_PEER: Final = rf"\[({ADDRESS})\](?::[0-9]{{1,5}})?"
_CONNECT: Final = re.compile(rf"\ACONNECT from {_PEER} to \[[^ ]{{2,60}}\Z", re.ASCII)
_GONE: Final = re.compile(
    rf"\A(?:DISCONNECT|PASS (?:NEW|OLD)|HANGUP after [0-9.]{{1,12}} from) {_PEER}(?: in tests .*)?\Z",
    re.ASCII,
)
_ABUSE: Final = re.compile(
    rf"\A(?:PREGREET [0-9]{{1,9}} after [0-9.]{{1,12}} from|NON-SMTP COMMAND from|COMMAND PIPELINING from|BARE NEWLINE from"
    rf"|COMMAND (?:TIME|COUNT|LENGTH) LIMIT from|(?:BLACKLISTED|DENYLISTED)|DNSBL rank [0-9]{{1,6}} for|NOQUEUE: reject: [A-Z]{{1,20}} from) {_PEER}(?:[: ].*)?\Z",
    re.ASCII | re.DOTALL,
)


def parse(record: Record) -> AuthEvent | None:
    """Return the connection or the abuse that a postscreen line tells of, or None."""
    text = record.text
    if len(text) > _LONGEST:
        return None
    for kind, pattern in ((CONNECT, _CONNECT), (DISCONNECT, _GONE), (ABUSE, _ABUSE)):
        match = pattern.match(text)
        if match is not None:
            return AuthEvent(
                record, SERVICE, kind, "postscreen", protocol="smtp", ip=addresses.read(match[1])
            )
    return None


def suspicious(text: str) -> bool:  # noqa: ARG001 - every parser has it
    """Whether a line looks like a failure that nobody could read: postscreen judges no password."""
    return False
