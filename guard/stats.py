"""What every stage counts.  Plain numbers under closed label sets, never an address or a user.

The exporters read this object at scrape time; nothing here knows of Prometheus.  One `Stats` belongs to one engine.
"""

from __future__ import annotations

from typing import Final

Labels = tuple[str, ...]

SESSION_BUCKETS: Final[tuple[float, ...]] = (1, 2, 3, 5, 10, 20, 50, 100)
SECONDS_BUCKETS: Final[tuple[float, ...]] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    60.0,
)


class Histogram:
    """Cumulative buckets as Prometheus wants them; `bounds` are the upper bounds, +Inf is implied."""

    __slots__ = ("bounds", "count", "counts", "examples", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts: list[int] = [0] * len(bounds)  # per bucket, not cumulative
        self.count = 0
        self.total = 0.0
        # by number of the bucket: the latest that was given there, with its value and when it was made (exemplars)
        self.examples: dict[int, tuple[str, float, float]] = {}

    def example(self, value: float, id_: str, at: float) -> None:
        """Remember what `value` was observed of: its finding."""
        bucket = 0
        while bucket < len(self.bounds) and value > self.bounds[bucket]:
            bucket += 1
        self.examples[bucket] = (id_, value, at)

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.count += 1
        self.total += value
        for i, bound in enumerate(self.bounds):
            if value <= bound:
                self.counts[i] += 1
                return


class Counter:
    """A count per tuple of labels; the tuples come from closed sets."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[Labels, int] = {}

    def add(self, labels: Labels, n: int = 1) -> None:
        """Add `n` to the count under `labels`."""
        self.values[labels] = self.values.get(labels, 0) + n

    def total(self) -> int:
        """Return the sum over all labels."""
        return sum(self.values.values())


class Stats:
    """Every number of the product; the name of a field is its metric's without `mailward_` and `_total`."""

    __slots__ = (
        "auth_failures",
        "auth_revoked",
        "auth_successes",
        "auth_unjudged",
        "ban_drift",
        "bans",
        "detection_seconds",
        "enforcement_seconds",
        "evicted",
        "examples",
        "findings",
        "ignored",
        "lines",
        "parse",
        "session_attempts",
        "told",
        "tracked",
        "unbans",
        "unparsed",
        "witness_suppressed",
    )

    def __init__(self) -> None:
        self.lines = Counter()  # source, service
        self.parse = Counter()  # parser, result: ok | foreign | unparsed
        self.unparsed = Counter()  # service
        self.auth_failures = Counter()  # service, protocol, reason
        self.auth_successes = Counter()  # service, protocol
        self.auth_revoked = Counter()  # service, protocol
        self.auth_unjudged = Counter()  # service
        self.witness_suppressed = Counter()  # service
        self.findings = Counter()  # rule
        self.bans = Counter()  # rule, family
        self.unbans = Counter()  # cause
        self.ban_drift = Counter()  # kind
        self.evicted = Counter()  # kind: address | session | account | attacked
        self.ignored = Counter()  # reason: trusted | own | allowed | unjudged | outage | stale | anomaly
        self.told = Counter()  # kind: attempt | ban | allow | deny; result: taken | passed
        # by field and labels: the latest finding that was counted there, its id and when it was made (exemplars)
        self.examples: dict[tuple[str, Labels], tuple[str, float]] = {}
        self.tracked: dict[str, int] = {}  # kind: address | session | account
        self.session_attempts = {service: Histogram(SESSION_BUCKETS) for service in ("postfix", "dovecot")}
        self.detection_seconds = Histogram(SECONDS_BUCKETS)
        self.enforcement_seconds = Histogram(SECONDS_BUCKETS)

    def banned(self, rule: str, family: str, id_: str, at: float) -> None:
        """Count a ban; `id_` is its finding's, "" where it rests on none."""
        labels = (rule, family)
        self.bans.add(labels)
        if id_:
            self.examples["bans", labels] = (id_, at)

    def found(self, rule: str, id_: str, at: float) -> None:
        """Count a finding."""
        self.findings.add((rule,))
        self.examples["findings", (rule,)] = (id_, at)

    def session_ended(self, service: str, attempts: int) -> None:
        """Count a finished session's failures into its histogram."""
        self.session_attempts[service].observe(attempts)
