"""The metrics are an interface: their names, types and labels, from the first scrape on."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporters import exposition, registry_of
from exporters import guard as guard_metrics
from exporters.guard import FleetState, GuardCollector, Snapshot, SourceState
from guard.reader import NAMES
from guard.stats import Stats

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
EMPTY = Snapshot("1.2", [SourceState("mail", True, 0.5)], {}, {}, {}, {}, {}, True, False, True, 5.0, True)

# As contracts.md has them: name, type, labels.
CONTRACT = {
    "mailward_build": ("info", {"version"}),
    "mailward_lines": ("counter", {"source", "service"}),
    "mailward_parse": ("counter", {"parser", "result"}),
    "mailward_ingest_lag_seconds": ("gauge", {"source"}),
    "mailward_auth_failures": ("counter", {"service", "protocol", "reason"}),
    "mailward_auth_successes": ("counter", {"service", "protocol"}),
    "mailward_auth_revoked": ("counter", {"service", "protocol"}),
    "mailward_auth_unjudged": ("counter", {"service"}),
    "mailward_session_attempts": ("histogram", {"service"}),
    "mailward_unparsed": ("counter", {"service"}),
    "mailward_witness_suppressed": ("counter", {"service"}),
    "mailward_findings": ("counter", {"rule"}),
    "mailward_bans": ("counter", {"rule", "family"}),
    "mailward_unbans": ("counter", {"cause"}),
    "mailward_bans_wanted": ("gauge", {"family"}),
    "mailward_bans_enforced": ("gauge", {"family"}),
    "mailward_bans_foreign": ("gauge", {"family"}),
    "mailward_enforcement_gap": ("gauge", {"family"}),
    "mailward_told": ("counter", {"kind", "result"}),
    "mailward_ban_drift": ("counter", {"kind"}),
    "mailward_dropped_packets": ("counter", {"family"}),
    "mailward_dropped_bytes": ("counter", {"family"}),
    "mailward_detection_seconds": ("histogram", set()),
    "mailward_enforcement_seconds": ("histogram", set()),
    "mailward_tracked": ("gauge", {"kind"}),
    "mailward_evicted": ("counter", {"kind"}),
    "mailward_ignored": ("counter", {"reason"}),
    "mailward_attacked_accounts": ("gauge", {"above"}),
    "mailward_attacked_busiest_networks": ("gauge", set()),
    "mailward_source_up": ("gauge", {"source"}),
    "mailward_source_lost": ("counter", {"source"}),
    "mailward_store_up": ("gauge", set()),
    "mailward_firewall_up": ("gauge", set()),
    "mailward_enforcing": ("gauge", set()),
    "mailward_reload_timestamp_seconds": ("gauge", set()),
    "mailward_reload_success": ("gauge", set()),
}


def scraped(stats: Stats, snapshot: Snapshot = EMPTY) -> dict[str, Any]:
    body, kind = exposition(registry_of(GuardCollector(stats, lambda: snapshot)), OPENMETRICS)
    assert kind.startswith("application/openmetrics-text")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}  # type: ignore[no-untyped-call]


def values(family) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def counted() -> Stats:
    stats = Stats()
    stats.lines.add(("mail", "all"), 7)
    stats.parse.add(("dovecot_auth", "ok"), 3)
    stats.auth_failures.add(("dovecot", "imap", "unknown_user"), 2)
    stats.session_ended("dovecot", 3)
    stats.session_ended("dovecot", 1000)
    stats.detection_seconds.observe(0.003)
    return stats


def test_the_metrics_are_exactly_those_of_the_contract():
    families = scraped(counted())
    assert {
        name: (family.type, set().union(*(sample.labels for sample in family.samples)) - {"le"})
        for name, family in families.items()
    } == CONTRACT


def test_a_ban_leads_to_its_finding_where_openmetrics_allows():
    stats = Stats()
    stats.banned("brute_force", "ipv4", "0123456789ab", 1_800_000_000.25)
    stats.found("brute_force", "0123456789ab", 1_800_000_000.25)
    families = scraped(stats)
    for name, labels in (
        ("mailward_bans", {"rule": "brute_force", "family": "ipv4"}),
        ("mailward_findings", {"rule": "brute_force"}),
    ):
        [sample] = [sample for sample in families[name].samples if sample.value]
        assert sample.labels == labels
        assert sample.exemplar.labels == {"finding_id": "0123456789ab"}
        assert float(sample.exemplar.timestamp) == 1_800_000_000.25
    body, _ = exposition(registry_of(GuardCollector(stats, lambda: EMPTY)), "")
    assert b"0123456789ab" not in body


def test_the_parsers_are_those_there_are():
    assert set(guard_metrics.PARSERS) == set(NAMES) - {""}


def test_a_fleet_adds_what_it_is_told_from():
    alone, families = scraped(Stats()), scraped(Stats(), EMPTY._replace(fleet=FleetState(True, 3, 12, 1)))
    assert {name: values(families[name])[()] for name in families if name not in alone} == {
        "mailward_fleet_up": 1,
        "mailward_fleet_nodes": 3,
        "mailward_fleet_pending": 12,
        "mailward_fleet_lost": 1,
    }


def test_nothing_says_when_a_series_was_created():
    body, _ = exposition(registry_of(GuardCollector(counted(), lambda: EMPTY)), OPENMETRICS)
    assert b"_created" not in body


def test_a_histogram_is_cumulative_and_whole():
    samples = {
        (s.name.rpartition("_")[2], s.labels.get("le")): s.value
        for s in scraped(counted())["mailward_session_attempts"].samples
    }
    assert samples["bucket", "2.0"] == 0
    assert samples["bucket", "3.0"] == 1
    assert samples["bucket", "100.0"] == 1
    assert samples["bucket", "+Inf"] == 2
    assert samples["count", None] == 2
    assert samples["sum", None] == 1003


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("mailward_unbans", ("revoked",)),
        ("mailward_ban_drift", ("timeout",)),
        ("mailward_ignored", ("anomaly",)),
        ("mailward_evicted", ("session",)),
        ("mailward_auth_unjudged", ("postfix",)),
    ],
)
def test_a_small_closed_set_is_there_from_the_start(name, labels):
    assert values(scraped(Stats())[name])[labels] == 0


def test_a_series_stands_there_once():
    stats = counted()
    stats.unbans.add(("expired",), 4)
    family = scraped(stats)["mailward_unbans"]
    assert len(values(family)) == len(family.samples)
    assert values(family)["expired",] == 4


def test_gauges_say_what_is_so_now():
    snapshot = EMPTY._replace(wanted={"ipv4": 3}, drops={"ipv6": (7, 420)}, tracked={"session": 9})
    families = scraped(Stats(), snapshot)
    assert values(families["mailward_bans_wanted"]) == {("ipv4",): 3, ("ipv6",): 0}
    assert values(families["mailward_dropped_bytes"]) == {("ipv4",): 0, ("ipv6",): 420}
    assert values(families["mailward_tracked"])["session",] == 9
    assert values(families["mailward_firewall_up"]) == {(): 0}


def test_who_does_not_ask_for_openmetrics_gets_the_text_format():
    body, kind = exposition(registry_of(GuardCollector(counted(), lambda: EMPTY)), "")
    assert kind.startswith("text/plain; version=0.0.4")
    assert b"mailward_lines_total" in body
    assert b"# EOF" not in body
