"""`mailward run`: the daemon."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from guard.cli._failure import DONE, WRONG, Failure


def run(
    *, config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None, user: str | None = None
) -> int:
    """Guard this host: read its logs, count failed logins, ban who guesses, serve metrics.

    SIGHUP takes the configuration anew, SIGTERM stops; bans stay in force until their end.

    For example:

    mailward run

    mailward run --user mailward

    MAILWARD_FIREWALL__BACKEND=none mailward run --config ./mailward.toml

    Args:
        config: The configuration. Default: MAILWARD_CONFIG, else /etc/mailward/mailward.toml where it is there.
        user: Become this user before anything is read, with CAP_NET_ADMIN alone. Default: stay who starts it.
    """
    from guard import app  # noqa: PLC0415 - what the other commands never load
    from guard.config import Config, ConfigError, load  # noqa: PLC0415 - as above

    def load_again() -> Config:
        return load(config)

    try:
        app.run(load_again, user)
    except ConfigError as error:
        raise Failure(WRONG, str(error)) from None
    except app.CannotRunError as error:
        raise Failure(error.status, str(error)) from None
    return DONE
