"""`mailward status`: how the daemon does."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from guard.cli._daemon import asked
from guard.cli._failure import DONE, NOT_SO

_EVERY = 1.0


def status(
    *,
    watch: bool = False,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
) -> int:
    """Show the daemon's sources, counts, bans, store and firewall. Exit status 1 where a part is in trouble.

    For example:

    mailward status

    mailward status --watch

    Args:
        watch: Show it anew every second, until Ctrl-C.
        config: The daemon's configuration, for its socket.
        format: How to show it; json is one object (with --watch one a line), schema mailward.status/1.
    """
    while True:
        found = asked({"do": "status"}, config)
        if format == "json":
            print(json.dumps(found, ensure_ascii=False), flush=True)
        else:
            _show(found, clear=watch)
        if not watch:
            return DONE if found["ready"] else NOT_SO
        time.sleep(_EVERY)


def _show(found: dict[str, Any], *, clear: bool) -> None:
    from guard.cli._tables import Column, output, table  # noqa: PLC0415 - loads rich

    if clear:
        output().clear()
    firewall, store, bans, attempts = found["firewall"], found["store"], found["bans"], found["attempts"]
    console = output()
    console.print(f"mailward {found['version']}, pid {found['pid']}, since {found['started']}")
    rows = [
        (s["name"], "yes" if s["up"] else "NO", f"{s['lag']:.1f}s", s["lines"], s["lost"], s["detail"])
        for s in found["sources"]
    ]
    columns = (
        Column("source"), Column("up"), Column("lag", right=True), Column("lines", right=True), Column("lost", right=True), Column("reads"),
    )  # fmt: skip
    table(columns, rows)
    rates = found["rates"]
    console.print(
        f"rates      {rates['lines_per_second']} lines/s, {rates['failures_per_minute']} failed logins/min"
    )
    console.print(
        f"attempts   {attempts['failures']} failed, {attempts['successes']} logins, {attempts['unjudged']} unjudged, "
        f"{attempts['unparsed']} lines unreadable"
    )
    foreign, drift = sum(bans["foreign"].values()), sum(bans["drift"].values())
    console.print(
        f"bans       {sum(bans['wanted'].values())} wanted, {sum(bans['enforced'].values())} enforced"
        + (f", {foreign} of them foreign" if foreign else "")
        + (f", {drift} differences mended" if drift else "")
    )
    _part("firewall", firewall["backend"], firewall["up"], firewall["detail"])
    _part("store", store["kind"], store["up"], store["detail"])
    if found["fleet"] is not None:
        _fleet(found["fleet"])
    if not found["configuration"]["ok"]:
        console.print("[bold red]the configuration on disk has mistakes and is not taken: mailward check[/]")


def _fleet(fleet: dict[str, Any]) -> None:
    from guard.cli._tables import Column, table  # noqa: PLC0415 - loads rich

    waits = f"{fleet['pending']} to tell" + (f", {fleet['lost']} lost" if fleet["lost"] else "")
    _part("fleet", fleet["node"], fleet["up"], f"{fleet['detail']}, {waits}" if fleet["detail"] else waits)
    columns = (
        Column("node"), Column("seen", right=True), Column("lag", right=True), Column("to tell", right=True), Column(""),
    )  # fmt: skip
    rows = [
        (n["name"], f"{n['age']:.0f}s ago", f"{n['lag']:.1f}s", n["pending"], "this one" if n["here"] else "")
        for n in fleet["nodes"]
    ]
    if rows:
        table(columns, rows)


def _part(name: str, kind: str, up: bool, detail: str) -> None:
    from guard.cli._tables import output  # noqa: PLC0415 - loads rich

    output().print(
        f"{name:<10} {kind}: {'up' if up else 'NOT UP'}{f', {detail}' if detail else ''}", markup=False
    )
