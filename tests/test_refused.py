"""Bans that something outside the core stands against, as the core sees it."""

from __future__ import annotations

import time

from guard.clock import Clock
from guard.engine import Engine
from guard.model import Ban, Policy, Unban
from tests.daemon import failure

CLIENT, NEIGHBOUR, GATEWAY = "198.51.100.7", "198.51.100.8", "198.51.100.1"


def made(**policy: object) -> Engine:
    return Engine(Policy(failures=1, **policy), clock=Clock(now=time.time(), live=True))  # type: ignore[arg-type]


def failed(engine: Engine, *addresses: str) -> list[str]:
    lines = "".join(failure(ip) + "\n" for ip in addresses)
    return [
        action.net for action in engine.feed("mail", lines.encode(), time.time()) if isinstance(action, Ban)
    ]


def test_a_refused_ban_is_over_counted_and_no_step_to_a_longer_one():
    engine = made()
    for _ in range(3):
        assert failed(engine, CLIENT) == [f"{CLIENT}/32"]
        [unban] = engine.refuse(f"{CLIENT}/32", time.time(), "own")
        assert isinstance(unban, Unban)
        assert (unban.net, unban.cause) == (f"{CLIENT}/32", "revoked")
        assert engine.active_bans() == []
    assert engine.stats.ignored.values == {("own",): 3}
    assert engine.stats.unbans.values == {("revoked",): 3}
    failed(engine, CLIENT)
    assert [ban.seconds for ban in engine.active_bans()] == [3600.0]
    assert engine.refuse("203.0.113.1/32", time.time(), "own") == [], "there is none"


def test_a_refused_net_is_judged_address_by_address_from_then_on():
    engine = made(prefix4=24)
    assert failed(engine, CLIENT) == ["198.51.100.0/24"]
    engine.refuse("198.51.100.0/24", time.time(), "own")
    assert failed(engine, CLIENT, NEIGHBOUR) == [f"{CLIENT}/32", f"{NEIGHBOUR}/32"]
    assert failed(engine, "198.51.101.7") == ["198.51.101.0/24"]


def test_a_net_refused_by_hand_stays_one_client():
    engine = made(prefix4=24)
    engine.ban("198.51.100.0/24", 60.0, time.time())
    engine.refuse("198.51.100.0/24", time.time(), "own")
    assert failed(engine, CLIENT) == ["198.51.100.0/24"]


def test_addresses_of_this_host_that_fail_are_named_once():
    engine = made(own=(f"{GATEWAY}/32",), prefix4=24)
    assert failed(engine, GATEWAY, GATEWAY, CLIENT) == [f"{CLIENT}/32"], (
        "a net with a gateway in it is no client"
    )
    assert engine.take_spared() == [GATEWAY]
    failed(engine, GATEWAY, "127.0.0.1")
    assert engine.take_spared() == [], "loopback is trusted, and that is as it should be"
    assert engine.stats.ignored.values == {("own",): 3, ("trusted",): 1}
