"""Each number of a live guard that should move does, and goes back where it is a state: no dead series."""

from __future__ import annotations

import json
import urllib.request
from functools import partial

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.daemon import Daemon, failure, mailward, session, stamp
from tests.exporters.test_live_guard import Metrics, by, guard, scraped
from tests.replay.cases import content
from tests.system.netns import CLIENTS, mail_host

IP = "198.51.100.7"
BURST = 60_000  # lines: seconds of work for a guard in plain Python, one for a compiled one
IMAP, PORT = 143, 9790
TABLE = "inet mailward"


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics[f"mailward_{name}", tuple(sorted(labels.items()))]


def moved(before: Metrics, after: Metrics, name: str, **labels: str) -> float:
    return value(after, name, **labels) - value(before, name, **labels)


def test_what_is_read_moves_what_is_counted(tmp_path):
    daemon, port = guard(tmp_path)
    sid = session(IP)
    lines = [
        failure(IP, sid=sid),
        f"{stamp()} mx dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<a>, rip={IP}, session=<{sid}>",
        f"{stamp()} mx postfix/smtpd[8]: warning: unknown[203.0.113.9]: SASL authentication of a new form",
        *content("bookworm-authdown", "mail.log").decode().splitlines(),
    ]
    with daemon:
        before = scraped(port)
        daemon.write(*lines)
        daemon.has_read(len(lines))
        after = scraped(port)
    assert moved(before, after, "witness_suppressed_total", service="dovecot") > 0
    assert moved(before, after, "unparsed_total", service="postfix") == 1
    assert moved(before, after, "parse_total", parser="postfix_smtpd", result="unparsed") == 1
    assert by(after, "auth_unjudged").total() - by(before, "auth_unjudged").total() == 15  # as replay says


def test_a_guard_that_cannot_follow_shows_how_far_it_is_behind(tmp_path):
    daemon, port = guard(tmp_path)
    line = f"{stamp()} mx dovecot: imap-login: Login: user=<u>, method=PLAIN, rip={IP}, lip=192.0.2.1, TLS, session=<{session(IP)}>"
    lags: list[float] = []
    with daemon:
        assert value(scraped(port), "ingest_lag_seconds", source="mail") == 0
        daemon.write(*[line] * BURST)
        while not lags or not lags[-1]:
            lags.append(value(scraped(port), "ingest_lag_seconds", source="mail"))
            assert len(lags) < 1000
        daemon.has_read(BURST)
        daemon.until(lambda: value(scraped(port), "ingest_lag_seconds", source="mail") == 0)
    assert 0 < lags[-1] < 60


def exemplars(port: int, *, openmetrics: bool = True) -> dict[str, set[str]]:
    """Return the ids of findings in the exposition, by the name of the sample."""
    asked = {"Accept": "application/openmetrics-text; version=1.0.0"} if openmetrics else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=asked)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    if not openmetrics:
        assert "finding_id" not in text
        return {}
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.exemplar:
                assert sample.exemplar.labels.keys() == {"finding_id"}
                found.setdefault(sample.name, set()).add(sample.exemplar.labels["finding_id"])
    return found


def test_an_exemplar_leads_to_the_ban_in_log_replay_and_explanation(tmp_path):
    daemon, port = guard(tmp_path)
    lines = [failure(IP)] * 6
    with daemon:
        assert daemon.command("ban", "203.0.113.77").returncode == 0
        assert exemplars(port) == {}, "a ban by hand rests on no finding"
        daemon.write(*lines)
        daemon.has_read(len(lines))
        found = exemplars(port)
        exemplars(port, openmetrics=False)
        known = json.loads(daemon.command("explain", "--ip", IP, "--format", "json").stdout)
        told = [
            event["id"]
            for event in daemon.events()
            if event.get("event") == "ban" and event["net"] == f"{IP}/32"
        ]
    [ban] = json.loads(mailward("replay", str(daemon.log), "--format", "json").stdout)["bans"]
    ids = {ban["id"]}
    assert found == {
        "mailward_bans_total": ids,
        "mailward_findings_total": ids,
        "mailward_detection_seconds_bucket": ids,
    }
    assert set(told) == {known["address"]["ban"]["id"]} == ids


@pytest.mark.system
def test_the_kernel_moves_drops_drift_and_the_gap(tmp_path):
    with mail_host() as lab:
        daemon = Daemon(tmp_path, within=("ip", "netns", "exec", lab.host.name))
        daemon.configure(f'[firewall]\nbackend = "nftables"\n[http]\nlisten = "127.0.0.1:{PORT}"')

        def now() -> Metrics:
            with lab.host.entered():
                return scraped(PORT)

        def drifted(before: Metrics, kind: str) -> bool:
            return moved(before, now(), "ban_drift_total", kind=kind) > 0

        with daemon:
            first = now()
            daemon.write(*[failure(CLIENTS[0])] * 5)
            daemon.until(lambda: value(now(), "bans_enforced", family="ipv4") == 1)
            assert value(now(), "enforcement_gap", family="ipv4") == 0
            assert not lab.reaches(CLIENTS[0], IMAP)
            daemon.until(lambda: moved(first, now(), "dropped_packets_total", family="ipv4") > 0)
            assert moved(first, now(), "dropped_bytes_total", family="ipv4") >= 40
            for kind, fault in {
                "missing": f"delete element {TABLE} ban4_32 {{ {CLIENTS[0]} }}",
                "timeout": f"delete element {TABLE} ban4_32 {{ {CLIENTS[0]} }}; add element {TABLE} ban4_32 {{ {CLIENTS[0]} timeout 9d }}",
                "foreign": f"add element {TABLE} ban4_32 {{ {CLIENTS[1]} }}",
                "structure": f"flush chain {TABLE} banned",
            }.items():
                before = now()
                lab.host.nft(fault)
                daemon.until(partial(drifted, before, kind))
            with lab.host.owned("mailward"):
                daemon.until(lambda: value(now(), "firewall_up") == 0)
                daemon.write(*[failure(CLIENTS[2])] * 5)
                daemon.until(lambda: value(now(), "enforcement_gap", family="ipv4") > 0)
            daemon.until(lambda: value(now(), "firewall_up") == 1)
            daemon.until(lambda: value(now(), "enforcement_gap", family="ipv4") == 0)
            assert value(now(), "bans_wanted", family="ipv4") == 2
