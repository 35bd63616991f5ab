"""Sessions of mail clients, drawn by hypothesis, as the servers would log them: what was tried, and what must be counted."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy

START = 1_795_453_200  # 2026-11-23T17:00:00Z
YEAR = 2026
IPS = ["198.51.100.7", "198.51.100.8", "203.0.113.5", "2001:db8:1:2::7"]
TEACHER = "192.0.2.1"  # whose one failure teaches the guard a host's habits
PROTOCOLS = ["imap", "pop3", "managesieve"]
FORMS = ["3164", "iso", "5424"]
REPORT = "report"
JUDGED = {"wrong", "unknown", "odd"}
USERS = {"wrong": "alice@example.org", "unknown": "nobody@example.org", "odd": "a b"}


@dataclass(frozen=True)
class Line:
    """One message of a daemon; its time is given when it is placed into a log."""

    host: str
    tag: str  # "dovecot" or "postfix/.../smtpd", or REPORT
    pid: str
    text: str

    def at(self, when: float, form: str) -> str:
        """Return the line of a log, or of a stream of reports."""
        moment = datetime.fromtimestamp(when, UTC)
        if self.tag == REPORT:
            return f"{moment.isoformat(timespec='microseconds')} {self.text}"
        if form == "3164":
            stamp = f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S}"
        else:
            stamp = moment.isoformat(timespec="microseconds")
        if form == "5424":
            return (
                f"<22>1 {stamp} {self.host} {self.tag.partition('/')[0]} {self.pid or '-'} - -  {self.text}"
            )
        return f"{stamp} {self.host} {self.tag}{f'[{self.pid}]' if self.pid else ''}: {self.text}"


@dataclass
class Step:
    """What one exchange, or a session's begin or end, writes: Postfix's lines and Dovecot's, in no common order."""

    postfix: list[Line] = field(default_factory=list)
    dovecot: list[Line] = field(default_factory=list)
    dovecot_first: bool = False
    report: list[Line] = field(default_factory=list)  # beside the logs: whoever asks for reports places them

    def lines(self) -> list[Line]:
        """Return the lines of both daemons."""
        return self.dovecot + self.postfix if self.dovecot_first else self.postfix + self.dovecot


@dataclass
class Session:
    """One session: its steps in order, and the failures that must be counted for its address."""

    ip: str
    steps: list[Step]
    failures: int
    tried: int = (
        0  # Postfix: T and S of auth=S/T; Dovecot: what was judged and failed, and whether it logged in
    )
    succeeded: int = 0


@dataclass(frozen=True)
class Habits:
    """How one host's Dovecot logs."""

    host: str
    version: str  # "2.3" or "2.4"
    verbose: bool

    def auth(self, kind: str, ip: str, session: str) -> list[Line]:
        """Return Dovecot's line of one judged attempt; no session: SMTP."""
        if not self.verbose:
            return []
        user = "?" if kind == "odd" else USERS[kind]
        said = {
            "wrong": "Password mismatch",
            "unknown": "unknown user",
            "odd": "Username character disallowed by auth_username_chars: 0x20 (username: a b)",
        }[kind]
        name = "plain" if kind == "odd" else "passwd-file"
        inside = f"<{session}>" if session else ""
        if self.version == "2.3":
            return [self.dovecot(f"auth: {name}({user},{ip}{',' + inside if inside else ''}): {said}")]
        return [self.dovecot(f"auth({user},{ip},sasl:plain){inside}: {name}: {said}")]

    def report(self, kind: str, ip: str, session: str, protocol: str) -> list[Line]:
        """Return Dovecot's report of one attempt that was judged, or of a login ("ok")."""
        fields = {"login": "" if kind == "odd" else USERS.get(kind, "bob@example.org"), "protocol": protocol}
        if self.version == "2.4":
            fields["fail_type"] = {"ok": "", "unknown": "account"}.get(kind, "credentials")
        rest = {"remote": ip, "session_id": session, "success": kind == "ok", "policy_reject": False}
        return [Line("", REPORT, "", json.dumps(fields | rest, separators=(",", ":")))]

    def dovecot(self, text: str) -> Line:
        """Return a line of this host's Dovecot."""
        return Line(self.host, "dovecot", "", text)


def session_id(ip: str, n: int) -> str:
    """Return the id that Dovecot gives to the n-th session, of a client at `ip`."""
    raw = (0x60F40B3E0000 + n * 7919).to_bytes(6, "little") + (40000 + n).to_bytes(2, "little")
    return base64.b64encode(raw + ipaddress.ip_address(ip).packed).decode().rstrip("=")


def login_session(habits: Habits, ip: str, n: int, protocol: str, kinds: list[str], ok: bool) -> Session:
    """Return an IMAP, POP3 or Sieve session that tries `kinds` and ends, or logs in."""
    id_ = session_id(ip, n)
    tail = f"method=PLAIN, rip={ip}, lip=10.66.0.10, {'mpid=7, ' if ok else ''}TLS, session=<{id_}>"
    steps = []
    for kind in kinds:
        step = Step()
        if kind in JUDGED:
            step.dovecot = habits.auth(kind, ip, id_)
            step.report = habits.report(kind, ip, id_, protocol.removeprefix("manage"))
        elif habits.verbose and habits.version == "2.4":
            step.dovecot = [
                habits.dovecot(f"{protocol}-login: Authenticate PLAIN failed: Aborted: user=<>, {tail}")
            ]
        steps.append(step)
    judged = sum(kind in JUDGED for kind in kinds)
    if ok:
        said = f"{'Login' if habits.version == '2.3' else 'Logged in'}: user=<bob@example.org>"
    else:
        said = _end(habits.version, kinds)
    last = Step(dovecot=[habits.dovecot(f"{protocol}-login: {said}, {tail}")])
    if ok:
        last.report = habits.report("ok", ip, id_, protocol.removeprefix("manage"))
    steps.append(last)
    return Session(ip, steps, 0 if ok and not habits.verbose else judged, judged, int(ok))


def _end(version: str, kinds: list[str]) -> str:
    n = len(kinds)
    if version == "2.3":
        why = "Disconnected: Aborted login by logging out"
        if kinds == ["cancel"]:
            return f"{why} (client didn't finish SASL auth, waited 0 secs): user=<>"
        if not kinds:
            return f"{why} (no auth attempts in 2 secs): user=<>"
        return f"{why} (auth failed, {n} attempts in 2 secs): user=<alice@example.org>"
    why = "Login aborted: Logged out"
    if not kinds:
        return f"{why} (no auth attempts in 2 secs) (no_auth_attempts): user=<>"
    if kinds[-1] == "cancel":
        return f"{why} (auth aborted by client, {n} attempts in 2 secs) (auth_aborted_by_client): user=<>"
    return f"{why} (auth failed, {n} attempts in 2 secs) (auth_failed): user=<alice@example.org>"


def smtp_session(habits: Habits, ip: str, n: int, tag: str, kinds: list[str], order: list[bool]) -> Session:
    """Return an SMTP session; `order` says for each exchange whether Dovecot's line comes first."""
    pid = str(1000 + n)

    def postfix(text: str) -> Line:
        return Line(habits.host, tag, pid, text)

    steps = [Step(postfix=[postfix(f"connect from unknown[{ip}]")])]
    for kind, dovecot_first in zip(kinds, order, strict=True):
        step = Step(dovecot_first=dovecot_first)
        head = f"warning: unknown[{ip}]: SASL PLAIN authentication"
        if kind in JUDGED:
            step.postfix = [postfix(f"{head} failed: (reason unavailable), sasl_username={USERS[kind]}")]
            step.dovecot = habits.auth(kind, ip, "")
            step.report = habits.report(kind, ip, "", "smtp")
        elif kind == "cancel":
            step.postfix = [postfix(f"{head} aborted")]
        elif kind == "mechanism":
            said = "Invalid authentication mechanism: 'XYZZY', sasl_username=(unavailable)"
            step.postfix = [postfix(f"{head} failed: {said}")]
        elif kind == "base64":
            said = "Invalid base64 data in initial response, sasl_username=(unavailable)"
            step.postfix = [postfix(f"{head} failed: {said}")]
        elif kind == "ok":
            step.postfix = [
                postfix(f"{7706 + n:X}2AC31A: client=unknown[{ip}], sasl_method=PLAIN, sasl_username=bob")
            ]
            step.report = habits.report(kind, ip, "", "smtp")
        steps.append(step)
    succeeded = kinds.count("ok")
    auth = f"{succeeded}/{len(kinds)}" if succeeded < len(kinds) else str(succeeded)
    counts = f"ehlo=1 auth={auth} quit=1 commands=2/{2 + len(kinds)}"
    steps.append(Step(postfix=[postfix(f"disconnect from unknown[{ip}] {counts}")]))
    return Session(ip, steps, sum(k in JUDGED for k in kinds), len(kinds), succeeded)


@st.composite
def habits(draw: Any, host: str = "mx", verbose: bool | None = None) -> Habits:
    """Draw a host."""
    told = draw(st.booleans()) if verbose is None else verbose
    return Habits(host, draw(st.sampled_from(["2.3", "2.4"])), told)


@st.composite
def sessions(
    draw: Any, host: Habits, first: int = 0, services: str = "any", ips: list[str] = IPS
) -> list[Session]:
    """Draw sessions of one host, numbered from `first`."""
    drawn = []
    for n in range(first, first + draw(st.integers(1, 5))):
        ip = draw(st.sampled_from(ips))
        if services == "smtp" or (services == "any" and draw(st.booleans())):
            kinds = draw(
                st.lists(
                    st.sampled_from(["wrong", "unknown", "odd", "cancel", "mechanism", "base64"]), max_size=6
                )
            )
            kinds += ["ok"] if draw(st.booleans()) else []
            order = draw(st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds)))
            tag = draw(st.sampled_from(["postfix/smtpd", "postfix/submission/smtpd", "postfix-in/smtpd"]))
            drawn.append(smtp_session(host, ip, n, tag, kinds, order))
        else:
            known = ["wrong", "unknown", "odd"] if not host.verbose else ["wrong", "unknown", "odd", "cancel"]
            kinds = draw(st.lists(st.sampled_from(known), max_size=6))
            drawn.append(
                login_session(host, ip, n, draw(st.sampled_from(PROTOCOLS)), kinds, draw(st.booleans()))
            )
    return drawn


def teacher(host: Habits) -> Session:
    """Return a session that shows how a host's Dovecot logs."""
    return login_session(host, TEACHER, 900 + ord(host.host[-1]), "imap", ["wrong"], ok=False)


@st.composite
def interleaved(draw: Any, drawn: list[Session]) -> list[Line]:
    """Draw one order of all lines in which each session keeps its own."""
    turns = draw(st.permutations([n for n, session in enumerate(drawn) for _ in session.steps]))
    left = [iter(session.steps) for session in drawn]
    return [line for n in turns for line in next(left[n]).lines()]


def log(lines: list[Line], form: str = "3164", per_second: int = 3, start: float = START) -> bytes:
    """Return the lines as a log, so many a second."""
    return "".join(line.at(start + n / per_second, form) + "\n" for n, line in enumerate(lines)).encode()


def truth(drawn: list[Session]) -> dict[str, int]:
    """Return the failures by address."""
    failures: Counter[str] = Counter()
    for session in drawn:
        failures[session.ip] += session.failures
    return {ip: n for ip, n in failures.items() if n}


def engine(policy: Policy | None = None, *, keep: bool = False) -> Engine:
    """Return a fresh engine for logs of 2026."""
    return Engine(policy or Policy(), clock=Clock(year=YEAR, now=START + 1e8), keep=keep)


def report_on(*logs: bytes, policy: Policy | None = None) -> dict[str, Any]:
    """Return the report on some logs, one after the other."""
    guard = engine(policy)
    for n, data in enumerate(logs):
        guard.feed(f"log{n}", data)
        guard.finish(f"log{n}")
    return guard.report()


def counted(report: dict[str, Any]) -> dict[str, int]:
    """Return the failures by address, where there are any."""
    return {source["ip"]: source["failures"] for source in report["sources"] if source["failures"]}
