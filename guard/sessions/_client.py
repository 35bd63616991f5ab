"""What ties the lines of several daemons about one address together: SMTP has no session id."""

from __future__ import annotations

from typing import Any, Final

from mypy_extensions import mypyc_attr

from guard.bounded import Entry
from guard.sessions._reports import Reports
from guard.sessions._session import LIFE, Session

_FREE: Final = 64
_ALSO: Final = 16
_SESSIONS: Final = 7
NEVER: Final = -1e18
PAIRING: Final = 12.0  # Postfix gives up on Dovecot after 10 s
CONFIRMED: Final = 900.0  # a `Connection lost` counts this long after a judged failure
_WITHOUT_REPORTS: Final = 13  # values
_WITH_PAM: Final = 4  # values
_LOGIN: Final = 240.0  # seconds; Dovecot gives a session 180 to log in, and its last answer some
VISIBLE: Final = 600.0  # Postfix speaks for an address this long after its last line


@mypyc_attr(acyclic=True)
class Pairs(Entry):
    """Times of one address's lines without a session that wait for another daemon's."""

    __slots__ = ("errors", "free", "lost", "pam")

    def __init__(self) -> None:
        self.free: list[float] = []  # auth lines without a session that no Postfix line has claimed
        self.lost: list[float] = []  # `Connection lost` that nobody has confirmed
        self.errors: list[float] = []  # errors of the password database that no Postfix failure has used
        self.pam: list[float] = []  # what PAM alone has told, and is counted: Dovecot's own word may follow

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("free", "lost", "errors", "pam")

    def of_pam(self, at: float) -> float:
        """Take the oldest attempt that PAM told no longer ago than a session lasts; its time, -1.0 for none."""
        while self.pam:
            told = self.pam.pop(0)
            if told >= at - _LOGIN:
                return told
        return -1.0

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave; a state of before PAM has none."""
        super().load(values if len(values) == _WITH_PAM else [*values, []])


@mypyc_attr(acyclic=True)
class Client(Entry):
    """What ties the lines of several daemons about one address together (SMTP has no session id)."""

    __slots__ = (
        "alone",
        "alone_host",
        "also",
        "confirmed",
        "pairs",
        "reports",
        "seen_at",
        "seen_host",
        "session",
        "session_at",
        "sessions",
        "source",
        "unpaired",
        "unpaired_at",
        "unpaired_protocol",
    )

    def __init__(self) -> None:
        self.confirmed = NEVER  # the last judged failure
        self.seen_host = ""  # the host whose Postfix wrote of the address last, and when
        self.seen_at = NEVER
        self.also: dict[str, float] | None = None  # other hosts whose Postfix did
        self.pairs: Pairs | None = None
        # The newest Postfix failure whose auth line has not come, and those before it.
        self.unpaired_at = NEVER
        self.unpaired_protocol = ""
        self.unpaired: list[tuple[float, str]] | None = None
        self.reports: Reports | None = None  # what Dovecot reported of its SMTP attempts
        self.alone: Session | None = None  # Dovecot's side, while Postfix shows nothing of the address
        self.alone_host = ""
        self.source: Entry | None = (
            None  # what a later stage keeps of the address: found without a look-up; not saved
        )
        self.session = ""  # the newest Dovecot session of the address, for end lines that name none
        self.session_at = NEVER  # when it began
        self.sessions: list[str] | None = None  # and those before it

    def remember(self, session: str, at: float) -> None:
        """Note a Dovecot session of the address that begins at `at`."""
        if at - self.session_at > LIFE:  # the others are over
            self.sessions = None
        elif self.session:
            if self.sessions is None:
                self.sessions = []
            elif len(self.sessions) >= _SESSIONS:
                self.sessions.pop(0)
            self.sessions.append(self.session)
        self.session = session
        self.session_at = at

    def known(self) -> list[str]:
        """Return the Dovecot sessions of the address, oldest first."""
        if not self.session:
            return []
        return [self.session] if self.sessions is None else [*self.sessions, self.session]

    def waiting(self) -> Pairs:
        """Return the times that wait for a partner, beside `unpaired`."""
        if self.pairs is None:
            self.pairs = Pairs()
        return self.pairs

    def heard(self) -> Reports:
        """Return what was reported of SMTP attempts."""
        if self.reports is None:
            self.reports = Reports()
        return self.reports

    def waits(self, at: float, protocol: str) -> None:
        """Note a Postfix failure without its auth line; one that no line can belong to any more goes."""
        if self.unpaired_at >= at - PAIRING:
            if self.unpaired is None:
                self.unpaired = []
            elif len(self.unpaired) >= _FREE:
                self.unpaired.pop(0)
            self.unpaired.append((self.unpaired_at, self.unpaired_protocol))
        elif self.unpaired is not None:
            self.unpaired = None
        self.unpaired_at = at
        self.unpaired_protocol = protocol

    def meets(self, since: float) -> bool:
        """Take the oldest Postfix failure not before `since` that waits for its auth line; whether there was one."""
        before = self.unpaired
        if before is not None:
            while before and before[0][0] < since:
                before.pop(0)
            if before:
                before.pop(0)
                return True
            self.unpaired = None
        if self.unpaired_at < since:
            return False
        self.unpaired_at = NEVER
        return True

    def unwaits(self) -> None:
        """Take the newest Postfix failure that waits back."""
        if self.unpaired:
            self.unpaired_at, self.unpaired_protocol = self.unpaired.pop()
        else:
            self.unpaired_at = NEVER

    def seen(self, host: str, at: float) -> None:
        """Note that Postfix of `host` shows a connection of the address."""
        if self.seen_host != host:
            if self.seen_at != NEVER:
                if self.also is None or len(self.also) >= _ALSO:
                    self.also = {}
                self.also[self.seen_host] = self.seen_at
            self.seen_host = host
        self.seen_at = at

    def seen_by(self, host: str, at: float) -> bool:
        """Whether Postfix of `host` speaks for the address at time `at`."""
        if self.seen_host == host:
            return at - self.seen_at <= VISIBLE
        return self.also is not None and at - self.also.get(host, NEVER) <= VISIBLE

    def shown(self, at: float) -> bool:
        """Whether any Postfix speaks for the address at time `at`."""
        if at - self.seen_at <= VISIBLE:
            return True
        return self.also is not None and any(at - seen <= VISIBLE for seen in self.also.values())

    def worth_keeping(self, at: float) -> bool:
        """Keep what may still be paired or has just failed."""
        return at - self.confirmed < CONFIRMED or at - self.seen_at < VISIBLE

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return (
            "confirmed",
            "seen_host",
            "seen_at",
            "also",
            "pairs",
            "alone",
            "alone_host",
            "session",
            "session_at",
            "sessions",
            "unpaired_at",
            "unpaired_protocol",
            "unpaired",
            "reports",
        )

    def dump(self) -> list[object]:
        """Return the client as JSON values."""
        values = super().dump()
        values[4] = None if self.pairs is None else self.pairs.dump()
        values[5] = None if self.alone is None else self.alone.dump()
        values[13] = None if self.reports is None else self.reports.dump()
        return values

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave; a state of before the reports has none."""
        if len(values) == _WITHOUT_REPORTS:
            values = [*values, None]
        if values[4] is not None:
            pairs = Pairs()
            pairs.load(values[4])
            values[4] = pairs
        if values[5] is not None:
            alone = Session("", 0.0)
            alone.load(values[5])
            values[5] = alone
        if values[12] is not None:
            values[12] = [(at, protocol) for at, protocol in values[12]]
        if values[13] is not None:
            reports = Reports()
            reports.load(values[13])
            values[13] = reports
        super().load(values)


def confirm(client: Client, at: float) -> None:
    """Note a judged failure of a client."""
    client.confirmed = max(client.confirmed, at)


def take(times: list[float], since: float) -> bool:
    """Take the oldest time not before `since` from a list, dropping what is older; whether there was one."""
    while times and times[0] < since:
        times.pop(0)
    if times:
        times.pop(0)
        return True
    return False


def add(times: list[float], at: float) -> None:
    """Add a time to a bounded list, the oldest going first."""
    if len(times) >= _FREE:
        times.pop(0)
    times.append(at)
