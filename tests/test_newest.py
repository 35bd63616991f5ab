"""The newest bans, as the page shows them: what is in force, the newest first, without a look through all."""

from __future__ import annotations

from guard.app import _newest
from guard.app._newest import KEPT, Newest
from guard.model import Action, Ban, Unban


def ban(n: int, at: float = 0.0, rule: str = "brute_force") -> Ban:
    return Ban(f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}/32", at or float(n), 1e9, rule)


class Engine:
    """What is in force, and how often somebody looked through it."""

    def __init__(self, *bans: Ban) -> None:
        self.bans = {ban.net: ban for ban in bans}
        self.looks = 0
        self.enforced: list[Action] = []
        self.newest = Newest(self.active, self.enforced.extend)

    def active(self) -> list[Ban]:
        self.looks += 1
        return list(self.bans.values())

    def act(self, *actions: Action) -> None:
        for action in actions:
            self.bans.pop(action.net, None)
            if isinstance(action, Ban):
                self.bans[action.net] = action
        self.newest.take(actions)

    def shown(self, n: int = 100) -> list[Ban]:
        return self.newest.shown(n, len(self.bans))


def test_it_begins_with_what_was_in_force_whatever_its_order():
    engine = Engine(ban(1, 30.0), ban(2, 10.0), ban(3, 20.0), ban(4, 40.0, "deny"))
    assert [b.at for b in engine.shown(2)] == [30.0, 20.0]
    assert engine.newest.listed == 1


def test_it_follows_what_is_decided_and_passes_it_on():
    engine = Engine(ban(1))
    engine.act(ban(2), ban(3), Unban(ban(2).net, 0.0, "expired"), ban(1, 9.0), ban(5, 1.0, "deny"))
    assert [b.at for b in engine.shown()] == [9.0, 3.0]
    assert (engine.newest.listed, len(engine.enforced), engine.looks) == (1, 5, 1)
    engine.act(Unban(ban(5).net, 0.0, "manual"), ban(3, 10.0, "deny"))
    assert [b.at for b in engine.shown()] == [9.0]
    assert engine.newest.listed == 1


def test_it_keeps_a_thousand_however_many_there_are():
    engine = Engine()
    engine.act(*(ban(n) for n in range(1, 50_001)))
    assert [b.at for b in engine.shown(3)] == [50_000.0, 49_999.0, 49_998.0]
    assert len(engine.newest._bans) == KEPT
    assert engine.looks == 1


def test_when_the_newest_have_ended_it_finds_the_older_ones(monkeypatch):
    engine = Engine()
    engine.act(*(ban(n) for n in range(1, 3001)))
    engine.act(*(Unban(ban(n).net, 0.0, "manual") for n in range(1500, 3001)))
    assert engine.shown() == []
    assert engine.looks == 1, "not at each page"
    monkeypatch.setattr(_newest, "AGAIN", 0.0)
    assert [b.at for b in engine.shown(2)] == [1499.0, 1498.0]
    engine.shown()
    assert engine.looks == 2
