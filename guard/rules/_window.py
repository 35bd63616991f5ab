"""An exact sliding window: the attempts in (newest - width, newest]."""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from guard.bounded import Entry


@mypyc_attr(acyclic=True)
class Window(Entry):
    """The times of one net's attempts, oldest first, and the lines that told of them.

    The oldest needs no list: most nets never have two attempts in the window.
    """

    __slots__ = ("at", "line", "others")

    def __init__(self) -> None:
        self.at = -1.0  # of the oldest attempt; negative: there is none
        self.line = ""
        self.others: list[tuple[float, str]] | None = None

    def attempts(self) -> list[tuple[float, str]]:
        """Return the time and the line of each attempt."""
        if self.at < 0:
            return []
        return [(self.at, self.line), *(self.others or ())]

    def __len__(self) -> int:
        if self.at < 0:
            return 0
        return 1 if self.others is None else 1 + len(self.others)

    def add(self, at: float, line: str, width: float) -> int:
        """Add an attempt; return how many are in the window.  An attempt exactly `width` old is out."""
        others = self.others
        if others is None:
            if self.at < 0 or at - width >= self.at:
                self.at = at
                self.line = line
                return 1
            others = self.others = []
        if at < self.at:
            others.insert(0, (self.at, self.line))
            self.at = at
            self.line = line
        else:
            i = len(others)
            while i > 0 and others[i - 1][0] > at:
                i -= 1
            others.insert(i, (at, line))
        edge = others[-1][0] - width
        while self.at <= edge:
            self._shift()
        return len(self)

    def remove(self, at: float) -> bool:
        """Take back the attempt of time `at`; whether it was there."""
        if self.at < 0:
            return False
        if self.at == at:
            self._shift()
            return True
        others = self.others
        if others is None:
            return False
        for i in range(len(others)):
            if others[i][0] == at:
                del others[i]
                if not others:
                    self.others = None
                return True
        return False

    def _shift(self) -> None:
        """Forget the oldest attempt."""
        others = self.others
        if others is None:
            self.at = -1.0
            self.line = ""
            return
        self.at, self.line = others.pop(0)
        if not others:
            self.others = None

    def worth_keeping(self, at: float) -> bool:
        """A net that failed more than once may be near its threshold: a flood of new ones must not push it out."""
        return self.others is not None

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("at", "line", "others")

    def dump(self) -> list[object]:
        """Return the window as JSON values."""
        return [self.at, self.line, None if self.others is None else [[at, line] for at, line in self.others]]

    def load(self, values: list[object]) -> None:
        """Take the values that `dump` gave."""
        others = values[2]
        if isinstance(others, list):
            values[2] = [(at, line) for at, line in others]
        super().load(values)
