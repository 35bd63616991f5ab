"""Which texts are nets, against Python's own reading; and which nets may be banned."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.firewall.admission import Admission
from guard.firewall.nets import read_net
from guard.model import Ban, Unban

NETS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: ipaddress.ip_network(f"{pair[0]}/{pair[1]}", strict=False))


@given(NETS)
def test_a_net_reads_as_python_reads_it(net):
    read = read_net(str(net))
    assert ipaddress.ip_network(read.text) == net
    assert (read.family, read.first, read.last) == (
        net.version,
        int(net.network_address),
        int(net.broadcast_address),
    )


@given(st.text(alphabet="0123456789abcdef:./%; {}\n\x00é\udcff", max_size=45))
def test_what_python_does_not_read_is_refused(text):
    try:
        read = read_net(text)
    except ValueError:
        return
    assert ipaddress.ip_network(read.text) == ipaddress.ip_network(text)


@pytest.mark.parametrize(
    "text",
    ["", "/", "/24", "198.51.100.7/", "198.51.100.7/24", "198.51.100.07", "198.51.100/24", "198.51.100.0/-1",
     "198.51.100.0/33", "198.51.100.0/٣", "::/129", "fe80::1%eth0", "fe80::1%}; flush ruleset", "198.51.100.0/255.255.255.0",
     " 198.51.100.7", "198.51.100.7\n", "198.51.100.7\x00", "2001:db8::1/64"],
)  # fmt: skip
def test_near_misses_are_refused(text):
    with pytest.raises(ValueError, match=r"^(not a|bits are)"):
        read_net(text)


@given(st.lists(NETS, max_size=12), NETS)
def test_a_ban_that_overlaps_a_trusted_net_is_refused_and_no_other(trusted, net):
    ban = Ban(str(net), 0.0, 60.0, "manual")
    _, refused = Admission([str(one) for one in trusted]).sort_out([ban], 0.0)
    overlaps = any(one.version == net.version and one.overlaps(net) for one in trusted)
    if overlaps:
        assert refused
    else:  # it may still be one of our own, or loopback
        assert not any("lists.trusted" in item.reason for item in refused)


def test_an_unban_of_what_may_not_be_banned_goes_through():
    wanted, refused = Admission(["10.0.0.0/8"]).sort_out([Unban("10.1.2.3/32", 0.0, "manual")], 0.0)
    assert [net.text for net, _ in wanted] == ["10.1.2.3/32"]
    assert refused == []
