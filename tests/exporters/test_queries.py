"""Every query of every panel, alert and recording rule, in a real Prometheus that has scraped a live guard under attack.

The guard bans in the kernel of a namespace, belongs to a fleet and knows countries, so that nothing it can export is
missing.  What others export comes from fixtures/expositions, recorded from the stack's own exporters.
"""

from __future__ import annotations

import itertools
import json
import lzma
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from exporters.dashboards.written import FOLDER
from tests.daemon import ROOT, Daemon, failure, stamp
from tests.exporters.prometheus import (
    Prometheus,
    Target,
    filled,
    metric_names,
    prometheus,
    recorded,
    requires_prometheus,
    selectors,
)
from tests.geo import database
from tests.redis_server import RedisServer, requires_redis
from tests.system.netns import CLIENTS, mail_host

pytestmark = [pytest.mark.system, pytest.mark.servers]

CAPTURE = ROOT / "fixtures/replay/bookworm-verbose/mail.log.xz"
EXPOSITIONS = ROOT / "fixtures/expositions"
RULES = [path for path in sorted((ROOT / "exporters/alerts").glob("*.yml")) if "groups:" in path.read_text()]
GUARD, IMAP = 9780, 143
# What may well be empty: a matcher whose series appear only in a case that this attack does not make.
SOMETIMES = ('country="unknown"',)


class Panel(NamedTuple):
    """One query of a panel."""

    board: str
    number: int
    expr: str
    legend: str

    def __str__(self) -> str:
        return f"{self.board} panel {self.number}"


class Scene(NamedTuple):
    server: Prometheus
    daemon: Daemon


def written() -> Iterator[dict[str, Any]]:
    for path in sorted(FOLDER.glob("*.json")):
        yield json.loads(path.read_text())


PANELS = [
    Panel(
        board["uid"].removeprefix("mailward-"),
        panel["id"],
        filled(target["expr"]),
        target["legendFormat"],
    )
    for board in written()
    for panel in board["panels"]
    for target in panel.get("targets") or []
]
ANNOTATIONS = sorted({filled(a["expr"]) for board in written() for a in board["annotations"]["list"]})


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    """A guard that was attacked while Prometheus looked on."""
    requires_prometheus()
    requires_redis()
    folder = tmp_path_factory.mktemp("q")
    geo = database(folder / "geo.mmdb", {"198.51.100.0/24": ("NL", 64496, "Example Net")})
    with RedisServer(folder / "redis") as redis, mail_host() as lab:
        inside = ("ip", "netns", "exec", lab.host.name)
        daemon = Daemon(folder, within=inside, store=redis.unix_url)
        daemon.configure(
            f'[firewall]\nbackend = "nftables"\n[http]\nlisten = "127.0.0.1:{GUARD}"\n[geo]\ndatabase = "{geo}"'
        )
        with daemon, lab.host.entered(), recorded(EXPOSITIONS) as (address, jobs):
            ports = {"module": "smtp_starttls"}
            targets = [Target(job, address, f"/{job}", ports if job == "ports" else {}) for job in jobs]
            targets.append(Target("guard", f"127.0.0.1:{GUARD}"))
            with prometheus(folder, targets, rules=RULES, within=inside) as server:
                server.scrape_again("guard")  # from zero on
                sent = 0
                for wave in attack():
                    daemon.write(*wave)
                    sent += len(wave)
                    daemon.has_read(sent)
                    server.scrape_again("guard")
                daemon.until(
                    lambda: (bans := daemon.ask("bans")["bans"]) and all(b["enforced"] for b in bans)
                )
                assert not lab.reaches(CLIENTS[0], IMAP)  # what he sends is dropped, and counted
                server.until(lambda: value(server, "sum(mailward_dropped_packets_total)") > 0)
                server.scrape_again("guard")
                yield Scene(server, daemon)


def attack() -> Iterator[list[str]]:
    """Yield the capture in three waves, stamped now, and after each one who guesses by himself."""
    stamped = re.compile(rb"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d ")
    found = [
        line[15:].decode("utf-8", "surrogateescape")
        for line in lzma.decompress(CAPTURE.read_bytes()).splitlines()
        if stamped.match(line)
    ]
    for at in range(3):
        part = itertools.islice(found, len(found) * at // 3, len(found) * (at + 1) // 3)
        yield [
            *(stamp() + line for line in part),
            *(failure(CLIENTS[at], sid=f"SGlzT3duU2Vzc2lv{at}g") for _ in range(6)),
        ]


def value(server: Prometheus, expr: str) -> float:
    found = server.query(expr)
    return float(found[0]["value"][1]) if found else 0.0


def recorded_by_rules(server: Prometheus) -> set[str]:
    return {rule["name"] for rule in rules(server) if rule["type"] == "recording"}


def nobody_exports(server: Prometheus, queries: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return by name of a query the metrics in it that nobody exports; and run each: its syntax is Prometheus' matter."""
    names = server.names() | recorded_by_rules(server)
    missing = {}
    for name, expr in queries:
        server.query(expr)
        if unknown := metric_names(expr) - names:
            missing[name] = unknown
    return missing


def choose_nothing(server: Prometheus, queries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return by name of a query a selector of it that finds no series: a label or a value that nobody exports."""
    empty = {}
    not_yet = recorded_by_rules(server)
    for name, expr in queries:
        for metric, found in selectors(expr).items():
            for selector in found:
                if metric in not_yet or any(matcher in selector for matcher in SOMETIMES):
                    continue
                if not server.get("series", **{"match[]": selector}):
                    empty[name] = selector
    return empty


def rules(server: Prometheus) -> list[dict[str, Any]]:
    return [rule for group in server.get("rules")["groups"] for rule in group["rules"]]


def queries(server: Prometheus) -> list[tuple[str, str]]:
    """Return every query there is, by name."""
    return [
        *((str(panel), panel.expr) for panel in PANELS),
        *(("annotation", expr) for expr in ANNOTATIONS),
        *((f"{rule['type']} rule {rule['name']}", rule["query"]) for rule in rules(server)),
    ]


def test_no_query_names_a_metric_or_a_label_that_nobody_exports(scene):
    assert nobody_exports(scene.server, queries(scene.server)) == {}
    assert choose_nothing(scene.server, queries(scene.server)) == {}
    dead = [
        ("panel", "sum(rate(mailward_auth_failures[1m]))"),
        ("alert", 'mailward_bans_wanted{family="ipv5"} > 0'),
    ]
    assert nobody_exports(scene.server, dead) == {"panel": {"mailward_auth_failures"}}
    assert choose_nothing(scene.server, dead) == {"alert": 'mailward_bans_wanted{family="ipv5"}'}
    with pytest.raises(AssertionError, match="parse error"):
        scene.server.query("sum(rate(mailward_auth_failures_total[1m])")


def called(panel: Panel, labels: dict[str, str]) -> str:
    """Return a series' name in the legend; KeyError where it lacks a label."""
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels[label[1]], panel.legend)


# Where the attack must show, and the mail in it: panel -> how the figures must look.
SHOWS = {
    ("overview", 1): "the rules banned", ("overview", 2): "> 0", ("overview", 3): "> 0", ("overview", 4): "> 0",
    ("overview", 5): "0", ("overview", 7): "> 0", ("overview", 8): "> 0", ("overview", 9): "> 0", ("overview", 10): "> 0",
    ("overview", 11): "> 0", ("overview", 13): "> 0", ("overview", 14): "1", ("overview", 15): "1",
    ("attack", 1): "> 0", ("attack", 2): "> 0", ("attack", 3): "> 0", ("attack", 5): "> 0", ("attack", 6): "> 0",
    ("attack", 7): "> 0", ("attack", 8): "> 0", ("attack", 9): "> 0", ("attack", 10): "> 0", ("attack", 12): "> 0",
    ("attack", 13): "> 0", ("attack", 14): "> 0", ("attack", 17): "> 0", ("attack", 18): "> 0", ("attack", 19): "> 0",
    ("internals", 1): "1", ("internals", 2): "1", ("internals", 3): "1", ("internals", 4): "1", ("internals", 5): "> 0",
    ("internals", 7): "> 0", ("internals", 10): "> 0", ("internals", 12): "> 0", ("internals", 13): "> 0",
    ("internals", 14): "0", ("internals", 18): "> 0", ("internals", 20): "1", ("internals", 21): "1",
    ("geography", 1): "> 0", ("geography", 2): "> 0", ("geography", 4): "> 0", ("geography", 5): "> 0",
    ("geography", 6): "> 0", ("geography", 7): "> 0",
    **dict.fromkeys((("mail", n) for n in (1, 2, 5, 7, 8, 9, 11, 12, 13, 14, 15, 16, 19, 21, 23)), "> 0"),
    ("stack", 1): "1", ("stack", 2): "1", ("stack", 20): "1",
}  # fmt: skip


def wrong(panel: Panel, found: list[dict[str, Any]]) -> str:
    """Return what is wrong with a panel's series, if anything."""
    if not found:
        return "no series"
    try:
        names = [called(panel, series["metric"]) for series in found]
    except KeyError as label:
        return f"no label {label}"
    if len(set(names)) < len(names):
        return f"series of the same name: {names}"
    figures = [float(series["value"][1]) for series in found]
    match SHOWS.get((panel.board, panel.number)):
        case None:
            return ""
        case "> 0":
            return "" if any(figure > 0 for figure in figures) else f"the attack does not show: {figures}"
        case "the rules banned":
            return "" if figures[0] >= 2 else f"not under attack: {figures}"
        case exactly:
            return "" if set(figures) == {float(exactly)} else f"not {exactly}: {figures}"


def test_every_panel_has_its_series_and_the_attack_shows(scene):
    bad = {str(panel): why for panel in PANELS if (why := wrong(panel, scene.server.query(panel.expr)))}
    assert not bad
    assert set(SHOWS) <= {(panel.board, panel.number) for panel in PANELS}


def test_the_figures_are_the_guards_own(scene):
    report = scene.daemon.ask("report")
    assert (
        value(scene.server, "sum(mailward_auth_failures_total) - sum(mailward_auth_revoked_total)")
        == report["failures"]["total"]
    )
    assert value(scene.server, "sum(mailward_bans_wanted)") == len(scene.daemon.ask("bans")["bans"])


def test_rules_are_taken_and_point_at_panels_that_are_there(scene):
    there = {(board["uid"], panel["id"]) for board in written() for panel in board["panels"]}
    for rule in rules(scene.server):
        assert rule["health"] != "err", rule
        for text in rule.get("annotations", {}).values():
            for uid, number in re.findall(r"/d/([\w-]+)\S*viewPanel=(?:panel-)?(\d+)", text):
                assert (uid, int(number)) in there, (rule["name"], text)
