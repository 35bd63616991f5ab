"""The configuration, its mistakes turned into the command's end."""

from __future__ import annotations

from guard.cli._failure import WRONG, Failure
from guard.config import Config, ConfigError, load


def settings_of(path: str | None) -> Config:
    """Return the configuration; every mistake in it is one line of the Failure."""
    try:
        return load(path)
    except ConfigError as error:
        raise Failure(WRONG, str(error)) from None
