"""What is kept of one client address."""

from __future__ import annotations

from guard.tally import Source


def test_a_name_of_any_length_is_kept_short_and_found_again():
    source = Source(0.0)
    for name in ("first", "X" * 100_000, "x" * 100_000):
        source.named(name, 1)
    assert source.users
    assert max(map(len, source.users)) < 1000
    assert source.failures_for("X" * 100_000) == 2
    source.forgive("x" * 100_000)
    assert source.failures_for("X" * 100_000) == 0
    assert (source.failures_for("FIRST"), source.user_count()) == (1, 2)
