"""Our own reading of addresses against the standard library's."""

from __future__ import annotations

import base64
import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guard import addresses

V4 = st.ip_addresses(v=4)
# Groups of zeros are where the text form is interesting.
V6 = st.one_of(
    st.ip_addresses(v=6),
    st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF, 0xDB8]), min_size=8, max_size=8).map(
        lambda groups: IPv6Address(b"".join(g.to_bytes(2, "big") for g in groups))
    ),
)


def canonical(address: IPv4Address | IPv6Address) -> str:
    """Return an address as the product writes it: ::ffff:a.b.c.d is a.b.c.d."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


@given(V4 | V6)
@example(ip_address("::ffff:198.51.100.7"))
@example(ip_address("::198.51.100.7"))
@example(ip_address("::"))
@example(ip_address("::1"))
def test_every_form_of_an_address_is_read_as_one(ip):
    want = canonical(ip)
    for text in (str(ip), ip.exploded, str(ip).upper(), ip.exploded.upper()):
        assert addresses.read(text) == want
        assert addresses.read(text) == want, "from memory"
    assert addresses.read(want) == want


@given(V4)
def test_mixed_notation(ip):
    assert addresses.read(f"::ffff:{ip}") == str(ip)
    assert addresses.read(f"::FFFF:{ip}") == str(ip)
    assert addresses.read(f"64:ff9b::{ip}") == str(ip_address(f"64:ff9b::{ip}"))


@given(st.text(alphabet="0123456789abcdefABCDEF:.%/[] x", max_size=50) | st.text(max_size=20))
@example("1.2.3")
@example("01.2.3.4")
@example("1.2.3.4.5")
@example("256.1.1.1")
@example("1.2.3.4\n")
@example("::1\n")
@example("fe80::1%eth0")
@example("1::2::3")
@example("1:2:3:4:5:6:7:8:9")
@example(":1:2:3:4:5:6:7")
@example("1:2:3:4:5:6:7::")
@example("٣.1.1.1")
@example("::ffff:1.2.3.4.5")
@example("1:0::5")
@example("1::0:5")
@example("1:0:0:2::5")
@example("1:2:3:0:5:6:7:8")
@example("1:2:0:0:5:6:7:8")
@example("1:2:3:4:5:6::")
@example("2001:DB8::1")
@example("2001:0db8::1")
@example("1::00")
@example("1:::2")
def test_what_the_standard_library_refuses_is_no_address(text):
    try:
        want = None if "%" in text else canonical(ip_address(text))
    except ValueError:
        want = None
    assert addresses.read(text) == want


@given(V6)
def test_the_text_of_a_number_is_canonical(ip):
    assert addresses.text6(int(ip)) == format_like_library(ip)


def format_like_library(ip: IPv6Address) -> str:
    """Return the library's text, but without its dotted form of mapped addresses (Python 3.13)."""
    text = str(ip)
    return text if "." not in text else addresses.text6(int(ip))


@given(V4 | V6)
def test_a_number_is_the_addresses(ip):
    text = canonical(ip)
    assert addresses.number(text) == int(ip_address(text))


@given(V4 | V6, st.integers(0, 32), st.sampled_from([32, 48, 64]) | st.integers(0, 128))
def test_a_widened_net_is_the_librarys(ip, prefix4, prefix6):
    text = canonical(ip)
    prefix = prefix6 if ":" in text else prefix4
    want = ip_network(f"{text}/{prefix}", strict=False)
    start = want.network_address
    shown = format_like_library(start) if isinstance(start, IPv6Address) else str(start)
    assert addresses.widen(text, prefix4, prefix6) == f"{shown}/{prefix}"
    assert addresses.family(addresses.widen(text, prefix4, prefix6)) == f"ipv{want.version}"


@given(V4 | V6, st.integers(0, 128))
@example(ip_address("::ffff:198.51.100.7"), 120)
@example(ip_address("::ffff:198.51.100.7"), 95)
def test_a_net_in_any_form_is_the_librarys(ip, width):
    width = min(width, ip.max_prefixlen)
    want = ip_network(f"{ip}/{width}", strict=False)
    mapped = want.network_address.ipv4_mapped if isinstance(want.network_address, IPv6Address) else None
    if mapped is not None and width >= 96:
        want = ip_network(f"{mapped}/{width - 96}")
    for text in (f"{ip}/{width}", f"{ip.exploded}/{width}", f"{str(ip).upper()}/0{width}"):
        found = addresses.network(text)
        assert ip_network(found) == want
        assert addresses.network(found) == found
        start, own = addresses.parts(found)
        assert (start, own) == (int(want.network_address), want.prefixlen)
        assert addresses.parts(str(ip)) == (int(ip), ip.max_prefixlen)


@given(st.text(alphabet="0123456789abcdef:./ x_+", max_size=24))
@example("1_0::")
@example("+1::")
@example("::1/ 4")
@example("1.2.3.4/255.255.0.0")
@example("::1.2.3.4/120")
def test_what_the_library_takes_for_a_net_is_one_and_nothing_else(text):
    try:
        want = ip_network(text.strip(), strict=False)
    except ValueError:
        want = None
    try:
        found = ip_network(addresses.network(text))
    except ValueError:
        found = None
    if want is not None and want.version == 6 and want.prefixlen >= 96:
        mapped = want.network_address.ipv4_mapped
        want = want if mapped is None else ip_network(f"{mapped}/{want.prefixlen - 96}")
    assert found == want


@given(V4 | V6, st.binary(min_size=8, max_size=8))
def test_a_session_id_gives_its_clients_address(ip, head):
    session = base64.b64encode(head + ip.packed).decode().rstrip("=")
    assert addresses.of_session(session) == canonical(ip)


@given(st.text(max_size=40) | st.from_regex(r"\A[A-Za-z0-9+/=]{8,64}\Z"))
@example("A" * 15 + "=")
@example("=" * 16)
@example("=" * 32)
@example("A" * 16)
@example("é" * 16)
def test_what_is_no_session_id_gives_no_address_and_does_not_raise(text):
    found = addresses.of_session(text)
    assert found is None or str(ip_address(found)) == found
    if len(text) not in (16, 32):
        assert found is None


@pytest.mark.parametrize(("text", "want"), [
    ("198.51.100.7", "198.51.100.7/32"), (" 198.51.100.7/24 ", "198.51.100.0/24"), ("2001:DB8::1", "2001:db8::1/128"),
    ("2001:db8::1/64", "2001:db8::/64"), ("::ffff:198.51.100.7", "198.51.100.7/32"), ("::ffff:198.51.100.0/120", "198.51.100.0/24"),
])  # fmt: skip
def test_a_net_is_written_in_one_way(text, want):
    assert addresses.network(text) == want
    assert str(ipaddress.ip_network(want)) == want


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4/33", "::1/129", "1.2.3.4/24/24", "1.2.3.4-5"])
def test_what_is_no_net_is_refused_with_a_reason(text):
    with pytest.raises(ValueError, match=r"."):
        addresses.network(text)


def test_memory_is_bounded():
    for n in range((1 << 17) + 10):
        addresses.read(f"x{n}")
    assert len(addresses._read) <= 1 << 17
    assert addresses.read("198.51.100.7") == "198.51.100.7"


@given(st.lists(V4 | V6, min_size=2, max_size=5))
@example([ip_address("0:db8:1::"), ip_address("0:db8:1:1::1"), ip_address("::1"), ip_address("::2:0:0:0:1")])
@example([ip_address("198.51.100.7"), ip_address("198.51.100.8"), ip_address("198.51.10.7")])
def test_a_vicinity_stands_for_one_net(ips):
    both = {(addresses.widen(ip, 24, 48), addresses.vicinity(ip)) for ip in map(canonical, ips)}
    assert all(addresses.first_of(text) == canonical(ip_network(net)[0]) for net, text in both)
    assert len({net for net, _ in both}) == len({text for _, text in both}) == len(both)
