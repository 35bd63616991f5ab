"""How long to wait before the next try to reach a server."""

from __future__ import annotations

import random
from typing import Final

FIRST: Final = 0.25  # seconds
LONGEST: Final = 15.0


class Backoff:
    """Doubles the wait at each failure, and shortens it at random by up to half: many clients must not come at once."""

    def __init__(self, first: float = FIRST, longest: float = LONGEST) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def pause(self) -> float:
        """Return the seconds to wait now."""
        seconds = self._next
        self._next = min(seconds * 2, self._longest)
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains by guessing it

    def reset(self) -> None:
        """Begin anew: the server has answered."""
        self._next = self._first
