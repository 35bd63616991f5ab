"""The metrics of a live guard: they say what `mailward replay` says, and no log makes more series of them."""

from __future__ import annotations

import calendar
import json
import os
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.test_documented_json import free_port
from tests.daemon import Daemon, failure, mailward, session, stamp
from tests.replay.cases import expected, stream

ADDRESSES = int(os.environ.get("MAILWARD_TEST_LINES", "20000"))
Metrics = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(port: int) -> Metrics:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def by(metrics: Metrics, name: str, label: str = "") -> Counter[str]:
    found: Counter[str] = Counter()
    for (of, labels), value in metrics.items():
        if of == f"mailward_{name}_total":
            found[dict(labels).get(label, "")] += int(value)
    return found


def recent(lines: list[bytes]) -> bytes:
    """Return a capture as if it had just ended: in a live guard bans of old lines end at the next tick."""

    def at(line: bytes) -> float | None:
        try:
            return calendar.timegm(time.strptime(f"{line[:15].decode()} 2026", "%b %d %H:%M:%S %Y"))
        except ValueError:
            return None  # the second line of a message

    stamps = list(map(at, lines))
    later = int(time.time()) - max(at for at in stamps if at)
    return b"".join(
        stamp(at + later).encode() + line[15:] if at else line for at, line in zip(stamps, lines, strict=True)
    )


def guard(folder: Path) -> tuple[Daemon, int]:
    port = free_port()
    daemon = Daemon(folder, source='from = "start"')
    daemon.configure(f'[firewall]\nbackend = "none"\n[http]\nlisten = "127.0.0.1:{port}"')
    return daemon, port


@pytest.mark.parametrize(
    "case",
    ["bookworm-default", "bookworm-verbose", "bookworm-authdown", "bookworm-sogo", "bookworm-mailcow", "trixie-sogo",
     "trixie-default", "trixie-inject", "trixie-postscreen"],
)  # fmt: skip
def test_a_live_guard_and_replay_agree_number_by_number(tmp_path, case):
    daemon, port = guard(tmp_path)
    daemon.log.write_bytes(recent([line for _, line in stream(case, expected(case)["logs"])]))
    replay = json.loads(mailward("replay", str(daemon.log), "--format", "json").stdout)
    with daemon:
        daemon.until(lambda: daemon.ask("report")["lines"]["read"] >= replay["lines"]["read"])
        daemon.until(lambda: daemon.ask("status")["sources"][0]["lag"] == 0)
        metrics = scraped(port)
    failures = {}
    for label in ("service", "protocol"):
        counted, revoked = by(metrics, "auth_failures", label), by(metrics, "auth_revoked", label)
        failures[f"by_{label}"] = {key: n - revoked[key] for key, n in counted.items() if n - revoked[key]}
    assert {
        "failures": {"total": sum(failures["by_service"].values()), **failures},
        "unjudged": by(metrics, "auth_unjudged")[""],
        "lines": by(metrics, "lines")[""],
        "unparsed": by(metrics, "unparsed")[""],
        "bans": +by(metrics, "bans", "rule"),
        "findings": by(metrics, "findings", "rule")["login_after_failures"],
    } == {
        "failures": replay["failures"],
        "unjudged": replay["unjudged"],
        "lines": replay["lines"]["read"],
        "unparsed": replay["lines"]["unparsed"],
        "bans": Counter(ban["rule"] for ban in replay["bans"]),
        "findings": sum(f["rule"] == "login_after_failures" for f in replay["findings"]),
    }
    assert replay["lines"]["read"] > 0


def attack(first: int, count: int) -> list[str]:
    """Return one failure each of `count` addresses, from the `first` on, over all services."""
    lines = []
    for n in range(first, first + count):
        ip = f"{11 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.{n * 7 & 255}"
        head = stamp()
        at = f"rip={ip}, lip=192.0.2.1, TLS, session=<{session(ip)}>"
        told = (
            failure(ip, f"user{n}@example.org"),
            f"{head} mx dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<u{n}>, method=PLAIN, {at}",
            f"{head} mx postfix/smtpd[{n % 30000 + 1}]: warning: unknown[{ip}]: SASL LOGIN authentication failed: UGFzc3dvcmQ6, sasl_username=u{n}",
            f"{head} mx dovecot: imap-login: Login: user=<u{n}>, method=PLAIN, {at}",
        )
        lines.append(told[n % 4])
    return lines


OTHERS = (
    "postfix/postscreen[7]: PREGREET 11 after 0.01 from [203.0.113.9]:4711: EHLO there\\r\\n",
    "postfix/smtpd[8]: warning: unknown[203.0.113.9]: SASL authentication of a new form",
    "sogod [9]: SOGoRootPage Login from '203.0.113.9' for user 'u' might not have worked - password policy: 65535  grace: -1  expire: -1  bound: 0",
    'sogod [9]: 203.0.113.9 "POST /SOGo/connect HTTP/1.0" 403 33/92 0.038 - - 3M - 12',
    "postfix/smtp[10]: 4bXyZ1234: to=<u@example.org>, relay=mx.example.org[203.0.113.8]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)",
    "kernel: something else",
)


def test_addresses_make_no_series(tmp_path):
    daemon, port = guard(tmp_path)
    with daemon:
        daemon.write(*[failure("198.51.100.7")] * 100)  # of one kind: what others will make is there already
        daemon.has_read(100)
        few = scraped(port)
        daemon.write(*attack(0, 100), *(f"{stamp()} mx {text}" for text in OTHERS))
        for start in range(100, ADDRESSES, 10_000):
            daemon.write(*attack(start, min(10_000, ADDRESSES - start)))
        daemon.until(
            lambda: daemon.ask("status")["sources"][0]["lines"] >= ADDRESSES + 100 + len(OTHERS),
            60 + ADDRESSES / 2000,
        )
        many = scraped(port)
    assert few.keys() == many.keys()
    assert few["mailward_tracked", (("kind", "address"),)] == 1
    assert many["mailward_tracked", (("kind", "address"),)] > ADDRESSES * 0.7
