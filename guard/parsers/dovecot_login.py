"""Dovecot's login processes: a success, or the end of a session that never got in, with its number of attempts.

2.3  imap-login: Disconnected: Aborted login by logging out (auth failed, 2 attempts in 8 secs): user=<U>, method=PLAIN,
     rip=IP, lip=IP, TLS, session=<SESSION>                          src/login-common/client-common.c, client_log_msg
2.4  imap-login: Login aborted: Logged out (auth failed, 2 attempts in 10 secs) (auth_failed): user=<U>, method=...
     imap-login: Logged in: user=<U>, ... (2.3: Login:)

USER is the attacker's text and stands before the address: the tail is read from its end, the reason from the start.
An `auth failed` without `method=` is an IMAP LOGIN or POP3 USER refused for lack of TLS: nothing was judged.
"""

from __future__ import annotations

import re
from typing import Final

from guard import addresses
from guard.model import CANCELLED, DISCONNECT, OUTAGE, REFUSED, SUCCESS, SUMMARY, AuthEvent, Record
from guard.parsers._grammar import ADDRESS, SESSION

NAME: Final = "dovecot_login"
SERVICE: Final = "dovecot"

_LONGEST: Final = 16384
_PROTOCOLS: Final = {
    "imap": "imap",
    "pop3": "pop3",
    "managesieve": "sieve",
    "sieve": "sieve",
    "submission": "submission",
    "lmtp": "lmtp",
}
_HEAD: Final = re.compile(
    r"\A([a-z0-9]{1,20})-login(?:\([^()]{0,255}\))?: (?:Info: )?(.*)\Z", re.ASCII | re.DOTALL
)
# The last ", rip=" is the true one; what follows it is Dovecot's own (the TLS text may hold "=" and parentheses).
_TAIL: Final = re.compile(rf"\A, rip=({ADDRESS})(?:, [^<>]{{0,2000}})?\Z", re.ASCII)
_SESSION: Final = re.compile(rf"\A, session=<({SESSION})>(?:, [^<>]{{0,300}})?\Z", re.ASCII)
# Most successes: a user without "<" and ">" ends at the first ">", whatever else he holds.
_PLAIN: Final = re.compile(
    rf"\A([a-z0-9]{{1,20}})-login: (?:Info: )?(?:Login|Logged in): user=<([^<>]{{0,200}})>, method=([A-Za-z0-9_-]{{1,64}}), rip=({ADDRESS})"
    rf"(?:, [^<>]{{0,300}})?, session=<({SESSION})>\Z",
    re.ASCII,
)
_METHOD: Final = re.compile(r"\A, method=([A-Za-z0-9_-]{1,64})\Z", re.ASCII)
_WHY: Final = re.compile(
    r"\A.*?\(([a-z][A-Za-z0-9' ]{2,80})(?:, ([0-9]{1,6}) attempts?)?(?:(?: in|, waited) ([0-9]{1,6}) secs)?\)(?: \(([a-z0-9_]{1,60})\))?\Z",
    re.ASCII | re.DOTALL,
)
_AUTHENTICATE: Final = re.compile(r"\A(?:Authenticate [^ ]{1,64}|Login) failed: .*\Z", re.ASCII | re.DOTALL)
_PROXIED: Final = re.compile(r"\Aproxy\(.*\): [Ss]tarted proxying to .*\Z", re.ASCII | re.DOTALL)
# Ends in which real failures can hide although another reason is given (2.4).
_WAITING: Final = {
    "auth aborted by client": "aborted",
    "client didn't finish sasl auth": "waiting",
}
_BROKEN: Final = (
    "auth service reported temporary failure",
    "auth process communication failure",
    "internal failure",
)


def parse(record: Record) -> AuthEvent | None:
    """Return the success or the end of a login session, or None."""
    text = record.text
    if len(text) > _LONGEST:
        return None
    plain = _PLAIN.match(text)
    if plain is not None:
        ip = addresses.read(plain[4])
        protocol = _PROTOCOLS.get(plain[1])
        if ip is None or protocol is None:
            return None
        return AuthEvent(
            record,
            SERVICE,
            SUCCESS,
            "login",
            protocol=protocol,
            ip=ip,
            user=plain[2] or None,
            session=plain[5],
            method=plain[3],
        )
    head = _HEAD.match(text)
    if head is None:
        return None
    protocol = _PROTOCOLS.get(head[1])
    if protocol is None:
        return None
    start: int = head.start(2)
    if "user=<" not in text:
        text = _with_user(text, start)
    cut = text.find(": user=<", start)
    end = text.rfind(", rip=")
    if cut < 0 or end < cut:
        return None
    session: str | None = None
    stop = text.rfind(", session=<")
    if stop > end:
        match = _SESSION.match(text[stop:])
        if match is None:
            return None
        session = match[1]
    else:
        stop = len(text)
    tail = _TAIL.match(text[end:stop])
    if tail is None:
        return None
    ip = addresses.read(tail[1])
    if ip is None:
        return None
    method: str | None = None
    user_end = end
    last = text.rfind(
        ", ", cut, end
    )  # the method stands directly before the address, or it is the client's text
    match = _METHOD.match(text[last:end]) if last > 0 else None
    if match is not None:
        method = match[1]
        user_end = last
    user: str | None = text[cut + 8 : user_end]
    if user is not None:
        user = user[:-1] if user.endswith(">") else user.partition(">")[0]
    why = text[start:cut]
    if why == "Login" or why == "Logged in" or _PROXIED.match(why):  # noqa: PLR1714
        return AuthEvent(
            record,
            SERVICE,
            SUCCESS,
            "login",
            protocol=protocol,
            ip=ip,
            user=user or None,
            session=session,
            method=method,
        )
    if _AUTHENTICATE.match(why):
        kind = CANCELLED if why.endswith("Aborted") else REFUSED
        return AuthEvent(
            record,
            SERVICE,
            kind,
            "authenticate",
            protocol=protocol,
            ip=ip,
            user=user or None,
            session=session,
            method=method,
        )
    said = _WHY.match(why)
    if said is None or said[1].startswith("proxy dest auth"):
        return None  # a front logs the back's refusals under the back's session id: not read yet, and not passed over
    return _end(record, protocol, ip, user or None, session, method, said)


def _with_user(text: str, start: int) -> str:
    """Return a line that names no user, as Dovecot 1 and 2.0 leave an empty one out, in the form of those that do."""
    cut = text.find("): ", start) + 1
    return (
        f"{text[:cut]}: user=<>, {text[cut + 2 :]}" if text.startswith(("method=", "rip="), cut + 2) else text
    )


def _end(
    record: Record,
    protocol: str,
    ip: str,
    user: str | None,
    session: str | None,
    method: str | None,
    said: re.Match[str],
) -> AuthEvent:
    cause: str = said[1].lower()
    new = said[4] is not None  # 2.4 adds a machine-readable reason
    count = int(said[2]) if said[2] else 0
    source = "other"
    kind = DISCONNECT
    if cause == "auth failed":
        source = "failed"
        kind = SUMMARY
        if method is None:
            kind, source, count = REFUSED, "other", 0
    elif cause in _WAITING:
        source = _WAITING[cause]
        kind = SUMMARY if count else CANCELLED
    elif cause in _BROKEN or cause.endswith("failure"):
        kind = OUTAGE
    elif cause.startswith("tried to use") or cause.startswith("sent invalid"):  # noqa: PIE810
        kind = REFUSED
    if (
        source == "failed" and "Inactivity during authentication" in said[0]
    ):  # N counts the one still in flight
        source = "waiting"
    return AuthEvent(
        record,
        SERVICE,
        kind,
        "end_2.4" if new else "end_2.3",
        protocol=protocol,
        ip=ip,
        user=user,
        session=session,
        method=method,
        count=count,
        seconds=int(said[3]) if said[3] else 0,
        reason="unspecified" if kind == SUMMARY else None,
        source=source,
    )


def suspicious(text: str) -> bool:
    """Whether a line looks like a failure that nobody could read."""
    return (
        "(auth failed" in text
        or "auth aborted by client" in text
        or "proxy dest auth" in text
        or "didn't finish SASL auth" in text
    )
