"""The values that cross from one stage to the next.  Imports nothing of ours.

Text is `str` decoded from the log's bytes as UTF-8 with ``surrogateescape``, so that no byte is lost and none
raises; `readable` makes such text fit for output.  Times named `at` are float seconds since the epoch, on the
log's own clock.  Addresses and nets are canonical text (`198.51.100.7`, `2001:db8:1:2::/64`).
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from mypy_extensions import i64, mypyc_attr

# The kinds of AuthEvent.  A *witness* is an event that speaks of attempts; see guard/sessions.py.
FAILURE: Final = "failure"  # one more attempt was rejected
SUCCESS: Final = "success"
SUMMARY: Final = "summary"  # a session's end: `count` attempts in all
CONNECT: Final = "connect"
DISCONNECT: Final = "disconnect"
REFUSED: Final = "refused"  # nothing was judged: no TLS, unknown mechanism, malformed exchange
CANCELLED: Final = "cancelled"
UNJUDGED: Final = "unjudged"  # the answer was lost before anybody judged, as far as this line knows
OUTAGE: Final = "outage"  # the password database is at fault, not the client
ABUSE: Final = "abuse"  # non-SMTP commands, pregreeting, pipelining

KINDS: Final = (FAILURE, SUCCESS, SUMMARY, CONNECT, DISCONNECT, REFUSED, CANCELLED, UNJUDGED, OUTAGE, ABUSE)
PROTOCOLS: Final = ("smtp", "submission", "imap", "pop3", "sieve", "lmtp", "web", "dav", "eas", "unknown")
SERVICES: Final = ("postfix", "dovecot", "sogo", "mailcow")
REASONS: Final = ("password_mismatch", "unknown_user", "disabled", "expired", "policy", "unspecified")


# SASL mechanisms (the IANA registry and Dovecot's own), as Dovecot writes them in place of a passdb's name.
MECHANISMS: Final = frozenset(
    "anonymous apop cram-md5 digest-md5 external gss-spnego gssapi login ntlm oauthbearer otp plain rpa scram-sha-1 "
    "scram-sha-1-plus scram-sha-256 scram-sha-256-plus skey winbind xoauth2".split()
)

# Who wrote a line, as far as its head tells.
IGNORED: Final = 0  # a program that says nothing of logins
SMTPD: Final = 1
POSTFIX: Final = 2  # some Postfix program: RFC 5424 through rsyslog cuts the tag
POSTSCREEN: Final = 3
DOVECOT: Final = 4
SOGO: Final = 5
BARE: Final = 6  # no head at all

# Never a client: proxies and the stack's own networks (Python's is_private also covers documentation nets: not used).
TRUSTED: Final = (
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
    "fe80::/10",
)


class Policy(NamedTuple):
    """What the rules and the ledger are told by the configuration.  Durations in seconds, nets canonical."""

    failures: int = 5
    window: float = 600.0
    ban: float = 3600.0
    ban_max: float = 7 * 86400.0
    forget: float = 30 * 86400.0
    prefix4: int = 32
    prefix6: int = 64
    login_failures: int = 3
    neighbourhood_members: int = 0  # 0: off
    neighbourhood_window: float = 86400.0
    neighbourhood_prefix4: tuple[int, ...] = (24,)
    neighbourhood_prefix6: tuple[int, ...] = (56, 48)
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    trusted: tuple[str, ...] = TRUSTED
    own: tuple[str, ...] = ()  # this host's own addresses, its gateways and resolvers: never clients
    max_addresses: int = 1_000_000
    max_sessions: int = 200_000
    max_accounts: int = 200_000
    secret: bytes = b""  # key of the HMAC that stands for a password


@mypyc_attr(acyclic=True, free_list_len=1)
class Record:
    """One log line without its transport: who wrote `text`, and when."""

    __slots__ = ("at", "host", "pid", "process", "tag", "text")

    def __init__(self, at: float, host: str, tag: str, pid: str, text: str, process: str = "") -> None:
        self.at = at
        self.host = host
        self.tag = (
            tag  # the syslog tag without the pid: "postfix/smtpd", "dovecot", "sogod"; "" where there is none
        )
        self.pid = pid  # "" where there is none
        self.process = process  # tag and pid, "" where there is no pid
        self.text = text


@mypyc_attr(acyclic=True, free_list_len=1)
class AuthEvent:
    """What one line says.  Unknown fields are None, never guessed.

    `witness` names the kind of line for the ledger (guard/sessions.py lists them); `source` is the passdb,
    mechanism or reason behind it; `count` is the N of a summary, else 1; `seconds` the T of `in T secs`.
    `password` is what the server logged of the password (a hash or clear text): it never leaves the process.
    """

    __slots__ = (
        "at",
        "count",
        "host",
        "ip",
        "kind",
        "line",
        "method",
        "password",
        "pid",
        "process",
        "protocol",
        "reason",
        "seconds",
        "service",
        "session",
        "source",
        "user",
        "witness",
    )

    def __init__(
        self,
        record: Record,
        service: str,
        kind: str,
        witness: str,
        *,
        protocol: str = "unknown",
        ip: str | None = None,
        user: str | None = None,
        session: str | None = None,
        count: int = 1,
        seconds: int = 0,
        reason: str | None = None,
        method: str | None = None,
        source: str = "",
        password: str | None = None,
    ) -> None:
        self.at = record.at
        self.host = record.host
        self.pid = record.pid
        self.service = service
        self.kind = kind
        self.witness = witness
        self.protocol = protocol
        self.ip = ip
        self.user = user
        self.session = session
        self.count = count
        self.seconds = seconds
        self.reason = reason
        self.method = method
        self.source = source
        self.password = password
        self.process = record.process
        self.line = ""  # the whole line, without a password: what an attempt rests on


# The kinds of MailEvent, and the closed sets in which `label` is a place.
TAKEN: Final = 0  # a message begins to come in; MAIL_PROTOCOLS
QUEUED: Final = 1  # it is in the queue, for `count` recipients
DELIVERY: Final = 2  # one attempt for one recipient; RESULTS
REMOVED: Final = 3
REJECTED: Final = 4  # REJECTS
TLS: Final = 5  # TLS_VERSIONS; `count` is 1 where we connected
VERDICT: Final = 6  # postscreen's; VERDICTS
STORED: Final = 7  # Dovecot's own word on a delivery; STORES
REQUEST: Final = 8  # of SOGo: WEB; `count` is the first digit of the status, `micros` what it took
ERROR: Final = 9  # of SOGo
MAIL_PROTOCOLS: Final = ("smtp", "submission", "local", "unknown")
TRANSPORTS: Final = ("smtp", "lmtp", "local", "virtual", "pipe", "other")
RESULTS: Final = ("sent", "deferred", "bounced", "expired")
REJECTS: Final = tuple(
    "relay recipient sender helo client blocklist greylisted milter policy size protocol tls auth other".split()
)
TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3", "other", "none")
VERDICTS: Final = tuple(
    "pass_new pass_old allowlisted denylisted pregreet dnsbl hangup pipelining non_smtp bare_newline other".split()
)
STORES: Final = ("saved", "forwarded", "discarded", "rejected", "failed")
WEB: Final = ("web", "dav", "eas")


class MailEvent:
    """What one line says of mail; one object is filled again for each line.

    Texts are positions in the line: only who needs one cuts it out.  Which fields count depends on `kind`.
    """

    __slots__ = "count", "id_at", "id_end", "kind", "label", "micros", "name_at", "name_end", "stages"

    def __init__(self) -> None:
        self.kind: i64 = 0
        self.label: i64 = 0
        self.count: i64 = 0
        self.id_at: i64 = 0  # the queue id
        self.id_end: i64 = 0
        self.name_at: i64 = 0  # the recipient
        self.name_end: i64 = 0
        self.micros: i64 = 0  # Postfix' delay=, in microseconds
        self.stages: tuple[i64, i64, i64, i64] = (0, 0, 0, 0)  # delays=a/b/c/d


@mypyc_attr(acyclic=True, free_list_len=1)
class Attempt:
    """One attempt counted (`n` = 1) or taken back (`n` = -1)."""

    __slots__ = ("at", "client", "ip", "line", "n", "open", "protocol", "reason", "service", "user")

    def __init__(
        self,
        at: float,
        ip: str,
        user: str | None,
        service: str,
        protocol: str,
        reason: str,
        n: int,
        is_open: int,
        client: object,
        line: str,
    ) -> None:
        self.at = at
        self.ip = ip
        self.user = user
        self.service = service
        self.protocol = protocol
        self.reason = reason
        self.n = n
        self.open = is_open  # 1: its session has shown no end line, 0: it has, -1: there is no session
        self.line = line
        self.client = client  # the ledger's book of the address, which remembers the later stages' too


@mypyc_attr(acyclic=True)
class Success:
    """One login that went through."""

    __slots__ = ("at", "count", "ip", "protocol", "service", "user")

    def __init__(self, at: float, ip: str, user: str | None, service: str, protocol: str, count: int) -> None:
        self.at = at
        self.ip = ip
        self.user = user
        self.service = service
        self.protocol = protocol
        self.count = count


class Ban(NamedTuple):
    """A decision to shut a net out from `at` until `until` (seconds since the epoch)."""

    net: str
    at: float
    until: float
    rule: str  # "brute_force", "manual", "deny" ...
    failures: int = 0
    session_open: bool | None = None
    evidence: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The duration of the ban."""
        return self.until - self.at


class Unban(NamedTuple):
    """A decision that a ban ends.  `cause` is one of UNBAN_CAUSES."""

    net: str
    at: float
    cause: str


UNBAN_CAUSES: Final = ("expired", "manual", "allowed", "revoked", "folded")

Action = Ban | Unban


class Notice(NamedTuple):
    """What the other nodes of a fleet are told: see guard/notices.py."""

    net: str  # the address or net it is about
    register: str  # "" for an attempt; else what it sets: "ban NET", "allow NET", "deny NET"
    live: bool  # a register: in force, or lifted
    at: float  # when it was decided
    ends: float  # until when it matters
    body: str  # JSON


class Finding(NamedTuple):
    """What a rule has to tell the administrator."""

    at: float
    rule: str
    ip: str
    user: str | None
    text: str


def finding_id(rule: str, subject: str, at: float) -> str:
    """Return what a finding is called in the log, in JSON and in exemplars: 12 hexadecimal digits.

    The same in a replay of the same log: made of the rule, of whom it found (address or net) and of the time.
    """
    return hashlib.blake2s(f"{rule} {subject} {at:.6f}".encode(), digest_size=6).hexdigest()


def readable(text: str) -> str:
    """Return `text` fit for output: what was not UTF-8 becomes U+FFFD, control characters a visible escape."""
    if text.isascii() and text.isprintable():
        return text
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in clean)
