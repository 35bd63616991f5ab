"""`mailward explain`: why a line counts or not; what is known of an address."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from guard.cli import _logs
from guard.cli._failure import DONE, NOT_SO, WRONG, Failure
from guard.reader import NAMES, Reader, describe
from guard.stats import Stats

SCHEMA = "mailward.explain/1"


def explain(
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    ip: str | None = None,
    year: int | None = None,
    timezone: str = "UTC",
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
) -> int:
    """Say what a log line means and whether it counts, or what the daemon knows of an address.

    Exit status 1 where the line says nothing of a login.

    For example:

    mailward explain "Nov 23 17:31:14 mx postfix/smtpd[412]: warning: unknown[198.51.100.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6"

    mailward explain --ip 198.51.100.7

    Args:
        text: One log line; no daemon is needed.
        ip: An address: the running daemon is asked.
        year: The year of a stamp without one.
        timezone: The zone of a stamp without one.
        config: The daemon's configuration, for its socket.
        format: How to show it; json is one object with the schema mailward.explain/1.
    """
    if (text is None) == (ip is None):
        raise Failure(WRONG, "what? Give one log line in quotes, or --ip ADDRESS")
    if ip is not None:
        return _address(ip, config, format)
    return _line(text or "", Reader(_logs.clock_of(year, timezone), Stats()), format)


def _line(text: str, reader: Reader, how: str) -> int:
    from guard.cli._why import why, why_not  # noqa: PLC0415 - the other half needs none of it

    event = reader.read(text.rstrip("\r\n"), -1.0)
    parser = NAMES[reader.parser]
    counts, reason = why_not(parser, reader.unparsed) if event is None else why(event)
    found = None if event is None else describe(event, _logs.secret())
    if how == "json":
        said = {"parser": parser or None, "event": found, "counts": counts, "why": reason}
        print(json.dumps({"schema": SCHEMA, "line": said}, ensure_ascii=False))
    else:
        print(f"parser    {parser or 'none'}")
        for name, value in (found or {}).items():
            if value is not None:
                print(f"{name:<9} {value}")
        print(f"counts    {counts}: {reason}")
    return NOT_SO if event is None else DONE


def _address(ip: str, config: str | None, how: str) -> int:
    from guard.cli._daemon import asked  # noqa: PLC0415 - only this half asks the daemon

    answer = asked({"do": "explain", "ip": ip}, config)
    if how == "json":
        print(json.dumps(answer, ensure_ascii=False))
        return DONE
    _tell(answer["address"])
    return DONE


def _tell(known: dict[str, Any]) -> None:
    from guard.cli._tables import duration, output  # noqa: PLC0415 - loads rich
    from guard.model import readable  # noqa: PLC0415 - as above

    print(f"{known['ip']}: {_ROLES[known['role']].format(net=known['net'])}")
    source, ban = known["source"], known["ban"]
    if source is None:
        print("nothing was seen of it")
    else:
        protocols = ", ".join(f"{name} {n}" for name, n in source["by_protocol"].items())
        print(
            f"{source['failures']} failed logins ({protocols or 'none'}), {source['successes']} logins, {source['users']} users"
        )
        print(f"first {source['first']}, last {source['last']}")
    window = known["window"]
    if ban is None:
        print(f"not banned: {len(window)} of {known['needed']} failures within {duration(known['seconds'])}")
    else:
        end = f"until {ban['until']}" if ban["until"] else "without end"
        print(f"banned by {ban['rule']} since {ban['at']}, {end}, as {ban['net']} (id {ban['id']})")
    if known["bans"]:
        print(f"banned {known['bans']} times so far: each ban is twice as long as the one before")
    for finding in known["findings"]:
        output().print(f"{finding['at']} {readable(finding['text'])} (id {finding['id']})", markup=False)
    lines = ban["evidence"] if ban else [entry["line"] for entry in window]
    for line in lines:
        output().print(f"  {readable(line)}", markup=False)


_ROLES = {
    "client": "a client, counted and banned as {net}",
    "trusted": "in lists.trusted: never a client",
    "own": "an address of this host: never a client",
    "allowed": "in the allow list: counted, never banned",
}
