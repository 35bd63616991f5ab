"""The control socket: one JSON request a line, one JSON answer a line.

Only root and the group `mailward` reach it.
A request is `{"do": NAME, ...}`.  An answer is `{"ok": true, "result": {...}}` or
`{"ok": false, "status": 1, "error": "..."}`, where status is the exit status that a command should end with.
"""

from __future__ import annotations

from typing import Final

SOCKET: Final = "/run/mailward/control.sock"
REQUEST_BYTES: Final = 64 * 1024
PATIENCE: Final = 30.0  # seconds for one answer


class ControlError(Exception):
    """A request was not done; `status` is the exit status that says why, as contracts.md has it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
