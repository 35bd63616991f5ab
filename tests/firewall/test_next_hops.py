"""What the kernel and resolv.conf say of the way to the world, against what was set up."""

from __future__ import annotations

import ipaddress

import pytest

from guard.firewall.next_hops import gateways, resolvers
from tests.system.netns import namespace, requires_namespaces, run


@pytest.fixture
def host():
    requires_namespaces()
    with namespace("hops") as host:
        commands = (
            "link add eth0 type veth peer eth1",
            "link set eth0 up",
            "link set eth1 up",
            "address add 198.18.0.1/24 dev eth0",
            "address add 2001:db8:ffff::1/64 dev eth0 nodad",
        )
        run("ip", "-n", host.name, "-batch", "-", given="\n".join(commands))
        yield host


def found(host) -> set[str]:
    with host.entered():
        return {str(address) for address in gateways()}


@pytest.mark.system
def test_every_next_hop_of_every_table_and_family_is_known(host):
    routes = (
        "route add default via 198.18.0.2",
        "route add 203.0.113.0/24 nexthop via 198.18.0.3 dev eth0 nexthop via 198.18.0.4 dev eth0",
        "route add 203.0.114.0/24 via 198.18.0.5 table 100",
        "route add 203.0.115.0/24 via inet6 2001:db8:ffff::5 dev eth0",
        "route add blackhole 203.0.116.0/24",
        "route add 203.0.117.0/24 dev eth0",
        "-6 route add default via 2001:db8:ffff::2",
        "-6 route add 2001:db8:1::/48 nexthop via 2001:db8:ffff::3 nexthop via fe80::4 dev eth0",
        "-6 route add 2001:db8:2::/48 via 2001:db8:ffff::6 table 100",
    )
    for route in routes:
        run("ip", "-n", host.name, *route.split())
    assert found(host) == {
        "198.18.0.2", "198.18.0.3", "198.18.0.4", "198.18.0.5", "2001:db8:ffff::5",
        "2001:db8:ffff::2", "2001:db8:ffff::3", "fe80::4", "2001:db8:ffff::6",
    }  # fmt: skip


@pytest.mark.system
def test_a_route_by_way_of_a_next_hop_object_that_does_not_show_in_it(host):
    host.run("sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0")
    for command in (
        "nexthop add id 1 via 198.18.0.9 dev eth0",
        "nexthop add id 2 via 2001:db8:ffff::9 dev eth0",
        "nexthop add id 3 blackhole",
        "route add default nhid 1",
        "-6 route add default nhid 2",
    ):
        run("ip", "-n", host.name, *command.split())
    assert found(host) == {"198.18.0.9", "2001:db8:ffff::9"}


@pytest.mark.system
def test_a_thousand_routes_are_read_to_the_end(host):
    routes = [
        f"route add 203.{i // 256}.{i % 256}.0/24 via 198.18.0.{2 + i % 250} table {1 + i % 7}"
        for i in range(1000)
    ]
    run("ip", "-n", host.name, "-batch", "-", given="\n".join(routes))
    assert found(host) == {f"198.18.0.{2 + i}" for i in range(250)}


@pytest.mark.system
def test_a_host_without_a_route_has_no_gateway():
    requires_namespaces()
    with namespace("alone") as alone:
        assert found(alone) == set()


def test_resolvers_are_what_stands_behind_nameserver(tmp_path):
    first, second = tmp_path / "resolv.conf", tmp_path / "upstream"
    first.write_bytes(
        b"# nameserver 192.0.2.9\n;nameserver 192.0.2.8\nsearch example.org\nnameserver 127.0.0.53\n"
        b"nameserver\t fe80::1%eth0 trailing\nnameserver\nnameserver dns.example.org\nnameserver \xff\xfe\n nameserver 192.0.2.7\n"
    )
    second.write_text("nameserver 2001:db8::53\nnameserver 192.0.2.53")
    files = [str(first), str(second), str(tmp_path / "absent")]
    expected = ("127.0.0.53", "fe80::1", "192.0.2.7", "2001:db8::53", "192.0.2.53")
    assert resolvers(files) == {ipaddress.ip_address(address) for address in expected}
