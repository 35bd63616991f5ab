"""`mailward doctor`: this host."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter

from guard.cli._failure import DONE, NOT_SO, WRONG, Failure
from guard.cli._settings import settings_of

SCHEMA = "mailward.doctor/1"


def doctor(
    *,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
) -> int:
    """Look at what makes a guard useless on this host. Exit status 1 where a check found a problem.

    It changes nothing and takes a few seconds. What this user may not see is a warning: root sees most.

    For example:

    mailward doctor

    Args:
        config: The configuration. Default: MAILWARD_CONFIG, else /etc/mailward/mailward.toml where it is there.
        format: How to show it; json is one object with the schema mailward.doctor/1.
    """
    from guard.app._doctor import examine  # noqa: PLC0415 - what --help does not need

    settings = settings_of(config)
    if problems := settings.unsupported():
        raise Failure(WRONG, "\n".join(map(str, problems)))
    found = examine(settings)
    ok = all(one.result != "problem" for one in found)
    if format == "json":
        print(json.dumps({"schema": SCHEMA, "ok": ok, "checks": [one._asdict() for one in found]}))
    else:
        for one in found:
            print(f"{one.result:<8} {one.check:<7} {one.text}")
            if one.remedy:
                print(f"{'':16} -> {one.remedy}")
    return DONE if ok else NOT_SO
