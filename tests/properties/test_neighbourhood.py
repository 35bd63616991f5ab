"""Nets that are banned in the place of their members: when, for how long, and who is shut out at every moment."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from guard.engine import Engine
from guard.model import Action, Ban, Policy
from tests.properties import traffic
from tests.properties.traffic import START

RULE = "bad_neighbourhood"
HOUR = 3600.0
POLICY = Policy()._replace(
    failures=2, neighbourhood_members=3, neighbourhood_window=HOUR, ban=1000.0, ban_max=9000.0, prefix6=64
)
OLD = [f"198.51.{net}.{host}" for net in (100, 101) for host in range(1, 6)]
NEW = [f"2001:db8:0:{(fifty_six << 8) + net:x}::1" for fifty_six in (1, 2, 3, 4) for net in range(3)]
ALL = [*OLD, *NEW]


def stamped(second: float, tag: str, text: str) -> bytes:
    moment = datetime.fromtimestamp(START + second, UTC).isoformat(timespec="microseconds")
    return f"{moment} mx {tag}: {text}\n".encode()


def guess(second: float, ip: str) -> bytes:
    text = f"warning: unknown[{ip}]: SASL PLAIN authentication failed: x, sasl_username=a"
    return stamped(second, "postfix/smtpd[41]", text)


def guesses(second: float, *ips: str) -> bytes:
    """Return what gets each of the addresses banned, all within a second."""
    return b"".join(guess(second, ip) for ip in ips for _ in range(POLICY.failures))


def chained(second: float, ip: str, n: int) -> bytes:
    """Return two lines that look like guesses until `login` shows that they were none."""
    said = f"auth: passwd-file(a,{ip},<{traffic.session_id(ip, n)}>): unknown user"
    return stamped(second, "dovecot", said) * POLICY.failures


def login(second: float, ip: str, n: int) -> bytes:
    tail = f"method=PLAIN, rip={ip}, lip=10.66.0.10, TLS, session=<{traffic.session_id(ip, n)}>"
    return stamped(second, "dovecot", f"imap-login: Login: user=<a>, {tail}")


def short(actions: Iterable[Action]) -> list[str]:
    """Return actions as one reads them: `+net rule`, `-net cause`."""
    return [f"+{a.net} {a.rule}" if isinstance(a, Ban) else f"-{a.net} {a.cause}" for a in actions]


def nets(guard: Engine) -> list[str]:
    return sorted(ban.net for ban in guard.active_bans())


def hosts(*last: int, net: int = 100) -> list[str]:
    return [f"198.51.{net}.{n}" for n in last]


def own(*last: int) -> list[str]:
    return [f"198.51.100.{n}/32" for n in last]


# -- by example ----------------------------------------------------------------------------------------------------


def test_a_net_is_banned_in_the_place_of_its_members_and_before_they_are_let_go():
    guard = traffic.engine(POLICY)
    assert short(guard.feed("log", guesses(0, *hosts(1, 2)))) == [f"+{net} brute_force" for net in own(1, 2)]
    done = guard.feed("log", guesses(5, *hosts(3)))
    assert short(done) == [
        "+198.51.100.3/32 brute_force",
        f"+198.51.100.0/24 {RULE}",
        *(f"-{net} folded" for net in own(1, 2, 3)),
    ]
    wide = done[1]
    assert isinstance(wide, Ban)
    assert (wide.at, wide.until, wide.failures) == (START + 5, START + 1005, 6)
    assert len(wide.evidence) == 3
    assert all("authentication failed" in line for line in wide.evidence)
    assert nets(guard) == ["198.51.100.0/24"]
    assert guard.wanted() == {"ipv4": 1, "ipv6": 0}
    assert guard.stats.bans.values == {("brute_force", "ipv4"): 3, (RULE, "ipv4"): 1}
    assert guard.stats.unbans.values == {("folded",): 3}
    assert guard.stats.findings.values[RULE,] == 1


def test_it_is_off_until_somebody_chooses_it():
    guard = traffic.engine(Policy()._replace(failures=2))
    guard.feed("log", guesses(0, *OLD))
    assert len(guard.active_bans()) == len(OLD)


def test_who_fails_on_inside_it_is_counted_and_nothing_more():
    guard = traffic.engine(POLICY)
    guard.feed("log", guesses(0, *hosts(1, 2, 3)))
    assert guard.feed("log", guesses(500, *hosts(1, 2, 3, 4, 5))) == []
    [source] = [s for s in guard.report()["sources"] if s["ip"] == "198.51.100.4"]  # type: ignore[attr-defined]
    assert source["failures"] == 2
    assert guard.tick(START + 999) == []
    assert short(guard.tick(START + 1000)) == ["-198.51.100.0/24 expired"]
    assert nets(guard) == []
    assert short(guard.feed("log", guesses(1001, *hosts(4)))) == ["+198.51.100.4/32 brute_force"]


def test_its_ban_doubles_as_others_do_and_a_member_that_is_banned_for_longer_keeps_his_own():
    guard = traffic.engine(POLICY)
    guard.feed("log", guesses(0, *hosts(1, 2, 3)))
    guard.tick(START + 1000)
    guard.feed("log", guesses(1000, *hosts(4, 5)))
    [*_, wide, _, _, _] = guard.feed("log", guesses(1100, *hosts(6)))
    assert isinstance(wide, Ban)
    assert (wide.rule, wide.seconds) == (RULE, 2000)
    guard = traffic.engine(POLICY)
    guard.feed("log", guesses(0, *hosts(1)))
    guard.tick(START + 1000)
    done = guard.feed("log", guesses(1000, *hosts(1, 2, 3)))  # .1 for the second time: 2000 s
    assert short(done)[3:] == [f"+198.51.100.0/24 {RULE}", *(f"-{net} folded" for net in own(2, 3))]
    assert nets(guard) == ["198.51.100.0/24", "198.51.100.1/32"]
    assert short(guard.tick(START + 2000)) == ["-198.51.100.0/24 expired"]
    assert nets(guard) == own(1)
    assert short(guard.tick(START + 3000)) == ["-198.51.100.1/32 expired"]


@pytest.mark.parametrize(("third", "folds"), [(599, True), (600, False), (1001, False)])
def test_bans_count_while_they_are_in_the_window_and_in_force(third, folds):
    guard = traffic.engine(POLICY._replace(neighbourhood_window=600.0))
    log = guesses(0, *hosts(1)) + guesses(300, *hosts(2)) + guesses(third, *hosts(3))
    assert (RULE in [a.rule for a in guard.feed("log", log) if isinstance(a, Ban)]) is folds
    guard = traffic.engine(POLICY._replace(neighbourhood_window=1e6))
    log = guesses(0, *hosts(1)) + guesses(300, *hosts(2)) + guesses(third, *hosts(3))
    assert (RULE in [a.rule for a in guard.feed("log", log) if isinstance(a, Ban)]) is (third < 1000)


def test_the_same_address_again_is_no_further_member():
    guard = traffic.engine(POLICY._replace(ban=10.0, ban_max=10.0, neighbourhood_window=1e6))
    log = b"".join(guesses(20 * n, *hosts(1)) for n in range(9)) + guesses(181, *hosts(2))
    assert {a.rule for a in guard.feed("log", log) if isinstance(a, Ban)} == {"brute_force"}


def test_a_56_is_one_customer_and_a_48_is_what_several_of_its_56s_make_it():
    guard = traffic.engine(POLICY)
    done = guard.feed("log", guesses(0, *NEW[:3]))
    assert short(done)[3] == f"+2001:db8:0:100::/56 {RULE}"
    assert short(guard.feed("log", guesses(1, NEW[3], NEW[4])))[1:] == ["+2001:db8:0:201::/64 brute_force"]
    done = guard.feed("log", guesses(2, NEW[6]))
    assert short(done)[1] == f"+2001:db8::/48 {RULE}"
    assert sorted(short(done)[2:]) == [
        "-2001:db8:0:100::/56 folded", "-2001:db8:0:200::/64 folded", "-2001:db8:0:201::/64 folded",
        "-2001:db8:0:300::/64 folded",
    ]  # fmt: skip
    assert nets(guard) == ["2001:db8::/48"], "what the /56 had folded is not let go a second time"
    assert short(guard.tick(START + 5000)) == ["-2001:db8::/48 expired"]
    assert nets(guard) == []
    assert not guard._bans.active


@pytest.mark.parametrize("list_", ["allow", "trusted", "own"])
def test_a_net_that_holds_an_address_of_ours_is_never_banned(list_):
    ours: Any = ("198.51.100.77/32", "2001:db8:0:1ff::9/128")
    guard = traffic.engine(POLICY._replace(**{list_: ours}))
    guard.feed("log", guesses(0, *ALL))
    assert "198.51.100.0/24" not in nets(guard)
    assert "198.51.101.0/24" in nets(guard)
    assert "2001:db8:0:100::/56" not in nets(guard)
    assert "2001:db8::/48" not in nets(guard)
    assert "2001:db8:0:200::/56" in nets(guard)


# -- taken back ----------------------------------------------------------------------------------------------------


def test_a_member_revoked_frees_the_net_and_the_others_are_banned_by_themselves_again():
    guard = traffic.engine(POLICY)
    guard.feed("log", guesses(0, *hosts(1)) + guesses(100, *hosts(2)) + chained(101, "198.51.100.3", 1))
    assert nets(guard) == ["198.51.100.0/24"]
    done = guard.feed("log", login(102, "198.51.100.3", 1))
    assert short(done) == [*(f"+{net} brute_force" for net in own(1, 2)), "-198.51.100.0/24 revoked"]
    assert [ban.until - START for ban in done if isinstance(ban, Ban)] == [1000, 1100], (
        "the rest of their time"
    )
    assert nets(guard) == own(1, 2)
    assert short(guard.tick(START + 1000)) == ["-198.51.100.1/32 expired"]
    assert short(guard.tick(START + 1100)) == ["-198.51.100.2/32 expired"]
    assert sum(guard.stats.bans.values.values()) == sum(guard.stats.unbans.values.values())
    [*_, ban] = guard.feed("log", guesses(1200, *hosts(3)))
    assert isinstance(ban, Ban)
    assert ban.seconds == 1000, "the ban that was revoked does not count"


def test_a_member_revoked_where_enough_are_left_changes_nothing_and_the_next_one_does():
    guard = traffic.engine(POLICY._replace(neighbourhood_prefix4=(16, 24)))
    log = guesses(0, *hosts(1, 2)) + guesses(1, *hosts(9, net=101))
    log += chained(2, "198.51.100.9", 1)  # the /24 is banned with its third, the /16 with its third /24
    guard.feed("log", log)
    assert nets(guard) == ["198.51.100.0/24", "198.51.101.9/32"]
    guard.feed("log", guesses(3, *hosts(9, net=102)))
    assert nets(guard) == ["198.51.0.0/16"]
    assert guard.feed("log", login(4, "198.51.100.9", 1)) == [], (
        "the /16 stands: three /24s have a banned member"
    )
    assert nets(guard) == ["198.51.0.0/16"]
    done = guard.unban("198.51.102.0/24", START + 5)
    assert short(done)[-1] == "-198.51.0.0/16 manual"
    assert nets(guard) == ["198.51.100.1/32", "198.51.100.2/32", "198.51.101.9/32"], "the /24 had fallen"


def test_what_a_revoked_member_had_folded_with_stays_when_only_the_wider_net_falls():
    guard = traffic.engine(POLICY)
    guard.feed("log", guesses(0, *NEW[:4]) + chained(1, NEW[6], 1))
    assert nets(guard) == ["2001:db8::/48"]
    done = guard.feed("log", login(2, NEW[6], 1))
    assert short(done) == [
        "+2001:db8:0:100::/56 bad_neighbourhood",
        "+2001:db8:0:200::/64 brute_force",
        "-2001:db8::/48 revoked",
    ]
    guard.tick(START + 5000)
    assert not guard._bans.active


def test_a_member_whose_own_time_is_over_still_takes_the_net_with_him_when_he_is_revoked():
    guard = traffic.engine(POLICY._replace(ban=100.0))
    guard.feed("log", guesses(0, *hosts(1, 2, 3)))
    guard.tick(START + 100)
    guard.feed("log", chained(101, "198.51.100.4", 1))
    guard.feed("log", guesses(150, *hosts(5, 6)))  # the net for the second time: 200 s
    assert nets(guard) == ["198.51.100.0/24"]
    assert guard.tick(START + 260) == []
    assert short(guard.feed("log", login(261, "198.51.100.4", 1))) == ["-198.51.100.0/24 revoked"]
    assert nets(guard) == []
    assert not guard._bans.active


def test_who_is_banned_for_longer_than_the_inner_net_comes_back_beside_it():
    guard = traffic.engine(POLICY)
    guard.feed("log", guesses(0, NEW[0], NEW[3], NEW[6]))
    assert nets(guard) == ["2001:db8::/48"]
    guard.tick(START + 1000)
    guard.feed("log", guesses(1000, *NEW[:3]) + guesses(1001, NEW[4]) + chained(1002, NEW[7], 1))
    assert nets(guard) == ["2001:db8::/48"], "for the second time, until 3002"
    done = guard.feed("log", login(1003, NEW[7], 1))
    assert [(ban.net, ban.until - START) for ban in done if isinstance(ban, Ban)] == [
        ("2001:db8:0:100::/56", 2000), ("2001:db8:0:100::/64", 3000), ("2001:db8:0:201::/64", 2001),
    ]  # fmt: skip
    assert short(done)[3:] == ["-2001:db8::/48 revoked"]


def test_what_shows_late_counts_only_with_what_is_still_in_force():
    """An attempt of a chain waits for the next line; whoever was banned before has gone free in a daemon by then."""
    lines = guesses(0, NEW[0], NEW[3]) + chained(100, OLD[0], 1) + login(101, OLD[0], 1)  # shows the chain
    late = chained(500, NEW[6], 2)
    last = stamped(1000, "postfix/smtpd[42]", "connect from unknown[203.0.113.9]")
    replay, daemon = traffic.engine(POLICY), traffic.engine(POLICY)
    assert RULE not in str(replay.feed("log", lines + late + last))
    daemon.feed("log", lines + late, START + 500)
    daemon.tick(START + 1000)
    daemon.feed("log", last, START + 1000)
    assert daemon.report() == replay.report()


def test_a_ban_that_is_over_cannot_be_revoked_in_replay_either():
    replay, daemon = traffic.engine(POLICY), traffic.engine(POLICY)
    first, then = chained(0, OLD[0], 1), login(1001, OLD[0], 1) + guesses(1002, OLD[0])
    assert short(replay.feed("log", first + then)) == ["+198.51.100.1/32 brute_force"] * 2
    daemon.feed("log", first, START)
    daemon.tick(START + 1000)
    daemon.feed("log", then, START + 1002)
    assert daemon.report() == replay.report()


# -- the operator's hand -------------------------------------------------------------------------------------------


def folded(policy: Policy = POLICY) -> Engine:
    guard = traffic.engine(policy)
    guard.feed("log", guesses(0, *hosts(1, 2, 3)))
    assert nets(guard) == ["198.51.100.0/24"]
    return guard


def test_to_allow_one_member_lifts_the_net_at_once_and_keeps_the_others_out():
    guard = folded()
    done = guard.allow("198.51.100.2/32", START + 10)
    assert short(done) == [*(f"+{net} brute_force" for net in own(1, 3)), "-198.51.100.0/24 allowed"]
    assert nets(guard) == own(1, 3)
    assert guard.feed("log", guesses(20, *hosts(2))) == []
    assert "198.51.100.0/24" not in [a.net for a in guard.feed("log", guesses(20, *hosts(4, 5)))]


def test_to_configure_the_allow_list_does_the_same():
    guard = folded()
    done = guard.configure(POLICY._replace(allow=("198.51.100.128/25",)), START + 10)
    assert short(done) == [*(f"+{net} brute_force" for net in own(1, 2, 3)), "-198.51.100.0/24 allowed"]


@pytest.mark.parametrize("ip", ["198.51.100.2/32", "198.51.100.99/32"])
def test_to_unban_an_address_inside_the_net_lets_it_in_and_keeps_the_members_out(ip):
    guard = folded()
    done = guard.unban(ip, START + 10)
    left = [net for net in own(1, 2, 3) if net != ip]
    assert short(done) == [*(f"+{net} brute_force" for net in left), "-198.51.100.0/24 manual"]
    assert nets(guard) == left


def test_to_unban_the_net_lets_everybody_in():
    guard = folded()
    assert short(guard.unban("198.51.100.0/24", START + 10)) == ["-198.51.100.0/24 manual"]
    assert not guard._bans.active
    assert guard.unban("198.51.100.0/24", START + 10) == []


def test_a_ban_of_the_net_by_hand_takes_its_place_and_the_members_have_their_own_again():
    guard = folded()
    done = guard.ban("198.51.100.0/24", 50.0, START + 10)
    assert short(done) == [*(f"+{net} brute_force" for net in own(1, 2, 3)), "+198.51.100.0/24 manual"]
    assert short(guard.tick(START + 60)) == ["-198.51.100.0/24 expired"]
    assert nets(guard) == own(1, 2, 3)


def test_bans_by_hand_are_neither_members_nor_folded():
    guard = traffic.engine(POLICY)
    guard.ban("198.51.100.8/32", 100.0, START)
    guard.deny("198.51.100.9/32", START)
    assert "+198.51.100.0/24 bad_neighbourhood" not in short(guard.feed("log", guesses(0, *hosts(1, 2))))
    guard.feed("log", guesses(1, *hosts(3)))
    assert nets(guard) == ["198.51.100.0/24", "198.51.100.8/32", "198.51.100.9/32"]
    assert guard.feed("log", guesses(2, *hosts(8, 9))) == []


def test_a_net_that_the_firewall_refuses_is_not_banned_again_and_its_members_are():
    guard = folded()
    done = guard.refuse("198.51.100.0/24", START + 10, "gateway")
    assert short(done) == [*(f"+{net} brute_force" for net in own(1, 2, 3)), "-198.51.100.0/24 revoked"]
    assert short(guard.feed("log", guesses(20, *hosts(4)))) == ["+198.51.100.4/32 brute_force"]
    guard = folded()
    done = guard.refuse(own(2)[0], START + 10, "ssh")
    assert short(done) == [*(f"+{net} brute_force" for net in own(1, 3)), "-198.51.100.0/24 revoked"]


def test_a_clock_that_was_set_back_leaves_no_ban_without_an_end():
    guard = folded()
    guard.ban("198.51.100.0/24", 5000.0, START + 1)
    guard = folded(POLICY._replace(ban_max=1e6))
    guard.feed("log", b"")
    wide = guard._bans.active["198.51.100.0/24"]
    wide.ban = wide.ban._replace(until=START + 9000)
    assert guard.tick(START + 2000) == []
    assert short(guard.unban("198.51.100.99/32", START + 500))[:3] == [
        f"+{net} brute_force" for net in own(1, 2, 3)
    ]
    assert len(guard.tick(START + 2000)) == 3
    assert nets(guard) == []


def test_explain_names_the_ban_that_is_enforced():
    guard = folded()
    for ip in hosts(1, 77):
        ban: Any = guard.explain_address(ip)["ban"]
        assert (ban["net"], ban["rule"]) == ("198.51.100.0/24", RULE)


# -- anything that may happen --------------------------------------------------------------------------------------

FEW = [*OLD[:4], *OLD[5:7], *NEW[:3], NEW[3], NEW[6], NEW[7]]
SECONDS = st.sampled_from([0, 1, 1, 1, 1, 100, 450])
ATTEMPTS = st.tuples(st.sampled_from(["guess", "guess", "guess", "chain", "login"]), st.sampled_from(FEW))
BY_HAND = st.tuples(
    st.sampled_from(["tick", "allow", "disallow", "unban", "ban", "deny", "undeny"]),
    st.sampled_from([
        "198.51.100.1/32", "198.51.100.2/31", "198.51.100.0/24", "198.51.101.77/32", "2001:db8:0:100::/64",
        "2001:db8:0:100::/56", "2001:db8::/48", "2001:db8:0:2ff::1/128",
    ]),
)  # fmt: skip
LOG = st.lists(st.tuples(SECONDS, ATTEMPTS), min_size=8, max_size=60)
PLAY = st.lists(
    st.tuples(SECONDS, st.integers(0, 4).flatmap(lambda n: ATTEMPTS if n else BY_HAND)),
    min_size=12,
    max_size=60,
)


class Story:
    """Steps as they come, on the log's time; a chain's session is known to the login that follows."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sessions: dict[str, tuple[int, float]] = {}
        self.n = 0

    def lines(self, seconds: float, what: str, ip: str) -> bytes:
        self.now += seconds
        if what == "guess":
            return guesses(self.now, ip)
        if what == "chain":
            self.n += 1
            self.sessions[ip] = self.n, self.now
            lines = chained(self.now, ip, self.n)
            self.now += 3  # an attempt of a chain that is known may wait two seconds for the login
            return lines + stamped(self.now, "postfix/smtpd[42]", "connect from unknown[203.0.113.9]")
        n, since = self.sessions.pop(ip, (0, -HOUR)) if what == "login" else (0, -HOUR)
        return login(self.now, ip, n) if self.now - since < HOUR / 4 else b""  # old sessions are forgotten


def act(guard: Engine, what: str, net: str, now: float) -> list[Action]:
    """Do what the operator does; what may not be done is not."""
    if what not in {"allow", "disallow", "unban", "ban", "deny", "undeny"}:
        return []
    try:
        if what == "disallow":
            guard.disallow(net, 0.0)
            return []
        if what == "ban":
            return guard.ban(net, 300.0, now)
        done: list[Action] = getattr(guard, what)(net, now)
    except ValueError:
        return []
    return done


def shut_out(held: set[str]) -> set[str]:
    """Return the addresses that these nets hold."""
    networks = [ip_network(net) for net in held]
    return {ip for ip in ALL if any(ip_address(ip) in net for net in networks)}


@given(PLAY)
@settings(max_examples=400)
def test_who_must_be_shut_out_is_at_every_moment_and_who_is_allowed_never(steps):
    guard, story = traffic.engine(POLICY), Story()
    held: set[str] = set()
    sentenced: dict[str, float] = {}  # by net: until when a rule shut it out for its own attempts
    allowed: set[str] = set()
    for seconds, (what, on) in steps:
        lines = story.lines(seconds, what, on)
        now = START + story.now
        held -= {unban.net for unban in guard.tick(now)}
        done = guard.feed("log", lines, now) if lines else act(guard, what, on, now)
        if what == "allow":
            allowed.add(on)
        elif what == "disallow":
            allowed.discard(on)
        before, passed = shut_out(held), []
        for action in done:
            if isinstance(action, Ban):
                held.add(action.net)
                if action.rule == "brute_force":
                    sentenced[action.net] = action.until
                if action.rule in {"brute_force", RULE}:
                    assert not any(overlaps(action.net, net) for net in allowed)
            else:
                assert action.net in held, "let go what was not held"
                held.remove(action.net)
            passed.append(shut_out(held))
        # Whoever is out before and after is out in between.
        assert all((before & shut_out(held)) <= moment for moment in passed)
        assert held == {ban.net for ban in guard.active_bans()}
        assert sum(guard.wanted().values()) == len(held)
        assert not any(overlaps(a, b) for a in held for b in allowed)
        sentenced = {net: until for net, until in sentenced.items() if until > now}
        if what == "login":
            net = ip_net(on)
            if net not in guard._bans.active:
                sentenced.pop(net, None)
        if what in {"allow", "unban", "ban", "deny"}:  # a ban by hand takes the place of the net's own
            spared = {"allow": overlaps, "unban": inside}.get(what, str.__eq__)
            sentenced = {net: until for net, until in sentenced.items() if not spared(net, on)}
        for net in sentenced:
            assert any(inside(net, around) for around in held), (net, held)
        for net, active in guard._bans.active.items():
            assert not active.folded or any(inside(net, a) and net != a for a in held)
    event(f"nets banned: {min(3, sum(ban.rule == RULE for ban in guard._bans.history))}")
    guard.tick(START + story.now + 1e6)
    assert all(ban.rule == "deny" for ban in guard.active_bans())
    assert len(guard._bans.active) == len(guard.active_bans()), "nothing folded is left behind"


def ip_net(ip: str) -> str:
    return f"{ip}/32" if "." in ip else f"{ip.removesuffix('1')}/64"


def overlaps(one: str, other: str) -> bool:
    a, b = ip_network(one), ip_network(other)
    return a.version == b.version and a.overlaps(b)


def inside(net: str, around: str) -> bool:
    a, b = ip_network(net), ip_network(around)
    return a.version == b.version and a.subnet_of(b)  # type: ignore[arg-type]


@given(LOG)
@settings(max_examples=200)
def test_a_daemon_whose_clock_ticks_bans_as_replay_does(steps):
    replay, daemon, story = traffic.engine(POLICY), traffic.engine(POLICY), Story()
    for seconds, (what, ip) in steps:
        lines = story.lines(seconds, what, ip)
        daemon.tick(START + story.now)
        replay.feed("log", lines)
        daemon.feed("log", lines, START + story.now)
        assert daemon.report() == replay.report()
        now = START + story.now
        assert in_force(daemon, now) == in_force(replay, now)
    event(f"nets banned: {min(3, sum(ban.rule == RULE for ban in daemon._bans.history))}")


def in_force(guard: Engine, now: float) -> list[Ban]:
    return sorted((ban for ban in guard.active_bans() if ban.until > now), key=lambda ban: ban.net)


@given(PLAY, st.data())
@settings(max_examples=150)
def test_a_kill_and_a_restart_at_any_moment_change_nothing(steps, data):
    whole, guard, story = traffic.engine(POLICY), traffic.engine(POLICY, keep=True), Story()
    rows: dict[tuple[str, str], str] = {}
    for seconds, (what, on) in steps:
        if what in {"guess", "chain", "login"}:
            lines = story.lines(seconds, what, on)
            now = START + story.now
            assert whole.feed("log", lines, now) == guard.feed("log", lines, now)
        else:
            story.now += seconds
            now = START + story.now
            assert sorted(short(whole.tick(now))) == sorted(short(guard.tick(now)))
            if what != "tick":
                assert act(whole, what, on, now) == act(guard, what, on, now)
        if data.draw(st.booleans()):
            for table, key, text in json.loads(json.dumps(guard.changes())):
                if text is None:
                    rows.pop((table, key), None)
                else:
                    rows[table, key] = text
            guard = traffic.engine(POLICY, keep=True)
            guard.restore([(table, key, text) for (table, key), text in rows.items()])
        assert guard.report() == whole.report()
        assert in_force(guard, 0.0) == in_force(whole, 0.0)
        assert sum(guard.wanted().values()) == len(guard.active_bans())
    event(f"nets banned: {min(3, sum(ban.rule == RULE for ban in guard._bans.history))}")
    now = START + story.now + 2000
    assert sorted(short(whole.tick(now))) == sorted(short(guard.tick(now)))
