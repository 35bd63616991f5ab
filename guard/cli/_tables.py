"""Tables and words for people: rich on a terminal, plain aligned text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from guard.model import readable

_PIPE_WIDTH: Final = 200  # a pipe has no width of its own
_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class Column(NamedTuple):
    """A heading and its side."""

    name: str
    right: bool = False


@cache
def output() -> Console:
    """Return the console on stdout."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, soft_wrap=False, width=width, emoji=False)


def heading(text: str, count: int = 0, shown: int = 0, which: str = "top") -> None:
    """Print what follows, and how much of it is shown."""
    more = f" ({which} {shown} shown, all with --format json)" if count > shown > 0 else ""
    output().print(f"\n[bold]{escape(text)}[/]{more}")


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headings; nothing where there are none.  Text is made fit for a terminal."""
    if not rows:
        return
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        grid.add_column(column.name, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*("-" if cell is None else escape(readable(str(cell))) for cell in row))
    output().print(grid)


def duration(seconds: float | None) -> str:
    """Return seconds in words as the configuration writes them; None is without end."""
    if seconds is None:
        return "without end"
    left = round(seconds)
    words = []
    for unit, size in _UNITS:
        if left >= size:
            words.append(f"{left // size}{unit}")
            left %= size
    return " ".join(words[:2]) or "0s"
