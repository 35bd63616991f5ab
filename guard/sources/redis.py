"""The source `redis`: log lines from a channel, lists or a stream of a Redis or Valkey server.

Configuration: `url`, `mode`, and by it:

* `channel` (pub/sub; mailcow's `F2B_CHANNEL`): nothing is kept, what is published while we are away is lost
* `keys` (lists; mailcow's `POSTFIX_MAILLOG`, `DOVECOT_MAILLOG`, `SOGO_LOG`): nothing is taken from them; `pop` takes
* `stream` and `group`: every entry once, whatever ends when

`from` is as for a file: `resume` (without state: from now on), `start` (without state: all that is there), `now`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from guard.sources import Health, Note, Put
from guard.sources._backoff import Backoff
from guard.sources._redis_channel import ChannelReader
from guard.sources._redis_link import Link, LinkError, RefusedError, Standing
from guard.sources._redis_list import ListReader
from guard.sources._redis_stream import StreamReader

FASTEST: Final = 0.05  # seconds between two looks at lists that grow
SLOWEST: Final = 0.25  # at lists that do not
LONGEST_PAUSE: Final = 3.0  # seconds without a server between two tries: a channel loses meanwhile
MAILCOW: Final = ("POSTFIX_MAILLOG", "DOVECOT_MAILLOG", "SOGO_LOG")


class RedisSource:
    """Follows what `mode` says.  `positions` are the saved ones of all sources: it takes those of its own streams.

    `note` is called with a sentence when something is in the way or is lost.  The source holds one answer of the
    server, mostly less than 256 KiB, besides what `put` waits with; for a channel one chunk more.
    """

    def __init__(
        self,
        name: str,
        url: str,
        positions: Mapping[str, str] | None = None,
        *,
        mode: str = "channel",
        channel: str = "F2B_CHANNEL",
        keys: Sequence[str] = MAILCOW,
        stream: str = "MAILWARD",
        group: str = "mailward",
        heads: bool = False,
        only: Sequence[str] = (),
        pop: bool = False,
        start: str = "resume",
        note: Note = lambda _: None,
    ) -> None:
        self.name = name
        self._link = Link(url)
        what = {"channel": f"channel {channel}", "list": f"lists {', '.join(keys)}"}
        what["stream"] = f"stream {stream}"
        self._standing = Standing(name, f"{self._link.place} {what[mode]}", note)
        found = {} if positions is None or start == "now" else positions
        self._channel: ChannelReader | None = None
        self._stream: StreamReader | None = None
        self._lists: list[ListReader] = []
        if mode == "channel":
            self._channel = ChannelReader(name, channel, self._standing, heads=heads, only=only)
        elif mode == "stream":
            saved = found.get(f"{name}/{stream}", "")
            self._stream = StreamReader(name, stream, group, saved, start, self._standing)
        else:
            self._lists = [
                ListReader(name, key, found.get(f"{name}/{key}", ""), start, self._standing, pop=pop)
                for key in keys
            ]

    def health(self) -> Health:
        """Up while the server answers and what is asked for can be read."""
        return self._standing.health()

    def saved(self, positions: Mapping[str, str | None]) -> None:
        """Take note that these positions are safe in the store."""
        readers: list[ListReader | StreamReader] = [*self._lists]
        if self._stream is not None:
            readers.append(self._stream)
        for reader in readers:
            text = positions.get(reader.label)
            if text is not None:
                reader.saved(text)

    async def run(self, put: Put) -> None:
        """Deliver chunks until the task is cancelled; a server that is away is tried again and again."""
        backoff = Backoff(longest=LONGEST_PAUSE)
        while True:
            try:
                await self._link.open()
                await self._follow(put)
            except LinkError as error:
                if self._standing.health().up:
                    backoff.reset()
                self._standing.failed(str(error))
            finally:
                await self._link.close()
            await asyncio.sleep(backoff.pause())

    async def _follow(self, put: Put) -> None:
        if self._channel is not None:
            await self._channel.follow(self._link, put)
        elif self._stream is not None:
            await self._stream.follow(self._link, put)
        else:
            await self._follow_lists(put)

    async def _follow_lists(self, put: Put) -> None:
        """Look at the lists in turn, the sooner again the more they grow."""
        pause = FASTEST
        while True:
            fresh = waiting = 0
            for reader in self._lists:
                try:
                    there, more = await reader.step(self._link, put)
                    reader.refused = ""
                except RefusedError as error:  # of another type, or not for this user: the others go on
                    reader.refused = str(error)
                    continue
                fresh += there
                waiting += more
            refused = [reader.refused for reader in self._lists if reader.refused]
            if refused:
                self._standing.failed(f"{self._link.place}: {'; '.join(refused[:3])}")
            else:
                self._standing.well()
            if waiting:
                self._standing.waits()
                await asyncio.sleep(0)
                continue
            self._standing.caught_up()
            pause = FASTEST if fresh else min(pause * 1.5, SLOWEST)
            await asyncio.sleep(pause)
