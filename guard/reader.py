"""A line -> what it means: envelope, scan and parsers joined.  The engine and `mailward parse` share it."""

from __future__ import annotations

import hashlib
import heapq
import hmac
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from guard import scan
from guard.clock import Clock
from guard.envelope import Envelope
from guard.mail import Mail
from guard.model import DOVECOT, IGNORED, SOGO, AuthEvent, Record, readable
from guard.parsers import (
    auth_policy,
    dovecot_auth,
    dovecot_login,
    dovecot_pam,
    mailcow_ui,
    postfix_postscreen,
    postfix_smtpd,
    sogo,
)
from guard.stats import Stats
from guard.traffic import Traffic

NAMES: Final = (
    "",
    dovecot_auth.NAME,
    dovecot_login.NAME,
    postfix_smtpd.NAME,
    postfix_postscreen.NAME,
    sogo.NAME,
    mailcow_ui.NAME,
    auth_policy.NAME,
    dovecot_pam.NAME,
)
# By the family of guard.model; what has no head may be anybody's.
_FAMILIES: Final = ("other", "postfix", "postfix", "postfix", "dovecot", "sogo", "other")
_SERVICES: Final = ("", "dovecot", "dovecot", "postfix", "postfix", "sogo", "mailcow", "dovecot", "dovecot")
_REPORT: Final = 7  # the place of auth_policy there: no line of a log leads to it
# Two workers of SOGo that write at once put two records on one line.
_MERGED: Final = re.compile(
    r"[A-Z][a-z]{2} [ 0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-6][0-9] sogod ?\[[0-9]{1,10}\]: ", re.ASCII
)
_NAMES_USERS: Final = re.compile(r"SOGoRootPage |.{0,60}(?:tried wrong password|\[SQLSource\])", re.ASCII)
# What a look at a line's head says.
NOTHING: Final = 0  # it matters to nobody
NEW: Final = 1  # the head is not known
KNOWN: Final = 2  # it matters, and the look need not be taken again
_SECONDS: Final = 1 << 16
_seconds: dict[int, str] = {}
_PASSWORD: Final = re.compile(r"given password: .*", re.ASCII | re.DOTALL)


class Reader:
    """Reads lines; counts what it could and could not read.

    `read` leaves beside its result: `parser` (0: the line cannot matter), `unparsed` (it looked like a failure and
    nobody could read it) and `rest` (a second record on the same physical line, "" mostly).
    """

    __slots__ = (
        "_envelope", "_families", "_ok", "at", "clock", "last", "mail", "parser", "rest", "stamped", "stats", "unparsed",
    )  # fmt: skip

    def __init__(self, clock: Clock, stats: Stats, traffic: Traffic | None = None) -> None:
        self.mail = None if traffic is None else Mail(traffic, clock)
        self.clock = clock
        self.stats = stats
        self.last = 0.0  # time of the newest stamp: lines without one share it
        self.stamped = 0  # lines whose envelope was recognised
        self.at = 0.0  # time of the record read last
        self.parser = scan.NONE
        self.rest = ""
        self.unparsed = False
        self._envelope = Envelope()
        self._ok = [0] * len(NAMES)
        self._families = [0] * len(_FAMILIES)

    def read(self, line: str, now: float, *, known: bool = False) -> AuthEvent | None:
        """Return what `line` means, None when it says nothing.  `now` < 0: replay; else times are clamped to it.

        `known`: this is the line that `look` found to be KNOWN just before.
        """
        opened = self._envelope
        self.unparsed = False
        self.rest = ""
        parser = self.parser
        if known:
            opened.headed(line)
            family = opened.origin.family
        else:
            parser = self.parser = scan.NONE
            matters = opened.open(line)
            family = opened.origin.family
            if matters:
                parser = scan.route(family, opened.text, opened.start, len(opened.text))
        self._families[family] += 1
        if opened.stamp or opened.at >= 0:
            self.stamped += 1
        mail = self.mail
        if parser == scan.NONE:
            if mail is not None:
                text = opened.text
                mail.line(opened.origin, text, opened.start, len(text), -1, opened.stamp, opened.at)
            return None
        self.parser = parser
        self.at = self._time(self.clock.read(opened.stamp) if opened.stamp else opened.at, now)
        record = opened.record(self.at)
        if family == SOGO:
            merged = _MERGED.search(record.text)
            if merged is not None:
                self.rest = self._split(record, merged.start())
                self._families[family] -= 1  # what is left will be read as a line: both are one
        event = _parse(parser, record)
        if mail is not None:
            mail.seen(parser, event, record, opened.origin)
        if event is not None:
            self._ok[parser] += 1
            secret = event.password is not None or event.source == "ambiguous"
            event.line = (
                redact(opened.text) if secret else line
            )  # what JSON wrapped is evidence without its wrapping
            return event
        self.unparsed = _suspicious(parser, record.text)
        self.stats.parse.add((NAMES[parser], "unparsed" if self.unparsed else "foreign"))
        if self.unparsed:
            self.stats.unparsed.add((_SERVICES[parser],))
        return None

    def report(self, line: str, now: float) -> AuthEvent | None:
        """Return what a report of Dovecot's auth policy means; `line` is the time of its receipt, a blank, and the JSON.

        Only a stream of reports is read so: a line of a log that looks like one is a line of a log.
        """
        stamp, _, text = line.partition(" ")
        self.parser = _REPORT
        self.stamped += 1
        self._families[DOVECOT] += 1
        self.at = self._time(self.clock.read(stamp), now)
        event = auth_policy.parse(Record(self.at, "", "", "", text))
        self.unparsed = event is None
        self.rest = ""
        if event is None:
            self.stats.parse.add((NAMES[_REPORT], "unparsed"))
            self.stats.unparsed.add((_SERVICES[_REPORT],))
            return None
        self._ok[_REPORT] += 1
        event.line = readable(event.line)
        return event

    def look(self, text: str, start: int, end: int) -> int:
        """Return NOTHING (then the line text[start:end] is counted, and need not be cut out), NEW or KNOWN."""
        if start == end:
            self._families[0] += 1
            return NOTHING
        opened = self._envelope
        origin = opened.peek(text, start, end)
        if origin is None or origin.whole:
            return NEW
        family = origin.family
        if family != IGNORED:
            parser = scan.route(family, text, opened.start, end)
            if parser != scan.NONE:
                opened.origin = origin
                opened.start -= start
                self.parser = parser
                return KNOWN
        if self.mail is not None:
            self.mail.line(origin, text, opened.start, end, start, "", -1.0)
        self._families[family] += 1
        self.stamped += 1
        return NOTHING

    def services(self) -> list[tuple[str, int]]:
        """Return how many lines each service wrote since the last call."""
        found: list[tuple[str, int]] = []
        for family, n in enumerate(self._families):
            if n:
                found.append((_FAMILIES[family], n))
                self._families[family] = 0
        return found

    def flush(self) -> None:
        """Bring the counters up to date (the hot path keeps its own)."""
        for parser, n in enumerate(self._ok):
            if n:
                self.stats.parse.add((NAMES[parser], "ok"), n)
                self._ok[parser] = 0

    def _time(self, at: float, now: float) -> float:
        if now < 0:
            if at < 0:
                return self.last
        elif at < 0 or at > now or at < now - 3600.0:
            if at >= 0:
                self.stats.ignored.add(("stale",))
            return now if at < 0 or at > now else now - 3600.0
        self.last = at
        return at

    def _split(self, record: Record, cut: int) -> str:
        """Return the second record of a line, if the first is whole without it; `record` keeps the first."""
        whole = record.text
        record.text = whole[:cut]
        event = sogo.parse(record)
        torn = event is None or event.witness in ("broken", "dav_broken")
        if torn and _NAMES_USERS.match(whole):
            record.text = whole  # the header stands inside a user name
            return ""
        return whole[cut:]


def _parse(parser: int, record: Record) -> AuthEvent | None:
    if parser == scan.POSTFIX_SMTPD:
        return postfix_smtpd.parse(record)
    if parser == scan.DOVECOT_AUTH:
        return dovecot_auth.parse(record)
    if parser == scan.DOVECOT_LOGIN:
        return dovecot_login.parse(record)
    if parser == scan.SOGO:
        return sogo.parse(record)
    if parser == scan.POSTFIX_POSTSCREEN:
        return postfix_postscreen.parse(record)
    if parser == scan.DOVECOT_PAM:
        return dovecot_pam.parse(record)
    return mailcow_ui.parse(record)


def _suspicious(parser: int, text: str) -> bool:
    if parser == scan.POSTFIX_SMTPD:
        return postfix_smtpd.suspicious(text)
    if parser == scan.DOVECOT_AUTH:
        return dovecot_auth.suspicious(text)
    if parser == scan.DOVECOT_LOGIN:
        return dovecot_login.suspicious(text)
    if parser == scan.SOGO:
        return sogo.suspicious(text)
    if parser == scan.MAILCOW_UI:
        return mailcow_ui.suspicious(text)
    return parser == scan.DOVECOT_PAM and dovecot_pam.suspicious(text)


def redact(line: str) -> str:
    """Return a line fit to be kept: without the password or hash that Dovecot may have logged."""
    if "given password: " in line:
        line = _PASSWORD.sub("given password: ***)", line)
    return readable(line)


def when(at: float) -> str:
    """Return seconds since the epoch as RFC 3339."""
    second = int(at)
    text = _seconds.get(second)
    if text is None:
        text = datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")
        if len(_seconds) >= _SECONDS:
            _seconds.clear()
        _seconds[second] = text
    milli = int((at - second) * 1000 + 0.5)
    if 0 < milli < 1000:
        return f"{text}.{milli:03}Z"
    return text + "Z"


def describe(event: AuthEvent, secret: bytes) -> dict[str, object]:
    """Return an event as `mailward parse` shows it; the password is an HMAC-SHA256 under `secret`, 16 hex digits."""
    password = None
    if event.password is not None:
        password = hmac.new(
            secret, event.password.encode("utf-8", "surrogateescape"), hashlib.sha256
        ).hexdigest()[:16]
    return {
        "at": when(event.at),
        "service": event.service,
        "protocol": event.protocol,
        "kind": event.kind,
        "ip": event.ip,
        "user": None if event.user is None else readable(event.user),
        "session": event.session,
        "count": event.count,
        "reason": event.reason,
        "method": event.method,
        "password": password,
    }


def merged(streams: list[Iterator[bytes]], clock: Clock) -> Iterator[tuple[int, bytes]]:
    """Yield (stream, line) of several logs in the order of their times, each log's own order kept.

    A line without a stamp belongs to the line before it.  A stamp ahead of the next line's is not believed, and one
    behind the last line's does not move its line: a user name in SOGo's log may hold either.
    """
    yield from (
        (stream, line)
        for _, stream, _, line in heapq.merge(*(_keyed(i, s, clock) for i, s in enumerate(streams)))
    )


def _keyed(stream: int, lines: Iterator[bytes], clock: Clock) -> Iterator[tuple[float, int, int, bytes]]:
    opener = Envelope()
    key = -1.0
    held: tuple[float, bytes] | None = None
    n = 0
    for line in lines:
        at = _stamp(opener, line, clock)
        if held is not None:
            key = max(key, min(held[0], at) if at >= 0 and held[0] >= 0 else held[0])
            yield key, stream, n, held[1]
            n += 1
        held = (at, line)
    if held is not None:
        yield max(key, held[0]), stream, n, held[1]


def _stamp(opener: Envelope, line: bytes, clock: Clock) -> float:
    opener.open(line.decode("utf-8", "surrogateescape").rstrip("\r\n"))
    return clock.read(opener.stamp) if opener.stamp else opener.at
