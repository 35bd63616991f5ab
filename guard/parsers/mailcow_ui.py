"""mailcow's web interface, as it publishes on its channel (data/web/inc/functions.auth.inc.php and others).

    mailcow UI: Invalid password for USER by IP / Rspamd UI: Invalid password by IP / Autodiscover: Invalid request by IP

USER is the attacker's text; the address is the last word.
"""

from __future__ import annotations

import re
from typing import Final

from guard import addresses
from guard.model import ABUSE, FAILURE, AuthEvent, Record
from guard.parsers._grammar import ADDRESS

NAME: Final = "mailcow_ui"
SERVICE: Final = "mailcow"

_LONGEST: Final = 16384
_UI: Final = re.compile(
    rf"\A(?:mailcow UI: Invalid password for (.*)|Rspamd UI: Invalid password) by ({ADDRESS}) ?\Z",
    re.ASCII | re.DOTALL,
)
_AUTODISCOVER: Final = re.compile(
    rf"\AAutodiscover: (?:Invalid|Malformed) [A-Za-z ]{{1,40}} by ({ADDRESS}) ?\Z", re.ASCII
)


def parse(record: Record) -> AuthEvent | None:
    """Return the failed login or the abuse that a line of the web interface tells of, or None."""
    text = record.text
    if len(text) > _LONGEST:
        return None
    match = _UI.match(text)
    if match is not None:
        ip = addresses.read(match[2])
        if ip is None:
            return None
        return AuthEvent(
            record, SERVICE, FAILURE, "ui", protocol="web", ip=ip, user=match[1], reason="password_mismatch"
        )
    match = _AUTODISCOVER.match(text)
    if match is not None:
        return AuthEvent(record, SERVICE, ABUSE, "ui_abuse", protocol="web", ip=addresses.read(match[1]))
    return None


def suspicious(text: str) -> bool:
    """Whether a line looks like a failure that nobody could read."""
    return "Invalid password" in text
