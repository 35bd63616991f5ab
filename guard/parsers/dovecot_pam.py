"""PAM's own word of an attempt at Dovecot, which goes to auth.log or the journal: no session, but client and user.

    auth: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser=USER rhost=IP
                                                        libpam, modules/pam_unix/support.c, _unix_verify_password

`  user=NAME` follows where this host has such a user, and no other: what stands behind the last ` rhost=` is not the
client's.  USER is, whole; a line so long that syslog may have cut it within him says nothing.
"""

from __future__ import annotations

import re
from typing import Final

from guard import addresses
from guard.model import FAILURE, AuthEvent, Record
from guard.parsers._grammar import ADDRESS

NAME: Final = "dovecot_pam"
SERVICE: Final = "dovecot"

_LINE: Final = re.compile(
    r"\A(?:auth: )?pam_unix\(dovecot:auth\): authentication failure; logname=[^ ]{0,64} uid=[0-9]{1,10} euid=[0-9]{1,10} tty=dovecot ruser=(.{0,512})\Z",
    re.ASCII | re.DOTALL,
)
_TAIL: Final = re.compile(rf"\A rhost=({ADDRESS})(  user=[A-Za-z0-9._@+-]{{1,64}})? ?\Z", re.ASCII)


def parse(record: Record) -> AuthEvent | None:
    """Return the failure that a line of pam_unix tells of, or None."""
    match = _LINE.match(record.text)
    if match is None:
        return None
    said: str = match[1]
    end = said.rfind(" rhost=")
    tail = _TAIL.match(said[end:]) if end >= 0 else None
    if tail is None:
        return None
    ip = addresses.read(tail[1])
    if ip is None:
        return None
    return AuthEvent(
        record,
        SERVICE,
        FAILURE,
        "pam",
        ip=ip,
        user=said[:end] or None,
        reason="password_mismatch" if tail[2] else "unknown_user",
        source="pam_unix",
    )


def suspicious(text: str) -> bool:
    """Whether a line looks like a failure that nobody could read."""
    return "authentication failure" in text
