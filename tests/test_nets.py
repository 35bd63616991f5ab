"""Sets of nets against the standard library's nets, asked one by one."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guard.nets import NetSet, width

NEAR = st.integers(0, 40).map(lambda n: ip_address(f"198.51.100.{n}")) | st.integers(0, 40).map(
    lambda n: IPv6Address(int(ip_address("2001:db8:1:2::")) + n * (1 << 62))
)


@st.composite
def nets(draw, hosts=NEAR):
    ip = draw(hosts)
    width = draw(
        st.integers(0, ip.max_prefixlen)
        | st.sampled_from([24, 30, 32] if ip.version == 4 else [48, 63, 64, 128])
    )
    return str(ip_network(f"{ip}/{width}", strict=False))


@given(st.lists(nets(), max_size=12), NEAR, nets())
def test_a_set_of_nets_is_the_librarys(members, ip, other):
    have = NetSet(tuple(members))
    lib = [ip_network(m) for m in members]
    assert have.has(str(ip), int(ip)) == any(ip in m for m in lib if m.version == ip.version)
    net = ip_network(other)
    same = [m for m in lib if m.version == net.version]
    assert have.holds(other) == any(m.prefixlen <= net.prefixlen and net.overlaps(m) for m in same)
    assert have.touches(other) == any(net.overlaps(m) for m in same)
    for prefix in (24, 32) if ip.version == 4 else (48, 64, 128):
        near = ip_network(f"{ip}/{prefix}", strict=False)
        want = any(near.overlaps(m) for m in lib if m.version == near.version)
        assert have.touches_near(str(ip), int(ip), prefix) == want


def agree(have: NetSet, members: set[str], other: str) -> None:
    """Whether every question about one net has the library's answer."""
    lib = [ip_network(m) for m in members]
    net = ip_network(other)
    same = [m for m in lib if m.version == net.version and net.overlaps(m)]
    above = sorted({str(m) for m in same if m.prefixlen < net.prefixlen}, key=width, reverse=True)
    around = [other] * (other in members) + above
    inside = {str(m) for m in same if m.prefixlen >= net.prefixlen}
    assert have.above(other) == above
    assert have.around(other) == around
    assert sorted(have.inside(other)) == sorted(inside)
    assert sorted(have.touching(other)) == sorted(inside | set(above))
    assert have.touches(other) == bool(same)
    assert have.holds(other) == bool(around)
    assert len(have) == len(members)


@given(
    st.lists(st.tuples(st.sampled_from(["add", "add", "discard", "ask"]), nets()), max_size=60),
    st.integers(1, 3),
)
@example(
    [
        ("add", "198.51.100.0/24"),
        ("ask", "198.51.100.0/32"),
        ("discard", "198.51.100.0/24"),
        ("ask", "198.51.100.0/25"),
    ],
    1,
)
@example(
    [
        ("add", "198.51.100.0/32"),
        ("ask", "0.0.0.0/0"),
        ("discard", "198.51.100.0/32"),
        ("add", "198.51.100.0/32"),
    ],
    1,
)
def test_nets_come_and_go_and_every_answer_is_the_librarys(steps, each):
    have = NetSet()
    members: set[str] = set()
    for n, (what, net) in enumerate(steps):
        if what == "add":
            have.add(net)
            members.add(net)
        elif what == "discard":
            gone = min(members, default=net) if n % 2 else net  # some that are there
            have.discard(gone)
            members.discard(gone)
        if what == "ask" or n % each == 0:
            agree(have, members, net)
    for net in ("0.0.0.0/0", "::/0", *sorted(members)):
        agree(have, members, net)


def test_a_set_that_lost_most_of_its_nets_still_answers():
    every = [f"198.51.{n >> 8}.{n & 255}/32" for n in range(2000)]
    have = NetSet(every)
    assert have.inside("198.51.0.0/16") == every
    for net in every[:1999]:
        have.discard(net)
        assert not have.touches(net)
    assert have.inside("0.0.0.0/0") == every[1999:]
    assert have.touches("198.51.0.0/16")
    assert not have.touches("198.51.0.0/22")


@pytest.mark.parametrize("text", ["", "x", "1.2.3/24", "1.2.3.4/33", "::1/129", "1.2.3.4/x", "::g/64"])
def test_what_is_no_net_does_not_get_in(text):
    with pytest.raises(ValueError, match=r"."):
        NetSet([text])
