"""A stamp as a log wrote it -> seconds since the epoch.

RFC 3164 has neither year nor zone.  In replay the year is given, or the newest in which the stamp is not in the
future; live it is the year that puts the stamp nearest to now.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

_MONTHS: Final = {m: i for i, m in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_CACHE: Final = 4096
_HALF_YEAR: Final = 183 * 86400.0
_DAY: Final = 86400.0


class Clock:
    """Reads stamps; `now` (seconds since the epoch) decides the year of stamps that have none."""

    __slots__ = ("_cache", "_last", "_live", "_now", "_year", "_zone")

    def __init__(self, *, year: int | None = None, zone: tzinfo = UTC, now: float, live: bool = False) -> None:
        self._year = year
        self._zone = zone
        self._now = now
        self._live = live
        self._last = -1.0
        self._cache: dict[str, float] = {}

    def advance(self, now: float) -> None:
        """Tell a live clock the time; it forgets the years it worked out a day ago."""
        if now - self._now > _DAY:
            self._cache.clear()
            self._now = now

    def read(self, stamp: str) -> float:
        """Return the time of an RFC 3164 or ISO 8601 stamp, or -1.0 when it is neither."""
        if stamp[4:5] == "-":
            return self._read_iso(stamp)
        at = self._cache.get(stamp, -2.0)
        if at == -2.0:  # noqa: PLR2004
            at = self._read_bsd(stamp)
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            self._cache[stamp] = at
        return at

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
        if at == -2.0:  # noqa: PLR2004
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
        try:
            month, day = _MONTHS[stamp[:3]], int(stamp[4:6])
            hour, minute, second = int(stamp[7:9]), int(stamp[10:12]), int(stamp[13:15])
        except (KeyError, ValueError):
            return -1.0

        def in_year(year: int) -> float:
            try:
                when = datetime(year, month, day, hour, minute, 0, tzinfo=self._zone) + timedelta(seconds=second)
            except ValueError:  # 29 February
                return -1.0
            return when.timestamp()

        if self._year is not None:
            at = in_year(self._year)
            if self._last - at > _HALF_YEAR:  # a log that runs over New Year
                at = in_year(self._year + 1)
            self._last = max(self._last, at)
            return at
        year = datetime.fromtimestamp(self._now, self._zone).year
        candidates = [t for t in (in_year(year + 1), in_year(year), in_year(year - 1), in_year(year - 2)) if t >= 0]
        if self._live:
            return min(candidates, key=lambda t: abs(t - self._now), default=-1.0)
        return max((t for t in candidates if t <= self._now), default=-1.0)
