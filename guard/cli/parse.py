"""`mailward parse`: what each line means, without counting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from guard.cli import _logs
from guard.cli._failure import DONE, NOT_SO, WRONG, Failure
from guard.cli._policy import policy_of
from guard.reader import NAMES, Reader, describe, redact
from guard.sources.archive import ArchiveError
from guard.stats import Stats


def parse(
    *files: str,
    unparsed: bool = False,
    year: int | None = None,
    timezone: str = "UTC",
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
) -> int:
    """Show what each line of a log means, one line a recognised line, without counting anything.

    Several files are read one after the other. A password shows as a keyed hash, never as itself.

    For example:

    mailward parse /var/log/mail.log

    mailward parse --unparsed --format json mail.log.1.gz

    Args:
        files: Captured logs; - is standard input.
        unparsed: Only the lines that look like a failed login and that no parser could read.
        year: The year of the first line, for stamps without one. Default: the newest without a line in the future.
        timezone: The zone of stamps without one.
        config: Checked, so that a script can pass it everywhere; a line means the same under every configuration.
        format: How to show the result; json is one object a line.
    """
    policy_of(config)
    reader = Reader(_logs.clock_of(year, timezone), Stats())
    secret = _logs.secret()
    read = relevant = 0
    damage = ""
    with ExitStack() as stack:
        archives = [stack.enter_context(archive) for archive in _logs.opened(files)]
        try:
            for archive in archives:
                name = {"file": archive.path} if len(archives) > 1 else {}
                for n, line in enumerate(_logs.lines_of(archive), 1):
                    read += 1
                    text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
                    for found in _readings(reader, text, secret, unparsed):
                        relevant += 1
                        _show({**name, "n": n, **found}, format)
        except ArchiveError as error:
            damage = str(error)
    if read and not relevant and not reader.stamped:
        raise Failure(WRONG, f"{', '.join(files)}: no line of a mail log in {read} lines; {_logs.EXPECTED}")
    if damage:
        raise Failure(NOT_SO, f"{damage}; what could be read is above")
    return DONE


def _readings(reader: Reader, line: str, secret: bytes, unparsed: bool) -> Iterator[dict[str, Any]]:
    """Yield what is said on one physical line; SOGo's workers can put two records on one."""
    rest = line
    while rest:
        event = reader.read(rest, -1.0)
        if unparsed:
            if reader.unparsed:
                yield {"parser": NAMES[reader.parser], "line": redact(rest)}
        elif event is not None:
            yield describe(event, secret)
        rest = reader.rest


def _show(found: dict[str, Any], how: str) -> None:
    if how == "json":
        print(json.dumps(found, ensure_ascii=False))
        return
    place = f"{found['file']}:{found['n']}" if "file" in found else str(found["n"])
    if "line" in found:
        print(f"{place}\t{found['parser']}\t{found['line']}")
        return
    times = f"x{found['count']}" if found["count"] != 1 else ""
    words = [
        place,
        found["at"],
        found["service"],
        found["protocol"],
        found["kind"] + times,
        found["ip"] or "-",
    ]
    words += [found["user"] or "-", *(found[name] for name in ("reason", "method", "session") if found[name])]
    print("\t".join(words))
