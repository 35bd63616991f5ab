"""A mail server's log of any size: ordinary traffic with a chosen share of failed logins.

    python benchmarks/generate.py LINES SHARE > mail.log        # SHARE: failures among the lines, 0.1 or 0.9
    python benchmarks/generate.py LINES SHARE host > mail.log   # the rest as a whole mail host writes it

The lines' shapes are those of Postfix 3.7 and Dovecot 2.3 with auth_verbose (log_path = syslog, RFC 3164).  More than
100 000 distinct client addresses and sessions: every session is new, addresses come from 130 000.  The same
arguments give the same bytes.
"""

from __future__ import annotations

import random
import sys
from base64 import b64encode
from collections.abc import Callable
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


def host(rng: random.Random, ip: str, user: str, pid: int) -> list[str]:
    """Return one transaction of a mail host: Postfix in, out and rejecting, postscreen, rspamd, Dovecot, SOGo."""
    kind = rng.random()
    qid = f"{rng.randrange(16**11):011X}"
    sid = session(rng, ip)
    tls = "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256"
    if kind < 0.45:
        size, lmtp = rng.randrange(900, 90_000), f"{rng.randrange(16**12):012x}AAxxyyzz"
        transmission = rng.randrange(1, 40) / 100
        return [
            f"postfix/postscreen[88]: CONNECT from [{ip}]:{20000 + pid} to [192.0.2.25]:25",
            f"postfix/postscreen[88]: PASS OLD [{ip}]:{20000 + pid}",
            f"postfix/smtpd[{pid}]: connect from mail.example.net[{ip}]",
            f"postfix/smtpd[{pid}]: Anonymous TLS connection established from mail.example.net[{ip}]: {tls}",
            f"postfix/smtpd[{pid}]: {qid}: client=mail.example.net[{ip}]",
            f"postfix/cleanup[{pid + 1}]: {qid}: message-id=<{qid}.{pid}@mail.example.net>",
            f"rspamd[77]: <{qid[:6].lower()}>; task; rspamd_task_write_log: id: <{qid}@example.net>, qid: <{qid}>, ip: {ip}, from: <sender@example.net>, (default: F (no action): [-2.10/15.00] [DMARC_POLICY_ALLOW(-0.50){{example.net;reject;}},R_SPF_ALLOW(-0.20){{+mx;}}]), len: {size}, time: 112.301ms",
            f"postfix/qmgr[99]: {qid}: from=<sender{size}@example.net>, size={size}, nrcpt=1 (queue active)",
            f"dovecot: lmtp({pid + 3}): Connect from local",
            f"postfix/smtpd[{pid}]: disconnect from mail.example.net[{ip}] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7",
            f"dovecot: lmtp({user})<{pid + 3}><{lmtp}>: sieve: msgid=<{qid}.{pid}@mail.example.net>: stored mail into mailbox 'INBOX'",
            f"postfix/lmtp[{pid + 2}]: {qid}: to=<{user}>, relay=mx.example.org[private/dovecot-lmtp], delay=0.31, delays=0.2/0.01/0/{transmission}, dsn=2.0.0, status=sent (250 2.0.0 <{user}> {lmtp} Saved)",
            f"postfix/qmgr[99]: {qid}: removed",
            f"dovecot: lmtp({pid + 3}): Disconnect from local: Logged out (state=READY)",
        ]
    if kind < 0.55:
        rcpt = f"friend{rng.randrange(5000)}@example.net"
        return [
            f"postfix/submission/smtpd[{pid}]: connect from unknown[{ip}]",
            f"postfix/submission/smtpd[{pid}]: Anonymous TLS connection established from unknown[{ip}]: {tls}",
            f"postfix/submission/smtpd[{pid}]: {qid}: client=unknown[{ip}], sasl_method=PLAIN, sasl_username={user}",
            f"postfix/cleanup[{pid + 1}]: {qid}: message-id=<{qid}.{pid}@laptop>",
            f"postfix/qmgr[99]: {qid}: from=<{user}>, size=2210, nrcpt=1 (queue active)",
            f"postfix/submission/smtpd[{pid}]: disconnect from unknown[{ip}] ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8",
            f"postfix/smtp[{pid + 2}]: Verified TLS connection established to mx.example.net[192.0.2.77]:25: {tls}",
            f"postfix/smtp[{pid + 2}]: {qid}: to=<{rcpt}>, relay=mx.example.net[192.0.2.77]:25, delay=1.2, delays=0.05/0.01/0.64/0.5, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4Xyz1234)",
            f"postfix/qmgr[99]: {qid}: removed",
        ]
    if kind < 0.65:
        return [
            f"postfix/postscreen[88]: CONNECT from [{ip}]:{20000 + pid} to [192.0.2.25]:25",
            f"postfix/postscreen[88]: PASS NEW [{ip}]:{20000 + pid}",
            f"postfix/smtpd[{pid}]: connect from unknown[{ip}]",
            f"postfix/smtpd[{pid}]: NOQUEUE: reject: RCPT from unknown[{ip}]: 554 5.7.1 <{user}>: Relay access denied; from=<spam@example.net> to=<{user}> proto=ESMTP helo=<example.net>",
            f"postfix/smtpd[{pid}]: disconnect from unknown[{ip}] ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4",
        ]
    if kind < 0.7:
        return [
            f'sogod [{pid}]: {ip} "POST /SOGo/so/{user}/Mail/0/folderINBOX/uids HTTP/1.0" 200 1801/240 0.031 - - 128K - 11',
            f'sogod [{pid}]: {ip} "REPORT /SOGo/dav/{user}/Calendar/personal/ HTTP/1.0" 207 320/512 0.012 - - 0 - 12',
        ]
    return [
        f"dovecot: imap-login: Login: user=<{user}>, method=PLAIN, rip={ip}, lip=10.0.0.1, mpid={pid}, TLS, session=<{sid}>",
        f"dovecot: imap({user})<{pid}><{sid}>: Disconnected: Logged out in=120 out=4096 deleted=0 expunged=0 trashed=0 hdr_count=1 hdr_bytes=300 body_count=0 body_bytes=0",
    ]


Group = Callable[[random.Random, str, str, int], list[str]]


def write(out: TextIO, lines: int, share: float, seed: int = 7, rest: Group = ordinary) -> None:
    """Write a log of that many lines; `rest` makes what is no failure."""
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
            group = rest(rng, ip, user, pid)
        out.write("".join(f"{stamp}{line}\n" for line in group))
        written += len(group)


if __name__ == "__main__":
    whole = sys.argv[3:] == ["host"]
    write(sys.stdout, int(sys.argv[1]), float(sys.argv[2]), rest=host if whole else ordinary)
