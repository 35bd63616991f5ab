"""What the kernel says of this host's addresses, against what ip(8) says."""

from __future__ import annotations

import ipaddress
import json

import pytest

from guard.firewall.own_addresses import own_addresses
from tests.system.netns import namespace, requires_namespaces, run

pytestmark = pytest.mark.system


@pytest.fixture
def host():
    requires_namespaces()
    with namespace("addresses") as host:
        yield host


def test_every_address_of_every_device_is_known_and_no_far_end(host):
    commands = [  # more than one datagram of the dump
        f"address add 198.18.{i // 256}.{i % 256}/32 dev lo"
        if i % 2
        else f"address add 2001:db8:1:2::{i:x}/128 dev lo"
        for i in range(512)
    ]
    commands += [
        "link add veth0 type veth peer veth1",
        "address add 198.51.100.1 peer 198.51.100.2 dev veth0",
    ]
    run("ip", "-n", host.name, "-batch", "-", given="\n".join(commands))
    listed = json.loads(run("ip", "-n", host.name, "-j", "address"))
    expected = {ipaddress.ip_address(info["local"]) for device in listed for info in device["addr_info"]}
    with host.entered():
        found = own_addresses()
    assert set(found) == expected
    assert ipaddress.ip_address("198.51.100.1") in found
    assert ipaddress.ip_address("198.51.100.2") not in found
    assert ipaddress.ip_address("127.0.0.1") in found
    assert len(found) > 500


def test_a_namespace_without_a_device_up_has_none(host):
    run("ip", "-n", host.name, "link", "set", "lo", "down")
    run("ip", "-n", host.name, "address", "flush", "dev", "lo")
    with host.entered():
        assert own_addresses() == []
