"""An exact sliding window: the attempts in (newest - width, newest]."""

from __future__ import annotations

from typing import Any

from mypy_extensions import mypyc_attr

from guard.bounded import Entry


@mypyc_attr(acyclic=True)
class Window(Entry):
    """The times of one net's attempts, oldest first, and the lines that told of them.

    The two oldest need no list: most nets never have three attempts in the window.
    """

    __slots__ = ("at", "line", "next_at", "next_line", "others")

    def __init__(self) -> None:
        self.at = -1.0  # of the oldest attempt; negative: there is none
        self.line = ""
        self.next_at = -1.0  # likewise of the second
        self.next_line = ""
        self.others: list[tuple[float, str]] | None = None

    def attempts(self) -> list[tuple[float, str]]:
        """Return the time and the line of each attempt."""
        if self.at < 0:
            return []
        if self.next_at < 0:
            return [(self.at, self.line)]
        return [(self.at, self.line), (self.next_at, self.next_line), *(self.others or ())]

    def __len__(self) -> int:
        if self.next_at < 0:
            return 0 if self.at < 0 else 1
        return 2 if self.others is None else 2 + len(self.others)

    def add(self, at: float, line: str, width: float) -> int:
        """Add an attempt; return how many are in the window.  An attempt exactly `width` old is out."""
        if at < (self.others[-1][0] if self.others else max(self.at, self.next_at)):
            attempts = self.attempts()
            i = len(attempts)
            while i > 0 and attempts[i - 1][0] > at:
                i -= 1
            attempts.insert(i, (at, line))
            self._keep(attempts, attempts[-1][0] - width)
        else:
            while self.at >= 0 and at - width >= self.at:
                self._shift()
            self._append(at, line)
        return len(self)

    def remove(self, at: float) -> bool:
        """Take back the attempt of time `at`; whether it was there."""
        attempts = self.attempts()
        for i in range(len(attempts)):
            if attempts[i][0] == at:
                del attempts[i]
                self._keep(attempts, -1.0)
                return True
        return False

    def shed(self, edge: float) -> list[tuple[float, str]]:
        """Take out the attempts before `edge`, and return them."""
        attempts = self.attempts()
        self._keep([attempt for attempt in attempts if attempt[0] >= edge], -1.0)
        return [attempt for attempt in attempts if attempt[0] < edge]

    def _append(self, at: float, line: str) -> None:
        if self.at < 0:
            self.at = at
            self.line = line
        elif self.next_at < 0:
            self.next_at = at
            self.next_line = line
        elif self.others is None:
            self.others = [(at, line)]
        else:
            self.others.append((at, line))

    def _shift(self) -> None:
        """Forget the oldest attempt."""
        self.at = self.next_at
        self.line = self.next_line
        if self.others:
            self.next_at, self.next_line = self.others.pop(0)
        else:
            self.others = None
            self.next_at = -1.0
            self.next_line = ""

    def _keep(self, attempts: list[tuple[float, str]], edge: float) -> None:
        """Hold these attempts, but for those up to `edge`."""
        self.at = self.next_at = -1.0
        self.line = self.next_line = ""
        self.others = None
        for at, line in attempts:
            if at > edge:
                self._append(at, line)

    def worth_keeping(self, at: float) -> bool:
        """A net that failed more than once may be near its threshold: a flood of new ones must not push it out."""
        return self.next_at >= 0

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("at", "line", "next_at", "next_line", "others")

    def dump(self) -> list[object]:
        """Return the window as JSON values: its attempts."""
        return [[at, line] for at, line in self.attempts()]

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        self._keep([(at, line) for at, line in values], -1.0)
