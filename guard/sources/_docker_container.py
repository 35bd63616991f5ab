"""One container: its log is read as long as it exists, through restarts of the container, the engine and the way there."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from guard.sources import Chunk, Note, Put
from guard.sources._backoff import Backoff
from guard.sources._cursor import Cursor
from guard.sources._docker_engine import AWAY, Container, Engine, GoneError, RefusedError, Stream, why
from guard.sources._docker_lines import Pass, Place

WAITS: Final = 0.05  # seconds without anything to read after which everything written was read
LATE: Final = 1.0  # a newest line this old while more arrives: it lags
AGAIN: Final = 1.0  # a connection that lasted this long was not refused at once


class Follower:
    """Delivers the log of `container` from `place` on."""

    def __init__(self, name: str, stream: str, container: Container, place: Place, note: Note) -> None:
        self.name = name
        self.stream = stream
        self.container = container
        self.trouble = ""  # what is in the way, in words
        self.attached = False
        self.lost = 0  # how often something could not be delivered
        self._place = place
        self._note = note
        self._wake = asyncio.Event()
        self._log: Stream | None = None
        self._drained = False  # the last connection gave everything there was
        self._waiting: float | None = None  # since when (monotonic) there is nothing to read
        self._caught_up = time.monotonic()

    def wake(self) -> None:
        """The container runs, or it is gone: look, unless it is attached."""
        self._wake.set()

    def detach(self) -> None:
        """The engine does not answer: what looks like an open connection may be none."""
        if self._log is not None:
            self._log.abort()

    def lag(self) -> float:
        """Return for how many seconds something written has waited to be read."""
        now = time.monotonic()
        if self._waiting is not None and now - self._waiting >= WAITS:
            return 0.0
        if not self.attached:
            return 0.0 if self._drained else now - self._caught_up
        behind = time.time() - self._place.newest()
        return behind if behind >= LATE else 0.0

    async def run(self, engine: Engine, put: Put) -> None:
        """Deliver until the container is removed."""
        # Until its position is saved a kill would lose its lines.
        await put(Chunk(self.name, self.stream, b"", Cursor(self._place.dump())))
        backoff = Backoff()
        while True:
            self._wake.clear()
            began = time.monotonic()
            place = self._place
            try:
                await self._attach(engine, put)
            except GoneError:
                break
            except (*AWAY, RefusedError, ValueError) as error:
                self._drained = False
                self._tell(error)
                if self._place != place or time.monotonic() - began >= AGAIN:
                    backoff.reset()
                await self._woken(backoff.pause())
            else:
                self.trouble = ""
                backoff.reset()
                if self._place == place and time.monotonic() - began < AGAIN:
                    await self._woken(None)  # it has stopped, and all was read
        if not self._drained:
            self.lost += 1
            self._note(f"{self.container.name}: removed before its log was read to the end")
        await put(Chunk(self.name, self.stream, b"", None, end=True))

    async def _woken(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _attach(self, engine: Engine, put: Put) -> None:
        """Deliver until the connection ends."""
        state = await engine.state(self.container.id)
        self._log = log = await engine.log(self.container.id, self._place.since())
        try:
            self._drained = False
            self.attached = True
            self.trouble = ""
            reading = Pass(self._place, framed=not state.terminal)
            while data := await self._next(log):
                lines = reading.feed(data, time.time())
                await self._deliver(lines, reading.place(), put)
                self._miss(reading)
                if reading.word:
                    raise RefusedError(reading.word)
            if reading.cut:
                raise ConnectionResetError("the connection ended within a line")
            if not state.running:
                lines = reading.finish(time.time())
                await self._deliver(lines, reading.place(), put)
                self._miss(reading)
            self._drained = True
        finally:
            self.attached = False
            self._log = None
            log.close()

    async def _next(self, log: Stream) -> bytes:
        self._waiting = began = time.monotonic()
        try:
            return await log.read()
        finally:
            self._waiting = None
            if time.monotonic() - began >= WAITS:
                self._caught_up = time.monotonic()

    async def _deliver(self, lines: bytes, place: Place, put: Put) -> None:
        if place == self._place:
            return
        written = place.newest()
        await put(Chunk(self.name, self.stream, lines, Cursor(place.dump()), written=written))
        self._place = place  # only now: what is not taken is read again
        await asyncio.sleep(0)  # a queue that has room does not let others run

    def _miss(self, reading: Pass) -> None:
        """Count and tell what could not be delivered."""
        if reading.lost:
            self.lost += reading.lost
            reading.lost = 0
            self._note(f"{self.container.name}: a line that is too long was left out")
        if reading.rotated:
            self.lost += 1
            reading.rotated = False
            self._note(
                f"{self.container.name}: its log was rotated before it was read; raise max-size, max-file"
            )

    def _tell(self, error: BaseException) -> None:
        said = why(error)
        refused = isinstance(error, RefusedError) and "support reading" in said
        remedy = "; give the service the log driver json-file, local or journald" if refused else ""
        trouble = f"{self.container.name}: its log cannot be read: {said}{remedy}"
        away = isinstance(error, AWAY)  # which is the source's to tell
        if trouble != self.trouble and not away:
            self._note(trouble)
        self.trouble = trouble
