"""An exact sliding window: the attempts in (newest - width, newest]."""

from __future__ import annotations

from bisect import bisect_left

from guard.bounded import Entry


class Window(Entry):
    """The times of one net's attempts, sorted, and the lines that told of them."""

    __slots__ = ("lines", "times")

    def __init__(self) -> None:
        self.times: list[float] = []
        self.lines: list[str] = []

    def add(self, at: float, line: str, width: float) -> int:
        """Add an attempt; return how many are in the window.  An attempt exactly `width` old is out."""
        times = self.times
        if not times or at >= times[-1]:
            times.append(at)
            self.lines.append(line)
            newest = at
        else:
            i = bisect_left(times, at)
            times.insert(i, at)
            self.lines.insert(i, line)
            newest = times[-1]
        edge = newest - width
        if times[0] <= edge:
            gone = bisect_left(times, edge)
            while gone < len(times) and times[gone] <= edge:
                gone += 1
            del times[:gone]
            del self.lines[:gone]
        return len(times)

    def remove(self, at: float) -> bool:
        """Take back the attempt of time `at`; whether it was there."""
        i = bisect_left(self.times, at)
        if i < len(self.times) and self.times[i] == at:
            del self.times[i]
            del self.lines[i]
            return True
        return False

    def worth_keeping(self, at: float) -> bool:
        """A net that failed more than once may be near its threshold: a flood of new ones must not push it out."""
        return len(self.times) > 1

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("times", "lines")
