"""What the iptables backend keeps in the kernel, in a namespace of its own; both variants."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import math
import shutil
import subprocess
import sys
import time

import pytest

from guard.firewall import STRANGERS, Drift, FirewallError
from guard.firewall.ipset import LONGEST
from guard.firewall.iptables import IptablesFirewall
from guard.firewall.permission import missing_capability
from guard.firewall.raw_table import variant_of_host
from guard.model import Ban, Unban
from tests.system.backends import VARIANTS, requires_iptables
from tests.system.netns import HOST4, HOST6, mail_host, namespace

pytestmark = pytest.mark.system

now = time.time  # the kernel's clock goes on while a test waits for the machine
PORTS = list(range(1000, 1040))  # more than the 15 of a multiport match
DAY = 86_400.0

WITHOUT_RIGHTS = """
from guard.firewall import FirewallError
from guard.firewall.iptables import IptablesFirewall
from guard.firewall.permission import missing_capability
print(missing_capability("iptables"))
try:
    IptablesFirewall([143], variant="nft").open()
except FirewallError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def host():
    with mail_host() as lab, lab.host.entered():
        yield lab.host


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    requires_iptables(request.param)
    return request.param


@pytest.fixture
def opened(host, variant):
    with contextlib.ExitStack() as stack:

        def make(**options) -> IptablesFirewall:
            firewall = IptablesFirewall(**{"ports": PORTS, "variant": variant, **options})
            firewall.open()
            stack.callback(firewall.close)
            return firewall

        yield make
        for program in ("iptables", "ip6tables"):
            tables(host, variant, "-F", program=program)
            tables(host, variant, "-X", program=program)
        until_destroyed(host)


def until_destroyed(host) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            host.run("ipset", "destroy")
            return
        except subprocess.CalledProcessError:
            assert time.monotonic() < deadline, "a deleted rule holds its set"
            time.sleep(0.02)


def tables(host, variant: str, *arguments: str, program: str = "iptables") -> str:
    """Run iptables on the table raw, as somebody other than the guard would."""
    said: str = host.run(f"{program}-{variant}", "-t", "raw", *arguments)
    return said


def ruleset(host, variant: str) -> str:
    return tables(host, variant, "-S") + tables(host, variant, "-S", program="ip6tables")


def ban(net: str, seconds: float = 600.0, at: float | None = None) -> Ban:
    at = now() if at is None else at
    return Ban(net, at, at + seconds, "brute_force")


def unban(net: str) -> Unban:
    return Unban(net, now(), "manual")


def nets(firewall: IptablesFirewall) -> set[str]:
    return {element.net for element in firewall.banned()}


def seconds(firewall: IptablesFirewall) -> dict[str, float]:
    return dict(firewall.banned())


def wanted(*bans: Ban) -> dict[str, Ban]:
    return {ban.net: ban for ban in bans}


def counts(drift: Drift) -> tuple[int, int, int, int]:
    return drift.missing, drift.foreign, drift.timeout, drift.structure


# -- structure -------------------------------------------------------------------------------------------------------


def test_one_jump_first_of_all_and_two_rules_a_family(opened, host, variant):
    tables(host, variant, "-A", "PREROUTING", "-s", "203.0.113.9", "-j", "ACCEPT")
    opened()
    assert tables(host, variant, "-S").splitlines()[-4:] == [
        "-A PREROUTING -j MAILWARD",
        "-A PREROUTING -s 203.0.113.9/32 -j ACCEPT",
        "-A MAILWARD -i lo -j RETURN",
        "-A MAILWARD -p tcp -m set --match-set mailward_ports dst -m set --match-set mailward4 src -j DROP",
    ]
    assert tables(host, variant, "-S", "MAILWARD", program="ip6tables").splitlines()[1:] == [
        "-A MAILWARD -i lo -j RETURN",
        "-A MAILWARD -p tcp -m set --match-set mailward_ports dst -m set --match-set mailward6 src -j DROP",
    ]


def test_opening_again_keeps_bans_and_counters_and_makes_no_rule_twice(opened, host, variant):
    first = opened()
    first.apply([ban("198.51.100.7/32"), ban("2001:db8:1:2::/64"), ban("198.51.100.0/28")], now())
    before = ruleset(host, variant)
    assert nets(first) == nets(opened())
    assert ruleset(host, variant) == before
    assert len(nets(first)) == 3


def test_another_choice_of_ports_changes_the_rules_or_the_set(opened, host, variant):
    opened(ports=None)
    assert "mailward_ports" not in ruleset(host, variant)
    opened(ports=[25, 143])
    opened(ports=[143, 587])
    assert host.run("ipset", "save", "mailward_ports").splitlines()[1:] == [
        "add mailward_ports 143",
        "add mailward_ports 587",
    ]


def test_what_is_of_others_stays_as_it_is(opened, host, variant):
    tables(host, variant, "-N", "THEIRS")
    tables(host, variant, "-A", "THEIRS", "-p", "udp", "-m", "multiport", "--dports", "53,123", "-j", "DROP")
    tables(host, variant, "-A", "PREROUTING", "-i", "eth0", "-j", "THEIRS")
    host.run("ipset", "create", "theirs", "hash:ip")
    before, sets = ruleset(host, variant), host.run("ipset", "list", "-name")
    firewall = opened()
    firewall.apply([ban("198.51.100.7/32"), ban("198.51.100.0/24")], now())
    firewall.reconcile({}, now(), keep_foreign=False)
    firewall.flush()
    firewall.remove()
    assert ruleset(host, variant) == before
    assert host.run("ipset", "list", "-name") == sets


def test_no_table_but_raw_is_made(variant):
    code = f"from guard.firewall.iptables import IptablesFirewall as F; F([25], variant={variant!r}).open()"
    with namespace("fresh") as fresh:
        fresh.run(sys.executable, "-c", code)  # of its own: python-iptables remembers the tables it has seen
        for program in ("ip", "ip6"):
            names = fresh.run("cat", f"/proc/net/{program}_tables_names").split()
            assert names == (["raw"] if variant == "legacy" else [])


def test_remove_takes_everything_of_ours_and_opening_makes_it_again(opened, host, variant):
    firewall = opened()
    firewall.apply([ban("198.51.100.7/32")], now())
    firewall.remove()
    assert "MAILWARD" not in ruleset(host, variant)
    assert host.run("ipset", "list", "-name") == ""
    with pytest.raises(FirewallError, match=r"open\(\)"):
        firewall.banned()
    firewall.open()
    assert firewall.banned() == []


def test_what_is_gone_is_said_not_swallowed(opened, host, variant):
    firewall = opened()
    tables(host, variant, "-F", "MAILWARD", program="ip6tables")
    with pytest.raises(FirewallError, match=" is gone"):
        firewall.drops()
    tables(host, variant, "-F", program="iptables")
    tables(host, variant, "-F", program="ip6tables")
    deadline = time.monotonic() + 30
    while host.run("ipset", "list", "-name"):  # nf_tables lets go of a deleted rule's set a little later
        with contextlib.suppress(subprocess.CalledProcessError):
            host.run("ipset", "destroy")
        assert time.monotonic() < deadline
    refused = firewall.apply([ban("198.51.100.7/32"), ban("2001:db8:1:2::/64")], now())
    assert len(refused) == 2
    assert all(" is gone" in item.reason for item in refused)
    for question in (firewall.banned, firewall.flush):
        with pytest.raises(FirewallError, match=" is gone"):
            question()


def test_a_set_of_another_shape_is_refused_with_the_remedy(opened, host):
    host.run("ipset", "create", "mailward4", "hash:ip")
    with pytest.raises(FirewallError, match="ipset destroy mailward4"):
        opened()


# -- elements --------------------------------------------------------------------------------------------------------


def test_banned_tells_the_remaining_time_and_the_width(opened):
    firewall = opened()
    bans = [
        ban("198.51.100.7", 100),
        ban("198.51.100.0/24", math.inf),
        ban("198.18.0.128/25", 5000),
        ban("2001:db8:1:2::/64", 7 * DAY),
        ban("2001:db8:5::1/128", 3.2),
    ]
    assert firewall.apply(bans, now()) == []
    found = seconds(firewall)
    assert found.pop("198.51.100.0/24") == math.inf
    expected = {
        "198.51.100.7/32": 100,
        "198.18.0.128/25": 5000,
        "2001:db8:1:2::/64": 7 * DAY,
        "2001:db8:5::1/128": 4,
    }
    assert found.keys() == expected.keys()
    assert all(expected[net] - 30 <= left <= expected[net] for net, left in found.items())


def test_a_ban_is_never_shorter_than_decided_however_long(opened):
    firewall = opened()
    at = now()
    ends = {"198.51.100.7/32": 59.01, "198.51.100.8/32": LONGEST}
    ends |= {"198.51.100.9/32": LONGEST + 0.5, "198.51.100.10/32": 1e12}
    firewall.apply([ban(net, end, at) for net, end in ends.items()], at)
    found = seconds(firewall)
    assert 55 <= found["198.51.100.7/32"] <= 60
    assert LONGEST - 5 <= found["198.51.100.8/32"] <= LONGEST
    assert found["198.51.100.9/32"] == found["198.51.100.10/32"] == math.inf


def test_a_refresh_extends_and_shortens_the_timeout(opened):
    firewall = opened()
    for net in ("198.51.100.7/32", "198.51.100.16/28", "2001:db8:1:2::/64"):
        for wish in (10.0, 1000.0, 20.0, math.inf, 30.0):
            assert firewall.apply([ban(net, wish)], now()) == []
            left = seconds(firewall)[net]
            assert left == wish or wish - 30 <= left <= wish
    assert len(firewall.banned()) == 3


def test_an_unban_of_what_is_not_banned_is_no_error_and_opens_nothing(opened):
    firewall = opened()
    for net in ("198.51.100.7/32", "198.51.100.0/28", "2001:db8:1:2::/64"):
        assert firewall.apply([unban(net)], now()) == []
        assert firewall.apply([ban(net)], now()) == []
        assert firewall.apply([unban(net), unban(net)], now()) == []
    assert firewall.banned() == []
    firewall.apply([ban("198.51.100.0/26")], now())
    assert firewall.apply([unban("198.51.100.0/28"), unban("198.51.100.0/25")], now()) == []
    assert nets(firewall) == {"198.51.100.0/26"}


def test_the_last_action_on_a_net_decides_and_an_ended_ban_is_skipped(opened):
    firewall = opened()
    firewall.apply([ban("198.51.100.7"), unban("198.51.100.7/32"), ban("198.51.100.9/32", 0)], now())
    firewall.apply([unban("198.51.100.8/32"), ban("198.51.100.8/32")], now())
    assert nets(firewall) == {"198.51.100.8/32"}


def test_bad_nets_lose_no_other(opened):
    firewall = opened()
    good = [f"198.19.{i // 250}.{i % 250}/32" for i in range(4000)]
    bad = ["not an address", f"{HOST4}/32", f"{HOST6}/128", "198.51.100.7/8", "0.0.0.0/0", "127.0.0.1/32"]
    actions = [ban(net) for net in good]
    for at, net in enumerate(bad * 170):  # every fifth
        actions.insert(at * 4, ban(net))
    refused = firewall.apply([*actions, unban("::/0")], now())
    assert {item.action.net for item in refused} - {"::/0"} == set(bad)
    assert nets(firewall) == set(good)


def test_a_full_set_refuses_the_rest_and_says_so(opened):
    firewall = opened(size=8)
    refused = firewall.apply([ban(f"198.51.100.{i}/32") for i in range(12)], now())
    assert [item.reason for item in refused] == ["the set is full"] * 4
    many = [ban(f"198.19.{i // 250}.{i % 250}/32") for i in range(6000)]
    more = [ban("198.51.100.3/32", 9000), *many, ban("2001:db8:1:2::/64"), unban("198.51.100.0/32")]
    started = time.monotonic()
    assert len(firewall.apply(more, now())) == 5999
    assert time.monotonic() - started < 30
    assert "2001:db8:1:2::/64" in nets(firewall)
    assert len(nets(firewall)) == 9
    assert seconds(firewall)["198.51.100.3/32"] > 600, "what is in it can have another end"


@pytest.mark.parametrize(
    "net",
    ["fe80::1%} ; flush", "198.51.100.7 timeout 0\nflush mailward4", "198.51.100.7/32\nx", "", "::/129"],
)
def test_no_text_reaches_a_command(opened, net):
    firewall = opened()
    firewall.apply([ban("198.51.100.8/32")], now())
    assert [item.action.net for item in firewall.apply([ban(net), unban(net)], now())] == [net, net]
    assert [item.action.net for item in firewall.reconcile({net: ban(net)}, now()).refused] == [net]
    assert nets(firewall) == {"198.51.100.8/32"}


def test_flush_ends_every_ban_and_keeps_the_structure(opened, host, variant):
    firewall = opened()
    before = ruleset(host, variant)
    firewall.apply([ban("198.51.100.7/32"), ban("198.51.100.0/28"), ban("2001:db8:1:2::/64")], now())
    firewall.flush()
    assert firewall.banned() == []
    assert ruleset(host, variant) == before


def test_a_hundred_thousand_bans_go_in_within_seconds_and_one_more_in_milliseconds(opened, record_property):
    firewall = opened()
    bans = wanted(*(ban(f"{11 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.7/32", 3600) for i in range(100_000)))
    figures = {}

    def measured(name: str, work):
        started = time.perf_counter()
        result = work()
        figures[name] = round(time.perf_counter() - started, 4)
        return result

    assert measured("load", lambda: firewall.apply(list(bans.values()), now())) == []
    assert measured("one", lambda: firewall.apply([ban("198.51.100.7/32")], now())) == []
    bans["198.51.100.7/32"] = ban("198.51.100.7/32")
    drift = measured("reconcile", lambda: firewall.reconcile(bans, now()))
    measured("drops", firewall.drops)
    record_property("seconds", figures)
    print(figures)
    assert (drift.missing, drift.foreign, drift.structure) == (0, 0, 0)
    assert len(drift.held) == 100_001
    assert figures["load"] < 60
    assert figures["one"] < 5
    assert figures["drops"] < 5


# -- reconcile -------------------------------------------------------------------------------------------------------


def test_what_is_as_it_should_be_is_left_alone(opened, host, variant):
    firewall = opened()
    bans = wanted(ban("198.51.100.7/32"), ban("2001:db8:1:2::/64", math.inf), ban("198.51.100.0/24", 1e12))
    firewall.apply(list(bans.values()), now())
    before = ruleset(host, variant)
    assert firewall.reconcile(bans, now()) == Drift(held=set(bans))
    assert ruleset(host, variant) == before


def test_bans_come_back_by_it_after_a_start(opened):
    firewall = opened()
    bans = wanted(ban("198.51.100.7/32"), ban("2001:db8:1:2::/64", 90), ban("198.51.100.9/32", 0))
    assert firewall.reconcile(bans, now()) == Drift(missing=2, held={"198.51.100.7/32", "2001:db8:1:2::/64"})
    assert nets(firewall) == {"198.51.100.7/32", "2001:db8:1:2::/64"}


@pytest.mark.parametrize(
    "fault",
    [
        [("-F", "MAILWARD")],
        [("-D", "PREROUTING", "-j", "MAILWARD")],
        [("-F", "PREROUTING")],
        [("-F",), ("-X", "MAILWARD")],
        [("-D", "MAILWARD", "1")],
        [("-I", "MAILWARD", "1", "-j", "RETURN")],
        [("-A", "MAILWARD", "-s", "203.0.113.9", "-j", "DROP")],
        [("-A", "PREROUTING", "-j", "MAILWARD")],
        [("-I", "PREROUTING", "1", "-i", "eth0", "-j", "ACCEPT")],
    ],
    ids=lambda fault: " ".join(fault[-1]),
)
def test_chain_and_jump_are_mended(opened, host, variant, fault):
    firewall = opened()
    bans = wanted(ban("198.51.100.7/32"))
    firewall.apply(list(bans.values()), now())
    before = tables(host, variant, "-S", "MAILWARD")
    for command in fault:
        tables(host, variant, *command)
    drift = firewall.reconcile(bans, now())
    assert (drift.missing, drift.foreign, drift.timeout, drift.held) == (0, 0, 0, set(bans))
    assert 1 <= drift.structure <= 2
    assert tables(host, variant, "-S", "MAILWARD") == before
    jumps = [line for line in tables(host, variant, "-S", "PREROUTING").splitlines() if line.startswith("-A")]
    assert jumps[0] == "-A PREROUTING -j MAILWARD"
    assert jumps.count(jumps[0]) == 1
    assert counts(firewall.reconcile(bans, now())) == (0, 0, 0, 0)


def test_a_rule_that_only_drops_may_stand_before_ours(opened, host, variant):
    firewall = opened()
    tables(host, variant, "-I", "PREROUTING", "1", "-s", "203.0.113.9", "-j", "DROP")
    assert counts(firewall.reconcile({}, now())) == (0, 0, 0, 0)


def test_everything_gone_comes_back(opened, host, variant):
    firewall = opened()
    bans = wanted(ban("198.51.100.7/32"), ban("2001:db8:1:2::/64"))
    firewall.apply(list(bans.values()), now())
    for program in ("iptables", "ip6tables"):
        tables(host, variant, "-F", program=program)
        tables(host, variant, "-X", program=program)
    until_destroyed(host)
    drift = firewall.reconcile(bans, now())
    assert counts(drift) == (2, 0, 0, 7), "three sets; a chain and a jump a family"
    assert nets(firewall) == set(bans) == drift.held


def test_a_port_that_was_taken_out_is_closed_again(opened, host):
    firewall = opened()
    host.run("ipset", "del", "mailward_ports", "1000")
    host.run("ipset", "add", "mailward_ports", "22")
    assert counts(firewall.reconcile({}, now())) == (0, 0, 0, 1)
    assert counts(firewall.reconcile({}, now())) == (0, 0, 0, 0)


def test_elements_that_are_gone_are_put_in_again(opened, host):
    firewall = opened()
    bans = wanted(*(ban(f"198.51.100.{i}/32", 500) for i in range(1, 21)), ban("2001:db8:1:2::/64"))
    firewall.apply(list(bans.values()), now())
    host.run("ipset", "del", "mailward4", "198.51.100.7")
    host.run("ipset", "flush", "mailward6")
    assert counts(firewall.reconcile(bans, now())) == (2, 0, 0, 0)
    assert nets(firewall) == set(bans)


def test_a_foreign_net_is_kept_and_told_or_goes(opened, host):
    firewall = opened()
    bans = wanted(ban("198.51.100.7/32"))
    firewall.apply(list(bans.values()), now())
    host.run("ipset", "add", "mailward4", "203.0.113.0/24", "timeout", "900")
    drift = firewall.reconcile(bans, now())
    assert counts(drift) == (0, 1, 0, 0)
    assert drift.strangers == ("203.0.113.0/24",)
    assert drift.held == {"198.51.100.7/32", "203.0.113.0/24"} == nets(firewall)
    drift = firewall.reconcile(bans, now(), keep_foreign=False)
    assert (counts(drift), drift.strangers) == ((0, 1, 0, 0), ())
    assert drift.held == {"198.51.100.7/32"} == nets(firewall)


def test_what_was_done_after_the_bans_were_told_is_not_undone(opened, host):
    firewall = opened()
    told = wanted(ban("198.51.100.7/32"), ban("198.51.100.8/32"))
    firewall.apply(list(told.values()), now())
    firewall.apply([unban("198.51.100.7/32"), ban("198.51.100.9/32")], now())
    drift = firewall.reconcile(told, now(), keep_foreign=False)
    assert (counts(drift), drift.held) == ((0, 0, 0, 0), {"198.51.100.8/32", "198.51.100.9/32"})
    assert nets(firewall) == drift.held
    host.run("ipset", "del", "mailward4", "198.51.100.9")
    assert counts(firewall.reconcile(told, now())) == (1, 0, 0, 0), "it is wanted all the same"


def test_what_was_done_long_ago_is_no_excuse(opened, monkeypatch):
    monkeypatch.setattr("guard.firewall.ipset_drift.MEMORY", 0.0)
    firewall = opened()
    firewall.apply([ban("198.51.100.7/32"), unban("198.51.100.8/32")], now())
    drift = firewall.reconcile(wanted(ban("198.51.100.8/32")), now(), keep_foreign=False)
    assert (counts(drift), nets(firewall)) == ((1, 1, 0, 0), {"198.51.100.8/32"})


def test_a_flush_is_mended_as_a_whole(opened):
    firewall = opened()
    bans = wanted(ban("198.51.100.7/32"), ban("2001:db8:1:2::/64"))
    firewall.apply(list(bans.values()), now())
    firewall.flush()
    assert counts(firewall.reconcile({}, now())) == (0, 0, 0, 0)
    assert counts(firewall.reconcile(bans, now())) == (2, 0, 0, 0)


def test_no_more_strangers_are_told_than_a_screen_holds(opened, host):
    firewall = opened()
    lines = [f"add mailward4 198.19.{i // 250}.{i % 250}" for i in range(STRANGERS + 1)]
    host.run("ipset", "restore", given="\n".join([*lines, ""]))
    drift = firewall.reconcile({}, now())
    assert (drift.foreign, len(drift.strangers), len(drift.held)) == (STRANGERS + 1, STRANGERS, STRANGERS + 1)


def test_an_exception_in_a_set_is_a_hole_and_closed(opened, host):
    firewall = opened()
    bans = wanted(ban("198.51.100.0/24"), ban("198.51.100.7/32"))
    firewall.apply(list(bans.values()), now())
    host.run("ipset", "add", "-exist", "mailward4", "198.51.100.7", "nomatch")
    host.run("ipset", "add", "mailward4", "198.51.100.9", "nomatch")
    assert "198.51.100.9/32" not in nets(firewall)
    drift = firewall.reconcile(bans, now())
    assert (counts(drift), drift.held) == ((1, 1, 0, 0), set(bans))
    assert "nomatch" not in host.run("ipset", "save", "mailward4")


@pytest.mark.parametrize(("there", "drifted"), [(100, 1), (597, 1), (602, 0), (604, 0), (615, 1), (0, 1)])
def test_an_end_other_than_decided_is_set_anew(opened, host, there, drifted):
    firewall = opened()
    bans = wanted(ban("198.51.100.7/32", 600))
    host.run("ipset", "add", "mailward4", "198.51.100.7", "timeout", str(there))
    assert counts(firewall.reconcile(bans, now())) == (0, 0, drifted, 0)
    left = seconds(firewall)["198.51.100.7/32"]
    assert 0 <= (600 if drifted else there) - left < 30


def test_a_clock_that_was_stepped_moves_the_ends(opened):
    firewall = opened()
    bans = wanted(ban("198.51.100.7/32", 600))
    firewall.apply(list(bans.values()), now())
    for step in (-3600.0, 300.0):
        assert counts(firewall.reconcile(bans, now() + step)) == (0, 0, 1, 0)
        assert 595 - step <= seconds(firewall)["198.51.100.7/32"] <= 600 - step


def test_a_ban_too_long_for_ipset_gets_its_end_as_soon_as_it_can(opened):
    firewall = opened()
    long = ban("198.51.100.7/32", 60 * DAY)
    firewall.apply([long], now())
    assert counts(firewall.reconcile(wanted(long), now() + 10 * DAY)) == (0, 0, 0, 0)
    assert seconds(firewall)["198.51.100.7/32"] == math.inf
    assert counts(firewall.reconcile(wanted(long), now() + 40 * DAY)) == (0, 0, 0, 0), "no drift"
    assert 20 * DAY - 30 <= seconds(firewall)["198.51.100.7/32"] <= 20 * DAY


def test_a_long_ban_that_ended_unseen_goes(opened):
    firewall = opened()
    long, short = ban("198.51.100.7/32", 60 * DAY), ban("198.51.100.8/32", 600)
    firewall.apply([long, short], now())
    drift = firewall.reconcile(wanted(long, short), now() + 60 * DAY)
    assert (drift.missing, drift.foreign, drift.held, nets(firewall)) == (0, 0, set(), set())


def test_a_ban_that_became_the_hosts_own_address_goes(opened, host):
    firewall = opened()
    bans = wanted(ban("198.51.100.99/32"), ban("198.51.100.7/32"))
    firewall.apply(list(bans.values()), now())
    host.run("ip", "address", "add", "198.51.100.99/32", "dev", "eth0")
    try:
        drift = firewall.reconcile(bans, now())
    finally:
        host.run("ip", "address", "del", "198.51.100.99/32", "dev", "eth0")
    assert [(item.action.net, "address of this host" in item.reason) for item in drift.refused] == [
        ("198.51.100.99/32", True)
    ]
    assert drift.held == {"198.51.100.7/32"} == nets(firewall)


def test_what_finds_no_room_is_told(opened):
    firewall = opened(size=2)
    bans = wanted(*(ban(f"198.51.100.{i}/32") for i in range(1, 5)))
    drift = firewall.reconcile(bans, now())
    assert drift.missing == 4
    assert [item.reason for item in drift.refused] == ["the set is full"] * 2
    assert drift.held == nets(firewall)
    assert len(drift.held) == 2


# -- the host --------------------------------------------------------------------------------------------------------


def test_nothing_works_before_opening_or_after_closing(opened):
    with pytest.raises(FirewallError, match=r"open\(\)"):
        IptablesFirewall(PORTS).apply([ban("198.51.100.7/32")], now())
    firewall = opened()
    firewall.close()
    firewall.close()
    for question in (firewall.flush, firewall.banned, firewall.drops, lambda: firewall.reconcile({}, now())):
        with pytest.raises(FirewallError, match=r"open\(\)"):
            question()


@pytest.mark.parametrize(
    "options",
    [{"ports": []}, {"ports": [0]}, {"ports": [65536]}, {"ports": [25], "trusted": ["example.org"]}],
)
def test_what_cannot_be_meant_is_refused_at_once(options):
    with pytest.raises(ValueError, match=r"."):
        IptablesFirewall(**options)


def test_the_variant_is_what_the_hosts_iptables_is(tmp_path, monkeypatch, variant):
    program = shutil.which(f"iptables-{variant}")
    assert program
    (tmp_path / "iptables").symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert variant_of_host() == variant


def test_missing_programs_are_named_with_their_packages(tmp_path, monkeypatch, host):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("guard.firewall.process._FOLDERS", str(tmp_path))
    said = missing_capability("iptables")
    assert said == "iptables and ip6tables and ipset not found: install the packages iptables and ipset"
    with pytest.raises(FirewallError, match="program iptables is missing"):
        IptablesFirewall(PORTS).open()
    with pytest.raises(FirewallError, match="program ipset is missing"):
        IptablesFirewall(PORTS, variant="nft").open()


def test_a_missing_binding_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FirewallError, match=r"mailward\[iptables\]"):
        IptablesFirewall(PORTS, variant="legacy").open()


def test_without_the_two_capabilities_it_says_so_before_and_at_opening(host):
    requires_iptables("nft")
    command = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", sys.executable, "-c"]
    said = host.run(*command, WITHOUT_RIGHTS).splitlines()
    assert len(said) == 2
    assert all(line.startswith("CAP_NET_RAW is missing") for line in said)
    host.run("ipset", "destroy")


def test_a_kernel_without_ipv6_is_guarded_for_ipv4(opened, host, variant, monkeypatch, tmp_path):
    monkeypatch.setattr("guard.firewall.iptables._IPV6", str(tmp_path / "absent"))
    firewall = opened()
    assert firewall.apply([ban("198.51.100.7/32"), ban("2001:db8:1:2::/64")], now()) == []
    assert firewall.drops()["ipv6"].packets == 0
    assert "MAILWARD" not in tables(host, variant, "-S", program="ip6tables")


def test_ipv6_switched_off_on_every_device_is_no_trouble(variant):
    with namespace("host") as alone, alone.entered():  # its addresses would not come back
        alone.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        firewall = IptablesFirewall(PORTS, variant=variant)
        firewall.open()
        assert firewall.apply([ban("2001:db8:1:2::/64")], now()) == []
        assert counts(firewall.reconcile(wanted(ban("2001:db8:1:2::/64")), now())) == (0, 0, 0, 0)


def test_the_lock_of_iptables_is_respected(host, monkeypatch, tmp_path):
    requires_iptables("legacy")
    lock = tmp_path / "xtables.lock"
    monkeypatch.setattr("guard.firewall.legacy_table.LOCK", str(lock))
    monkeypatch.setattr("guard.firewall.legacy_table.PATIENCE", 0.1)
    firewall = IptablesFirewall(PORTS, variant="legacy")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(FirewallError, match="held by another program"):
            firewall.open()
    firewall.open()
    firewall.remove()
