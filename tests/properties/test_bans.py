"""Bans against an oracle that counts by brute force; lists, escalation, forgetting, revocation."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guard.model import Ban, Policy, Unban
from guard.rules._window import Window
from tests.properties import traffic
from tests.properties.traffic import START, report_on

IP = "198.51.100.7"


def failure(second: float, ip: str = IP) -> bytes:
    """Return one failed attempt of an address."""
    moment = datetime.fromtimestamp(START + second, UTC).isoformat(timespec="microseconds")
    text = f"warning: unknown[{ip}]: SASL PLAIN authentication failed: x, sasl_username=a"
    return f"{moment} mx postfix/smtpd[41]: {text}\n".encode()


def bans_of(seconds: list[int] | list[float], policy: Policy | None = None) -> list[tuple[float, float]]:
    """Return (second, duration) of each ban of one address."""
    bans = report_on(b"".join(failure(s) for s in seconds), policy=policy)["bans"]
    return [(datetime.fromisoformat(b["at"]).timestamp() - START, b["seconds"]) for b in bans]


def oracle(seconds: list[int], policy: Policy) -> list[tuple[float, float]]:
    """Return the same by the rule's definition, one attempt after the other."""
    window: list[float] = []
    bans: list[tuple[float, float]] = []
    times, end = 0, 0.0
    for at in seconds:
        if bans and at < end:
            continue  # counted, but the ban neither grows nor escalates
        newest = max([at, *window])
        window = [w for w in [*window, at] if newest - policy.window < w]
        if len(window) >= policy.failures:
            times = times + 1 if bans and at - end <= policy.forget else 1
            duration = min(policy.ban * 2.0 ** (times - 1), policy.ban_max)
            bans.append((at, duration))
            end = at + duration
            window = []
    return bans


def test_failures_at_0_500_500_500_1000_1001_ban_at_1001():
    assert bans_of([0, 500, 500, 500, 1000, 1001]) == [(1001, 3600)]


@pytest.mark.parametrize(("last", "banned"), [(599, True), (599.999, True), (600, False), (600.001, False)])
def test_an_attempt_exactly_as_old_as_the_window_is_out(last, banned):
    assert bool(bans_of([0, 1, 2, 3, last])) is banned


@given(
    st.lists(st.integers(0, 4000), min_size=1, max_size=60).map(sorted),
    st.integers(1, 6),
    st.sampled_from([1.0, 60.0, 600.0]),
    st.sampled_from([(50.0, 150.0, 300.0), (600.0, 604800.0, 1000.0), (1.0, 8.0, 1e6)]),
)
@settings(max_examples=300)
@example([0, 500, 500, 500, 1000, 1001], 5, 600.0, (50.0, 150.0, 300.0))
def test_bans_are_those_of_the_rules_definition(seconds, failures, window, durations):
    ban, ban_max, forget = durations
    policy = Policy()._replace(failures=failures, window=window, ban=ban, ban_max=ban_max, forget=forget)
    assert bans_of(seconds, policy) == oracle(seconds, policy)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 30))
@settings(max_examples=300)
def test_a_window_holds_what_is_newer_than_its_width_in_any_order(stamps, width):
    window = Window()
    for n, at in enumerate(stamps):
        window.add(at, str(n), width)
        newest = max(stamps[: n + 1])
        kept = sorted(s for s in stamps[: n + 1] if s > newest - width)
        assert [at for at, _ in window.attempts()] == kept
        assert [stamps[int(line)] for _, line in window.attempts()] == kept


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20), st.data())
def test_what_is_taken_back_from_a_window_was_in_it(stamps, data):
    window = Window()
    for at in stamps:
        window.add(at, "", 1000)
    gone = data.draw(st.permutations(stamps))
    for n, at in enumerate(gone, 1):
        assert window.remove(at)
        assert [at for at, _ in window.attempts()] == sorted(gone[n:])
    assert not window.remove(stamps[0])


def test_each_ban_is_twice_as_long_up_to_the_longest():
    policy = Policy()._replace(ban=100.0, ban_max=700.0, failures=1)
    assert bans_of([0, 100, 300, 700, 1400, 2100], policy) == [
        (0, 100), (100, 200), (300, 400), (700, 700), (1400, 700), (2100, 700),
    ]  # fmt: skip


def test_an_offender_is_forgotten():
    policy = Policy()._replace(ban=100.0, failures=1, forget=1000.0)
    assert bans_of([0, 1100, 2301, 3402], policy) == [(0, 100), (1100, 200), (2301, 100), (3402, 100)]
    assert bans_of([0, 1101], policy) == [(0, 100), (1101, 100)], "it ended 1001 s ago"


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9)), max_size=80), st.sampled_from([24, 28, 32])
)
@settings(max_examples=150)
def test_an_allowed_net_is_never_banned_not_even_within_a_wider_one(attempts, prefix4):
    allow = ("198.51.100.4/31", "2001:db8:1:2::5/128", "203.0.113.0/28")
    policy = Policy()._replace(allow=allow, prefix4=prefix4, failures=3)
    ips = [*(f"198.51.100.{n}" for n in range(3, 7)), *(f"2001:db8:1:2::{n}" for n in range(4, 7)), "2001:db8:1:3::1",
           "203.0.113.9", "203.0.113.20"]  # fmt: skip
    report = report_on(b"".join(failure(s, ips[n]) for s, n in sorted(attempts)), policy=policy)
    nets = [ip_network(ban["net"]) for ban in report["bans"]]
    for text in allow:
        assert not [
            net for net in nets if net.version == ip_network(text).version and net.overlaps(ip_network(text))
        ]
    for net in nets:
        near = ip_network(f"{net.network_address}/{prefix4 if net.version == 4 else 64}", strict=False)
        holds = any(near.version == ip_network(a).version and near.overlaps(ip_network(a)) for a in allow)
        single = net.prefixlen == net.max_prefixlen
        assert single if holds else net == near, (
            "a net that holds an allowed address is counted address by address"
        )
        assert sum(ip_address(ips[n]) in net for _, n in attempts) >= 3


def chain(second: float, text: str) -> bytes:
    moment = datetime.fromtimestamp(START + second, UTC).isoformat()
    return f"{moment} mx dovecot: {text}\n".encode()


def test_a_success_revokes_the_ban_that_its_own_chain_had_caused():
    id_ = traffic.session_id(IP, 1)
    guard = traffic.engine()
    done = []
    for n in range(5):
        done += guard.feed("log", chain(n, f"auth: passwd-file(a,{IP},<{id_}>): unknown user"))
    [ban] = done
    assert isinstance(ban, Ban)
    assert (ban.net, ban.session_open) == (f"{IP}/32", True)
    done = guard.feed(
        "log",
        chain(
            5,
            f"imap-login: Login: user=<a>, method=PLAIN, rip={IP}, lip=10.66.0.10, TLS, session=<{id_}>",
        ),
    )
    [unban] = done
    assert isinstance(unban, Unban)
    assert (unban.net, unban.cause) == (f"{IP}/32", "revoked")
    assert guard.active_bans() == []
    assert traffic.counted(guard.report()) == {}


def test_a_revoked_ban_does_not_escalate():
    id_ = traffic.session_id(IP, 1)
    login = f"imap-login: Login: user=<a>, method=PLAIN, rip={IP}, lip=10.66.0.10, TLS, session=<{id_}>"
    log = b"".join(chain(n, f"auth: passwd-file(a,{IP},<{id_}>): unknown user") for n in range(5))
    log += chain(5, login) + b"".join(failure(n) for n in range(10, 15))
    bans = report_on(log)["bans"]
    assert [ban["seconds"] for ban in bans] == [3600, 3600]


def test_a_ban_that_stands_without_the_revoked_attempts_stays():
    id_ = traffic.session_id(IP, 1)
    login = f"imap-login: Login: user=<a>, method=PLAIN, rip={IP}, lip=10.66.0.10, TLS, session=<{id_}>"
    guard = traffic.engine()
    log = b"".join(failure(n) for n in range(4)) + chain(5, f"auth: sql(a,{IP},<{id_}>): unknown user")
    log += b"".join(failure(n) for n in range(6, 9))
    assert [type(action) for action in guard.feed("log", log)] == [Ban]
    assert guard.feed("log", chain(9, login)) == []
    assert len(guard.active_bans()) == 1


def test_a_ban_ends_at_its_time_and_one_that_is_over_is_history():
    guard = traffic.engine()
    assert len(guard.feed("log", b"".join(failure(n) for n in range(5)))) == 1
    assert guard.tick(START + 4 + 3599) == []
    assert guard.tick(START + 4 + 3600) == [Unban(f"{IP}/32", START + 4 + 3600, "expired")]
    assert guard.active_bans() == []
    assert len(guard.report()["bans"]) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["ban", "deny"])
def test_to_allow_an_address_lifts_a_wider_ban_by_hand_too(by):
    guard = traffic.engine()
    if by == "ban":
        guard.ban("198.51.100.0/24", 3600.0, START)
    else:
        guard.configure(Policy(deny=("198.51.100.0/24", "203.0.113.0/24")), START)
    assert guard.allow(f"{IP}/32", START + 1) == [Unban("198.51.100.0/24", START + 1, "allowed")]
    assert "198.51.100.0/24" not in [ban.net for ban in guard.active_bans()]
    with pytest.raises(ValueError, match="allow list"):
        guard.ban("198.51.100.0/24", 3600.0, START)
    guard.disallow(f"{IP}/32", 0.0)
    assert len(guard.ban("198.51.100.0/24", 3600.0, START)) == 1


def test_what_the_configuration_allows_is_not_disallowed_by_hand():
    guard = traffic.engine(Policy(allow=(f"{IP}/32",)))
    guard.allow(f"{IP}/32", START)
    assert guard.disallow(f"{IP}/32", 0.0)
    assert guard.feed("log", b"".join(failure(n) for n in range(5))) == []


def test_who_fails_inside_a_net_that_was_banned_by_hand_is_counted_and_nothing_more():
    guard = traffic.engine()
    guard.ban("198.51.0.0/16", 100.0, START)
    guard.deny("2001:db8::/33", START)
    guard.ban(f"{IP}/32", 10.0, START)
    assert guard.feed("log", b"".join(failure(n) for n in range(20))) == []
    assert guard.feed("log", b"".join(failure(n, "2001:db8:1:2::1") for n in range(20))) == []
    assert len(guard.feed("log", b"".join(failure(n) for n in range(100, 105)))) == 1


def test_who_was_let_go_and_came_back_stays_banned_when_the_deny_entry_goes():
    guard = traffic.engine()
    net = f"{IP}/32"
    guard.deny(net, START)
    assert len(guard.unban(net, START)) == 1
    assert len(guard.feed("log", b"".join(failure(n) for n in range(5)))) == 1
    assert guard.undeny(net, START) == []
    assert [ban.net for ban in guard.active_bans()] == [net]


def test_long_lists_change_one_entry_at_a_time():
    """Anything that costs as much as the list for each entry would take longer here than the suite may."""
    deny = tuple(f"203.{a}.{b}.{c}/32" for a in range(10) for b in range(50) for c in range(200))
    allow = tuple(f"2001:db8:{n:x}::/48" for n in range(50_000))
    guard = traffic.engine()
    assert len(guard.configure(Policy(allow=allow, deny=deny), START)) == len(deny)
    for n in range(200):
        net = f"198.51.100.{n}/32"
        assert len(guard.deny(net, START)) == 1
        assert len(guard.allow(net, START)) == 1
        guard.disallow(net, 0.0)
        guard.undeny(net, START)
        assert len(guard.ban(net, 60.0, START)) == 1
        assert len(guard.unban(net, START)) == 1
    assert (
        guard.feed("log", b"".join(failure(n, f"203.5.25.{n}") for n in range(200) for _ in range(5))) == []
    )
    assert guard.configure(Policy(allow=allow, deny=deny), START) == []
    assert len(guard.configure(Policy(), START)) == len(deny)
    assert guard.active_bans() == []
