"""Postfix's smtpd: one line for each failed AUTH, at the moment of the answer.

    warning: unknown[198.51.100.125]: SASL PLAIN authentication failed: REASON, sasl_username=USER      src/smtpd/
    warning: unknown[198.51.100.125]:40141: SASL LOGIN authentication aborted                 smtpd_sasl_glue.c
    connect from NAME[IP] / disconnect from NAME[IP] ehlo=1 auth=0/8 quit=1 commands=2/10         smtpd.c
    QUEUEID: client=NAME[IP], sasl_method=LOGIN, sasl_username=USER

The client is the first name[address]; everything behind `sasl_username=` is the attacker's.  mailcow's channel turns
every `/` into `_` (`auth=0_8`).
"""

from __future__ import annotations

import re
from typing import Final

from guard import addresses
from guard.model import (
    ABUSE,
    CANCELLED,
    CONNECT,
    DISCONNECT,
    FAILURE,
    OUTAGE,
    REFUSED,
    SUCCESS,
    UNJUDGED,
    AuthEvent,
    Record,
)
from guard.parsers._grammar import CLIENT

NAME: Final = "postfix_smtpd"
SERVICE: Final = "postfix"

_LONGEST: Final = 16384
_SASL: Final = re.compile(
    rf"\Awarning: {CLIENT}: SASL ([^ ]{{0,200}}) authentication (failed|aborted)(?::(?: (.*))?)?\Z",
    re.ASCII | re.DOTALL,
)
# Most failures.
_PLAIN: Final = re.compile(
    rf"\Awarning: {CLIENT}: SASL ([A-Za-z0-9-]{{1,40}}) authentication failed: \(reason unavailable\), sasl_username=(.*)\Z",
    re.ASCII | re.DOTALL,
)
_CONNECT: Final = re.compile(rf"\Aconnect from {CLIENT}\Z", re.ASCII)
_DISCONNECT: Final = re.compile(rf"\Adisconnect from {CLIENT}((?: [a-z].*)?)\Z", re.ASCII)
_AUTH: Final = re.compile(r"\A auth=([0-9]{1,9})(?:[/_][0-9]{1,9})?(?: .*)?\Z", re.ASCII)
_CLIENT: Final = re.compile(
    rf"\A[0-9A-Za-z]{{5,24}}: client={CLIENT}, (?:[a-z_]{{1,30}}=[^ ,]{{0,300}}, )*?sasl_method=([^ ,]{{1,64}})(?:, sasl_username=(.*))?\Z",
    re.ASCII | re.DOTALL,
)
_LOST: Final = re.compile(
    rf"\A(?:[0-9A-Za-z]{{5,24}}: )?(?:lost connection|timeout|too many errors) after [A-Za-z-]{{1,40}}(?: \([^()]{{1,60}}\))? from {CLIENT}\Z",
    re.ASCII,
)
_ABUSE: Final = re.compile(
    rf"\A(?:warning: non-SMTP command from|(?:[0-9A-Za-z]{{5,24}}: )?(?:warning: )?improper command pipelining after [^ ]{{1,100}} from"
    rf"|NOQUEUE: reject(?:_warning)?: [A-Za-z-]{{1,40}} from) {CLIENT}: .*\Z",
    re.ASCII | re.DOTALL,
)
_SOCKET: Final = re.compile(
    r"\A(?:warning: SASL: Connect to |fatal: no SASL authentication mechanisms|warning: SASL authentication failure: cannot connect to ).*\Z",
    re.ASCII | re.DOTALL,
)
_USERNAME: Final = ", sasl_username="
_UNAVAILABLE: Final = "(unavailable)"


_protocols: dict[str, str] = {}
_TAGS: Final = 1024


def protocol_of(tag: str) -> str:
    """Return the protocol behind a syslog tag; a custom syslog_name is taken for port 25, a cut tag is unknown."""
    protocol = _protocols.get(tag)
    if protocol is None:
        if len(_protocols) >= _TAGS:
            _protocols.clear()
        protocol = _protocols[tag] = _protocol_of(tag)
    return protocol


def _protocol_of(tag: str) -> str:
    if not tag.endswith("smtpd"):
        return "unknown"
    if "submission" in tag or "smtps" in tag[:-5] or "465" in tag or "587" in tag:
        return "submission"
    return "smtp"


def parse(record: Record) -> AuthEvent | None:
    """Return what an smtpd line says of a client's session, or None."""
    text = record.text
    if len(text) > _LONGEST:
        return None
    if text.startswith("connect from ") and text.endswith("]"):
        ip = addresses.read(text[text.find("[") + 1 : -1])
        return AuthEvent(record, SERVICE, CONNECT, "connect", protocol=protocol_of(record.tag), ip=ip)
    if text.startswith("connect from "):
        return _simple(record, _CONNECT.match(text), CONNECT, "connect")
    if text.startswith("disconnect from "):
        return _disconnect(record, text)
    if text.startswith("warning: "):
        match = _PLAIN.match(text)
        if match is not None:
            return _plain(record, match)
        match = _SASL.match(text)
        if match is not None:
            return _sasl(record, match)
        if _SOCKET.match(text):
            return AuthEvent(record, SERVICE, OUTAGE, "socket", protocol=protocol_of(record.tag))
    match = _CLIENT.match(text)
    if match is not None:
        event = _simple(record, match, SUCCESS, "client")
        if event is not None:
            event.method = match[3].lower()
            event.user = match[4]
        return event
    match = _LOST.match(text)
    if match is not None:
        return _simple(record, match, DISCONNECT, "lost")
    return _simple(record, _ABUSE.match(text), ABUSE, "abuse")


def _simple(record: Record, match: re.Match[str] | None, kind: str, witness: str) -> AuthEvent | None:
    if match is None:
        return None
    ip = addresses.read(match[2])  # an early reset leaves "unknown[unknown]": no address at all
    return AuthEvent(record, SERVICE, kind, witness, protocol=protocol_of(record.tag), ip=ip)


def _disconnect(record: Record, text: str) -> AuthEvent | None:
    end = text.find("] ", 16)
    if end > 0 and " auth=" not in text:  # nobody tried to log in
        ip = addresses.read(text[text.find("[") + 1 : end])
        return AuthEvent(
            record, SERVICE, DISCONNECT, "disconnect", protocol=protocol_of(record.tag), ip=ip, count=0
        )
    match = _DISCONNECT.match(text)
    event = _simple(record, match, DISCONNECT, "disconnect")
    if event is not None and match is not None:
        event.count = 0
        counts: str = match[3]
        cut = counts.find(" auth=")
        auth = _AUTH.match(counts[cut:]) if cut >= 0 else None
        if auth is not None:  # auth=ok/total; "auth=2" means all of them
            event.count = int(auth[1])
    return event


def _plain(record: Record, match: re.Match[str]) -> AuthEvent | None:
    ip = addresses.read(match[2])
    if ip is None:
        return None
    user: str | None = match[4]
    witness = "sasl"
    if user == _UNAVAILABLE:
        user, witness = None, "unavailable"
    return AuthEvent(
        record,
        SERVICE,
        FAILURE,
        witness,
        protocol=protocol_of(record.tag),
        ip=ip,
        user=user,
        reason="unspecified",
        method=match[3].lower(),
    )


def _sasl(record: Record, match: re.Match[str]) -> AuthEvent | None:
    ip = addresses.read(match[2])
    if ip is None:
        return None
    protocol = protocol_of(record.tag)
    method: str = match[3].lower()
    if match[4] == "aborted":
        return AuthEvent(record, SERVICE, CANCELLED, "aborted", protocol=protocol, ip=ip, method=method)
    said: str = match[5] or ""
    cut = said.find(_USERNAME)
    why = said if cut < 0 else said[:cut]
    user: str | None = None if cut < 0 else said[cut + len(_USERNAME) :]
    if user == _UNAVAILABLE:
        user = None
    if why.startswith("Invalid authentication mechanism") or why.startswith("Invalid base64 data"):  # noqa: PIE810
        return AuthEvent(
            record, SERVICE, REFUSED, "refused", protocol=protocol, ip=ip, user=user, method=method
        )
    if why.startswith("Connection lost to authentication server"):
        # The name is stale: that of an earlier attempt (log-lines, S13d).
        return AuthEvent(record, SERVICE, UNJUDGED, "unanswered", protocol=protocol, ip=ip, method=method)
    return AuthEvent(
        record,
        SERVICE,
        FAILURE,
        "unavailable" if user is None and cut >= 0 and why == "(reason unavailable)" else "sasl",
        protocol=protocol,
        ip=ip,
        user=user,
        reason="unspecified",
        method=method,
    )


def suspicious(text: str) -> bool:
    """Whether a line looks like a failure that nobody could read."""
    return text.startswith("warning: ") and "]" in text and "SASL" in text and "authentication" in text
