"""Mail is counted as the log has it: against captures counted by plain search, one message's way, and the bounds."""

from __future__ import annotations

import lzma
import re
from collections import Counter
from typing import Any

import pytest

from exporters import exposition, registry_of
from exporters.mail import MailCollector
from guard import senders
from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from guard.traffic import Traffic
from tests.daemon import ROOT

NOW = 1_795_640_000.0  # 25 November 2026, 20:53:20
CAPTURES = "bookworm-inject bookworm-mailcow bookworm-verbose trixie-default trixie-sqlcache bookworm-postscreen".split()


def fed(*lines: str, now: float | None = None, **more: Any) -> Traffic:
    counted = Traffic(**more)
    engine = Engine(Policy(), clock=Clock(year=2026, now=NOW), traffic=counted)
    engine.feed("mail", "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), now)
    return counted


def capture(case: str) -> bytes:
    return lzma.decompress((ROOT / f"fixtures/replay/{case}/mail.log.xz").read_bytes())


def found(counted: Traffic, name: str) -> dict[Any, int]:
    values = counted.counters()[name].values
    return {key if len(key) > 1 else key[0]: n for key, n in values.items() if n}


def message(
    qid: str,
    *,
    user: str = "alice",
    ip: str = "203.0.113.7",
    to: str = "bob@example.net",
    at: str = "20:50:00",
) -> list[str]:
    stamp = f"Nov 25 {at} mx postfix"
    login = f", sasl_method=PLAIN, sasl_username={user}" if user else ""
    return [
        f"{stamp}/submission/smtpd[7]: {qid}: client=x[{ip}]{login}",
        f"{stamp}/cleanup[9]: {qid}: message-id=<a@b>",
        f"{stamp}/qmgr[8]: {qid}: from=<alice@example.org>, size=216, nrcpt=1 (queue active)",
        f"{stamp}/smtp[9]: {qid}: to=<{to}>, relay=x[192.0.2.1]:25, delay=1.5, delays=0.5/0.25/0.25/0.5, dsn=2.0.0, status=sent (250 ok)",
    ]


@pytest.mark.parametrize("case", CAPTURES)
def test_a_capture_counts_as_plain_search_counts_it(case):
    lines = capture(case).decode("utf-8", "surrogateescape").split("\n")
    counted = fed(*lines)
    agents = Counter(
        line.split()[4].split("/")[1].split("[")[0] for line in lines if " status=sent (" in line
    )
    assert found(counted, "mail_deliveries") == {(agent, "sent"): n for agent, n in agents.items()}
    assert sum(found(counted, "mail_received").values()) == len(
        {line.split()[5] for line in lines if line.endswith(" (queue active)")}
    )
    assert counted.life.histogram().count == sum(line.endswith(": removed") for line in lines)
    head = re.compile(r".{15} mx postfix/(?:\w+/)?(?:smtpd|postscreen)\[\d+\]: NOQUEUE: reject: ")
    assert sum(found(counted, "mail_rejected").values()) == sum(bool(head.match(line)) for line in lines)
    assert found(counted, "lmtp_deliveries").get("saved", 0) == sum(
        bool(re.match(r".{15} mx dovecot: lmtp\([^)]*\)<.*: saved mail to INBOX$", line)) for line in lines
    )
    assert sum(found(counted, "postscreen_verdicts").values()) == sum(
        bool(re.search(r"postscreen\[\d+\]: (?:PASS|PREGREET|HANGUP|NON-SMTP|COMMAND|BARE)", line))
        for line in lines
    )


def test_a_postfix_of_our_own_counts_as_grep_counts_it():
    """fixtures/mail: TLS both ways, a loop of 50 hops, what waits, bounces and is refused; two addresses are forged.

    By `grep -c`: 51 status=sent, 2 each deferred and bounced (one bounced stands in a recipient), 52 removed (one of them the
    bounce itself, which came in from nobody), 54 queue active (that one again), 52 and 49 TLS sessions, 3 rejects.
    """
    counted = fed(
        *lzma.decompress((ROOT / "fixtures/mail/postfix-3.7.log.xz").read_bytes()).decode().splitlines()
    )
    assert found(counted, "mail_received") == {"smtp": 52, "local": 1}
    assert found(counted, "mail_deliveries") == {
        ("smtp", "sent"): 48,
        ("smtp", "deferred"): 2,
        ("smtp", "bounced"): 1,
        ("other", "sent"): 3,
    }
    assert found(counted, "mail_rejected") == {"recipient": 1, "policy": 1, "size": 1}
    assert found(counted, "tls_sessions") == {
        ("postfix", "in", "TLSv1.3"): 52,
        ("postfix", "out", "TLSv1.3"): 49,
        ("postfix", "in", "none"): 3,
    }
    assert counted.life.histogram().count == 51
    assert len(counted.messages) == 4


@pytest.mark.parametrize("case", ["bookworm-inject", "trixie-default"])
def test_what_is_decided_does_not_depend_on_it(case):
    data = capture(case)
    reports = []
    for counted in (None, Traffic()):
        engine = Engine(Policy(), clock=Clock(year=2026, now=NOW), traffic=counted)
        engine.feed("mail", data)
        reports.append(engine.report_text())
    assert reports[0] == reports[1]


def test_a_message_goes_its_way():
    counted = fed(*message("3D1492D268D"), "Nov 25 20:50:05 mx postfix/qmgr[8]: 3D1492D268D: removed")
    assert found(counted, "mail_received") == {"submission": 1}
    assert found(counted, "mail_deliveries") == {("smtp", "sent"): 1}
    assert [stage.n for stage in counted.stages] == [500_000, 250_000, 250_000, 500_000]
    assert counted.delays()["smtp"].total == 1.5
    assert counted.life.histogram().total == 5
    assert counted.senders.top(NOW) == [senders.Sender("alice", 1, 1, 1, 1, None, 0)]
    assert len(counted.messages) == 0


def test_the_line_of_rfc_5424_and_of_the_journal_counts_too():
    text = "3D1492D268D: to=<a@b>, relay=x[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 ok)"
    counted = fed(
        f"<22>1 2026-11-25T20:50:00.344155+00:00 mx postfix 317 - -  {text}",
        f'{{"MESSAGE": "{text}", "SYSLOG_IDENTIFIER": "postfix/smtp", "SYSLOG_PID": "7", "_HOSTNAME": "mx"}}',
        f"2026-11-25T20:50:00.344155+00:00 mx postfix/lmtp[317]: {text}",
        text,
    )
    assert found(counted, "mail_deliveries") == {
        ("other", "sent"): 1,
        ("smtp", "sent"): 1,
        ("lmtp", "sent"): 1,
    }


def test_a_message_that_a_milter_refuses_is_not_received_and_one_that_waits_is_received_once():
    refused = [
        "Nov 25 20:50:00 mx postfix/smtpd[7]: 3D1492D268D: client=x[203.0.113.7]",
        "Nov 25 20:50:00 mx postfix/cleanup[9]: 3D1492D268D: milter-reject: END-OF-MESSAGE from x[203.0.113.7]: 5.7.1 no; from=<a@b>",
    ]
    waiting = message("4D1492D268D")
    counted = fed(*refused, *waiting, waiting[2], waiting[2])
    assert found(counted, "mail_received") == {"submission": 1}
    assert found(counted, "mail_rejected") == {"milter": 1}


def test_two_hosts_may_use_the_same_queue_id():
    one = message("3D1492D268D")
    other = [line.replace(" mx ", " mx2 ") for line in message("3D1492D268D", user="carol")]
    rows = fed(*(line for pair in zip(one, other, strict=True) for line in pair)).senders.top(NOW)
    assert [(row.account, row.messages, row.distinct_recipients) for row in rows] == [
        ("alice", 1, 1),
        ("carol", 1, 1),
    ]


def test_an_account_shows_its_recipients_networks_countries_and_bounces():
    lines: list[str] = []
    for n in range(30):
        name = "Alice" if n % 2 else "alice"
        lines += message(f"3D1492D2{n:02}D", user=name, ip=f"203.0.{n % 3}.{n}", to=f"r{n % 20}@example.net")
    lines[-1] = lines[-1].replace("status=sent", "status=bounced")
    [row] = fed(*lines).senders.top(NOW, {"203.0.0.0": "DE", "203.0.1.0": "FR"}.get)
    assert row == senders.Sender("alice", 30, 30, 20, 3, 2, 1)


def test_what_is_an_hour_ago_is_over():
    lines = [
        *message("3D1492D268D", at="19:40:00"),
        *message("4D1492D268D", at="20:50:00", to="c@example.net"),
    ]
    counted = fed(*lines)
    assert counted.senders.top(NOW) == [senders.Sender("alice", 1, 1, 1, 1, None, 0)]
    assert counted.senders.top(NOW + 3600 + 301) == []


def test_a_stamp_ahead_of_the_clock_is_not_believed():
    counted = fed(*message("3D1492D268D", at="23:59:00"), now=NOW)
    assert [row.messages for row in counted.senders.top(NOW)] == [1]


def test_memory_is_bounded_and_what_is_forgotten_is_counted(monkeypatch):
    monkeypatch.setattr(senders, "MAX_WHOM", 10)
    lines = [line for n in range(50) for line in message(f"{n:011}", user=f"u{n}")]
    lines += [line for n in range(15) for line in message(f"A{n:010}", to=f"r{n}@example.net")]
    lines += [message(f"B{n:010}", user="")[0] for n in range(500)]
    counted = fed(*lines, max_accounts=20, max_messages=100)
    assert len(counted.messages) <= 100
    assert len(counted.senders.accounts) <= 20
    evicted = found(counted, "traffic_evicted")
    assert evicted["account"] >= 30
    assert evicted["queue_id"] >= 400
    if not senders.__file__.endswith(".so"):  # there the limit is compiled in
        assert evicted["recipient"] == 5


def test_clear_text_and_logins_count_as_sessions():
    counted = fed(
        "Nov 25 20:50:00 mx postfix/smtpd[7]: disconnect from x[203.0.113.7] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5",
        "Nov 25 20:50:00 mx postfix/smtpd[7]: disconnect from x[203.0.113.7] ehlo=2 starttls=1 mail=1 quit=1 commands=5",
        "Nov 25 20:50:00 mx postfix/smtpd[7]: disconnect from x[203.0.113.7] ehlo=1 quit=1 commands=2",
        "Nov 25 20:50:00 mx postfix/smtps/smtpd[7]: disconnect from x[203.0.113.7] ehlo=1 mail=1 quit=1 commands=3",
        "Nov 25 20:50:00 mx dovecot: imap-login: Login: user=<a>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, mpid=1, TLS, session=<zk4L4/RgiaHGM2Qc>",
        "Nov 25 20:50:00 mx dovecot: imap-login: Login: user=<a>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, mpid=1, session=<zk4L4/RgiaHGM2Qc>",
        "Nov 25 20:50:00 mx dovecot: imap-login: Login: user=<a>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, mpid=1, "
        "TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits), session=<zk4L4/RgiaHGM2Qc>",
    )
    assert found(counted, "tls_sessions") == {
        ("postfix", "in", "none"): 1,
        ("dovecot", "in", "other"): 1,
        ("dovecot", "in", "none"): 1,
        ("dovecot", "in", "TLSv1.2"): 1,
    }


def test_the_metrics_never_grow_and_name_nobody():
    empty, full = (
        Traffic(),
        fed(*(line for n in range(100) for line in message(f"{n:011}", user=f"user{n}", to=f"r{n}@x"))),
    )
    bodies = [
        exposition(registry_of(MailCollector(counted, lambda: NOW, lambda ip: "DE")), "")[0].decode()
        for counted in (empty, full)
    ]
    series = [re.sub(r" \S+$", "", body, flags=re.MULTILINE) for body in bodies]
    assert series[0] == series[1]
    assert "user9" not in bodies[1]
    assert 'mailward_sending_accounts{above="0"} 100.0' in bodies[1]
    assert 'mailward_mail_delivery_delay_seconds_bucket{le="2.0",transport="smtp"} 100.0' in bodies[1]
