"""What the kernel holds, as far as the enforcer knows, where a ban and a look at the kernel overlap."""

from __future__ import annotations

import pytest

from guard.app._held import Held
from guard.firewall import Drift
from guard.model import Ban


@pytest.mark.parametrize(("net", "family"), [("198.51.100.7/32", "ipv4"), ("2001:db8::/64", "ipv6")])
def test_a_ban_applied_during_a_look_is_not_foreign(net, family):
    before = Held()
    before.watch()
    before.put(Ban(net, 0.0, 60.0, "brute_force"))  # decided after the look began: it does not know of it
    seen = Held.of(Drift(held={net, "192.0.2.1/32"}, foreign=1, strangers=("192.0.2.1/32",)), {})
    held = seen.after(before)
    assert held.count()[family] == (2 if family == "ipv4" else 1)
    assert held.foreign == {"ipv4": 1, "ipv6": 0}


def test_a_foreign_net_that_ends_is_foreign_no_more():
    held = Held.of(Drift(held={"192.0.2.1/32"}, foreign=1), {})
    held.discard("192.0.2.1/32")
    assert held.count() == held.foreign == {"ipv4": 0, "ipv6": 0}
