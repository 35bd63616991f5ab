"""The source `docker`: what the containers of a mail stack write to stdout and stderr, through the engine's API.

Configuration: `url` (unix:///PATH or tcp://HOST:PORT of the engine, or of a proxy before it), `project` (the compose
project; default: the only one that has such services), `services`, `labels` (`key=value` that a container must have;
with them, and without `project`, it need not be of compose), `from`:

* not set, `resume`: go on where the state says; without state from now on
* `start`: go on where the state says; without state read what the engine still has
* `now`: from now on, whatever the state says

A container that appears later is read from its start.  A container that was removed while nobody read it took its
unread lines with it: that is counted and told.  Each container is a stream of its own: `<name>/<service>/<id>`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from docker.errors import APIError

from guard.sources import Chunk, Health, Note, Put
from guard.sources._backoff import Backoff
from guard.sources._docker_container import Follower
from guard.sources._docker_engine import AWAY, Container, Engine, GoneError, RefusedError, why
from guard.sources._docker_lines import Place

SERVICES: Final = ("postfix", "dovecot", "sogo", "postfix-mailcow", "dovecot-mailcow", "sogo-mailcow")
LOOK: Final = 10.0  # seconds between two lists of the containers; events have them listed at once
EVENT: Final = 1 << 20  # bytes; labels can be long
CONTAINERS: Final = 64  # the most that one source follows
REMEMBERED: Final = 1024  # containers
SHORT: Final = 12  # digits of a container's id, as `docker ps` shows it

_PROJECT: Final = "com.docker.compose.project"
_SERVICE: Final = "com.docker.compose.service"
_ONEOFF: Final = "com.docker.compose.oneoff"  # `compose run`: somebody at work, not the service
_STREAM: Final = re.compile(rf"[^/]+/([0-9a-f]{{{SHORT}}})")


class Saved(NamedTuple):
    """A position of the state."""

    stream: str
    place: Place


class DockerSource:
    """Follows the containers of one project.  `positions` are the saved ones of all sources: it takes its own.

    At most one piece of each container is held that was not taken yet.  `note` is called with a sentence when
    something is in the way or is lost.
    """

    def __init__(
        self,
        name: str,
        url: str,
        positions: Mapping[str, str] | None = None,
        *,
        project: str = "",
        services: Sequence[str] = (),
        labels: Sequence[str] = (),
        start: str = "resume",
        note: Note = lambda _: None,
    ) -> None:
        self._name = name
        self._url = url
        self._project = project
        self._by_label = bool(labels) and not project
        self._services = frozenset(services or (() if self._by_label else SERVICES))
        self._labels = tuple(labels)
        self._start = start
        self._note = note
        self._saved = self._own(positions or {})
        self._began = time.time()
        self._resumes = max((saved.place.newest() for saved in self._saved.values()), default=None)
        self._engine = Engine(url)
        self._followers: dict[str, Follower] = {}  # by the container's id
        self._seen: dict[str, bool] = {}  # containers that were listed, oldest first
        self._ended: dict[str, bool] = {}  # those whose follower has ended: a list can be older than that
        self._started: dict[str, bool] = {}  # those that were not, yet
        self._refused = 0  # containers beyond CONTAINERS
        self._lost = 0  # what the followers that are gone had lost
        self._trouble = ""
        self._away: float | None = time.monotonic()  # since when the engine does not answer
        self._look = asyncio.Event()

    @property
    def name(self) -> str:
        """The label in metrics."""
        return self._name

    def health(self) -> Health:
        """Up while the engine answers, a container is read, and none is in trouble."""
        followers = list(self._followers.values())
        trouble = [self._trouble] if self._trouble else [f.trouble for f in followers if f.trouble]
        if self._refused:
            trouble.append(f"more than {CONTAINERS} containers, {self._refused} are not read")
        attached = sorted(f.container.name for f in followers if f.attached)
        away = 0.0 if self._away is None else time.monotonic() - self._away
        return Health(
            name=self._name,
            up=bool(attached) and not trouble,
            lag=max([away, *(f.lag() for f in followers)]),
            lost=self._lost + sum(f.lost for f in followers) + self._refused,
            detail="; ".join(trouble[:3])
            or ", ".join(attached[:10])
            or f"{self._wanted()}: no container runs",
        )

    async def run(self, put: Put) -> None:
        """Deliver chunks until the task is cancelled."""
        backoff = Backoff()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._engine.close)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            group.create_task(self._listen())
            while True:
                try:
                    await self._engine.connect()
                    await self._watch(group, put, backoff)
                except AWAY as error:
                    self._is_away(f"{self._url}: {why(error)}")
                    if isinstance(error, APIError):
                        self._engine.close()
                await asyncio.sleep(backoff.pause())

    async def _watch(self, group: asyncio.TaskGroup, put: Put, backoff: Backoff) -> None:
        """List the containers now, at each event and every LOOK seconds, until the engine is away."""
        while True:
            self._look.clear()
            found = await self._engine.containers(self._filters())
            backoff.reset()
            self._away = None
            await self._reconcile(self._chosen(found), group, put)
            try:
                async with asyncio.timeout(LOOK):
                    await self._look.wait()
            except TimeoutError:
                pass

    async def _listen(self) -> None:
        """Have the containers listed when something happens to one.  Without events that takes LOOK seconds."""
        backoff = Backoff()
        while True:
            try:
                await self._hear(backoff)
            except (*AWAY, RefusedError, ValueError):
                pass  # the list tells what is in the way
            self._look.set()  # what ended the events may have ended the engine
            await asyncio.sleep(backoff.pause())

    async def _hear(self, backoff: Backoff) -> None:
        events = await self._engine.events()
        try:
            backoff.reset()
            self._look.set()  # what happened before is found by looking
            rest = b""
            while (piece := await events.read()) and len(rest) <= EVENT:
                *lines, rest = (rest + piece).split(b"\n")
                for event in map(json.loads, filter(None, lines)):
                    if not isinstance(event, dict):
                        raise ConnectionResetError("expected an event")
                    if event.get("Action") in ("start", "destroy"):
                        self._happened(event["Action"], event.get("Actor") or {})
                    self._look.set()
        finally:
            events.close()

    def _happened(self, action: str, actor: Mapping[str, Any]) -> None:
        """Note what came and went between two looks: it was never read."""
        labels = actor.get("Attributes") or {}
        one = Container(str(actor.get("ID")), str(labels.get("name")), labels, 0.0, running=True)
        if one.id in self._seen or self._service(one) is None:
            return
        if action == "start":
            _remember(self._started, one.id)
        elif self._started.pop(one.id, False) and not self._trouble:
            self._lost += 1
            self._note(f"{one.name}: came and went before its log was read")

    def _is_away(self, trouble: str) -> None:
        if self._away is None:
            self._away = time.monotonic()
        if trouble != self._trouble:
            self._note(trouble)
        self._trouble = trouble
        for follower in self._followers.values():
            follower.detach()

    # -- which containers ------------------------------------------------------------------------------------------

    def _filters(self) -> list[str]:
        if self._by_label:
            return list(self._labels)
        return [f"{_PROJECT}={self._project}" if self._project else _PROJECT, *self._labels]

    def _service(self, container: Container) -> str | None:
        """Return the name of a container's service; None when it is none of ours."""
        labels = container.labels
        for key, _, value in (label.partition("=") for label in self._labels):
            if labels.get(key) != value:
                return None
        if self._project and labels.get(_PROJECT) != self._project:
            return None
        service = labels.get(_SERVICE) or (container.name if self._by_label else "")
        wanted = service in self._services or not self._services
        oneoff = labels.get(_ONEOFF, "").lower() == "true"
        return service if service and wanted and not oneoff and "/" not in service else None

    def _chosen(self, found: Sequence[Container]) -> list[tuple[str, Container]] | None:
        """Return the containers to be read, with their services; None while it is not clear which are meant."""
        ours = [(service, one) for one in found if (service := self._service(one)) is not None]
        trouble = ""
        if not self._project and not self._by_label:
            projects = sorted({one.labels.get(_PROJECT, "") for _, one in ours})
            if len(projects) > 1:
                there = ", ".join(projects)
                trouble = f"{self._url}: several projects have {self._wanted()}: {there}; set `project` to one of them"
            elif projects:
                self._project = projects[0]
        if trouble and trouble != self._trouble:
            self._note(trouble)
        self._trouble = trouble
        return None if trouble or not (self._project or self._by_label) else ours

    def _wanted(self) -> str:
        what = ", ".join(sorted(self._services)) or ", ".join(self._labels)
        return f"{what} of project {self._project}" if self._project else what

    # -- who reads them --------------------------------------------------------------------------------------------

    async def _reconcile(
        self, found: list[tuple[str, Container]] | None, group: asyncio.TaskGroup, put: Put
    ) -> None:
        """Have each container that is wanted read; let go of the positions of those that are gone."""
        if found is None:
            return
        self._refused = 0
        for service, container in sorted(found, key=lambda one: one[1].created):
            follower = self._followers.get(container.id)
            if container.id in self._ended:
                continue
            if follower is None:
                if len(self._followers) >= CONTAINERS:
                    self._refused += 1
                    continue
                follower = self._follow(service, container)
                group.create_task(self._until_gone(follower, put))
            _remember(self._seen, container.id)
            if container.running:
                follower.wake()
        for gone in self._followers.keys() - {container.id for _, container in found}:
            self._followers[gone].wake()
        for short in list(self._saved):
            await self._farewell(short, put)
            del self._saved[short]
        self._began = 0.0  # what appears from now on is new

    def _follow(self, service: str, container: Container) -> Follower:
        """Return the follower of a container: from where it was, or from its start where it is new."""
        saved = self._saved.get(container.id[:SHORT])
        place = saved.place if saved and self._start != "now" else None
        if place is None:
            resumes = self._resumes if self._start != "now" else None
            new = not self._began or (resumes is not None and container.created >= int(resumes))
            place = Place() if new or self._start == "start" else Place.at(self._began)
        stream = f"{self._name}/{service}/{container.id[:SHORT]}"
        if saved and saved.stream == stream:
            del self._saved[container.id[:SHORT]]
        follower = Follower(self._name, stream, container, place, self._note)
        self._followers[container.id] = follower
        return follower

    async def _until_gone(self, follower: Follower, put: Put) -> None:
        await follower.run(self._engine, put)
        self._lost += follower.lost
        _remember(self._ended, follower.container.id)
        del self._followers[follower.container.id]

    async def _farewell(self, short: str, put: Put) -> None:
        """Forget a saved position that nobody goes on from: most often its container is not there any more."""
        saved = self._saved[short]
        try:
            await self._engine.state(short)
        except GoneError:
            self._lost += self._start != "now"
            since = max(saved.place.out.stamp, saved.place.err.stamp).decode()
            self._note(f"{saved.stream}: removed while nobody read it; what it wrote after {since} is lost")
        await put(Chunk(self._name, saved.stream, b"", None, end=True))

    def _own(self, positions: Mapping[str, str]) -> dict[str, Saved]:
        """Return the saved positions of this source, by the container's short id."""
        found = {}
        for stream, text in positions.items():
            match = _STREAM.fullmatch(stream.removeprefix(f"{self._name}/"))
            place = Place.load(text)
            if match and place and stream.startswith(f"{self._name}/"):
                found[match[1]] = Saved(stream, place)
        return found


def _remember(ids: dict[str, bool], one: str) -> None:
    ids[one] = True
    if len(ids) > REMEMBERED:
        del ids[next(iter(ids))]
