"""The last hour, as the page draws it: minutes of the clock, and nothing that was before the start."""

from __future__ import annotations

from guard.app._history import History
from guard.stats import Stats

START = 1_764_100_800.0  # a full minute


def failed(stats: Stats, n: int, protocol: str = "imap") -> None:
    stats.auth_failures.add(("dovecot", protocol, "unspecified"), n)


def test_what_was_counted_falls_into_its_minute():
    stats = Stats()
    failed(stats, 1000)  # before we looked: the state of an earlier run
    history = History(stats)
    for second in range(0, 180, 1):
        history.sample(START + second)
        failed(stats, 1, "imap" if second % 2 else "smtp")
        if second == 130:
            stats.bans.add(("brute_force", "ipv4"), 2)
            stats.bans.add(("deny", "ipv4"), 100_000)
            stats.unparsed.add(("dovecot",), 3)
            stats.findings.add(("login_after_failures",), 1)
    hour = history.hour(START + 179.9)
    assert [(m.at - START, m.failures, m.bans) for m in hour.minutes] == [
        (0, 60, 0),
        (60, 60, 0),
        (120, 60, 2),
    ]
    assert (hour.failures, hour.unparsed, hour.logins) == ({"imap": 90, "smtp": 90}, 3, 1)


def test_a_failure_taken_back_is_none_and_nothing_goes_below_zero():
    stats = Stats()
    history = History(stats)
    history.sample(START)
    failed(stats, 5)
    history.sample(START + 60)
    stats.auth_revoked.add(("dovecot", "imap"), 3)
    hour = history.hour(START + 61)
    assert [m.failures for m in hour.minutes] == [5, 0]
    assert hour.failures == {"imap": 2}


def test_an_hour_has_sixty_minutes_however_long_it_runs():
    stats = Stats()
    history = History(stats)
    for minute in range(200):
        history.sample(START + 60 * minute)
        failed(stats, 1)
    hour = history.hour(START + 60 * 200 - 1)
    assert [m.failures for m in hour.minutes] == [1] * 60
    assert hour.minutes[-1].at == START + 60 * 199
    assert sum(hour.failures.values()) == 60
    assert len(history._marks) <= 61


def test_a_clock_that_is_set_back_begins_anew():
    history = History(Stats())
    history.sample(START + 3600)
    history.sample(START)
    assert [m.at for m in history.hour(START + 1).minutes] == [START]


def test_after_a_long_sleep_only_the_last_hour_counts():
    stats = Stats()
    history = History(stats)
    history.sample(START)
    failed(stats, 9)
    hour = history.hour(START + 86400)
    assert [(m.failures, m.at) for m in hour.minutes] == [(0, START + 86400)]
