"""Stamps against the calendar: years that are not written, zones, seconds that do not exist."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.clock import Clock

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1971, 1, 2), datetime(2098, 12, 31)).map(lambda d: d.replace(tzinfo=UTC))  # noqa: DTZ001


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


def bsd(moment: datetime) -> str:
    return f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S}"


@given(MOMENTS)
def test_a_stamp_of_a_known_year_is_that_moment(moment):
    moment = moment.replace(microsecond=0)
    assert Clock(year=moment.year, now=NOW.timestamp()).read(bsd(moment)) == moment.timestamp()


@given(MOMENTS, st.integers(0, 364 * 86400))
def test_replay_takes_the_newest_year_without_the_future(now, ago):
    moment = (now - timedelta(seconds=ago)).replace(microsecond=0)
    assert Clock(now=now.timestamp()).read(bsd(moment)) == moment.timestamp()


@given(MOMENTS, st.integers(-180 * 86400, 180 * 86400))
def test_live_takes_the_year_nearest_to_now(now, shift):
    moment = (now + timedelta(seconds=shift)).replace(microsecond=0)
    assert Clock(now=now.timestamp(), live=True).read(bsd(moment)) == moment.timestamp()


@pytest.mark.parametrize(("now", "stamp", "want"), [
    ((2026, 1, 1, 0, 0, 5), "Dec 31 23:59:59", (2025, 12, 31, 23, 59, 59)),
    ((2025, 12, 31, 23, 59, 59), "Jan  1 00:00:01", (2026, 1, 1, 0, 0, 1)),
])  # fmt: skip
def test_live_over_new_year(now, stamp, want):
    assert Clock(now=at(*now), live=True).read(stamp) == at(*want)


def test_a_live_clock_forgets_the_year_that_it_worked_out():
    clock = Clock(now=at(2025, 7, 2), live=True)
    assert clock.read("Jan  1 00:00:00") == at(2025, 1, 1)
    clock.advance(at(2025, 12, 31))
    assert clock.read("Jan  1 00:00:00") == at(2026, 1, 1)


def test_leap_days_and_leap_seconds():
    assert Clock(year=2024, now=0).read("Feb 29 12:00:00") == at(2024, 2, 29, 12)
    assert Clock(year=2026, now=0).read("Feb 29 12:00:00") == -1.0
    assert Clock(now=NOW.timestamp()).read("Feb 29 12:00:00") == at(2024, 2, 29, 12)
    assert Clock(year=2016, now=0).read("Dec 31 23:59:60") == at(2017, 1, 1)


@pytest.mark.parametrize("stamp", [
    "", "Nov", "Nob 23 17:31:14", "Nov 99 17:31:14", "Nov 23 99:31:14", "Nov  0 17:31:14", "Nov 23 17:31:xx",
    "2026-13-01T00:00:00", "2026-02-30T00:00:00Z", "2026-11-23T25:00:00", "2026-11-23T17:31:14+99:00", "2026-", "0000-00-00T00:00:00",
])  # fmt: skip
def test_what_is_no_stamp_is_no_time(stamp):
    for clock in (Clock(now=NOW.timestamp()), Clock(year=2026, now=0), Clock(now=NOW.timestamp(), live=True)):
        assert clock.read(stamp) == -1.0


@given(
    st.text(max_size=40)
    | st.from_regex(r"\A\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,12})?(?:Z|[+-]\d\d:?\d\d)?\Z")
)
def test_any_text_is_survived(stamp):
    assert isinstance(Clock(now=NOW.timestamp()).read(stamp), float)


@given(MOMENTS, st.integers(-840, 840), st.sampled_from([".", ","]), st.booleans())
def test_iso_stamps_of_any_zone(moment, minutes, mark, colon):
    aware = moment.astimezone(timezone(timedelta(minutes=minutes)))
    text = aware.isoformat(timespec="microseconds")
    text = text[:19] + mark + text[20:26] + (text[26:] if colon else text[26:].replace(":", ""))
    assert abs(Clock(now=0).read(text) - moment.timestamp()) < 1e-5


def test_nanoseconds_and_a_stamp_without_a_zone():
    berlin = Clock(now=0, zone=ZoneInfo("Europe/Berlin"))
    assert berlin.read("2026-11-23 18:31:14") == at(2026, 11, 23, 17, 31, 14)
    assert berlin.read("2026-07-23T19:31:14") == at(2026, 7, 23, 17, 31, 14)
    assert berlin.read("2026-11-23T17:31:14Z") == at(2026, 11, 23, 17, 31, 14)
    assert (
        abs(berlin.read("2026-11-23T17:31:14.123456789Z") - at(2026, 11, 23, 17, 31, 14) - 0.123456789) < 1e-6
    )


@given(
    st.lists(
        st.sampled_from(
            ["Nov 23 17:31:14", "Nov 23 17:31:15", "Jan  1 00:00:00", "x", "2026-11-23T17:31:14Z"]
        ),
        max_size=20,
    )
)
def test_what_was_read_before_does_not_matter_where_the_year_is_sought(stamps):
    clock = Clock(now=NOW.timestamp())
    assert [clock.read(s) for s in stamps] == [Clock(now=NOW.timestamp()).read(s) for s in stamps]
