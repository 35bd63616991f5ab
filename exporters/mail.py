"""Mail flow metrics: what guard.traffic counts from the lines that the guard reads anyway.

Labels come from closed sets, and every series is there from the start at zero.  Of the accounts that send only numbers
of them are shown, never a name: the list is `mailward top`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from exporters.guard import above, buckets
from guard.stats import Histogram
from guard.traffic import MILLION, STAGES, Traffic

COUNTERS: Final = (
    ("mail_received", ("protocol",), "Messages taken into the queue"),
    ("mail_deliveries", ("transport", "result"), "Attempts to deliver to one recipient"),
    ("mail_rejected", ("class",), "Commands and messages that Postfix turned away"),
    ("tls_sessions", ("service", "direction", "version"), "Sessions by TLS version; none: in the clear"),
    ("postscreen_verdicts", ("verdict",), "What postscreen found of clients"),
    ("lmtp_deliveries", ("result",), "What Dovecot did with messages"),
    ("sogo_requests", ("protocol", "status"), "Requests that SOGo answered"),
    ("traffic_evicted", ("kind",), "What was forgotten to make room"),
)
# Thresholds of the gauges: accounts with more than that over the last hour.
MESSAGES: Final = (0, 10, 100, 1000)
RECIPIENTS: Final = (10, 100, 1000)
NETWORKS: Final = (1, 3, 10)
COUNTRIES: Final = (1, 2, 5)

CountryOf = Callable[[str], str | None]


class MailCollector(Collector):
    """Reads `traffic` at each scrape; `now` is the wall clock, `geo` names the country of an address."""

    def __init__(self, traffic: Traffic, now: Callable[[], float], geo: CountryOf | None = None) -> None:
        self._traffic = traffic
        self._now = now
        self._geo = geo

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names cannot clash in a registry of our own."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        traffic = self._traffic
        counters = traffic.counters()
        for name, labels, text in COUNTERS:
            metric = CounterMetricFamily(f"mailward_{name}", text, labels=labels)
            for values, n in counters[name].values.items():
                metric.add_metric(values, n)
            yield metric
        stages = CounterMetricFamily(
            "mailward_mail_delay_seconds", "Postfix' delays of what was delivered, summed", labels=["stage"]
        )
        for stage, micros in zip(STAGES, traffic.stages, strict=True):
            stages.add_metric([stage], int(micros.n) / MILLION)
        yield stages
        yield CounterMetricFamily("mailward_sogo_errors", "Errors that SOGo told", value=traffic.errors)
        yield _histogram("mail_delivery_delay_seconds", "Arrival to delivery", "transport", traffic.delays())
        yield _histogram("sogo_request_seconds", "What a request took", "protocol", traffic.web_seconds())
        life = HistogramMetricFamily("mailward_mail_queue_seconds", "A message's life: taken in to removed")
        histogram = traffic.life.histogram()
        life.add_metric([], buckets(histogram), histogram.total)
        yield life
        yield from self._senders()

    def _senders(self) -> Iterator[Metric]:
        rows = self._traffic.senders.top(self._now(), self._geo)
        messages = [row.messages for row in rows]
        recipients = [row.distinct_recipients for row in rows]
        networks = [row.networks for row in rows]
        yield above("sending_accounts", "messages", messages, MESSAGES)
        yield above("sending_accounts_recipients", "distinct recipients", recipients, RECIPIENTS)
        yield above("sending_accounts_networks", "client networks", networks, NETWORKS)
        if self._geo is not None:
            yield above(
                "sending_accounts_countries", "countries", [row.countries or 0 for row in rows], COUNTRIES
            )
        for name, text, values in (
            ("messages", "messages", messages),
            ("recipients", "distinct recipients", recipients),
            ("networks", "client networks", networks),
        ):
            yield GaugeMetricFamily(
                f"mailward_sending_busiest_{name}",
                f"The most {text} of one account in the last hour",
                value=max(values, default=0),
            )


def _histogram(name: str, text: str, label: str, values: Mapping[str, Histogram]) -> Metric:
    metric = HistogramMetricFamily(f"mailward_{name}", text, labels=[label])
    for key, histogram in values.items():
        metric.add_metric([key], buckets(histogram), histogram.total)
    return metric
