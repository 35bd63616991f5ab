"""What the HTTP port answers: metrics, whether the daemon lives and is ready, and the page."""

from __future__ import annotations

import json
import time
from http import HTTPStatus

from exporters import exposition, registry_of
from exporters.guard import GuardCollector
from exporters.mail import MailCollector
from guard.app._page import Page
from guard.app._view import View
from guard.http import Answer, Headers, Route
from guard.senders import CountryOf
from guard.stats import Stats
from guard.traffic import Traffic


def routes(
    stats: Stats, view: View, page: Page, traffic: Traffic | None = None, country: CountryOf | None = None
) -> dict[str, Route]:
    """Return the pages by path.  `traffic`: where mail is counted; `country` names an address's."""
    registry = registry_of(GuardCollector(stats, view.snapshot))
    if traffic is not None:
        registry.register(MailCollector(traffic, time.time, country))

    def metrics(headers: Headers) -> Answer:
        return Answer(*exposition(registry, headers.get("accept", "")))

    def healthy(_: Headers) -> Answer:
        return Answer(b"ok\n")

    def ready(_: Headers) -> Answer:
        is_ready, parts = view.ready()
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(json.dumps(parts).encode() + b"\n", "application/json", status)

    return {
        "/metrics": metrics,
        "/healthz": healthy,
        "/readyz": ready,
        **page.routes(),
    }
