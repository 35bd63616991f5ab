"""What waits to be told: saved before it goes, in order, bounded, and told again to a server that lost it."""

from __future__ import annotations

import math

from guard.app import _outbox
from guard.app._outbox import Outbox
from guard.fleet import partition_of
from guard.model import Notice

IP = "198.51.100.7"
NET = f"{IP}/32"


def fact(n: int = 0) -> Notice:
    return Notice(IP, "", True, 1.0 + n, 601.0, f'{{"n":{n}}}')


def ban(n: int = 0) -> Notice:
    return Notice(NET, f"ban {NET}", True, 1.0 + n, math.inf, "{}")


class Saved:
    """An outbox and what a kill leaves of it."""

    def __init__(self, keep: float = 600.0) -> None:
        self.rows: dict[str, str] = {}
        self.keep = keep
        self.news = 0
        self.outbox = self.begin()

    def begin(self) -> Outbox:
        def news() -> None:
            self.news += 1

        return Outbox(list(self.rows.items()), max(map(int, self.rows), default=0), self.keep, news)

    def save(self) -> None:
        for table, key, text in self.outbox.unsaved:
            assert table == _outbox.TABLE
            if text is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = text
        self.outbox.unsaved.clear()

    def tell(self, *notices: Notice) -> None:
        saved = self.outbox.add(notices)
        self.save()
        assert saved
        saved()


def test_nothing_goes_out_before_it_is_saved():
    box = Saved()
    saved = box.outbox.add([fact(), ban()])
    assert saved
    assert (len(box.outbox), box.outbox.ready(), box.news) == (2, [], 0)
    saved()
    events = box.outbox.ready()
    assert [event.register for event in events] == ["", f"ban {NET}"]
    assert events[0].seq + 1 == events[1].seq
    assert events[0].seq > 1_700_000_000_000, "a node that lost its disk starts above its old numbers"
    assert box.news == 1


def test_a_kill_loses_nothing_and_gives_no_number_twice():
    box = Saved()
    box.tell(fact(), ban(), fact(1))
    before = box.outbox.ready()
    box.outbox = box.begin()
    assert box.outbox.ready() == before
    box.outbox.has(before[:1])
    assert box.outbox.ready() == before[1:]
    box.tell(fact(2))
    assert [event.seq for event in box.outbox.ready()] == [before[0].seq + n for n in (1, 2, 3)]


def test_a_server_that_lost_its_data_is_told_again_for_as_long_as_it_matters():
    box = Saved()
    box.tell(fact(), ban())
    events = box.outbox.ready()
    box.outbox.has(events)
    box.outbox.again({partition_of(NET): events[0].seq})
    assert box.outbox.ready() == events[1:]
    box.outbox.again({})
    assert box.outbox.ready() == events
    box.outbox.has(events)
    box.outbox.forget()
    assert len(box.rows) == 2
    short = Saved(keep=-1.0)
    short.tell(fact(), ban())
    short.outbox.has(short.outbox.ready())
    short.outbox.forget()
    short.save()
    assert short.rows == {}
    short.outbox.again({})
    assert short.outbox.ready() == []


def test_what_waits_in_an_old_copy_of_the_state_gets_numbers_that_were_not_used():
    box = Saved()
    box.tell(fact(), ban())
    used = box.outbox.ready()[-1].seq + 1000
    box.outbox.again({3: used})
    box.save()
    assert [event.seq for event in box.outbox.ready()] == [used + 1, used + 2]
    assert sorted(map(int, box.rows)) == [used + 1, used + 2]


def test_where_there_is_no_room_the_oldest_attempts_go_and_it_is_counted(monkeypatch):
    monkeypatch.setattr(_outbox, "LIMIT", 4)
    box = Saved()
    box.tell(ban(), fact(1), fact(2), ban(3))
    box.tell(fact(4))
    assert [event.at for event in box.outbox.ready()] == [1.0, 3.0, 4.0, 5.0]
    for n in range(5, 9):
        box.tell(ban(n))
    assert len(box.outbox) == len(box.rows) == 4
    assert box.outbox.lost == 5
    assert [event.at for event in box.outbox.ready()] == [6.0, 7.0, 8.0, 9.0]
