from guard.sources._backoff import Backoff


def test_the_wait_doubles_up_to_its_limit_and_begins_anew():
    backoff = Backoff(first=1.0, longest=8.0)

    waits = [backoff.pause() for _ in range(6)]

    for wait, longest in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert longest / 2 <= wait <= longest
    backoff.reset()
    assert backoff.pause() <= 1.0


def test_many_that_fail_together_do_not_come_back_together():
    assert len({round(Backoff(first=1.0).pause(), 6) for _ in range(20)}) > 10
