"""SOGo: a failed web login is a record of the login page and, from the same worker, the access line of its request.

    SOGoRootPage Login from 'ADDRESS' for user 'USER' might not have worked - password policy: 65535  grace: -1  ...
    ADDRESS "POST /SOGo/connect HTTP/1.0" 403 33/90 0.058 - - 3M - 12               UI/MainUI/SOGoRootPage.m
    <0x0x55..[SOGoDAVAuthenticator]> tried wrong password for user 'USER'!    (no address; the 401 that follows has it)
    [ERROR] <0x0x55..[SQLSource]> could not run SQL 'c_uid = 'USER'': <MySQL4Exception: 0x..> NAME:.. REASON:Server has gone away
                                          (the same records follow: nobody judged)            SoObjects/SOGo/SQLSource.m

ADDRESS is what the proxy in front says, USER the attacker's text, newlines and all: a record whose own tail does not
stand on its line is *broken*, and what follows it may be his text (guard/sessions/sogo.py).
"""

from __future__ import annotations

import re
from typing import Final

from guard import addresses
from guard.model import DISCONNECT, FAILURE, OUTAGE, REFUSED, SUCCESS, TRUSTED, AuthEvent, Record
from guard.nets import NetSet

NAME: Final = "sogo"
SERVICE: Final = "sogo"

_LONGEST: Final = 65536
# mailcow's bare message keeps the worker: "[98]: text".
_WORKER: Final = re.compile(r"\A\[([0-9]{1,10})\]: (.*)\Z", re.ASCII | re.DOTALL)
_FAILED: Final = re.compile(
    r"\ASOGoRootPage Login from '([^']{0,200})' for user '(.*)' might not have worked"
    r" - password policy: -?[0-9]{1,10}  grace: -?[0-9]{1,10}  expire: -?[0-9]{1,10}  bound: -?[0-9]{1,10}\Z",
    re.ASCII | re.DOTALL,
)
_SUCCEEDED: Final = re.compile(
    r"\ASOGoRootPage successful login from '([^']{0,200})' for user '(.*)' - expire = -?[0-9]{1,10}  grace = -?[0-9]{1,10}\Z",
    re.ASCII | re.DOTALL,
)
_BROKEN: Final = re.compile(r"\ASOGoRootPage (?:Login|successful login) from '(.*)\Z", re.ASCII | re.DOTALL)
_DAV: Final = re.compile(
    r"\A<0x[0-9a-fx]{1,24}\[SOGoDAVAuthenticator\]> tried wrong password for user '(.*)'!\Z",
    re.ASCII | re.DOTALL,
)
_DAV_BROKEN: Final = re.compile(
    r"\A<0x[0-9a-fx]{1,24}\[SOGoDAVAuthenticator\]> tried wrong password for user '.*\Z", re.ASCII | re.DOTALL
)
_ACCESS: Final = re.compile(
    r"\A(.{1,1000}) \"([A-Z]{3,20}) ([/_][^ \"]{0,4000}) HTTP[/_][0-9.]{1,3}\" ([0-9]{3}) ([0-9]{1,12})[/_]([0-9]{1,12})"
    r" [0-9.]{1,12} - - [0-9]{1,12}[KMG]? - [0-9]{1,12}\Z",
    re.ASCII | re.DOTALL,
)
# What says that the database was not reached; other errors may be a name's doing.  The reason is the line's end, so that
# no name can feign it.
_AWAY: Final = re.compile(
    r"\A\[ERROR\] <0x[0-9a-fx]{1,24}\[SQLSource\]> (?:could not run SQL '.*': <[A-Za-z0-9]{1,40}: 0x[0-9a-f]{1,16}> NAME:[A-Za-z0-9]{1,40} REASON:"
    r"(?:(?:MySQL )?[Ss]erver has gone away|Lost connection to [^'\n]{1,200}|Can't connect to [^\n]{1,200}|Too many connections"
    r"|server closed the connection unexpectedly|could not connect to server)|failed to acquire channel for URL: [^ ]{1,500})\Z",
    re.ASCII | re.DOTALL,
)
_PROXIES: Final = NetSet(TRUSTED)
_DAV_BODY: Final = "12"  # of the 401 to wrong credentials; without credentials it is 0


def client_of(literal: str) -> str | None:
    """Return the client in what the proxy said, None where that is not one address.

    A list is what X-Forwarded-For grows behind several proxies; behind the client only proxies may stand in it.
    """
    first, comma, rest = literal.partition(", ")
    ip = addresses.read(first)
    if comma and ip is not None:
        for text in rest.split(", "):
            proxy = addresses.read(text)
            if proxy is None or not _PROXIES.holds(proxy):
                return None
    return ip


def parse(record: Record) -> AuthEvent | None:
    """Return the half of an attempt that this record tells of, or None.  `source` is the literal address text."""
    text = record.text
    if len(text) > _LONGEST:
        return None
    pid = record.pid
    if not pid:
        worker = _WORKER.match(text)
        if worker is not None:
            pid = worker[1]
            text = worker[2]
    event = _parse(record, text)
    if event is not None:
        event.pid = pid
    return event


def _parse(record: Record, text: str) -> AuthEvent | None:
    if text.startswith("SOGoRootPage "):
        match = _FAILED.match(text)
        if match is not None:
            return AuthEvent(
                record,
                SERVICE,
                FAILURE,
                "page",
                protocol="web",
                ip=client_of(match[1]),
                user=match[2],
                reason="unspecified",
                source=match[1],
            )
        match = _SUCCEEDED.match(text)
        if match is not None:
            return AuthEvent(
                record,
                SERVICE,
                SUCCESS,
                "page_success",
                protocol="web",
                ip=client_of(match[1]),
                user=match[2],
                source=match[1],
            )
        match = _BROKEN.match(text)
        if match is None:
            return None
        literal = str(match[1]).partition("' for user '")[0]
        return AuthEvent(
            record, SERVICE, REFUSED, "broken", protocol="web", ip=client_of(literal), source=literal
        )
    if text.startswith("<0x"):
        match = _DAV.match(text)
        if match is not None:
            return AuthEvent(
                record, SERVICE, FAILURE, "dav", protocol="dav", user=match[1], reason="password_mismatch"
            )
        if _DAV_BROKEN.match(text):
            return AuthEvent(record, SERVICE, REFUSED, "dav_broken", protocol="dav")
        return None
    if text.startswith("[ERROR] <0x"):
        return AuthEvent(record, SERVICE, OUTAGE, "away", protocol="web") if _AWAY.match(text) else None
    match = _ACCESS.match(text)
    if match is None:
        return None
    path: str = match[3].replace("_", "/") if match[3].startswith("_") else match[3]
    status: str = match[4]
    login = match[2] == "POST" and path.startswith("/SOGo/connect")
    refused = (login and status == "403") or (status == "401" and match[5] == _DAV_BODY)
    protocol = "web" if login else "eas" if "Microsoft-Server-ActiveSync" in path else "dav"
    return AuthEvent(
        record,
        SERVICE,
        DISCONNECT,
        "access_refused" if refused else "access",
        protocol=protocol,
        ip=client_of(match[1]),
        source=match[1],
    )


def suspicious(text: str) -> bool:
    """Whether a line looks like a failure that nobody could read."""
    return text.startswith("SOGoRootPage Login ")
