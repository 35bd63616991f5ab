"""The dry run keeps account as the kernel would, and enforces nothing."""

from __future__ import annotations

import math

from guard.firewall import Drops, Element, Firewall
from guard.firewall.dry_run import DryRunFirewall
from guard.firewall.nftables import NftablesFirewall
from guard.model import Ban, Unban

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def ban(net: str, seconds: float = 600.0) -> Ban:
    return Ban(net, NOW, NOW + seconds, "brute_force")


def test_both_backends_keep_the_interface():
    backends: list[Firewall] = [DryRunFirewall(), NftablesFirewall([25])]
    assert [backend.name for backend in backends] == ["none", "nftables"]


def test_a_ban_ends_by_the_clock():
    clock = Clock()
    firewall = DryRunFirewall(clock=clock)
    firewall.open()
    assert firewall.apply([ban("198.51.100.7", 60), ban("2001:db8:1:2::/64", math.inf)], NOW) == []
    clock.now += 59
    assert firewall.banned() == [Element("198.51.100.7/32", 1.0), Element("2001:db8:1:2::/64", math.inf)]
    clock.now += 1
    assert firewall.banned() == [Element("2001:db8:1:2::/64", math.inf)]


def test_a_refresh_sets_the_end_anew_and_an_unban_ends_it():
    firewall = DryRunFirewall(clock=Clock())
    firewall.apply([ban("198.51.100.7/32", 60)], NOW)
    firewall.apply([ban("198.51.100.7/32", 10)], NOW)
    assert firewall.banned() == [Element("198.51.100.7/32", 10.0)]
    assert firewall.apply([Unban("198.51.100.7/32", NOW, "manual")] * 2, NOW) == []
    assert firewall.banned() == []


def test_it_refuses_what_the_kernel_would_be_spared():
    firewall = DryRunFirewall(trusted=["10.0.0.0/8"])
    actions = [
        ban("127.0.0.1/32"),
        ban("10.1.2.3/32"),
        ban("0.0.0.0/0"),
        ban("nonsense"),
        ban("198.51.100.7/32"),
    ]
    assert [refused.action for refused in firewall.apply(actions, NOW)] == actions[:4]
    assert len(firewall.banned()) == 1


def test_it_is_bounded():
    firewall = DryRunFirewall(limit=2)
    refused = firewall.apply([ban(f"198.51.100.{20 + i}") for i in range(4)], NOW)
    assert [item.action.net for item in refused] == ["198.51.100.22", "198.51.100.23"]
    assert "2 nets" in refused[0].reason
    assert firewall.apply([ban("198.51.100.20", 900)], NOW) == []


def test_flush_and_remove_forget_and_closing_does_not():
    firewall = DryRunFirewall()
    firewall.apply([ban("198.51.100.7")], NOW)
    firewall.close()
    assert len(firewall.banned()) == 1
    firewall.flush()
    assert firewall.banned() == []
    firewall.apply([ban("198.51.100.7")], NOW)
    firewall.remove()
    assert firewall.banned() == []
    assert firewall.drops() == {"ipv4": Drops(0, 0), "ipv6": Drops(0, 0)}
