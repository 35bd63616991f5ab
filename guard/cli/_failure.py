"""How a command ends when it cannot do what was asked: one clear line on stderr and an exit status."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
NOT_SO: Final = 1  # the thing asked about is not so: a check found something
WRONG: Final = 2  # wrong use or configuration
REFUSED: Final = 3  # the world refused: no permission, no server


class Failure(Exception):  # noqa: N818 - it is an end, and most often the user's news
    """Ends the command with `status`; each line of the text goes to stderr."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
