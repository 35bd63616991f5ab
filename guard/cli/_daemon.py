"""Asks the running daemon, and turns its answers into the command's end."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from guard.cli._failure import DONE, REFUSED, Failure
from guard.control import SOCKET, ControlError
from guard.control.client import ask

_DEFAULT_FILE = "/etc/mailward/mailward.toml"


def asked(request: dict[str, object], config: str | None = None) -> Any:
    """Return the daemon's answer; a refusal is a Failure."""
    try:
        return ask(socket_of(config), request)
    except ControlError as error:
        raise Failure(error.status, str(error)) from None


def socket_of(config: str | None) -> str:
    """Return the daemon's socket: MAILWARD_CONTROL__SOCKET, else the configuration's, else the default.

    Only this key is read, so that `unban` works while the rest of the file is being edited.
    """
    named = os.environ.get("MAILWARD_CONTROL__SOCKET")
    if named:
        return named
    file = config or os.environ.get("MAILWARD_CONFIG") or _DEFAULT_FILE
    try:
        socket = (
            tomllib.loads(Path(file).read_text(encoding="utf-8")).get("control", {}).get("socket", SOCKET)
        )
    except (OSError, ValueError, AttributeError):
        if config is not None:
            raise Failure(
                REFUSED, f"{file}: cannot be read as a configuration; mailward check says why"
            ) from None
        return SOCKET
    return str(socket)


def say(answer: dict[str, Any]) -> int:
    """Print what the daemon did; end with 3 where the firewall did not do it."""
    refused = []
    for done in answer["done"]:
        verb = "banned" if done["do"] == "ban" else "unbanned"
        if done["why_not"]:
            refused.append(f"{done['net']}: decided, and not enforced: {done['why_not']}")
        elif answer["backend"] == "none" and verb == "banned":
            print(f"{verb} {done['net']} (only observing: nothing is enforced)")
        else:
            print(f"{verb} {done['net']}")
    if refused:
        raise Failure(REFUSED, "\n".join(refused))
    return DONE
