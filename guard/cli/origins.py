"""`mailward origins`: where the bans in force come from, by country and by network."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter

from guard.cli._daemon import asked
from guard.cli._failure import DONE

Config = Annotated[str | None, Parameter(name=["--config", "-c"])]


def origins(*, config: Config = None, format: Literal["text", "json"] = "text") -> int:  # noqa: A002 - the option's name
    """Show the countries and networks of the bans in force, most bans first; needs [geo] database.

    For example:

    mailward origins

    mailward origins --format json

    Args:
        config: The daemon's configuration, for its socket.
        format: How to show them; json is one object with the schema mailward.origins/1.
    """
    found = asked({"do": "origins"}, config)
    if format == "json":
        print(json.dumps(found, ensure_ascii=False))
        return DONE
    from guard.cli._tables import Column, heading, table  # noqa: PLC0415 - loads rich

    bans = Column("bans", right=True)
    heading(f"bans in force: {found['bans']}")
    table((Column("country"), bans), [(row["country"], row["bans"]) for row in found["countries"]])
    heading("networks")
    table(
        (Column("AS", right=True), Column("name"), Column("country"), bans),
        [(row["asn"], row["name"], row["country"], row["bans"]) for row in found["networks"]],
    )
    return DONE
