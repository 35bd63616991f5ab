"""A mail server's log of any size: ordinary traffic with a chosen share of failed logins.

    python benchmarks/generate.py LINES SHARE > mail.log        # SHARE: failures among the lines, 0.1 or 0.9

The lines' shapes are those of Postfix 3.7 and Dovecot 2.3 with auth_verbose (log_path = syslog, RFC 3164).  More than
100 000 distinct client addresses and sessions: every session is new, addresses come from 130 000.  The same
arguments give the same bytes.
"""

from __future__ import annotations

import random
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import TextIO

ADDRESSES = 130_000
START = datetime(2026, 3, 1, tzinfo=UTC)


def address(n: int) -> str:
    """Return the n-th client: seven IPv4 to one IPv6."""
    if n % 8 == 7:
        return f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}::{n % 250 + 1:x}"
    return f"198.{18 + (n >> 16) % 2}.{(n >> 8) & 255}.{n & 255}"


def session(rng: random.Random, ip: str) -> str:
    """Return a session id as Dovecot makes it."""
    raw = bytes(rng.randrange(256) for _ in range(8))
    packed = bytes(int(p) for p in ip.split(".")) if "." in ip else rng.randbytes(16)
    if "." not in ip:
        import ipaddress

        packed = ipaddress.ip_address(ip).packed
    return b64encode(raw + packed).decode().rstrip("=")


def attack(rng: random.Random, ip: str, user: str, pid: int) -> list[str]:
    """Return the failure lines of one guesser, and what surrounds them."""
    if rng.random() < 0.5:
        return [
            f"postfix/submission/smtpd[{pid}]: warning: unknown[{ip}]: SASL LOGIN authentication failed: (reason unavailable), sasl_username={user}"
        ]
    return [f"dovecot: auth: passwd-file({user},{ip},<{session(rng, ip)}>): Password mismatch"]


def ordinary(rng: random.Random, ip: str, user: str, pid: int) -> list[str]:
    """Return the lines of one message or one mailbox visit."""
    qid = f"{rng.randrange(16**10):010X}"
    if rng.random() < 0.6:
        return [
            f"postfix/smtpd[{pid}]: connect from mail.example.net[{ip}]",
            f"postfix/smtpd[{pid}]: Anonymous TLS connection established from mail.example.net[{ip}]: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)",
            f"postfix/smtpd[{pid}]: {qid}: client=mail.example.net[{ip}]",
            f"postfix/cleanup[{pid + 1}]: {qid}: message-id=<{qid}.{pid}@mail.example.net>",
            f"rspamd[77]: <{qid.lower()}>; proxy; rspamd_message_parse: loaded message; id: <{qid}@example.net>; queue-id: <{qid}>; size: 5120",
            f"postfix/qmgr[99]: {qid}: from=<sender@example.net>, size=5321, nrcpt=1 (queue active)",
            f"dovecot: lmtp({user})<{pid}><{session(rng, '198.18.0.1')}xxxxxx>: sieve: msgid=<{qid}@example.net>: stored mail into mailbox 'INBOX'",
            f"postfix/lmtp[{pid + 2}]: {qid}: to=<{user}>, relay=mx.example.org[private/dovecot-lmtp], delay=0.3, delays=0.2/0/0/0.1, dsn=2.0.0, status=sent (250 2.0.0 <{user}> Saved)",
            f"postfix/qmgr[99]: {qid}: removed",
            f"postfix/smtpd[{pid}]: disconnect from mail.example.net[{ip}] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7",
        ]
    sid = session(rng, ip)
    return [
        f"dovecot: imap-login: Login: user=<{user}>, method=PLAIN, rip={ip}, lip=10.0.0.1, mpid={pid}, TLS, session=<{sid}>",
        f"dovecot: imap({user})<{pid}><{sid}>: Disconnected: Logged out in=120 out=4096 deleted=0 expunged=0 trashed=0 hdr_count=1 hdr_bytes=300 body_count=0 body_bytes=0",
    ]


def write(out: TextIO, lines: int, share: float, seed: int = 7) -> None:
    """Write a log of that many lines."""
    rng = random.Random(seed)
    users = [f"user{n}@example.org" for n in range(2000)]
    written = failures = n = 0
    stamp = ""
    while written < lines:
        if written % 20 == 0 or not stamp:
            at = START + timedelta(seconds=written // 200)
            stamp = f"{at:%b} {at.day:2d} {at:%H:%M:%S} mx "
        n += 1
        ip = address(rng.randrange(ADDRESSES))
        user = users[n % 2000]
        pid = 300 + n % 400
        if failures < written * share:
            group = attack(rng, ip, user, pid)
            failures += 1
        else:
            group = ordinary(rng, ip, user, pid)
        out.write("".join(f"{stamp}{line}\n" for line in group))
        written += len(group)


if __name__ == "__main__":
    write(sys.stdout, int(sys.argv[1]), float(sys.argv[2]))
