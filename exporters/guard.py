"""The guard's own metrics: what guard.stats counts, and what is so at the moment of the scrape.

Names and labels are an interface (contracts.md).  Labels come from closed sets, never an address or a user; where the
set is small every series is there from the start at zero, so that the first increment is not lost to `rate()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Timestamp

from guard.model import REASONS, SERVICES, UNBAN_CAUSES
from guard.stats import Counter, Histogram, Labels, Stats

FAMILIES: Final = ("ipv4", "ipv6")
RULES: Final = ("brute_force", "bad_neighbourhood", "login_after_failures")
BAN_RULES: Final = ("brute_force", "bad_neighbourhood", "manual", "deny")
TOLD: Final = ("attempt", "ban", "allow", "deny")
DRIFTS: Final = ("missing", "foreign", "timeout", "structure")
TRACKED: Final = ("address", "session", "account")
ATTACKED: Final = (1, 3, 10, 100)  # thresholds: accounts with failures from more networks over the last hour
PARSERS: Final = (
    "dovecot_auth", "dovecot_login", "postfix_smtpd", "postfix_postscreen", "sogo", "mailcow_ui", "auth_policy", "dovecot_pam",
)  # fmt: skip
RESULTS: Final = ("ok", "foreign", "unparsed")
WROTE: Final = ("postfix", "dovecot", "sogo", "other")  # the services of mailward_lines_total
IGNORED: Final = ("trusted", "own", "allowed", "unjudged", "outage", "stale", "anomaly")
_SPOKEN: Final = {
    "postfix": ("smtp", "submission", "unknown"),
    "dovecot": ("imap", "pop3", "sieve", "submission", "lmtp", "unknown"),
    "sogo": ("web", "dav", "eas"),
    "mailcow": ("web",),
}
_SERVICE_PROTOCOL: Final = tuple((s, p) for s, protocols in _SPOKEN.items() for p in protocols)
_FAILURES: Final = tuple((s, p, r) for (s, p), r in product(_SERVICE_PROTOCOL, REASONS))
_SERVICES: Final = tuple((service,) for service in SERVICES)
Bucket = tuple[str, float] | tuple[str, float, Exemplar]


def _each(names: Iterable[str]) -> tuple[Labels, ...]:
    return tuple((name,) for name in names)


class _Family(NamedTuple):
    """One counter: the field of Stats, its labels, its help, and the series that are there from the start."""

    field: str
    labels: tuple[str, ...]
    text: str
    zero: tuple[Labels, ...] = ()


COUNTERS: Final = (
    _Family("lines", ("source", "service"), "Log lines read"),
    _Family("parse", ("parser", "result"), "Lines that went to a parser: ok, foreign (says nothing of logins) or unparsed", tuple(product(PARSERS, RESULTS))),
    _Family("auth_failures", ("service", "protocol", "reason"), "Credentials that the servers rejected", _FAILURES),
    _Family("auth_successes", ("service", "protocol"), "Logins that went through", _SERVICE_PROTOCOL),
    _Family("auth_revoked", ("service", "protocol"), "Failures taken back: a success or a session's end explained them", _SERVICE_PROTOCOL),
    _Family("auth_unjudged", ("service",), "Attempts that nobody judged, because the password database is at fault", _SERVICES),
    _Family("unparsed", ("service",), "Lines that look like a failed login and that no parser could read", _SERVICES),
    _Family("witness_suppressed", ("service",), "The same attempt seen again in another line", _SERVICES),
    _Family("findings", ("rule",), "What the rules found", _each(RULES)),
    _Family("bans", ("rule", "family"), "Bans decided", tuple(product(BAN_RULES, FAMILIES))),
    _Family("unbans", ("cause",), "Bans ended", _each(UNBAN_CAUSES)),
    _Family("told", ("kind", "result"), "What other nodes of the fleet told: taken, or passed over (known, over, not for here)", tuple(product(TOLD, ("taken", "passed")))),
    _Family("ban_drift", ("kind",), "Differences between the bans wanted and those in the kernel", _each(DRIFTS)),
    _Family("evicted", ("kind",), "What was forgotten to make room", _each((*TRACKED, "attacked"))),
    _Family("ignored", ("reason",), "What was seen and not held against a client", _each(IGNORED)),
)  # fmt: skip


class SourceState(NamedTuple):
    """One source at this moment."""

    name: str
    up: bool
    lag: float  # seconds since everything written was last read
    lost: int = 0  # how often something could not be delivered


class FleetState(NamedTuple):
    """This node's place in its fleet at this moment."""

    up: bool
    nodes: int  # that gave a sign of life lately
    pending: int  # events that the server does not have yet
    lost: int


class Snapshot(NamedTuple):
    """What is so at the moment of a scrape."""

    version: str
    sources: Sequence[SourceState]
    wanted: Mapping[str, int]  # bans by family
    enforced: Mapping[str, int]
    foreign: Mapping[str, int]
    drops: Mapping[str, tuple[int, int]]  # packets, bytes by family
    tracked: Mapping[str, int]
    store_up: bool
    firewall_up: bool
    enforcing: bool  # or the guard only observes
    reloaded: float  # seconds since the epoch
    reload_ok: bool
    fleet: FleetState | None = None
    countries: tuple[Mapping[str, int], Mapping[str, int]] | None = None  # bans decided, bans in force
    attacked: Sequence[
        int
    ] = ()  # from how many networks in the last hour, of each account that is guessed at


class GuardCollector(Collector):
    """Reads `stats` and `snapshot()` at each scrape; keeps nothing."""

    def __init__(self, stats: Stats, snapshot: Callable[[], Snapshot]) -> None:
        self._stats = stats
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names cannot clash in a registry of our own."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        now = self._snapshot()  # first: it brings some of the counters up to date
        for family in COUNTERS:
            zero = (
                tuple(product([source.name for source in now.sources], WROTE))
                if family.field == "lines"
                else family.zero
            )
            yield _counter(family, zero, getattr(self._stats, family.field), self._stats.examples)
        yield from _histograms(self._stats)
        yield InfoMetricFamily("mailward_build", "The release", value={"version": now.version})
        up = GaugeMetricFamily("mailward_source_up", "Whether a source is read", labels=["source"])
        lag = GaugeMetricFamily(
            "mailward_ingest_lag_seconds", "Seconds since everything written was last read", labels=["source"]
        )
        lost = CounterMetricFamily(
            "mailward_source_lost", "How often a source could not deliver something", labels=["source"]
        )
        for source in now.sources:
            up.add_metric([source.name], float(source.up))
            lag.add_metric([source.name], source.lag)
            lost.add_metric([source.name], source.lost)
        yield from (up, lag, lost)
        yield _gauge(
            "bans_wanted", "family", "Bans that the rules and the administrator decided", now.wanted, FAMILIES
        )
        yield _gauge("bans_enforced", "family", "Bans that the kernel holds", now.enforced, FAMILIES)
        gap = {
            key: now.wanted.get(key, 0) - now.enforced.get(key, 0) + now.foreign.get(key, 0)
            for key in FAMILIES
        }
        yield _gauge(
            "enforcement_gap",
            "family",
            "Bans wanted that the kernel does not hold; 0 is as it should be",
            gap,
            FAMILIES,
        )
        yield _gauge(
            "bans_foreign",
            "family",
            "Of these, those that nobody decided: put in by hand",
            now.foreign,
            FAMILIES,
        )
        yield _gauge("tracked", "kind", "What is remembered", now.tracked, TRACKED)
        yield above("attacked_accounts", "networks that failed to log in to them", now.attacked, ATTACKED)
        yield GaugeMetricFamily(
            "mailward_attacked_busiest_networks",
            "The most networks that failed to log in to one account in the last hour",
            value=max(now.attacked, default=0),
        )
        for at, name in enumerate(("packets", "bytes")):
            dropped = CounterMetricFamily(
                f"mailward_dropped_{name}", f"Dropped {name}, the kernel's own count", labels=["family"]
            )
            for key in FAMILIES:
                dropped.add_metric([key], now.drops.get(key, (0, 0))[at])
            yield dropped
        for name, text, value in (
            ("store_up", "Whether the state can be saved", float(now.store_up)),
            ("firewall_up", "Whether decisions reach the kernel", float(now.firewall_up)),
            (
                "enforcing",
                "Whether decisions are to reach the kernel, or only observed",
                float(now.enforcing),
            ),
            ("reload_timestamp_seconds", "When the configuration was last taken", now.reloaded),
            ("reload_success", "Whether the latest configuration was taken", float(now.reload_ok)),
        ):
            yield GaugeMetricFamily(f"mailward_{name}", text, value=value)
        if now.fleet is not None:
            yield from _fleet(now.fleet)
        if now.countries is not None:
            yield from _countries(*now.countries)


def _fleet(fleet: FleetState) -> Iterator[Metric]:
    for name, text, value in (
        ("up", "Whether the fleet's server is reached", float(fleet.up)),
        ("nodes", "Nodes that gave a sign of life in the last 15 s, this one among them", fleet.nodes),
        ("pending", "Events that the fleet's server does not have yet", fleet.pending),
    ):
        yield GaugeMetricFamily(f"mailward_fleet_{name}", text, value=value)
    yield CounterMetricFamily(
        "mailward_fleet_lost",
        "Events of the fleet that did not get through: no room, or too late",
        value=fleet.lost,
    )


def _countries(decided: Mapping[str, int], in_force: Mapping[str, int]) -> Iterator[Metric]:
    bans = CounterMetricFamily("mailward_country_bans", "Bans decided, by country", labels=["country"])
    for country, n in decided.items():
        bans.add_metric([country], n)
    banned = GaugeMetricFamily("mailward_country_banned", "Bans in force, by country", labels=["country"])
    for country, n in in_force.items():
        banned.add_metric([country], n)
    yield from (bans, banned)


def _counter(
    family: _Family,
    zero: Sequence[Labels],
    counter: Counter,
    examples: Mapping[tuple[str, Labels], tuple[str, float]],
) -> Metric:
    metric = CounterMetricFamily(f"mailward_{family.field}", family.text, labels=family.labels)
    for labels in zero:
        if labels not in counter.values:
            metric.add_metric(labels, 0)
    for labels, n in counter.values.items():
        example = examples.get((family.field, labels))
        # Only OpenMetrics has them: it leads from a number to the finding of that id in log and JSON.
        exemplar = _exemplar(example[0], 1, example[1]) if example else None
        metric.add_metric(labels, n, exemplar=exemplar)
    return metric


def _exemplar(finding: str, value: float, at: float) -> Exemplar:
    return Exemplar({"finding_id": finding}, value, Timestamp(int(at), int(at % 1 * 1e9)))


def _gauge(name: str, label: str, text: str, values: Mapping[str, int], keys: Sequence[str]) -> Metric:
    metric = GaugeMetricFamily(f"mailward_{name}", text, labels=[label])
    for key in keys:
        metric.add_metric([key], values.get(key, 0))
    return metric


def above(name: str, what: str, values: Sequence[int], bounds: Sequence[int]) -> Metric:
    """Return how many accounts have more than each bound."""
    metric = GaugeMetricFamily(
        f"mailward_{name}", f"Accounts with more {what} than that in the last hour", labels=["above"]
    )
    for bound in bounds:
        metric.add_metric([str(bound)], sum(value > bound for value in values))
    return metric


def _histograms(stats: Stats) -> Iterator[Metric]:
    sessions = HistogramMetricFamily(
        "mailward_session_attempts", "Failures in one session", labels=["service"]
    )
    for service, histogram in stats.session_attempts.items():
        sessions.add_metric([service], buckets(histogram), histogram.total)
    yield sessions
    for name, text, histogram in (
        ("detection_seconds", "Line written to decision", stats.detection_seconds),
        ("enforcement_seconds", "Decision to the kernel's confirmation", stats.enforcement_seconds),
    ):
        family = HistogramMetricFamily(f"mailward_{name}", text)
        family.add_metric([], buckets(histogram), histogram.total)
        yield family


def buckets(histogram: Histogram) -> list[Bucket]:
    """Return cumulative buckets as Prometheus wants them, each with its exemplar where it has one."""
    found: list[Bucket] = []
    sum_so_far = 0
    names = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
    for at, (name, n) in enumerate(zip(names, [*histogram.counts, 0], strict=True)):
        sum_so_far = histogram.count if name == "+Inf" else sum_so_far + n
        example = histogram.examples.get(at)
        found.append((name, sum_so_far, _exemplar(*example)) if example else (name, sum_so_far))
    return found
