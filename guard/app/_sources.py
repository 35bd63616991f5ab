"""Makes the sources that the configuration's tables describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from guard.config import AnySource, DockerTable, FileTable, StdinTable
from guard.log import logger
from guard.sources import Note, Source
from guard.sources.file import FileSource
from guard.sources.stdin import StdinSource

Positions = Mapping[str, str]


def source_of(table: AnySource, positions: Positions) -> Source:
    """Return the source that `table` describes; it takes its own of all saved `positions`."""

    def note(text: str) -> None:
        logger().warning("source", source=table.name, note=text)

    return _MAKERS[type(table)](table, positions, note)


def _file(table: FileTable, positions: Positions, note: Note) -> Source:
    return FileSource(table.name, table.path, positions, start=table.start, note=note)


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


# What only some hosts have is imported where it is asked for.
_MAKERS: Final[dict[type[AnySource], Callable[[Any, Positions, Note], Source]]] = {
    FileTable: _file,
    StdinTable: _stdin,
    DockerTable: _docker,
}
