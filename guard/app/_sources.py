"""Makes the sources that the configuration's tables describe."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any, Final

from guard.app._place import WRONG, CannotRunError
from guard.config import (
    AnySource,
    AuthPolicyTable,
    DockerTable,
    FileTable,
    JournalTable,
    RedisTable,
    StdinTable,
    SyslogTable,
)
from guard.log import logger
from guard.sources import Note, Source
from guard.sources.auth_policy import AuthPolicySource, Standing
from guard.sources.file import FileSource
from guard.sources.stdin import StdinSource

Positions = Mapping[str, str]


def source_of(table: AnySource, positions: Positions, standing: Standing) -> Source:
    """Return the source that `table` describes; it takes its own of all saved `positions`.

    `standing` answers the one source that is asked: -1 for a banned address, else its failures in the window.
    """

    def note(text: str) -> None:
        logger().warning("source", source=table.name, note=text)

    if isinstance(table, AuthPolicyTable):
        return AuthPolicySource(
            table.name, table.listen, standing, key=table.key, delay=table.delay, note=note
        )
    return _MAKERS[type(table)](table, positions, note)


def _file(table: FileTable, positions: Positions, note: Note) -> Source:
    return FileSource(table.name, table.path, positions, start=table.start, note=note)


def _journal(table: JournalTable, positions: Positions, note: Note) -> Source:
    from guard.sources.journal import PROGRAM, JournalSource  # noqa: PLC0415 - see _MAKERS

    if shutil.which(PROGRAM) is None:
        raise CannotRunError(
            WRONG, f"source {table.name}: there is no {PROGRAM}; install it (Debian: apt-get install systemd)"
        )
    return JournalSource(
        table.name,
        table.units,
        table.tags,
        positions,
        directory=table.directory,
        start=table.start,
        since=table.since or 0.0,
        any_user=table.any_user,
        note=note,
    )


def _stdin(table: StdinTable, _positions: Positions, _note: Note) -> Source:
    return StdinSource(table.name)


def _docker(table: DockerTable, positions: Positions, note: Note) -> Source:
    from guard.sources.docker import DockerSource  # noqa: PLC0415 - the extra `docker`

    return DockerSource(
        table.name,
        table.url,
        positions,
        project=table.project,
        services=table.services,
        labels=table.labels,
        start=table.start,
        note=note,
    )


def _redis(table: RedisTable, positions: Positions, note: Note) -> Source:
    from guard.sources.redis import RedisSource  # noqa: PLC0415 - the extra `redis`

    return RedisSource(
        table.name,
        table.url,
        positions,
        mode=table.mode,
        channel=table.channel,
        keys=table.keys,
        stream=table.stream,
        group=table.group,
        heads=table.heads,
        only=table.only,
        pop=table.pop,
        start=table.start,
        note=note,
    )


def _syslog(table: SyslogTable, positions: Positions, note: Note) -> Source:
    from guard.sources.syslog import SyslogSource, Tls  # noqa: PLC0415 - what most hosts never load

    return SyslogSource(
        table.name,
        table.listen,
        from_nets=table.from_nets,
        mode=int(table.mode, 8),
        connections=table.connections,
        tls=Tls(table.certificate, table.key, table.client_ca) if table.certificate else None,
        positions=positions,
        note=note,
    )


# What only some hosts have is imported where it is asked for.
_MAKERS: Final[dict[type[AnySource], Callable[[Any, Positions, Note], Source]]] = {
    FileTable: _file,
    JournalTable: _journal,
    StdinTable: _stdin,
    DockerTable: _docker,
    RedisTable: _redis,
    SyslogTable: _syslog,
}
