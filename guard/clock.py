"""A stamp as a log wrote it -> seconds since the epoch.

RFC 3164 has neither year nor zone.  In replay the year is given, or the newest in which the stamp is not in the
future; live it is the year that puts the stamp nearest to now.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo
from typing import Final

_MONTHS: Final = {m: i for i, m in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_CACHE: Final = 4096
_HALF_YEAR: Final = 183 * 86400.0
_DAY: Final = 86400.0


class Clock:
    """Reads stamps; `now` (seconds since the epoch) decides the year of stamps that have none."""

    __slots__ = ("_at", "_cache", "_last", "_live", "_now", "_stamp", "_year", "_zone")

    def __init__(
        self, *, year: int | None = None, zone: tzinfo = UTC, now: float, live: bool = False
    ) -> None:
        self._year = year
        self._zone = zone
        self._now = now
        self._live = live
        self._last = -1.0
        self._stamp = ""
        self._at = -1.0
        self._cache: dict[str, float] = {}

    def advance(self, now: float) -> None:
        """Tell a live clock the time; it forgets the years it worked out a day ago."""
        if now - self._now > _DAY:
            self._cache.clear()
            self._stamp = ""
            self._now = now

    def read(self, stamp: str) -> float:
        """Return the time of an RFC 3164 or ISO 8601 stamp, or -1.0 when it is neither."""
        if stamp[4:5] == "-":
            return self._read_iso(stamp)
        if stamp == self._stamp:  # as the line before it, mostly
            return self._at
        self._stamp = stamp
        self._at = self._read_bsd(stamp)
        return self._at

    def _read_iso(self, stamp: str) -> float:
        """ISO 8601 with or without fraction (digits beyond nanoseconds are dropped) and zone."""
        end = 19
        fraction = 0.0
        if stamp[19:20] in (".", ","):
            end = 20
            while stamp[end : end + 1].isdigit():
                end += 1
            fraction = float("0." + stamp[20:end])
        key = stamp[:19] + stamp[end:]
        at = self._cache.get(key, -2.0)
        if at == -2.0:
            try:
                when = datetime.fromisoformat(key)
                at = (when if when.tzinfo else when.replace(tzinfo=self._zone)).timestamp()
            except (ValueError, OverflowError):
                at = -1.0
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            self._cache[key] = at
        return at + fraction if at >= 0 else -1.0

    def _read_bsd(self, stamp: str) -> float:
        """The hour is looked up, the rest is added: no zone changes its offset within one."""
        try:
            month, day, hour = _MONTHS[stamp[:3]], int(stamp[4:6]), int(stamp[7:9])
            rest = int(stamp[10:12]) * 60.0 + int(stamp[13:15])
        except (KeyError, ValueError):
            return -1.0
        if self._year is not None:
            return self._in_given_year(month, day, hour, rest)
        base = self._cache.get(stamp[:9], -2.0)
        if base == -2.0:
            base = self._guess(month, day, hour)
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            self._cache[stamp[:9]] = base
        if base >= 0 and not self._live and base + rest > self._now:
            base = self._guess(month, day, hour, before=base)  # this hour, but later than now: last year's
        return base + rest if base >= 0 else -1.0

    def _in_given_year(self, month: int, day: int, hour: int, rest: float) -> float:
        base = self._base(self._year or 0, month, day, hour)
        if self._last - base > _HALF_YEAR:  # a log that runs over New Year
            base = self._base((self._year or 0) + 1, month, day, hour)
        if base < 0:
            return -1.0
        self._last = max(self._last, base)
        return base + rest

    def _guess(self, month: int, day: int, hour: int, before: float = math.inf) -> float:
        """Return the hour in the year nearest to now (live), or in the newest in which it is not in the future."""
        year = datetime.fromtimestamp(self._now, self._zone).year
        times = [self._base(year + n, month, day, hour) for n in (1, 0, -1, -2, -3, -4)]
        if self._live:
            return min((t for t in times[:4] if t >= 0), key=self._distance, default=-1.0)
        return max((t for t in times if t <= self._now and t < before), default=-1.0)

    def _distance(self, at: float) -> float:
        return abs(at - self._now)

    def _base(self, year: int, month: int, day: int, hour: int) -> float:
        try:
            return datetime(year, month, day, hour, tzinfo=self._zone).timestamp()
        except ValueError:  # 29 February
            return -1.0
