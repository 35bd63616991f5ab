"""Dovecot's auth and auth-worker processes: one line for each passdb and attempt, with `auth_verbose`.

2.3  auth: passwd-file(USER,IP,<SESSION>): Password mismatch          src/auth/auth-request.c, get_log_prefix
     auth-worker(PID): conn unix:auth-worker (pid=1,uid=2): auth-worker<3>: sql(USER,IP,<SESSION>): unknown user
     auth-worker(PID): conn unix:auth-worker (pid=1,uid=2): auth-worker<3>: Password mismatch       (nobody named)
2.4  auth(USER,IP,sasl:plain)<SESSION>: passwd-file: Password mismatch
     auth-worker(USER,IP)<PID><SESSION>: request [5]: sql: Password mismatch

SMTP clients have no session.  USER is the attacker's text, cut to 64 characters and "..."; it may hold commas and
parentheses.  With `auth_verbose_passwords=plain` the password is his too.  So every position in USER at which the
whole rest is grammatical is tried; when two give different results the line is anonymous: dropping it would let a
crafted password hide attempts, believing it would let him blame somebody else.
"""

from __future__ import annotations

import re
from typing import Final

from guard import addresses
from guard.model import FAILURE, MECHANISMS, OUTAGE, REFUSED, AuthEvent, Record
from guard.parsers._dovecot_words import BACKEND, ODD, REFUSALS, UNJUDGED
from guard.parsers._grammar import ADDRESS, SESSION

NAME: Final = "dovecot_auth"
SERVICE: Final = "dovecot"

_USER_MAX: Final = 67  # 64 characters and "..." (AUTH_LOG_MAX_USER... str_sanitize in auth-request.c)
_LONGEST: Final = 16384

_LEVEL: Final = r"(?:(Info|Error|Warning|Debug|Fatal|Panic): )?"
# 2.3: what stands before "driver(user,ip...)".  The worker's own prefix came with 2.3.
_HEAD_23: Final = re.compile(
    rf"\A(?:auth(?:\(default\))?|auth-worker(?:\([0-9a-z]{{1,10}}\))?): {_LEVEL}"
    r"(?:conn unix:[^ ]{1,100} \(pid=[0-9]{1,10},uid=[0-9]{1,10}\): auth-worker<[0-9]{1,10}>: )?(.*)\Z",
    re.ASCII | re.DOTALL,
)
_DRIVER: Final = re.compile(r"\A([A-Za-z0-9_-]{1,32})\((.*)\Z", re.ASCII | re.DOTALL)
_TAIL_23: Final = re.compile(
    rf"\A,({ADDRESS})(?:,master)?(?:,<({SESSION})>)?\): (.*)\Z", re.ASCII | re.DOTALL
)
_HEAD_24: Final = re.compile(r"\A(?:auth|auth-worker)\((.*)\Z", re.ASCII | re.DOTALL)
_TAIL_24: Final = re.compile(
    rf"\A,({ADDRESS})(?:,sasl:([A-Za-z0-9_-]{{1,32}}))?(?:,master)?\)(?:<[0-9]{{1,10}}>)?(?:<({SESSION})>)?: {_LEVEL}"
    rf"(?:request \[[0-9]{{1,10}}\]: )?{_LEVEL}(?:([A-Za-z0-9_-]{{1,32}}): )?(.*)\Z",
    re.ASCII | re.DOTALL,
)
# Most lines: a user without commas and parentheses, and no text of the client's behind him, can be read in one way only.
_USER: Final = rf"(?P<user>[^,()<>?]{{1,67}}),(?P<ip>{ADDRESS})"
_SAID: Final = (
    r"(?P<said>Password mismatch|unknown user)(?: \(SHA1 of given password: (?P<hash>[0-9a-f]{1,40})\))?\Z"
)
_PLAIN_23: Final = re.compile(
    r"\Aauth(?:-worker\([0-9]{1,10}\))?: (?:Info: )?(?P<mech>)"
    r"(?:conn unix:auth-worker \(pid=[0-9]{1,10},uid=[0-9]{1,10}\): auth-worker<[0-9]{1,10}>: )?"
    rf"(?P<source>[a-z0-9-]{{1,32}})\({_USER}(?:,<(?P<session>{SESSION})>)?\): {_SAID}",
    re.ASCII,
)
_PLAIN_24: Final = re.compile(
    rf"\Aauth(?:-worker)?\({_USER}(?:,sasl:(?P<mech>[a-z0-9-]{{1,32}}))?\)(?:<[0-9]{{1,10}}>)?"
    rf"(?:<(?P<session>{SESSION})>)?: (?:Info: )?(?:request \[[0-9]{{1,10}}\]: )?(?P<source>[a-z0-9-]{{1,32}}): {_SAID}",
    re.ASCII,
)
_NEXT: Final = re.compile(r"\A.* - trying the next (?:passdb|userdb)\Z", re.ASCII | re.DOTALL)


class _Reading:
    """One grammatical way to read a line."""

    __slots__ = ("ip", "kind", "mech", "password", "reason", "session", "source", "user")

    def __init__(self, kind: str, reason: str, password: str | None) -> None:
        self.kind = kind
        self.reason = reason
        self.password = password
        self.ip = ""
        self.session: str | None = None
        self.source = ""
        self.mech: str | None = None
        self.user: str | None = None


def parse(record: Record) -> AuthEvent | None:
    """Return the failure, refusal or outage that an auth line tells of, or None."""
    text = record.text.removeprefix("dovecot: ")  # Dovecot 1 behind some syslog daemons
    if len(text) > _LONGEST:
        return None
    match = _PLAIN_23.match(text) or _PLAIN_24.match(text)
    if match is not None:
        return _plain(record, match)
    if text.startswith(("auth: ", "auth(default): ")) or (
        text.startswith("auth-worker(") and text[12:13].isdigit()
    ):
        return _parse_23(record, text)
    if text.startswith("auth-worker(default): "):  # Dovecot 1, or a user of 2.4 who is called so
        event = _parse_23(record, text)
        if event is not None:
            return event
    head = _HEAD_24.match(text)
    if head is not None:
        readings = _readings(text, head.start(1), _read_24)
        return _event(record, readings) if readings else None
    return _parse_23(record, text)


def _plain(record: Record, match: re.Match[str]) -> AuthEvent | None:
    ip = addresses.read(match["ip"])
    if ip is None:
        return None
    return AuthEvent(
        record,
        SERVICE,
        FAILURE,
        "auth",
        ip=ip,
        user=match["user"],
        session=match["session"],
        reason="unknown_user" if match["said"] == "unknown user" else "password_mismatch",
        method=match["mech"] or None,
        source=match["source"],
        password=match["hash"],
    )


def _parse_23(record: Record, text: str) -> AuthEvent | None:
    head = _HEAD_23.match(text)
    if head is None:
        return None
    level: str | None = head[1]
    if level == "Debug" or level == "Warning":  # noqa: PLR1714
        return None
    start: int = head.start(2)
    driver = _DRIVER.match(text[start:])
    if driver is not None:
        name: str = driver[1]
        broken = level == "Error" or level == "Fatal"  # noqa: PLR1714

        def read(rest: str) -> _Reading | None:
            tail = _TAIL_23.match(rest)
            if tail is None:
                return None
            reading = _judge(tail[3], broken=broken, odd=False) or _judge(tail[3], broken=broken, odd=True)
            if reading is not None:
                reading.source = name
                reading.ip = tail[1]
                reading.session = tail[2]
            return reading

        readings = _readings(text, start + driver.start(2), read)
        if readings:
            return _event(record, readings)
    rest = text[start:]
    if rest.startswith("Attempted login with password having illegal chars"):
        return AuthEvent(record, SERVICE, FAILURE, "illegal_chars", reason="unspecified")
    backend = BACKEND.match(rest)
    if backend is not None:
        return AuthEvent(record, SERVICE, OUTAGE, "backend", user=backend[1] or backend[2])
    if level is None or level == "Info":
        reading = _judge(rest, broken=False, odd=False)
        if reading is not None and text.startswith("auth-worker"):
            return AuthEvent(
                record, SERVICE, FAILURE, "anonymous", reason=reading.reason, password=reading.password
            )
    return None


def _read_24(rest: str) -> _Reading | None:
    tail = _TAIL_24.match(rest)
    if tail is None:
        return None
    level: str | None = tail[4] or tail[5]
    if level == "Debug" or level == "Warning":  # noqa: PLR1714
        return None
    name: str | None = tail[6]
    broken = level == "Error" or level == "Fatal"  # noqa: PLR1714
    reading = _judge(tail[7], broken=broken, odd=False) or _judge(tail[7], broken=broken, odd=True)
    if reading is not None:
        reading.source = name or ""
        reading.ip = tail[1]
        reading.mech = tail[2]
        reading.session = tail[3]
    return reading


def _judge(said: str, *, broken: bool, odd: bool) -> _Reading | None:
    """Return what the words behind the prefix mean; None when they are nothing about a refusal."""
    if not odd:
        for reason, pattern in REFUSALS:
            match = pattern.match(said)
            if match is not None:
                password: str | None = None
                if pattern.groups:
                    password = match[1] if match[1] is not None else match[2]
                return _Reading(FAILURE, reason, password)
        if broken:
            return _Reading(OUTAGE, "unspecified", None)
        return None
    if UNJUDGED.match(said):
        return _Reading(REFUSED, "unspecified", None)
    if ODD.match(said):
        return _Reading(FAILURE, "unspecified", None)
    return None


def _readings(text: str, start: int, read: object) -> list[_Reading]:
    """Return every different grammatical reading of `text`, whose user begins at `start`."""
    found: list[_Reading] = []
    if not callable(read):
        return found
    comma = text.find(",", start)
    while 0 <= comma <= start + _USER_MAX:
        reading: _Reading | None = read(text[comma:])
        if reading is not None and _agrees(reading, text[start:comma]):
            reading.user = text[start:comma]
            if all((r.ip, r.session) != (reading.ip, reading.session) for r in found):
                found.append(reading)
        comma = text.find(",", comma + 1)
    return found


def _agrees(reading: _Reading, user: str) -> bool:
    """Whether the parts of one reading fit each other: an address, its session, a user fit for the reason."""
    ip = addresses.read(reading.ip)
    if ip is None:
        return False
    reading.ip = ip
    return (
        reading.kind != FAILURE
        or reading.reason != "unspecified"
        or user == "?"
        or reading.source not in MECHANISMS
    )


def _event(record: Record, readings: list[_Reading]) -> AuthEvent | None:
    first = readings[0]
    if _NEXT.match(record.text):
        return None
    if len(readings) > 1:
        # Forged, or a password that looks like our grammar: somebody failed, nobody is named.
        if any(r.kind != FAILURE for r in readings):
            return None
        return AuthEvent(record, SERVICE, FAILURE, "anonymous", reason=first.reason, source="ambiguous")
    broken = "unreported" if first.source == "policy" else "error"
    witness = "auth" if first.kind == FAILURE else "refused" if first.kind == REFUSED else broken
    return AuthEvent(
        record,
        SERVICE,
        first.kind,
        witness,
        ip=first.ip,
        user=None if first.user == "?" else first.user,
        session=first.session,
        reason=first.reason if first.kind == FAILURE else None,
        method=first.mech,
        source=first.source,
        password=first.password,
    )


def suspicious(text: str) -> bool:
    """Whether a line looks like a failure that nobody could read."""
    if " - trying the next " in text or "Debug: " in text[:200]:
        return False
    return any(
        words in text
        for words in ("ssword mismatch", "nknown user", "nvalid credentials", "authentication fail")
    )
