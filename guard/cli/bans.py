"""`mailward bans`, `ban` and `unban`: look at the bans of the running daemon, and act."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter

from guard.cli._daemon import asked, say
from guard.cli._failure import DONE, WRONG, Failure

Config = Annotated[str | None, Parameter(name=["--config", "-c"])]


def bans(*, config: Config = None, format: Literal["text", "json"] = "text") -> int:  # noqa: A002 - the option's name
    """List the bans in force, oldest first.

    For example:

    mailward bans

    mailward bans --format json

    Args:
        config: The daemon's configuration, for its socket.
        format: How to show them; json is one object with the schema mailward.bans/1.
    """
    found = asked({"do": "bans"}, config)
    if format == "json":
        print(json.dumps(found, ensure_ascii=False))
        return DONE
    from guard.cli._tables import Column, duration, heading, table  # noqa: PLC0415 - loads rich

    columns = (
        Column("net"), Column("rule"), Column("failures", right=True), Column("since"), Column("ends in", right=True),
        Column("enforced"), Column("reason"), Column("node"),
    )  # fmt: skip
    rows = [
        (
            ban["net"], ban["rule"], ban["failures"] or None, ban["at"], duration(ban["left"]),
            "yes" if ban["enforced"] else "NO", ban["reason"], ban["node"],
        )
        for ban in found["bans"]
    ]  # fmt: skip
    heading(f"bans in force: {len(rows)}")
    table(columns, rows)
    if found["foreign"]:
        heading(f"in the kernel, but nobody decided them: {len(found['foreign'])}")
        table((Column("net"),), [(net,) for net in found["foreign"]])
    return DONE


def ban(
    net: str,
    /,
    *,
    length: Annotated[str, Parameter(name="--for")] = "1h",
    reason: str = "",
    force: bool = False,
    config: Config = None,
) -> int:
    """Ban an address or a net by hand; done when the kernel has it.

    For example:

    mailward ban 198.51.100.7

    mailward ban 2001:db8:1:2::/64 --for 2d --reason "guesses at night"

    mailward ban 203.0.113.0/24 --for forever

    Args:
        net: An address or a net in CIDR notation.
        length: How long: 90s, 10m, 2h, 7d, or forever.
        reason: Why, for the next administrator; shown by mailward bans.
        force: Ban also what is wider than /8 (IPv6: /32 or wider); what is never banned stays so.
        config: The daemon's configuration, for its socket.
    """
    seconds = None if length in {"forever", "inf"} else _seconds(length)
    return say(asked({"do": "ban", "net": net, "seconds": seconds, "reason": reason, "force": force}, config))


def unban(net: str, /, *, config: Config = None) -> int:
    """End the bans of an address or a net, and of every net inside it.

    Exit status 1 where nothing of it was banned.

    For example:

    mailward unban 198.51.100.7

    Args:
        net: An address or a net in CIDR notation.
        config: The daemon's configuration, for its socket.
    """
    return say(asked({"do": "unban", "net": net}, config))


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    number, unit = text[:-1], units.get(text[-1:], 0)
    if not unit or not number.isascii() or not number.isdigit() or not int(number):
        raise Failure(WRONG, f"--for {text}: expected 90s, 10m, 2h, 7d or forever")
    return float(int(number) * unit)
