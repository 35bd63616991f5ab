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
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from guard.sources import Chunk, Health, Note, Put
from guard.sources._backoff import Backoff
from guard.sources._docker_container import Follower, stream_of
from guard.sources._docker_engine import AWAY, Container, Engine, Event, GoneError, why
from guard.sources._docker_lines import Place

SERVICES: Final = ("postfix", "dovecot", "sogo", "postfix-mailcow", "dovecot-mailcow", "sogo-mailcow")
LOOK: Final = 10.0  # seconds between two lists of the containers; events have them listed at once
LISTEN: Final = 30.0  # seconds before events that were refused are asked for again
CONTAINERS: Final = 64  # the most that one source follows
REMEMBERED: Final = 1024  # containers

_PROJECT: Final = "com.docker.compose.project"
_SERVICE: Final = "com.docker.compose.service"
_ONEOFF: Final = "com.docker.compose.oneoff"  # `compose run`: somebody at work, not the service
_STREAM: Final = re.compile(r"([^/]+)/([0-9a-f]{12})")


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
        self._resumes = max((place.newest() for place in self._saved.values()), default=None)
        self._engine = Engine(url)
        self._followers: dict[str, Follower] = {}  # by the container's id
        self._seen: dict[str, bool] = {}  # containers that were listed, oldest first
        self._started: dict[str, bool] = {}  # those that were not, yet
        self._refused = 0  # containers beyond CONTAINERS
        self._lost = 0  # what the followers that are gone had lost
        self._trouble = ""
        self._away: float | None = time.monotonic()  # since when the engine does not answer
        self._look = asyncio.Event()
        self._deaf = 0.0  # when (monotonic) the events ended; -1.0 while they are heard

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
            or f"no container of {self._wanted()} runs",
        )

    async def run(self, put: Put) -> None:
        """Deliver chunks until the task is cancelled."""
        backoff = Backoff()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._engine.connect()
                    await self._watch(group, put, backoff)
                except AWAY as error:
                    self._is_away(f"{self._url}: {why(error)}")
                finally:
                    self._engine.close()
                await asyncio.sleep(backoff.pause())

    async def _watch(self, group: asyncio.TaskGroup, put: Put, backoff: Backoff) -> None:
        """List the containers now, at each event and every LOOK seconds, until the engine is away."""
        end = self._engine.listen(self._heard)
        self._deaf = -1.0
        try:
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
                if self._deaf >= 0 and time.monotonic() - self._deaf >= LISTEN:
                    end()
                    end = self._engine.listen(self._heard)
                    self._deaf = -1.0
        finally:
            end()

    def _heard(self, event: Event | None) -> None:
        """Something happened to a container; None: the events have ended, as the engine may have."""
        if event is None:
            self._deaf = time.monotonic()
        elif event.get("Action") in ("start", "destroy"):
            self._happened(event["Action"], event.get("Actor") or {})
        self._look.set()

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
        if any(
            labels.get(key) != value for key, _, value in (label.partition("=") for label in self._labels)
        ):
            return None
        service = labels.get(_SERVICE) or (container.name if self._by_label else "")
        if labels.get(_ONEOFF, "").lower() == "true" or (
            self._project and labels.get(_PROJECT) != self._project
        ):
            return None
        if not service or "/" in service or (self._services and service not in self._services):
            return None
        return service

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
        for stream in self._saved:
            await self._farewell(stream, put)
        self._saved = {}
        self._began = 0.0  # what appears from now on is new

    def _follow(self, service: str, container: Container) -> Follower:
        """Return the follower of a container: from where it was, or from its start where it is new."""
        saved = self._saved.pop(stream_of(self._name, service, container.id), None)
        place = None if self._start == "now" else saved
        if place is None:
            resumes = self._resumes if self._start != "now" else None
            new = not self._began or (resumes is not None and container.created >= int(resumes))
            place = Place() if new or self._start == "start" else Place.at(self._began)
        follower = Follower(self._name, service, container, place, self._note)
        self._followers[container.id] = follower
        return follower

    async def _until_gone(self, follower: Follower, put: Put) -> None:
        await follower.run(self._engine, put)
        self._lost += follower.lost
        del self._followers[follower.container.id]

    async def _farewell(self, stream: str, put: Put) -> None:
        """A container with a saved position is not there any more."""
        try:
            await self._engine.has_terminal(stream.rpartition("/")[2])
        except GoneError:
            self._lost += self._start != "now"
            since = self._saved[stream].dump().partition(" ")[0]
            self._note(f"{stream}: removed while nobody read it; what it wrote after {since} is lost")
        await put(Chunk(self._name, stream, b"", None, end=True))

    def _own(self, positions: Mapping[str, str]) -> dict[str, Place]:
        """Return the places of this source's streams."""
        own = {s: p for s, p in positions.items() if s.startswith(f"{self._name}/")}
        places = {s: Place.load(p) for s, p in own.items() if _STREAM.fullmatch(s[len(self._name) + 1 :])}
        return {stream: place for stream, place in places.items() if place is not None}


def _remember(ids: dict[str, bool], one: str) -> None:
    ids[one] = True
    if len(ids) > REMEMBERED:
        del ids[next(iter(ids))]
