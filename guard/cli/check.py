"""`mailward check`: the configuration, and nothing else."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter

from guard.cli._failure import DONE, WRONG, Failure

SCHEMA = "mailward.check/1"


def check(
    *,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
) -> int:
    """Check the configuration: every mistake with its file, line, key and what was expected.

    For example:

    mailward check

    mailward check --config ./mailward.toml

    Args:
        config: The configuration. Default: MAILWARD_CONFIG, else /etc/mailward/mailward.toml where it is there.
        format: How to show the mistakes; json is one object with the schema mailward.check/1.
    """
    from guard.config import ConfigError, load  # noqa: PLC0415 - a quarter of a second that --help does not need

    file = config or ""
    try:
        found = load(config)
        file = found.file
        problems = found.unsupported()
        if not found.source:
            found.sources()
    except ConfigError as error:
        problems = error.problems
    if format == "json":
        print(
            json.dumps(
                {
                    "schema": SCHEMA,
                    "ok": not problems,
                    "file": file,
                    "problems": [p._asdict() for p in problems],
                }
            )
        )
        return WRONG if problems else DONE
    if problems:
        raise Failure(WRONG, "\n".join(map(str, problems)))
    print(f"{file or 'no file, the defaults and the environment'}: fine")
    return DONE
