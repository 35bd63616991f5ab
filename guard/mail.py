"""A line of a mail host -> the mail flow: which parser a program's line goes to, and what it adds to `traffic`.

Called beside the way of the logins, never instead of it: what a parser of logins has read comes here as its event.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

from guard import programs, scan
from guard.clock import Clock
from guard.envelope import Origin
from guard.model import (
    ABUSE,
    CONNECT,
    DELIVERY,
    DISCONNECT,
    MAIL_PROTOCOLS,
    QUEUED,
    REMOVED,
    REQUEST,
    SUCCESS,
    TAKEN,
    TLS,
    TLS_VERSIONS,
    AuthEvent,
    MailEvent,
    Record,
)
from guard.parsers import (
    dovecot_lmtp,
    postfix_delivery,
    postfix_queue,
    postfix_reject,
    postfix_tls,
    postfix_verdict,
    sogo_requests,
)
from guard.parsers._grammar import queue_id, stands
from guard.traffic import SERVICES, Traffic

_POSTFIX: Final = SERVICES.index("postfix")
_DOVECOT: Final = SERVICES.index("dovecot")
_NONE: Final = TLS_VERSIONS.index("none")
_OTHER: Final = TLS_VERSIONS.index("other")
_UNKNOWN: Final = MAIL_PROTOCOLS.index("unknown")
_NOWHERE: Final = 5  # the place of "other" in TRANSPORTS


class Mail:
    """Reads lines into `traffic`.  `now`: as `Reader.read` takes it; times ahead of it are not believed."""

    __slots__ = ("_at", "_clock", "_event", "_host", "_key", "now", "traffic")

    def __init__(self, traffic: Traffic, clock: Clock) -> None:
        self.traffic = traffic
        self.now = -1.0
        self._clock = clock
        self._event = MailEvent()
        self._host = ""  # the first that wrote: its queue ids need no name before them
        self._key: i64 = -1  # day and second of the stamp read last
        self._at = 0.0

    def line(self, origin: Origin, text: str, start: i64, end: i64, head: i64, stamp: str, at: float) -> None:
        """Take the message text[start:end], which says nothing of logins.

        Its time stands in `text` at `head` (RFC 3164), else in `stamp`, else it is `at`.
        """
        code: i64 = origin.mail
        if code < 0:
            code = self._introduce(origin)
        program = code >> 4 & 15
        if program == programs.NOTHING:
            return
        event = self._event
        if program == programs.DELIVERS:
            if postfix_delivery.read(text, start, end, event):
                self._delivery(origin, text, code & 15)
        elif program == programs.QUEUE:
            if postfix_queue.read(text, start, end, event):
                self._queue(origin, text, head, stamp, at)
            elif postfix_delivery.read(text, start, end, event):  # delivery temporarily suspended
                self._delivery(origin, text, _NOWHERE)
            return
        elif program == programs.CLEANUP:
            colon = queue_id(text, start, end)
            # "message-id=" it is, mostly; "milter-reject: " is not.
            if colon > 0 and (ord(text[colon + 2]) != 109 or stands("mi", text, colon + 2, end)):
                self._reject(text, start, end)
            return
        elif program == programs.DOVECOT:
            if dovecot_lmtp.read(text, start, end, event):
                self.traffic.stored[event.label].n += 1
            return
        elif program in (programs.SMTPD, programs.PICKUP):
            if program == programs.SMTPD and self._tls(text, start, end):
                return
            if postfix_queue.read(text, start, end, event):
                if event.kind == TAKEN:
                    if program == programs.SMTPD:
                        event.label = code & 3
                    self._queue(origin, text, head, stamp, at)
                return
            if program == programs.SMTPD:
                self._reject(text, start, end)
            return
        elif program == programs.POSTSCREEN:
            self._postscreen(text, start, end)
            return
        elif program == programs.POSTFIX:
            if postfix_queue.read(text, start, end, event):
                self._queue(origin, text, head, stamp, at)
            elif postfix_delivery.read(text, start, end, event):
                self._delivery(origin, text, _NOWHERE)
            elif not self._tls(text, start, end):
                self._reject(text, start, end)
            return
        if program in (programs.DELIVERS, programs.TLS_PROXY):
            self._tls(text, start, end)

    def seen(self, parser: int, event: AuthEvent | None, record: Record, origin: Origin) -> None:
        """Take what a parser of logins made of a record: None where it says nothing of logins."""
        text = record.text
        if parser == scan.POSTFIX_SMTPD:
            if event is None:
                self._reject(text, 0, len(text))
                return
            kind = event.kind
            if kind == CONNECT:
                return
            if kind == SUCCESS:
                self._login(event, origin, text)
            elif kind == DISCONNECT:
                self._goodbye(event, origin, text)
            elif kind == ABUSE:
                self._reject(text, 0, len(text))
        elif parser == scan.POSTFIX_POSTSCREEN:
            self._postscreen(text, 0, len(text))
        elif parser == scan.DOVECOT_LOGIN:
            if event is not None and event.kind == SUCCESS:
                self.traffic.session(_DOVECOT, 0, _dovecots(text))
        elif parser == scan.SOGO:
            found = self._event
            if sogo_requests.read(text, 0, len(text), found):
                if found.kind == REQUEST:
                    self.traffic.request(found.label, found.count, found.micros)
                else:
                    self.traffic.errors += 1

    # -- the kinds -------------------------------------------------------------------------------------------------

    def _queue(self, origin: Origin, text: str, head: i64, stamp: str, at: float) -> None:
        event = self._event
        key = self._id(origin, text)
        if event.kind == QUEUED:
            message = self.traffic.messages.get(key)
            if message is not None and message.protocol >= 0:  # not from before our start, and not once more
                when = -1.0 if message.user is None else self._time(text, head, stamp, at)
                self.traffic.queued(message, when, event.count)
        elif event.kind == REMOVED:
            message = self.traffic.messages.take(key)
            if message is not None:
                self.traffic.removed(message, self._time(text, head, stamp, at))
        elif event.kind == TAKEN:
            self.traffic.taken(key, self._time(text, head, stamp, at), event.label)
        elif event.kind == DELIVERY:
            self._delivery(origin, text, _NOWHERE)

    def _delivery(self, origin: Origin, text: str, transport: i64) -> None:
        event = self._event
        self.traffic.delivered(self._id(origin, text), transport, event, text)

    def _reject(self, text: str, start: i64, end: i64) -> None:
        event = self._event
        if postfix_reject.read(text, start, end, event):
            self.traffic.rejected[event.label].n += 1

    def _tls(self, text: str, start: i64, end: i64) -> bool:
        event = self._event
        if not postfix_tls.read(text, start, end, event) or event.kind != TLS:
            return False
        self.traffic.session(_POSTFIX, event.count, event.label)
        return True

    def _postscreen(self, text: str, start: i64, end: i64) -> None:
        event = self._event
        if postfix_verdict.read(text, start, end, event):
            self.traffic.verdicts[event.label].n += 1
        elif start < end and ord(text[start]) == 78:  # "NOQUEUE"
            self._reject(text, start, end)

    def _login(self, event: AuthEvent, origin: Origin, text: str) -> None:
        """A client that has logged in begins to send: `QUEUEID: client=NAME[IP], sasl_method=..., sasl_username=USER`."""
        found = self._event
        if postfix_queue.read(text, 0, len(text), found) and found.kind == TAKEN:
            code: i64 = origin.mail
            if code < 0:
                code = self._introduce(origin)
            self.traffic.taken(
                self._id(origin, text),
                event.at,
                programs.protocol_of(code & 255),
                event.user or None,
                event.ip,
            )

    def _goodbye(self, event: AuthEvent, origin: Origin, text: str) -> None:
        """A session that sent mail in the clear; who spoke TLS has a line of its own."""
        if event.witness == "disconnect" and text.find(" starttls=1") < 0 and text.find(" mail=") > 0:
            code: i64 = origin.mail
            if code < 0:
                code = self._introduce(origin)
            if code & programs.WRAPPED == 0 or code >> 4 & 15 != programs.SMTPD:
                self.traffic.session(_POSTFIX, 0, _NONE)

    def _id(self, origin: Origin, text: str) -> str:
        """Return the message's key: queue ids are a host's own."""
        event = self._event
        key = text[event.id_at : event.id_end]
        return f"{key} {origin.host}" if origin.mail & programs.ELSEWHERE else key

    def _introduce(self, origin: Origin) -> i64:
        """Return the code of a head that is new here.

        It says as well whose host it is: thousands of heads hold a text each, which no cache of the processor keeps.
        """
        code: i64 = programs.code_of(origin.tag)
        if code and not self._host:
            self._host = origin.host
        if not code or origin.host != self._host:  # what has no head is shared by all who read
            code |= programs.ELSEWHERE
        origin.mail = code
        return code

    def _time(self, text: str, head: i64, stamp: str, at: float) -> float:
        if head >= 0:
            key: i64 = ord(text[head + 4])
            key = key << 8 ^ ord(text[head + 5])
            key = key << 8 ^ ord(text[head + 7])
            key = key << 8 ^ ord(text[head + 8])
            key = key << 8 ^ ord(text[head + 10])
            key = key << 8 ^ ord(text[head + 11])
            key = key << 8 ^ ord(text[head + 13])
            key = key << 8 ^ ord(text[head + 14])
            if key != self._key:  # mostly it is the second of the line before
                self._key = key
                self._at = self._clock.read(text[head : head + 15])
            at = self._at
        elif stamp:
            at = self._clock.read(stamp)
        if self.now >= 0 and (at < 0 or at > self.now):
            return self.now
        return at


def _dovecots(text: str) -> int:
    """Return the place of the TLS that a login line names: a version where login_log_format_elements has it."""
    at = text.find(", TLS", text.rfind(", rip="))
    if at > 0 and len(text) > at + 14:
        if ord(text[at + 5]) == 118 and text.find("v1.", at) == at + 5 and ord(text[at + 9]) == 32:
            minor = ord(text[at + 8]) - 48
            return minor if 1 <= minor <= 3 else _OTHER
        return _OTHER
    return _OTHER if at > 0 or text.find(", secured", text.rfind(", rip=")) > 0 else _NONE
