"""`mailward replay`: captured logs through the same engine as the daemon's, on the logs' own time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Annotated, Literal

from cyclopts import Parameter

from guard.cli import _logs
from guard.cli._failure import DONE, NOT_SO, WRONG, Failure
from guard.cli._policy import policy_of
from guard.engine import Engine
from guard.sources.archive import Archive, ArchiveError

SCHEMA = "mailward.replay/1"
_played: list[Engine] = []  # kept to the process's end, which is quicker than taking a million objects apart


def replay(
    *files: str,
    year: int | None = None,
    timezone: str = "UTC",
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
) -> int:
    """Play captured logs through the engine: who failed how often, and who would have been banned.

    Plain, gzip, xz, zstd and bzip2 files; - is standard input. Several files are merged by time.

    For example:

    mailward replay /var/log/mail.log

    mailward replay --timezone Europe/Berlin --format json mail.log.2.gz mail.log.1 mail.log

    Args:
        files: Captured logs.
        year: The year of the first line, for stamps without one. Default: the newest without a line in the future.
        timezone: The zone of stamps without one.
        config: Rules and lists from this configuration. Default: the product's own defaults.
        format: How to show the result.
    """
    policy = policy_of(config)
    gc.disable()  # the core makes no cycles, and a million live objects are costly to look through
    engine = Engine(policy, clock=_logs.clock_of(year, timezone))
    _played[:] = [engine]
    with ExitStack() as stack:
        archives = [stack.enter_context(archive) for archive in _logs.opened(files)]
        damage = ""
        try:
            for name, piece in _shown(archives, _logs.pieces_of(archives, _logs.clock_of(year, timezone))):
                engine.feed(name, piece)
        except ArchiveError as error:
            damage = str(error)
        for n, archive in enumerate(archives):
            engine.finish(archive.path if len(archives) == 1 else f"{n}:{archive.path}")
    if engine.lines_read and not engine.recognised():
        raise Failure(
            WRONG, f"{', '.join(files)}: no line of a mail log in {engine.lines_read} lines; {_logs.EXPECTED}"
        )
    if format == "json":
        print(f'{{"schema": "{SCHEMA}", {engine.report_text()[1:]}')
    else:
        from guard.cli._summary import show  # noqa: PLC0415 - loads rich

        show(engine.report())
    if damage:
        raise Failure(NOT_SO, f"{damage}; what could be read is above")
    return DONE


def _shown(archives: Sequence[Archive], pieces: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield the pieces, with a progress bar on stderr where that is a terminal and the sizes are known."""
    sizes = [archive.size for archive in archives if archive.size is not None]
    if not sys.stderr.isatty() or len(sizes) < len(archives):
        yield from pieces
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - as above

    columns = (
        TextColumn("reading"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(sizes))
        for piece in pieces:
            yield piece
            progress.update(task, completed=sum(archive.done for archive in archives))
