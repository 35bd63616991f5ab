"""Docker's stack, where nothing else is configured and no log file is there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from guard.config._extras import missing
from guard.config._problems import ENVIRONMENT, ConfigError, Problem
from guard.config._sources import AnySource, DockerTable

SOCKET: Final = "var/run/docker.sock"  # below the root


def find_docker(root: str) -> list[AnySource]:
    """Return the containers of this host's engine where it has one.  Raises `ConfigError` without the package."""
    socket = Path(root, SOCKET)
    if not socket.is_socket():
        return []
    lacks = missing("docker")
    if lacks:
        raise ConfigError(
            [Problem(ENVIRONMENT, 0, "source", f"{socket} is there, but the source docker {lacks}")]
        )
    return [DockerTable(type="docker", url=f"unix://{socket}")]
