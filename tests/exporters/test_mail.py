"""The metrics of mail: their names, types and labels, and that a live daemon shows them, or not."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporters import exposition, registry_of
from exporters.mail import MailCollector
from guard.control import ControlError
from guard.traffic import Traffic
from tests.daemon import Daemon, stamp

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
CONTRACT = {
    "mailward_mail_received": ("counter", {"protocol"}),
    "mailward_mail_deliveries": ("counter", {"transport", "result"}),
    "mailward_mail_rejected": ("counter", {"class"}),
    "mailward_mail_delivery_delay_seconds": ("histogram", {"transport"}),
    "mailward_mail_delay_seconds": ("counter", {"stage"}),
    "mailward_mail_queue_seconds": ("histogram", set()),
    "mailward_tls_sessions": ("counter", {"service", "direction", "version"}),
    "mailward_postscreen_verdicts": ("counter", {"verdict"}),
    "mailward_lmtp_deliveries": ("counter", {"result"}),
    "mailward_sogo_requests": ("counter", {"protocol", "status"}),
    "mailward_sogo_request_seconds": ("histogram", {"protocol"}),
    "mailward_sogo_errors": ("counter", set()),
    "mailward_sending_accounts": ("gauge", {"above"}),
    "mailward_sending_accounts_recipients": ("gauge", {"above"}),
    "mailward_sending_accounts_networks": ("gauge", {"above"}),
    "mailward_sending_busiest_messages": ("gauge", set()),
    "mailward_sending_busiest_recipients": ("gauge", set()),
    "mailward_sending_busiest_networks": ("gauge", set()),
    "mailward_traffic_evicted": ("counter", {"kind"}),
}


def families(body: str) -> dict[str, tuple[str, set[str]]]:
    return {
        family.name: (family.type, set().union(*(sample.labels for sample in family.samples)) - {"le"})
        for family in text_string_to_metric_families(body)  # type: ignore[no-untyped-call]
    }


def test_the_metrics_are_exactly_those_of_the_contract():
    plain = exposition(registry_of(MailCollector(Traffic(), lambda: 0.0)), OPENMETRICS)[0].decode()
    assert families(plain) == CONTRACT
    placed = registry_of(MailCollector(Traffic(), lambda: 0.0, lambda ip: None))
    countries = {"mailward_sending_accounts_countries": ("gauge", {"above"})}
    assert families(exposition(placed, OPENMETRICS)[0].decode()) == CONTRACT | countries
    assert "_created" not in plain


def page(daemon: Daemon) -> str:
    port = daemon.config.read_text().partition('listen = "127.0.0.1:')[2].partition('"')[0]
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": OPENMETRICS})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


@pytest.fixture(params=["true", "false"])
def daemon(request, tmp_path) -> Iterator[Daemon]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free_port = probe.getsockname()[1]
    daemon = Daemon(tmp_path)
    daemon.configure(
        f'[firewall]\nbackend = "none"\n[http]\nlisten = "127.0.0.1:{free_port}"\n[exporters]\nmail = {request.param}'
    )
    with daemon:
        yield daemon


def test_a_live_daemon_shows_what_it_has_read(daemon):
    head = f"{stamp(time.time() - 2)} mx postfix"
    daemon.write(
        f"{head}/submission/smtpd[7]: 3D1492D268D: client=x[203.0.113.7], sasl_method=PLAIN, sasl_username=bob\x1b[31m",
        f"{head}/qmgr[8]: 3D1492D268D: from=<bob@example.org>, size=216, nrcpt=2 (queue active)",
        *(
            f"{head}/smtp[9]: 3D1492D268D: to=<r{n}@example.net>, relay=x[192.0.2.1]:25, delay=1.5, delays=1/0/0/0.5, dsn=2.0.0, status=sent (ok)"
            for n in range(2)
        ),
        f"{head}/qmgr[8]: 3D1492D268D: removed",
    )
    daemon.until(lambda: daemon.ask("report")["lines"]["read"] >= 5)
    body = page(daemon)
    if "mail = false" in daemon.config.read_text():
        assert not set(CONTRACT) & set(families(body))
        found = daemon.ask("top")
        assert (found["count"], found["accounts"], found["attacked"]) == (None, None, [])
        assert "exporters.mail is false" in daemon.command("top").stdout
        return
    assert set(CONTRACT) <= set(families(body))
    for line in (
        'mailward_mail_received_total{protocol="submission"} 1.0',
        'mailward_mail_deliveries_total{result="sent",transport="smtp"} 2.0',
        "mailward_mail_queue_seconds_count 1.0",
        'mailward_sending_accounts{above="0"} 1.0',
        "mailward_sending_busiest_recipients 2.0",
    ):
        assert line in body
    found = json.loads(daemon.command("top", "--format", "json", "--by", "recipients", "--limit", "3").stdout)
    assert found["accounts"] == [
        {
            "account": "bob\\x1b[31m", "messages": 1, "recipients": 2, "distinct_recipients": 2, "networks": 1,
            "countries": None, "bounced": 0,
        }
    ]  # fmt: skip
    assert "bob\\x1b[31m" in daemon.command("top").stdout
    assert "bob" not in body
    for wrong in ({"by": "name"}, {"limit": 0}, {"limit": True}):
        with pytest.raises(ControlError):
            daemon.ask("top", **wrong)
