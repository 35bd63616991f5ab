"""Docker's stack, where nothing else is configured and no log file is there; and the packages that sources need."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from guard.config._problems import ENVIRONMENT, ConfigError, Problem
from guard.config._settings import AnySource, DockerTable

SOCKET: Final = "var/run/docker.sock"  # below the root
NEEDS: Final = ("docker",)  # types of sources that need the package of their name, and the extra


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


def missing(package: str) -> str:
    """Return what to do about a package that is not installed; "" where it is."""
    if find_spec(package) is not None:
        return ""
    return f"needs the Python package {package}, which is not installed: pip install mailward[{package}]"
