"""`mailward allow` and `deny`: the two lists of the running daemon."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from guard.cli._daemon import asked, say
from guard.cli._failure import DONE, WRONG, Failure
from guard.model import readable

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

    What is added here is kept in the state; what stands in the configuration or in a file that it names is changed
    there.  Host names stand in the configuration or a file.

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

    What is added here is kept in the state; what stands in the configuration or in a file that it names is changed
    there.

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


def _show(key: str, does: str, config: str | None, how: str) -> int:
    if does != "list":
        raise Failure(WRONG, f"which net? mailward {key} {does} NET")
    lists = asked({"do": "lists"}, config)
    nets, origins = lists[key], lists[f"{key}_origins"]
    if how == "json":
        print(json.dumps({"schema": lists["schema"], key: nets, "origins": origins}))
        return DONE
    places: dict[str, list[str]] = {}
    for origin in origins:
        for net in origin["nets"]:
            places.setdefault(net, []).append(_place(origin))
    width = max(map(len, nets), default=0)
    for net in nets:  # a table of rich's takes half a minute for 100,000
        print(f"{net:<{width}}  {', '.join(places.get(net, []))}")
    for origin in origins:
        if origin["trouble"]:
            stays = "its last addresses stay" if origin["name"] else "its old content stays"
            what = readable(origin["name"] or origin["file"])
            print(f"mailward: {what}: {stays}: {readable(origin['trouble'])}", file=sys.stderr)
    return DONE


def _place(origin: dict[str, Any]) -> str:
    """Return where entries stand, in words."""
    file = origin["file"] and readable(origin["file"])
    if not origin["name"]:
        return file or {"config": "configuration", "hand": "by hand"}[origin["from"]]
    within = f" in {file}" if file else ""
    return f"{origin['name']}{within} (TTL {origin['ttl']:.0f} s, {origin['age']:.0f} s ago)"
