"""What was counted, as JSON values: the objects of `mailward replay` and `mailward explain --ip`."""

from __future__ import annotations

import json
import math

from guard.addresses import family
from guard.bans import Active, Bans
from guard.model import Ban, Finding, finding_id, readable
from guard.reader import when
from guard.stats import Stats
from guard.tally import Source, Tally


def ban_values(ban: Ban) -> dict[str, object]:
    """Return one ban; `seconds` is null for a ban without end."""
    return {
        "id": finding_id(ban.rule, ban.net, ban.at),
        "at": when(ban.at),
        "net": ban.net,
        "rule": ban.rule,
        "failures": ban.failures,
        "seconds": None if math.isinf(ban.until) else round(ban.seconds),
        "session_open": ban.session_open,
        "evidence": list(ban.evidence),
    }


def finding_values(finding: Finding) -> dict[str, object]:
    """Return one finding."""
    return {
        "id": finding_id(finding.rule, finding.ip, finding.at),
        "at": when(finding.at),
        "rule": finding.rule,
        "ip": finding.ip,
        "user": None if finding.user is None else readable(finding.user),
        "text": finding.text,
    }


def source_text(ip: str, source: Source) -> str:
    """Return what one client address did, as JSON: a log may hold a million of them.

    Nothing in it needs an escape: addresses are canonical, protocols from a closed set.
    """
    protocols = ", ".join([f'"{name}": {n}' for name, n in source.by_protocol().items()])
    return (
        f'{{"ip": "{ip}", "failures": {source.failures}, "successes": {source.successes}, "users": {source.user_count()}, '
        f'"by_protocol": {{{protocols}}}, "first": "{when(source.first)}", "last": "{when(source.last)}"}}'
    )


def source_values(ip: str, source: Source) -> dict[str, object]:
    """Return what one client address did."""
    values: dict[str, object] = json.loads(source_text(ip, source))
    return values


def sources_text(tally: Tally) -> str:
    """Return all client addresses as a JSON list, most failures first."""
    by_failures: dict[int, list[tuple[str, Source]]] = {}
    for ip, source in tally.sources.items():
        by_failures.setdefault(source.failures, []).append((ip, source))
    rows: list[str] = []
    for failures in sorted(by_failures, reverse=True):
        rows += [source_text(ip, source) for ip, source in sorted(by_failures[failures], key=_address)]
    return f"[{', '.join(rows)}]"


def _address(item: tuple[str, Source]) -> str:
    return item[0]


def failures_values(stats: Stats) -> dict[str, object]:
    """Return the totals by service and by protocol: what was counted minus what was taken back."""
    by_service: dict[str, int] = {}
    by_protocol: dict[str, int] = {}
    counted = [(labels, n) for labels, n in stats.auth_failures.values.items()]
    counted += [(labels, -n) for labels, n in stats.auth_revoked.values.items()]
    for labels, n in sorted(counted):
        by_service[labels[0]] = by_service.get(labels[0], 0) + n
        by_protocol[labels[1]] = by_protocol.get(labels[1], 0) + n
    return {
        "total": sum(by_service.values()),
        "by_service": {name: n for name, n in by_service.items() if n},
        "by_protocol": {name: n for name, n in by_protocol.items() if n},
    }


def active_values(active: Active, net: str) -> dict[str, object]:
    """Return a ban in force."""
    values = ban_values(active.ban)
    values["until"] = None if math.isinf(active.ban.until) else when(active.ban.until)
    values["family"] = family(net)
    return values


def bans_by_family(bans: Bans) -> dict[str, int]:
    """Return how many bans are wanted, by family."""
    v4, v6 = bans.wanted
    return {"ipv4": v4, "ipv6": v6}
