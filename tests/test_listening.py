"""Who reaches a server that listens on an address, and who does not where an interface is named with it."""

from __future__ import annotations

import socket

import pytest

from guard.listening import parts, place
from tests.system.netns import HOST4, HOST6, mail_host, requires_namespaces


@pytest.mark.parametrize(
    ("address", "host", "interface", "port"),
    [
        ("127.0.0.1:9780", "127.0.0.1", "", 9780),
        ("localhost:1", "localhost", "", 1),
        ("[::1]:9780", "::1", "", 9780),
        ("172.29.80.1%br-mailward:4001", "172.29.80.1", "br-mailward", 4001),
        ("[fd4d::1]%eth0.7:4001", "fd4d::1", "eth0.7", 4001),
    ],
)
def test_an_address_has_a_host_a_port_and_perhaps_an_interface(address, host, interface, port):
    assert parts(address) == (host, interface, port)


def test_an_interface_that_is_not_there_is_told():
    with pytest.raises(OSError, match="No such device"):
        place("127.0.0.1%mailward-none:0")


def test_an_address_that_is_not_there_is_told():
    with pytest.raises(OSError, match="Cannot assign requested address"):
        place("192.0.2.77%lo:0")


@pytest.mark.system
@pytest.mark.parametrize(("host", "client"), [(HOST4, "198.51.100.7"), (f"[{HOST6}]", "2001:db8:1:2::7")])
def test_what_comes_in_by_another_interface_is_not_answered(host: str, client: str):
    requires_namespaces()
    bare = host.strip("[]")
    with mail_host() as lab:
        lab.host.run("ip", "link", "add", "inside", "type", "bridge")

        def answered(interface: str) -> bool:
            asked = place(f"{host}{interface}:0")
            family = socket.AF_INET6 if ":" in bare else socket.AF_INET
            with asked.get("sock") or socket.create_server((bare, 0), family=family) as server:
                port = server.getsockname()[1]
                with lab.internet.entered():
                    try:
                        socket.create_connection((bare, port), 2, source_address=(client, 0)).close()
                    except OSError:
                        return False
                    return True

        with lab.host.entered():
            outside = next(name for _, name in socket.if_nameindex() if name not in ("lo", "inside"))
            assert answered("")
            assert answered(f"%{outside}")
            assert not answered("%inside")
            assert not answered("%lo")
