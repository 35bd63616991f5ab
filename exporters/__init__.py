"""Prometheus metrics: collectors over what the guard counts, and how they are written out.

A registry of our own: no process or platform metrics come along unasked, and two engines in one process (tests) do
not meet in a global.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


def registry_of(*collectors: Collector) -> CollectorRegistry:
    """Return a registry that holds exactly `collectors`."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return registry


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the metrics and their content type, in the format that the `Accept` header asks for.

    OpenMetrics where the scraper names it, else Prometheus' text format 0.0.4.
    """
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type
