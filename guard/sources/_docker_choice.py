"""Which of an engine's containers are the mail stack's: those of one compose project, or with certain labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from guard.sources._docker_engine import Container

SERVICES: Final = ("postfix", "dovecot", "sogo", "postfix-mailcow", "dovecot-mailcow", "sogo-mailcow")

_PROJECT: Final = "com.docker.compose.project"
_SERVICE: Final = "com.docker.compose.service"
_ONEOFF: Final = "com.docker.compose.oneoff"  # `compose run`: somebody at work, not the service


class Choice:
    """The containers of `project`; without one of the only project that has `services`, found at the first look.

    With `labels` (`key=value`) and no project they need not be of compose.
    """

    def __init__(self, project: str, services: Sequence[str], labels: Sequence[str]) -> None:
        self.doubt = ""  # why it is not clear which containers are meant
        self._project = project
        self._by_label = bool(labels) and not project
        self._services = frozenset(services or (() if self._by_label else SERVICES))
        self._labels = tuple(labels)

    def filters(self) -> list[str]:
        """Return the labels that the engine is asked for."""
        if self._by_label:
            return list(self._labels)
        return [f"{_PROJECT}={self._project}" if self._project else _PROJECT, *self._labels]

    def service_of(self, container: Container) -> str | None:
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

    def of(self, found: Sequence[Container]) -> list[tuple[str, Container]] | None:
        """Return ours, with their services; None while `doubt` says why it is not clear which they are."""
        ours = [(service, one) for one in found if (service := self.service_of(one)) is not None]
        self.doubt = ""
        if not self._project and not self._by_label:
            projects = sorted({one.labels.get(_PROJECT, "") for _, one in ours})
            if len(projects) > 1:
                self.doubt = f"several projects have {self.wanted()}: {', '.join(projects)}; set `project` to one of them"
            elif projects:
                self._project = projects[0]
        return None if self.doubt or not (self._project or self._by_label) else ours

    def wanted(self) -> str:
        """Return in words what is looked for."""
        what = ", ".join(sorted(self._services)) or ", ".join(self._labels)
        return f"{what} of project {self._project}" if self._project else what
