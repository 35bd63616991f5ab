"""Several engines that tell each other what they saw, late and in any order, against one that saw everything."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.engine import Engine
from guard.model import Action, Attempt, Ban, Notice, Policy
from tests.properties import traffic
from tests.properties.traffic import START

IP, OTHER = "198.51.100.7", "203.0.113.5"
IP6, SAME_64 = "2001:db8:1:2::7", "2001:db8:1:2:ffff::8"
NET = f"{IP}/32"
FAR = START + 1e7


class Node:
    """One guard: its engine, what it has told, how much of each other's it was told, and what a kill leaves."""

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.out: list[Notice] = []
        self.heard: dict[str, int] = {}
        self.rows: dict[tuple[str, str], str] = {}
        self.engine = self.fresh()

    def fresh(self) -> Engine:
        engine = traffic.engine(self.policy, keep=True)
        engine.share()
        return engine

    def sees(self, ip: str, at: float, n: int = 1) -> list[Action]:
        """Count an attempt of its own, or take one back."""
        engine = self.engine
        client = engine._sessions.ledger.client(ip, at)
        done: list[Action] = []
        attempt = Attempt(
            at, ip, "a", "dovecot", "imap", "unspecified", n, -1, client, f"line of {ip} at {at}"
        )
        engine.attempt(attempt, done)
        self.tells()
        return done

    def tells(self) -> None:
        assert self.engine.notices is not None
        self.out += self.engine.notices.take()

    def hears(self, other: Node, now: float, most: int = 1 << 30) -> list[Action]:
        """Take what another has told since the last time, twice: the link drops what was there."""
        first = self.heard.get(other.name, 0)
        done: list[Action] = []
        for notice in other.out[first : first + most]:
            done += self.engine.told(*notice, now)
        self.heard[other.name] = min(first + most, len(other.out))
        self.tells()
        return done

    def restarts(self) -> None:
        """Save, die, and begin again from the rows."""
        for table, key, text in self.engine.changes():
            if text is None:
                self.rows.pop((table, key), None)
            else:
                self.rows[table, key] = text
        self.engine = self.fresh()
        self.engine.restore((table, key, text) for (table, key), text in self.rows.items())
        assert [row for row in self.engine.changes() if self.rows.get(row[:2]) != row[2]] == []

    def ban(self, net: str = NET) -> Ban | None:
        active = self.engine._bans.active.get(net)
        return None if active is None else active.ban

    def number(self, net: str = NET) -> int:
        return self.engine._bans.number(net)

    def window(self, net: str = NET) -> list[float]:
        window = self.engine._brute.windows.peek(net)
        return [] if window is None else [at for at, _ in window.attempts()]


def fleet(size: int = 3, **policy: Any) -> list[Node]:
    return [Node(f"mx{n}", Policy()._replace(**policy)) for n in range(size)]


def exchange(nodes: list[Node], now: float) -> None:
    """Have everybody told everything, until nobody has anything new to tell."""
    for _ in range(20):
        before = [len(node.out) for node in nodes]
        for node in nodes:
            for other in nodes:
                if other is not node:
                    node.hears(other, now)
        if before == [len(node.out) for node in nodes] and all(
            node.heard.get(other.name, 0) == len(other.out)
            for node in nodes
            for other in nodes
            if other is not node
        ):
            return
    pytest.fail("they never fall silent")


def agree(nodes: list[Node], nets: list[str], now: float) -> None:
    """All nodes have the same bans, as often, to the same end, and the same windows."""
    for node in nodes:
        families = ["ipv6" if ":" in ban.net else "ipv4" for ban in node.engine.active_bans()]
        assert node.engine.wanted() == {family: families.count(family) for family in ("ipv4", "ipv6")}
    for node in nodes:
        node.engine.tick(now)
    for net in nets:
        assert len({node.ban(net) and node.ban(net).until for node in nodes}) == 1, net  # type: ignore[union-attr]
        assert len({node.number(net) for node in nodes}) == 1, net
        assert len({tuple(node.window(net)) for node in nodes}) == 1, net


# -- the law -----------------------------------------------------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("guess"), st.integers(0, 2), st.sampled_from([IP, OTHER, IP6, SAME_64])),
        st.tuples(st.just("back"), st.integers(0, 2), st.integers(0, 5)),
        st.tuples(st.just("hear"), st.integers(0, 2), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("kill"), st.integers(0, 2)),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=400)
def test_attempts_of_one_window_ban_as_in_one_engine_that_saw_them_all(steps):
    nodes = fleet()
    one = Node("one", Policy())
    own: list[list[tuple[str, float]]] = [[], [], []]
    seen: list[tuple[str, float]] = []
    now = START
    for what, n, *rest in steps:
        now += 1
        if what == "guess" and len(seen) < 10:
            ip = rest[0]
            nodes[n].sees(ip, now)
            own[n].append((ip, now))
            seen.append((ip, now))
        elif what == "back" and own[n]:
            ip, at = own[n].pop(rest[0] % len(own[n]))
            seen.remove((ip, at))
            nodes[n].sees(ip, at, -1)
        elif what == "hear" and rest[0] != n:
            nodes[n].hears(nodes[rest[0]], now, rest[1])
        elif what == "kill":
            nodes[n].restarts()
    for ip, at in seen:
        one.sees(ip, at)
    exchange(nodes, now)
    span = now - START
    for net in (NET, f"{OTHER}/32", "2001:db8:1:2::/64"):
        expected = one.ban(net)
        for node in nodes:
            found = node.ban(net)
            assert (found is None) == (expected is None), (node.name, net)
            assert node.number(net) == one.number(net)
            if found is None or expected is None:
                assert node.window(net) == one.window(net)
            else:
                assert abs(found.until - expected.until) <= span  # earlier where a first guess was taken back
                assert found.until == (nodes[0].ban(net) or found).until
                assert node.window(net) == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("guess"), st.integers(0, 2), st.integers(0, 400)),
            st.tuples(st.just("hear"), st.integers(0, 2), st.integers(0, 2)),
            st.tuples(st.just("unban"), st.integers(0, 2), st.integers(0, 50)),
            st.tuples(st.just("ban"), st.integers(0, 2), st.integers(0, 50)),
            st.tuples(st.just("kill"), st.integers(0, 2), st.just(0)),
        ),
        max_size=80,
    )
)
@settings(max_examples=400)
def test_whatever_happened_apart_all_agree_when_everything_was_told(steps):
    nodes = fleet(ban=1000.0)
    now = START
    for what, n, more in steps:
        if what == "guess":
            now += more
            for node in nodes:
                node.engine.tick(now)
            nodes[n].sees(IP, now)
        elif what == "hear" and more != n:
            nodes[n].hears(nodes[more], now)
        elif what == "unban":
            now += more
            nodes[n].engine.unban(NET, now)
            nodes[n].tells()
        elif what == "ban":
            now += more
            nodes[n].engine.ban(NET, 500.0, now)
            nodes[n].tells()
        elif what == "kill":
            nodes[n].restarts()
    exchange(nodes, now)
    for node in nodes:
        node.engine.tick(now)
    assert len({node.ban() and node.ban().until for node in nodes}) == 1  # type: ignore[union-attr]


def test_an_uninterrupted_exchange_is_one_engine_over_days():
    nodes = fleet(ban=1000.0)
    one = Node("one", nodes[0].policy)
    at = START
    for n in range(600):
        at += (n * 7919 % 97) * (30 if n % 13 == 0 else 1)
        for node in (*nodes, one):
            node.engine.tick(at)
        nodes[n % 3].sees(IP, at)
        one.sees(IP, at)
        exchange(nodes, at)
        agree([*nodes, one], [NET], at)
    assert one.number() > 3
    assert nodes[0].engine._bans.history[0].evidence


# -- one thing each ----------------------------------------------------------------------------------------------------


def test_five_guesses_spread_over_three_hosts_ban_on_all_at_once():
    a, b, c = nodes = fleet()
    a.sees(IP, START)
    a.sees(IP, START + 1)
    b.sees(IP, START + 2)
    b.sees(IP, START + 3)
    exchange(nodes, START + 4)
    done = c.sees(IP, START + 4)
    assert [action.net for action in done] == [NET]
    for node in (a, b):
        (ban,) = [action for action in node.hears(c, START + 4) if isinstance(action, Ban)]
        assert (ban.net, ban.until, ban.failures) == (NET, START + 4 + 3600, 5)
    exchange(nodes, START + 5)
    agree(nodes, [NET], START + 5)


def test_what_was_told_is_not_in_this_nodes_own_counts():
    a, b = fleet(2)
    for n in range(3):
        a.sees(IP, START + n)
    b.hears(a, START + 3)
    report = b.engine.report()
    assert report["sources"] == []
    assert report["failures"]["total"] == 0  # type: ignore[index]
    assert b.window() == [START, START + 1, START + 2]
    assert b.engine.stats.told.values == {("attempt", "taken"): 3}
    assert b.out == [], "and it is not told on"


def test_whom_a_node_never_bans_it_does_not_ban_for_others():
    a, b, c = (
        Node("a", Policy()),
        Node("b", Policy(own=(NET,))),
        Node("c", Policy(allow=("198.51.100.0/24",))),
    )
    for n in range(5):
        a.sees(IP, START + n)
    assert a.ban()
    assert b.hears(a, START + 5) == c.hears(a, START + 5) == []
    assert a.hears(b, START + 5) == a.hears(c, START + 5) == []
    assert a.ban()


def test_what_only_this_host_refuses_is_not_told():
    a = Node("a", Policy())
    engine = a.engine
    client = engine._sessions.ledger.client(IP, START)
    for n in range(5):
        attempt = Attempt(START + n, IP, "a", "dovecot", "imap", "unspecified", 1, -1, client, "")
        engine.attempt(attempt, [])
    engine.refuse(NET, START + 5, "own")
    a.tells()
    assert [notice.register for notice in a.out] == [""] * 5


def test_a_revoked_ban_falls_everywhere_and_the_other_attempts_count_on():
    a, b, _ = nodes = fleet()
    for n in range(4):
        b.sees(IP, START + n)
    a.hears(b, START + 4)
    a.sees(IP, START + 4)
    exchange(nodes, START + 5)
    assert all(node.ban() for node in nodes)
    a.sees(IP, START + 4, -1)
    exchange(nodes, START + 6)
    for node in nodes:
        assert node.ban() is None
        assert node.number() == 0
        assert node.window() == [START, START + 1, START + 2, START + 3]


def test_a_ban_that_is_over_counts_as_an_offence_and_bans_nobody():
    a, b = nodes = fleet(2, ban=100.0)
    for n in range(5):
        a.sees(IP, START + n)
    a.engine.tick(START + 1000)
    assert not [
        action
        for action in b.hears(a, START + 1000)
        if isinstance(action, Ban) and action.until > START + 1000
    ]
    b.engine.tick(START + 1000)
    exchange(nodes, START + 1000)
    assert b.ban() is None
    assert b.window() == []
    assert (a.number(), b.number()) == (1, 1)
    for n in range(5):
        b.sees(IP, START + 1001 + n)
    assert b.ban().seconds == 200.0  # type: ignore[union-attr]


def test_a_partition_heals_without_counting_twice():
    a, b = nodes = fleet(2)
    for n in range(5):
        a.sees(IP, START + n)
        b.sees(IP, START + n + 0.5)
        a.sees(OTHER, START + n)
    assert a.ban()
    assert b.ban()
    exchange(nodes, START + 60)
    agree(nodes, [NET, f"{OTHER}/32"], START + 60)
    assert a.ban().until == START + 4.5 + 3600  # type: ignore[union-attr]
    assert a.number() == 1
    assert b.number(f"{OTHER}/32") == 1


@pytest.mark.parametrize("net", [NET, "198.51.100.0/24"])
def test_an_unban_by_hand_reaches_all_and_what_is_told_late_does_not_undo_it(net):
    a, b, c = nodes = fleet()
    for n in range(5):
        b.sees(IP, START + n)
        c.sees(IP, START + n + 0.1)
    a.hears(b, START + 5)
    assert a.engine.unban(net, START + 6)
    a.tells()
    exchange(nodes, START + 7)
    for node in nodes:
        assert node.ban() is None
        node.sees(OTHER, START + 8)
    exchange(nodes, START + 8)
    assert all(node.ban() is None for node in nodes)
    for n in range(5):
        c.sees(IP, START + 10 + n)
    exchange(nodes, START + 20)
    assert all(node.ban() for node in nodes), "a new ban is a new ban"
    agree(nodes, [NET], START + 20)


def test_a_ban_by_hand_reaches_all_and_may_be_made_shorter():
    nodes = fleet()
    nodes[0].engine.ban(NET, 7200.0, START)
    nodes[0].tells()
    exchange(nodes, START)
    nodes[1].engine.ban(NET, 60.0, START + 10)
    nodes[1].tells()
    exchange(nodes, START + 11)
    for node in nodes:
        assert node.ban().until == pytest.approx(START + 70, abs=0.1)  # type: ignore[union-attr]
        assert node.ban().rule == "manual"  # type: ignore[union-attr]


def test_lists_by_hand_reach_all_and_the_last_word_counts():
    a, b, c = nodes = fleet()
    a.engine.deny("203.0.113.0/24", START)
    a.tells()
    exchange(nodes, START)
    assert [action.net for action in c.engine.active_bans()] == ["203.0.113.0/24"]
    a.engine.allow(f"{OTHER}/32", START + 1)
    a.tells()
    exchange(nodes, START + 1)
    assert c.engine.active_bans() == []
    assert c.engine.by_hand() == {"allow": [f"{OTHER}/32"], "deny": ["203.0.113.0/24"]}
    b.engine.disallow(f"{OTHER}/32", START + 2)
    b.tells()
    c.engine.allow(f"{OTHER}/32", START + 3)  # in the same moment, later
    c.tells()
    exchange(nodes, START + 4)
    assert [node.engine.by_hand()["allow"] for node in nodes] == [[f"{OTHER}/32"]] * 3
    c.engine.disallow(f"{OTHER}/32", START + 5)
    c.tells()
    exchange(nodes, START + 6)
    assert [node.engine.by_hand()["allow"] for node in nodes] == [[]] * 3
    for node in nodes:
        node.engine.configure(node.policy, START + 6)
        assert [ban.net for ban in node.engine.active_bans()] == ["203.0.113.0/24"]
        node.restarts()
        assert node.engine.by_hand() == {"allow": [], "deny": ["203.0.113.0/24"]}
    b.engine.undeny("203.0.113.0/24", START + 7)
    b.tells()
    exchange(nodes, START + 8)
    assert [node.engine.active_bans() for node in nodes] == [[], [], []]


def test_an_allow_entry_ends_the_bans_it_touches_everywhere_and_their_neighbours_stay():
    nodes = fleet()
    for n in range(5):
        nodes[0].sees(IP, START + n)
        nodes[1].sees("198.51.100.8", START + n)
    nodes[2].engine.ban("198.51.100.0/28", 600.0, START)
    nodes[2].tells()
    exchange(nodes, START + 6)
    nodes[2].engine.allow(NET, START + 7)
    nodes[2].tells()
    exchange(nodes, START + 8)
    for node in nodes:
        assert [ban.net for ban in node.engine.active_bans()] == ["198.51.100.8/32"]


def test_what_was_decided_alone_is_told_at_the_first_join():
    alone = traffic.engine(keep=True)
    alone.deny("203.0.113.0/24", START)
    alone.ban(NET, 600.0, START)
    a, b = fleet(2)
    a.engine.restore(row for row in alone.changes() if row[2] is not None)  # type: ignore[misc]
    a.engine.join((), START + 1)
    a.tells()
    b.hears(a, START + 2)
    assert sorted(ban.net for ban in b.engine.active_bans()) == [NET, "203.0.113.0/24"]


def test_told_bans_fold_into_a_bad_neighbourhood():
    a, b = nodes = fleet(2, neighbourhood_members=3)
    for host in range(3):
        for n in range(5):
            nodes[host % 2].sees(f"198.51.100.{host}", START + n)
    exchange(nodes, START + 9)
    for node in (a, b):
        assert [ban.net for ban in node.engine.active_bans()] == ["198.51.100.0/24"]


@pytest.mark.parametrize(
    "event",
    [
        ("nonsense", "", True, START, FAR, '{"n":1,"line":""}'),
        (IP, "", True, START, FAR, "{"),
        (IP, "", True, START, FAR, "[]"),
        (IP, "", True, START, FAR, "{}"),
        (IP, "", True, START, FAR, '{"n":1,"line":"\\ud800"}'),
        (IP, "", True, FAR, FAR, '{"n":1,"line":""}'),
        (IP, "", True, math.nan, FAR, '{"n":1,"line":""}'),
        (IP, f"ban {OTHER}/32", True, START, FAR, "{}"),
        (IP, f"ban {NET}", True, START, FAR, "{}"),
        (IP, f"ban {NET}", False, START, FAR, "{}"),
        (
            IP,
            f"ban {NET}",
            True,
            START,
            FAR,
            '{"rule":"x","failures":"y","number":1,"open":0,"times":[],"lines":[]}',
        ),
        (IP, f"greet {NET}", True, START, FAR, "{}"),
    ],
)
def test_nonsense_changes_nothing_and_is_said(event):
    (node,) = fleet(1)
    with pytest.raises(ValueError, match=r".+"):
        node.engine.told(*event, START + 1)  # type: ignore[call-arg]
    assert node.engine.active_bans() == []
    assert node.window() == []


def test_a_body_fits_whatever_the_line_says():
    a, b = Node("a", Policy(failures=60)), Node("b", Policy(failures=60))
    engine = a.engine
    client = engine._sessions.ledger.client(IP, START)
    for n in range(60):
        line = ('\\"\x00\udcff\U0001f600' * 400)[n:]
        engine.attempt(Attempt(START + n, IP, "a", "dovecot", "imap", "unspecified", 1, -1, client, line), [])
    a.tells()
    assert max(len(notice.body.encode()) for notice in a.out) <= 4096
    assert [json.loads(notice.body) for notice in a.out]
    b.hears(a, START + 60)
    assert b.ban().failures == 60  # type: ignore[union-attr]
