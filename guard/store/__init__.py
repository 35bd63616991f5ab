"""Where the state is kept: ledgers, windows, bans and source positions, saved together.

A store knows nothing of what the rows mean.  They are (table, key, JSON text); the positions are (stream, text) as
`guard.sources` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from guard.model import Action


class StoreError(Exception):
    """The store cannot be reached, read or written; the text says which, and why, for the operator."""


class State(NamedTuple):
    """Everything needed to go on where another process stopped."""

    rows: list[tuple[str, str, str]]  # (table, key, JSON text)
    positions: dict[str, str]  # stream -> text


class Store(Protocol):
    """One state.  Calls may come from any thread, one at a time or not.  All raise `StoreError`."""

    trouble: str  # what was found wrong on opening and has been dealt with, in words; "" where nothing was

    def load(self) -> State:
        """Return what was saved last."""

    def save(
        self,
        rows: Sequence[tuple[str, str, str | None]],
        positions: Mapping[str, str | None],
        actions: Sequence[Action] = (),
    ) -> None:
        """Write what changed, all of it or nothing: after a kill at any moment `load` gives the one or the other.

        None as a row's text or a position deletes it; what is not named stays.  `actions` go into the history.
        """

    def history(self, limit: int = 1000) -> list[Action]:
        """Return the latest bans and unbans, newest first."""

    def healthy(self) -> bool:
        """Can the store be reached at this moment?"""

    def close(self) -> None:
        """Give everything back.  What was saved stays."""


def open_store(url: str, *, keep: float = 90 * 86400.0) -> Store:
    """Open the store that `store.url` names: `sqlite:///PATH` or `memory:`; `keep` is the history's age in seconds.

    Raises `StoreError`, also for a kind of store that this release does not have.
    """
    from guard.store.sqlite import SqliteStore  # noqa: PLC0415 - the kinds import this module

    if url == "memory:":
        return SqliteStore(":memory:", keep=keep)
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return SqliteStore(url.removeprefix("sqlite://"), keep=keep)
    kind = url.partition(":")[0]  # the rest may hold a password
    raise StoreError(f"store.url: {kind}: not in this release; expected sqlite:///PATH or memory:")
