r"""A report of Dovecot's auth policy: what became of one attempt.  It is no line of a log, and no log leads here.

{"device_id":"","fail_type":"credentials","login":"USER","protocol":"imap","pwhash":"0c62","remote":"IP",
 "session_id":"SESSION","success":false,"policy_reject":false,"tls":false}        src/auth/auth-policy.c, 2.3 and 2.4

`fail_type` came with 2.4; 2.3 does not say whether the password was wrong or the backend could not judge.  SMTP
clients have no session.  `auth_policy_request_attributes` may add fields, and must keep `login`, `remote`, `protocol`
and `session_id`.  Dovecot escapes USER as JSON wants it: whatever it holds, it ends at its quote.
"""

from __future__ import annotations

import json
import re
from typing import Final

from guard import addresses
from guard.model import FAILURE, OUTAGE, REFUSED, SUCCESS, AuthEvent, Record
from guard.parsers._grammar import ADDRESS

NAME: Final = "auth_policy"
SERVICE: Final = "dovecot"

_LONGEST: Final = 16384
_USER_MAX: Final = 1024
_ADDRESS: Final = re.compile(rf"\A{ADDRESS}\Z", re.ASCII)
_SESSION: Final = re.compile(r"\A[A-Za-z0-9+/=]{8,64}\Z", re.ASCII)
_PROTOCOLS: Final = frozenset(("smtp", "submission", "imap", "pop3", "sieve", "lmtp"))
_FAIL_TYPES: Final = {
    "credentials": "password_mismatch",
    "account": "unknown_user",
    "expired": "expired",
    "disabled": "disabled",
}
# What evidence shows of a report: never `pwhash`, which is of a few bits of the password.
_SHOWN: Final = ("login", "remote", "protocol", "session_id", "fail_type", "success", "policy_reject", "tls")


def parse(record: Record) -> AuthEvent | None:
    """Return the failure, success, refusal or outage that a report tells of, or None."""
    fields = _fields(record.text)
    if fields is None:
        return None
    success = fields.get("success")
    if success is not True and success is not False:
        return None
    remote = _text(fields, "remote")
    ip = addresses.read(remote) if _ADDRESS.match(remote) else None
    session = _text(fields, "session_id")
    protocol = _text(fields, "protocol")
    fail_type = _text(fields, "fail_type")
    reason: str | None = None
    if success:
        kind = SUCCESS
    elif fields.get("policy_reject") is True or fail_type == "policy":
        kind = REFUSED
    elif fail_type == "internal":
        kind = OUTAGE
    else:
        kind = FAILURE
        reason = _FAIL_TYPES.get(fail_type)
    event = AuthEvent(
        record,
        SERVICE,
        kind,
        "report",
        protocol=protocol if protocol in _PROTOCOLS else "unknown",
        ip=ip,
        user=_text(fields, "login")[:_USER_MAX] or None,
        session=session if _SESSION.match(session) else None,
        reason=reason,
    )
    shown = {name: fields[name] for name in _SHOWN if name in fields}
    event.line = f"{NAME}: {json.dumps(shown, ensure_ascii=False)[:_LONGEST]}"
    return event


def _fields(text: str) -> dict[str, object] | None:
    if len(text) > _LONGEST or not text.startswith("{"):
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
