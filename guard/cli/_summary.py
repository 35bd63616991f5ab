"""The result of `mailward replay` for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from guard.cli._tables import Column, duration, heading, output, table

_ROWS: Final = 20


def show(report: Mapping[str, Any]) -> None:
    """Print totals, the addresses with most failures, the bans and the findings."""
    console = output()
    lines, period, failures = report["lines"], report["period"], report["failures"]
    console.print(
        f"{lines['read']} lines, {lines['relevant']} of them about logins, {lines['unparsed']} unreadable"
    )
    if period["first"]:
        console.print(f"{period['first']} to {period['last']}")
    parts = ", ".join(f"{name} {n}" for name, n in failures["by_protocol"].items())
    console.print(f"{failures['total']} failed logins{f' ({parts})' if parts else ''}")
    console.print(
        f"{report['unjudged']} unjudged, {report['refused']} refused, {report['cancelled']} cancelled: not counted"
    )
    if lines["unparsed"]:
        console.print("[yellow]mailward parse --unparsed shows the lines that nobody could read[/]")
    _sources(report)
    _bans(report)
    _findings(report)


def _sources(report: Mapping[str, Any]) -> None:
    sources = [source for source in report["sources"] if source["failures"]]
    columns = (
        Column("address"), Column("failures", right=True), Column("logins", right=True), Column("users", right=True), Column("protocols"),
        Column("first"), Column("last"),
    )  # fmt: skip
    rows = [
        (
            source["ip"], source["failures"], source["successes"], source["users"],
            " ".join(f"{name}:{n}" for name, n in source["by_protocol"].items()), source["first"], source["last"],
        )
        for source in sources[:_ROWS]
    ]  # fmt: skip
    heading(f"addresses with failed logins: {len(sources)}", len(sources), _ROWS)
    table(columns, rows)


def _bans(report: Mapping[str, Any]) -> None:
    bans = report["bans"]
    columns = (
        Column("at"), Column("net"), Column("rule"), Column("failures", right=True), Column("for", right=True), Column("session open"),
    )  # fmt: skip
    rows = [
        (
            ban["at"], ban["net"], ban["rule"], ban["failures"], duration(ban["seconds"]),
            {True: "yes", False: "no", None: "-"}[ban["session_open"]],
        )
        for ban in bans[-_ROWS:]
    ]  # fmt: skip
    heading(f"bans: {len(bans)}", len(bans), _ROWS, "latest")
    table(columns, rows)


def _findings(report: Mapping[str, Any]) -> None:
    findings = report["findings"]
    heading(f"findings: {len(findings)}", len(findings), _ROWS, "latest")
    table(
        (Column("at"), Column("rule"), Column("text")),
        [(f["at"], f["rule"], f["text"]) for f in findings[-_ROWS:]],
    )
