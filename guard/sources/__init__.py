"""Where log bytes come from.  A source delivers chunks of byte streams, and has no opinion about what they say.

A source may feed several streams (a glob: one a file).  Every stream is delivered in order, each byte once.  What
the reader of the chunks does with them, in this order, is the whole protocol:

1. ``reset``: what is held of this stream (an unfinished line) will never be continued: drop it.
2. ``data``: feed it; it may be empty, then the chunk only tells the position.
3. ``end``: the stream is over: an unfinished last line is a line.
4. remember ``position`` under ``stream``, lowered by the bytes of the unfinished line; None: forget the stream.

A position that was saved is handed to the source when it is made again, and it goes on there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, Protocol, runtime_checkable

CHUNK_BYTES: Final = 256 * 1024  # the most that one chunk of a live source holds


class Position(Protocol):
    """How far a stream was read."""

    def rewind(self, count: int) -> Position:
        """Return the position `count` bytes before this one: those bytes will be delivered again."""

    def dump(self) -> str:
        """Return it as text for the store."""


class Chunk(NamedTuple):
    """A piece of one byte stream; see the module's text for what the reader does with it."""

    name: str  # the source's name: the label in metrics
    stream: str  # which byte stream: the key of the unfinished line and of the position
    data: bytes
    position: Position | None = None  # where the stream stands after `data`; None: nothing to go back to
    reset: bool = False
    end: bool = False
    written: float | None = (
        None  # when the newest byte was written (seconds since the epoch), where that is known
    )
    reports: bool = (
        False  # lines of Dovecot's auth policy reports, which no line of a log can be: see engine.feed
    )


class Health(NamedTuple):
    """How a source does at this moment."""

    name: str
    up: bool  # something is being read and nothing stands in the way
    lag: float  # seconds since everything written was last read; 0.0 while that is so
    lost: int  # how often something could not be delivered
    detail: str  # what is read, or what is in the way, in words


Put = Callable[[Chunk], Awaitable[None]]
Note = Callable[[str], None]


class Source(Protocol):
    """One configured source."""

    @property
    def name(self) -> str:
        """The label in metrics."""

    async def run(self, put: Put) -> None:
        """Deliver chunks through `put` until the source ends (stdin) or the task is cancelled (all others).

        `put` may wait: that is what slows the source down.  Never raises for what the world does to a log file;
        that is told by `health` and through the `note` the source was made with.
        """

    def health(self) -> Health:
        """Return how it does.  Cheap: called at every scrape."""


@runtime_checkable
class Keeping(Protocol):
    """A source that does something with what is safe: it tells its server so, or lets it forget."""

    def saved(self, positions: Mapping[str, str | None]) -> None:
        """Take note that the store holds these positions (stream -> text) and the counts that belong to them."""
