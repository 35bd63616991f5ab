"""`mailward top`: the accounts that sent most over the last hour, and those that were guessed at most."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from guard.cli._daemon import asked
from guard.cli._failure import DONE

_SHOWN: Final = 20


def top(
    *,
    by: Literal["messages", "recipients", "networks"] = "messages",
    limit: int = _SHOWN,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
) -> int:
    """List the accounts that logged in to send, most active first, over the last hour: a stolen one stands on top.

    Then those for which logins failed, from most client networks first: one under attack from everywhere stands on top.

    For example:

    mailward top --by networks

    Args:
        by: What to sort those that send by: messages, distinct recipients, or client networks (/24, /48).
        limit: How many accounts to show of each, at most 10000.
        config: The daemon's configuration, for its socket.
        format: How to show it; json is one object, schema mailward.top/1.
    """
    found = asked({"do": "top", "by": by, "limit": limit}, config)
    if format == "json":
        print(json.dumps(found, ensure_ascii=False))
    else:
        _show(found)
    return DONE


def _show(found: dict[str, Any]) -> None:
    from guard.cli._tables import Column, output, table  # noqa: PLC0415 - loads rich

    if found["accounts"] is None:
        output().print("mail is not counted: exporters.mail is false")
    else:
        _show_senders(found)
    rows = [(row["account"], row["networks"]) for row in found["attacked"]]
    table((Column("account"), Column("networks that failed", right=True)), rows)
    output().print(f"{found['attacked_count']} accounts were guessed at in the last hour")


def _show_senders(found: dict[str, Any]) -> None:
    from guard.cli._tables import Column, output, table  # noqa: PLC0415 - loads rich

    rows = [
        (
            row["account"],
            row["messages"],
            row["recipients"],
            row["distinct_recipients"],
            row["networks"],
            row["countries"],
            row["bounced"],
        )
        for row in found["accounts"]
    ]
    names = ("messages", "recipients", "distinct", "networks", "countries", "bounced")
    table((Column("account"), *(Column(name, right=True) for name in names)), rows)
    output().print(f"{found['count']} accounts sent in the last hour")
