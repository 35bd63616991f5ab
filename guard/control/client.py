"""Asks the running daemon."""

from __future__ import annotations

import json
import socket
from typing import Any

from guard.control import PATIENCE, ControlError


def ask(path: str, request: dict[str, object], patience: float = PATIENCE) -> Any:
    """Return the result of one request.  Raises `ControlError` where no daemon answers or it says no."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(patience)
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(
            3,
            f"no daemon answers on {path}: start it with `mailward run`, or name its socket in [control] socket",
        ) from None
    except PermissionError:
        raise ControlError(
            3, f"{path}: no permission: use root, or become a member of the group mailward"
        ) from None
    except OSError as error:
        reason = (
            f"no answer within {patience:g} s"
            if isinstance(error, TimeoutError)
            else error.strerror or str(error)
        )
        raise ControlError(3, f"{path}: {reason}") from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise ControlError(3, f"{path}: the daemon closed the connection without an answer") from None
    if not answer.get("ok"):
        raise ControlError(int(answer.get("status", 3)), str(answer.get("error", "no reason given")))
    return answer["result"]
