"""The rules for commands that work without the daemon."""

from __future__ import annotations

from guard.model import Policy


def policy_of(path: str | None) -> Policy:
    """Return the policy of a configuration, without one the defaults.

    The configuration's checks take a quarter of a second to load: only who names a file pays for them.
    """
    if path is None:
        return Policy()
    from guard.cli._settings import settings_of  # noqa: PLC0415 - see above

    return settings_of(path).policy()
