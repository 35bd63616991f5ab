"""`mailward allow` and `deny`: the two lists of the running daemon."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter

from guard.cli._daemon import asked, say
from guard.cli._failure import DONE, WRONG, Failure

Config = Annotated[str | None, Parameter(name=["--config", "-c"])]
Does = Literal["list", "add", "remove"]
Shown = Literal["text", "json"]


def allow(
    does: Does = "list",
    net: str | None = None,
    /,
    *,
    config: Config = None,
    format: Shown = "text",  # noqa: A002 - the option's name
) -> int:
    """List, add or remove nets that are never banned; a ban that touches a new one ends at once.

    What is added here is kept in the state; what stands in the configuration is changed there.

    For example:

    mailward allow

    mailward allow add 192.0.2.0/24

    mailward allow remove 192.0.2.0/24

    Args:
        does: list, add or remove.
        net: An address or a net in CIDR notation.
        config: The daemon's configuration, for its socket.
        format: How to show the list; json is one object with the schema mailward.lists/1.
    """
    if does == "list" or net is None:
        return _show("allow", does, config, format)
    status = say(asked({"do": "allow" if does == "add" else "disallow", "net": net}, config))
    print(f"{'added to' if does == 'add' else 'removed from'} the allow list: {net}")
    return status


def deny(
    does: Does = "list",
    net: str | None = None,
    /,
    *,
    force: bool = False,
    config: Config = None,
    format: Shown = "text",  # noqa: A002 - the option's name
) -> int:
    """List, add or remove nets that are always banned.

    What is added here is kept in the state; what stands in the configuration is changed there.

    For example:

    mailward deny

    mailward deny add 203.0.113.0/24

    mailward deny remove 203.0.113.0/24

    Args:
        does: list, add or remove.
        net: An address or a net in CIDR notation.
        force: Ban also what is wider than /8 (IPv6: /32 or wider); what is never banned stays so.
        config: The daemon's configuration, for its socket.
        format: How to show the list; json is one object with the schema mailward.lists/1.
    """
    if does == "list" or net is None:
        return _show("deny", does, config, format)
    return say(asked({"do": "deny" if does == "add" else "undeny", "net": net, "force": force}, config))


def _show(name: str, does: str, config: str | None, how: str) -> int:
    if does != "list":
        raise Failure(WRONG, f"which net? mailward {name} {does} NET")
    lists = asked({"do": "lists"}, config)
    if how == "json":
        print(json.dumps({"schema": lists["schema"], name: lists[name]}))
    else:
        for net in lists[name]:
            print(net)
    return DONE
