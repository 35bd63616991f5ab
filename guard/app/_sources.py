"""Makes the sources that the configuration's tables describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from guard.config import AnySource, AuthPolicyTable, FileTable, StdinTable
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


def _stdin(table: StdinTable, _positions: Positions, _note: Note) -> Source:
    return StdinSource(table.name)


# What only some hosts have is imported where it is asked for.
_MAKERS: Final[dict[type[AnySource], Callable[[Any, Positions, Note], Source]]] = {
    FileTable: _file,
    StdinTable: _stdin,
}
