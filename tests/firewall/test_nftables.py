"""What the nftables backend keeps in the kernel, in a namespace of its own."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time

import pytest

from guard.firewall import FirewallError
from guard.firewall.nftables import NftablesFirewall
from guard.firewall.ruleset import LONGEST
from guard.model import Ban, Unban
from tests.daemon import environment
from tests.system.netns import HOST4, HOST6, mail_host, requires_namespaces

pytestmark = pytest.mark.system

NOW = 1_800_000_000.0
PORTS = [25, 143]


@pytest.fixture(scope="module")
def host():
    with mail_host() as lab, lab.host.entered():
        yield lab.host


@pytest.fixture
def opened(host):
    with contextlib.ExitStack() as stack:

        def make(**options) -> NftablesFirewall:
            firewall = NftablesFirewall(**{"ports": PORTS, **options})
            firewall.open()
            stack.callback(firewall.close)
            return firewall

        yield make
    host.nft("flush ruleset")


def ban(net: str, seconds: float = 600.0) -> Ban:
    return Ban(net, NOW, NOW + seconds, "brute_force")


def unban(net: str) -> Unban:
    return Unban(net, NOW, "manual")


def nets(firewall: NftablesFirewall) -> set[str]:
    return {element.net for element in firewall.banned()}


def seconds(firewall: NftablesFirewall) -> dict[str, float]:
    return dict(firewall.banned())


def reasons(firewall: NftablesFirewall, *actions: Ban | Unban) -> dict[str, str]:
    return {refused.action.net: refused.reason for refused in firewall.apply(actions, NOW)}


def test_a_table_that_somebody_else_owns_is_no_trouble(opened, host):
    with host.owned("elsewhere"):
        firewall = opened()
        assert reasons(firewall, ban("198.51.100.7/32")) == {}
        host.nft("flush chain inet mailward banned")
        wanted = {"198.51.100.7/32": ban("198.51.100.7/32")}
        assert firewall.reconcile(wanted, NOW).structure == 1
        assert firewall.reconcile(wanted, NOW).structure == 0
        host.nft("delete table inet mailward")
        assert firewall.reconcile(wanted, NOW).missing == 1
        assert nets(firewall) == {"198.51.100.7/32"}


def test_a_table_of_our_name_that_somebody_else_owns_is_said_to_be(opened, host):
    firewall = opened()
    with host.owned("mailward"):
        for work in (
            firewall.open,
            lambda: firewall.reconcile({"198.51.100.7/32": ban("198.51.100.7/32")}, NOW),
        ):
            with pytest.raises(FirewallError):
                work()
    firewall.open()
    assert reasons(firewall, ban("198.51.100.7/32")) == {}


def test_ports_that_somebody_changed_are_ours_again(opened, host):
    firewall = opened()
    rules = host.run("nft", "list", "chain", "inet", "mailward", "prerouting")
    host.nft(
        "flush chain inet mailward prerouting"
    )  # and with it goes the nameless set whose name is free again
    host.nft("add rule inet mailward prerouting iif lo accept")
    host.nft("add rule inet mailward prerouting tcp dport { 22, 26 } jump banned")
    assert firewall.reconcile({}, NOW).structure == 1
    assert host.run("nft", "list", "chain", "inet", "mailward", "prerouting") == rules
    assert firewall.reconcile({}, NOW).structure == 0


def test_a_table_with_flags_is_woken_and_no_trouble(opened, host):
    """libnftables 1.0.6 uses freed memory where it lists them: every tenth listing was spoiled, or the last."""
    firewall = opened()
    wanted = {"198.51.100.7/32": ban("198.51.100.7/32")}
    firewall.apply(list(wanted.values()), NOW)
    host.nft("add table inet elsewhere { flags dormant; }")
    for _ in range(30):
        assert firewall.reconcile(wanted, NOW).structure == 0
        host.nft("add table inet mailward { flags dormant; }")
        assert firewall.reconcile(wanted, NOW).structure == 1
    host.nft("delete table inet elsewhere")
    for _ in range(30):
        host.nft("add table inet mailward { flags dormant; }")
        assert firewall.reconcile(wanted, NOW).structure == 1
    assert "dormant" not in host.run("nft", "list", "table", "inet", "mailward")


def test_opening_again_keeps_bans_and_counters_and_makes_no_rule_twice(opened, host):
    first = opened()
    first.apply([ban("198.51.100.7/32"), ban("2001:db8:1:2::/64"), ban("198.51.100.0/28")], NOW)
    structure = host.run("nft", "-s", "list", "table", "inet", "mailward")
    assert nets(first) == nets(opened())
    assert host.run("nft", "-s", "list", "table", "inet", "mailward") == structure
    assert len(nets(first)) == 3


def test_opening_again_repairs_rules_that_somebody_removed(opened, host):
    opened().apply([ban("198.51.100.7/32")], NOW)
    structure = host.run("nft", "-s", "list", "chain", "inet", "mailward", "banned")
    host.nft("flush chain inet mailward banned")
    assert nets(opened()) == {"198.51.100.7/32"}
    assert host.run("nft", "-s", "list", "chain", "inet", "mailward", "banned") == structure


def test_it_hooks_before_nat_and_conntrack_and_lets_loopback_pass_first(opened, host):
    opened()
    entries = json.loads(host.run("nft", "-j", "list", "table", "inet", "mailward"))["nftables"]
    chains = {entry["chain"]["name"]: entry["chain"] for entry in entries if "chain" in entry}
    assert (chains["prerouting"]["hook"], chains["prerouting"]["prio"]) == ("prerouting", -300)
    rules = [entry["rule"] for entry in entries if "rule" in entry and entry["rule"]["chain"] == "prerouting"]
    assert rules[0]["expr"][-1] == {"accept": None}
    assert rules[0]["expr"][0]["match"]["right"] == "lo"


def test_other_tables_stay_as_they_are(opened, host):
    host.nft(
        "table inet filter { set ban4_32 { type ipv4_addr; elements = { 198.51.100.9 }; }\n"
        "chain input { type filter hook input priority 0; tcp dport 22 accept; }\n }\n"
        "table ip nat { chain prerouting { type nat hook prerouting priority dstnat; }; }"
    )
    before = host.nft("list ruleset")
    firewall = opened()
    firewall.apply([ban("198.51.100.7/32"), ban("198.51.100.0/24")], NOW)
    firewall.apply([unban("198.51.100.7/32")], NOW)
    firewall.flush()
    firewall.remove()
    assert host.nft("list ruleset") == before


def test_banned_tells_the_remaining_time_and_the_width(opened):
    firewall = opened()
    firewall.apply(
        [
            ban("198.51.100.7", 100),
            ban("198.51.100.0/24", math.inf),
            ban("198.18.0.128/25", 5000),
            ban("2001:db8:1:2::/64", 86_400 * 7),
            ban("2001:db8:10::/44", math.inf),
            ban("2001:db8:5::1/128", 3.2),
        ],
        NOW,
    )
    found = seconds(firewall)
    assert found["198.51.100.0/24"] == math.inf
    assert found["2001:db8:10::/44"] == math.inf
    assert 98 <= found["198.51.100.7/32"] <= 100
    assert 4998 <= found["198.18.0.128/25"] <= 5000
    assert 86_400 * 7 - 2 <= found["2001:db8:1:2::/64"] <= 86_400 * 7
    assert 2 <= found["2001:db8:5::1/128"] <= 4
    assert len(found) == 6


def test_a_refresh_extends_and_shortens_the_timeout(opened):
    firewall = opened()
    for net in ("198.51.100.7/32", "198.51.100.16/28", "2001:db8:1:2::/64"):
        for wanted in (10.0, 1000.0, 20.0, math.inf, 30.0):
            assert firewall.apply([ban(net, wanted)], NOW) == []
            left = seconds(firewall)[net]
            assert left == wanted or wanted - 30 <= left <= wanted
    assert len(firewall.banned()) == 3


@pytest.mark.parametrize("net", ["198.51.100.7/32", "198.51.100.0/28", "2001:db8:1:2::/64", "2001:db8::/40"])
def test_an_unban_of_what_is_not_banned_is_no_error(opened, net):
    firewall = opened()
    assert firewall.apply([unban(net)], NOW) == []
    assert firewall.apply([ban(net)], NOW) == []
    assert firewall.apply([unban(net), unban(net)], NOW) == []
    assert firewall.banned() == []


def test_an_unban_of_an_absent_net_inside_a_banned_one_is_no_error_and_opens_nothing(opened):
    firewall = opened()
    firewall.apply([ban("198.51.100.0/26")], NOW)
    assert firewall.apply([unban("198.51.100.0/28"), unban("198.51.100.0/25")], NOW) == []
    assert nets(firewall) == {"198.51.100.0/26"}


def test_the_last_action_on_a_net_decides(opened):
    firewall = opened()
    firewall.apply([ban("198.51.100.7"), unban("198.51.100.7/32")], NOW)
    firewall.apply([unban("198.51.100.8/32"), ban("198.51.100.8/32")], NOW)
    assert nets(firewall) == {"198.51.100.8/32"}


def test_a_ban_that_has_ended_is_skipped(opened):
    firewall = opened()
    assert firewall.apply([ban("198.51.100.7/32", 0), ban("198.51.100.8/32", -5)], NOW) == []
    assert firewall.banned() == []


def test_a_ban_is_never_shorter_than_decided_nor_longer_than_the_kernel_can(opened):
    firewall = opened()
    began = time.monotonic()
    firewall.apply(
        [ban("198.51.100.7/32", 59.01), ban("198.51.100.8/32", 1e12), ban("198.51.100.9/32", 86400)], NOW
    )
    found = seconds(firewall)
    passed = time.monotonic() - began
    assert 59.01 - passed <= found["198.51.100.7/32"] <= 60
    assert LONGEST - 1 - passed <= found["198.51.100.8/32"] <= LONGEST
    assert 86_399 - passed <= found["198.51.100.9/32"] <= 86_400


def test_bad_nets_lose_no_other_and_take_no_time(opened):
    """A fifth of the batch is bad, in every way there is: none of it reaches the kernel."""
    firewall = opened(trusted=["203.0.113.0/24"])
    good = [f"198.19.{i // 250}.{i % 250}/32" for i in range(4000)]
    bad = [f"203.0.113.{i}/32" for i in range(250)] + [f"198.51.100.{i}/23" for i in range(1, 250)]
    bad += [f"not an address {i}" for i in range(250)] + [f"127.0.0.{i}/32" for i in range(249)]
    bad += [f"{HOST4}/32", f"{HOST6}/128"]
    assert len(bad) == 1000
    actions = [ban(net) for net in good]
    for n, net in enumerate(bad):
        actions.insert(n * 5, ban(net))
    began = time.monotonic()
    assert {item.action.net for item in firewall.apply(actions, NOW)} == set(bad)
    assert time.monotonic() - began < 20.0
    assert nets(firewall) == set(good)


def test_what_the_kernel_refuses_loses_no_other(opened):
    """A set of 4 takes no more; what goes elsewhere does, wherever it stands in the batch."""
    firewall = opened(size=4)
    actions = [ban(f"198.51.100.{i}/32") for i in range(100)]
    for i in range(0, 100, 5):
        actions.insert(i, ban(f"198.19.{i}.0/24"))
    refused = firewall.apply(actions, NOW)
    assert {item.reason for item in refused} == {"the set is full"}
    assert len(refused) == 100 - 4 + 20 - 4
    assert len(nets(firewall)) == 8


SMALL_BUFFER = """
from guard.firewall import nftables
from guard.model import Ban
nftables.BATCH = 20_000
firewall = nftables.NftablesFirewall([25, 143])
firewall._batch = nftables.BATCH
firewall.open()
bans = [Ban(f"198.18.{n >> 8}.{n & 255}/32", 0.0, 600.0, "brute_force") for n in range(20_000)]
print(firewall.apply(bans, 0.0), len(firewall.banned()), firewall._batch < nftables.BATCH)
"""


def test_a_batch_too_long_for_the_socket_is_halved_and_loses_nothing():
    """In a user namespace nobody may force the socket's buffer larger."""
    requires_namespaces()
    command = ("unshare", "--user", "--map-root-user", "--net", sys.executable, "-P", "-c", SMALL_BUFFER)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert (done.stdout, done.stderr) == ("[] 20000 True\n", "")


def test_a_full_set_refuses_the_rest_and_says_so(opened):
    firewall = opened(size=8)
    refused = firewall.apply([ban(f"198.51.100.{i}/32") for i in range(12)], NOW)
    assert {item.reason for item in refused} == {"the set is full"}
    assert len(nets(firewall)) == 8
    assert len(refused) == 4
    many = [ban(f"198.19.{i // 250}.{i % 250}/32") for i in range(6000)]
    started = time.monotonic()
    assert len(firewall.apply([*many, ban("2001:db8:1:2::/64"), unban("198.51.100.0/32")], NOW)) == 6000
    assert time.monotonic() - started < 60  # each net on its own took minutes
    assert "2001:db8:1:2::/64" in nets(firewall)
    assert len(nets(firewall)) == 8


@pytest.mark.parametrize(
    "net",
    [
        f"{HOST4}/32",
        f"{HOST6}/128",
        "2001:db8:ffff::/64",
        "198.18.0.0/24",
        "127.0.0.1/32",
        "127.0.0.0/8",
        "::1/128",
        "0.0.0.0/0",
        "::/0",
        "0.0.0.0/1",
        "::ffff:198.51.100.7/128",
        "10.1.2.3/32",
        "10.0.0.0/7",
    ],
)
def test_what_would_cut_off_the_host_or_its_own_nets_is_refused(opened, net):
    firewall = opened(trusted=["10.0.0.0/8", "fc00::/7"])
    assert list(reasons(firewall, ban(net))) == [net]
    assert firewall.banned() == []


def test_an_address_that_came_up_after_opening_is_refused(opened, host):
    firewall = opened()
    host.run("ip", "address", "add", "198.51.100.99/32", "dev", "eth0")
    try:
        assert "address of this host" in reasons(firewall, ban("198.51.100.99/32"))["198.51.100.99/32"]
    finally:
        host.run("ip", "address", "del", "198.51.100.99/32", "dev", "eth0")


@pytest.mark.parametrize(
    "net",
    [
        "fe80::1%} ; flush ruleset ; #",
        "198.51.100.7 }; flush ruleset",
        "198.51.100.7/32\nflush ruleset",
        "",
        "1",
        "::/129",
    ],
)
def test_no_text_reaches_a_command(opened, net):
    firewall = opened()
    firewall.apply([ban("198.51.100.8/32")], NOW)
    assert list(reasons(firewall, ban(net), unban(net))) == [net]
    assert nets(firewall) == {"198.51.100.8/32"}


def test_flush_ends_every_ban_and_keeps_the_table(opened):
    firewall = opened()
    firewall.apply([ban("198.51.100.7/32"), ban("198.51.100.0/28"), ban("2001:db8:1:2::/64")], NOW)
    firewall.flush()
    assert firewall.banned() == []
    assert firewall.apply([ban("198.51.100.7/32")], NOW) == []
    assert nets(firewall) == {"198.51.100.7/32"}


def test_remove_deletes_the_table_and_opening_makes_it_again(opened, host):
    firewall = opened()
    firewall.remove()
    assert host.nft("list tables") == ""
    with pytest.raises(FirewallError, match=r"open\(\)"):
        firewall.banned()
    firewall.open()
    assert firewall.banned() == []
    firewall.close()


def test_a_flushed_ruleset_is_said_not_swallowed(opened, host):
    firewall = opened()
    host.nft("flush ruleset")
    with pytest.raises(FirewallError, match="gone"):
        firewall.apply([ban("198.51.100.7/32"), ban("198.51.100.8/32")], NOW)
    with pytest.raises(FirewallError, match="gone"):
        firewall.banned()
    with pytest.raises(FirewallError, match="gone"):
        firewall.drops()


def test_a_table_of_another_shape_is_replaced_and_what_can_be_read_stays_banned(opened, host):
    host.nft(
        "table inet mailward { set ban4_32 { type ipv6_addr; elements = { 2001:db8::7 }; }\n"
        "set ban6_64 { type ipv6_addr; flags timeout; elements = { 2001:db8:1:2:: timeout 500s }; }\n"
        "chain prerouting { type filter hook input priority 0; }; }"
    )
    firewall = opened()
    assert nets(firewall) == {"2001:db8:1:2::/64"}
    assert 470 <= seconds(firewall)["2001:db8:1:2::/64"] <= 500
    assert firewall.apply([ban("198.51.100.7/32")], NOW) == []


def test_bans_of_an_earlier_width_stay_in_force_and_can_be_ended(opened, host):
    opened(prefix4=28).apply([ban("198.51.100.0/28")], NOW)
    firewall = opened(prefix4=32)
    assert "@ban4_28" in host.run("nft", "list", "chain", "inet", "mailward", "banned")
    assert nets(firewall) == {"198.51.100.0/28"}
    firewall.apply([unban("198.51.100.0/28")], NOW)
    assert firewall.banned() == []


def test_a_width_nobody_uses_any_more_costs_packets_nothing(opened, host):
    firewall = opened()
    firewall.apply([ban("198.51.100.0/28"), ban("2001:db8::/40")], NOW)
    firewall.reconcile({"198.51.100.0/28": ban("198.51.100.0/28")}, NOW, keep_foreign=False)
    firewall._recent._actions.clear()  # as after some seconds
    drift = firewall.reconcile({"198.51.100.0/28": ban("198.51.100.0/28")}, NOW, keep_foreign=False)
    assert drift.held == {"198.51.100.0/28"}
    firewall.reconcile({"198.51.100.0/28": ban("198.51.100.0/28")}, NOW)
    rules = host.run("nft", "list", "table", "inet", "mailward")
    assert "ban4_28" in rules
    assert "ban6_40" not in rules
    assert firewall.apply([ban("2001:db8::/40"), unban("198.51.100.0/28")], NOW) == []
    assert nets(firewall) == {"2001:db8::/40"}


def test_two_tables_do_not_see_each_other(opened):
    one, other = opened(), opened(table="mailward_test")
    one.apply([ban("198.51.100.7/32")], NOW)
    assert other.banned() == []
    other.remove()
    assert nets(one) == {"198.51.100.7/32"}


def test_nothing_works_before_opening_or_after_closing(opened):
    with pytest.raises(FirewallError, match=r"open\(\)"):
        NftablesFirewall(PORTS).apply([ban("198.51.100.7/32")], NOW)
    firewall = opened()
    firewall.close()
    firewall.close()
    with pytest.raises(FirewallError, match=r"open\(\)"):
        firewall.flush()


@pytest.mark.parametrize(
    "options",
    [
        {"ports": []},
        {"ports": [0]},
        {"ports": [65536]},
        {"ports": PORTS, "prefix4": 33},
        {"ports": PORTS, "prefix6": 0},
        {"ports": PORTS, "table": "mailward; flush ruleset"},
        {"ports": PORTS, "trusted": ["office.example.org"]},
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(options):
    with pytest.raises(ValueError, match=r"."):
        NftablesFirewall(**options)
