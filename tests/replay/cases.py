"""The cases of fixtures/replay: logs, what must come out of them, and how to play them."""

from __future__ import annotations

import json
import lzma
import tomllib
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from guard.reader import merged

FOLDER = Path(__file__).parent.parent.parent / "fixtures/replay"
NOW = 1_800_000_000.0
Report = dict[str, Any]


@cache
def expected(case: str) -> dict[str, Any]:
    """Return expected.json of a case."""
    found: dict[str, Any] = json.loads((FOLDER / case / "expected.json").read_text(encoding="utf-8"))
    return found


CASES = sorted(path.parent.name for path in FOLDER.glob("*/expected.json"))
CAPTURES = [case for case in CASES if "due" in expected(case)]
RULES = [case for case in CASES if "due" not in expected(case)]


@cache
def content(case: str, log: str) -> bytes:
    """Return one log of a case, unpacked."""
    packed = FOLDER / case / f"{log}.xz"
    return lzma.decompress(packed.read_bytes()) if packed.exists() else (FOLDER / case / log).read_bytes()


def policy(case: str) -> Policy:
    """Return the rules of a case: the defaults, changed by its mailward.toml."""
    path = FOLDER / case / "mailward.toml"
    if not path.exists():
        return Policy()
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    lists = {name: tuple(nets) for name, nets in given.get("lists", {}).items()}
    rules = given.get("rules", {})
    changes: dict[str, Any] = {**rules.get("brute_force", {}), **lists}
    for key, value in rules.get("bad_neighbourhood", {}).items():
        changes[f"neighbourhood_{key}"] = tuple(value) if isinstance(value, list) else value
    return Policy()._replace(**changes)


def clock(case: str) -> Clock:
    """Return the clock for a case's stamps."""
    return Clock(year=expected(case).get("year", 2026), now=NOW)


def stream(case: str, logs: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (log, line) in the order of time, each log's own order kept."""
    lines = [iter(content(case, log).splitlines(keepends=True)) for log in logs]
    if len(logs) == 1:
        for line in lines[0]:
            yield logs[0], line
        return
    for n, line in merged(lines, clock(case)):
        yield logs[n], line


def of_reports(log: str) -> bool:
    """Whether a stream of a case holds Dovecot's auth policy reports."""
    return log.endswith(".reports")


def fresh(case: str, logs: list[str], *, keep: bool = False) -> Engine:
    """Return an engine that will be given these logs of a case."""
    return Engine(policy(case), clock=clock(case), keep=keep, reports=any(map(of_reports, logs)))


def play(case: str, logs: list[str]) -> Report:
    """Return the report on some logs of a case."""
    engine = fresh(case, logs)
    if len(logs) == 1:
        engine.feed(logs[0], content(case, logs[0]), reports=of_reports(logs[0]))
    else:
        for log, line in stream(case, logs):
            engine.feed(log, line, reports=of_reports(log))
    for log in logs:
        engine.finish(log, reports=of_reports(log))
    return engine.report()


def counted(report: Report) -> dict[str, int]:
    """Return the failures by address."""
    return {source["ip"]: source["failures"] for source in report["sources"]}


def wrong_counts(case: str, report: Report) -> dict[str, str]:
    """Return what is wrong with the counts: addresses outside their interval, or that nobody ever had."""
    wants, counts = expected(case)["sources"], counted(report)
    wrong = {}
    for ip, want in wants.items():
        low, high = want if isinstance(want, list) else (want, want)
        if not low <= counts.get(ip, 0) <= high:
            wrong[ip] = f"counted {counts.get(ip, 0)}, truth {low}..{high}"
    made_up = expected(case).get("made_up", {})
    for ip, n in counts.items():
        if ip not in wants and n > made_up.get(ip, 0) and not ip_address(ip).is_loopback:
            wrong[ip] = f"counted {n}, and nobody has this address"
    return wrong


def wrongful_bans(case: str, report: Report, failures: int) -> list[str]:
    """Return the banned nets whose clients together sent fewer wrong credentials than the rule asks for."""
    most = {ip_address(ip): n[1] if isinstance(n, list) else n for ip, n in expected(case)["sources"].items()}
    nets = [ip_network(ban["net"]) for ban in report["bans"]]
    return [str(net) for net in nets if sum(n for ip, n in most.items() if ip in net) < failures]
