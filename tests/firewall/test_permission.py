"""Whether this process may enforce, and what it says when it may not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from guard.firewall import FirewallError
from guard.firewall.nftables import NftablesFirewall
from guard.firewall.permission import LIBRARY, missing_capability, missing_library, missing_right
from tests.system.netns import requires_namespaces

ATTEMPT = """
from guard.firewall import FirewallError
from guard.firewall.nftables import NftablesFirewall
from guard.firewall.permission import missing_capability
print(missing_capability())
try:
    NftablesFirewall([143]).open()
except FirewallError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("capabilities", "enough"),
    [
        ("0000000000001000", True),
        ("000001ffffffffff", True),
        ("0000000000000000", False),
        ("000001ffffffefff", False),
    ],
)
def test_the_right_is_bit_12_of_the_effective_capabilities(tmp_path, capabilities, enough):
    status = tmp_path / "status"
    status.write_text(
        f"Name:\tmailward\nCapPrm:\t000001ffffffffff\nCapEff:\t{capabilities}\nCapBnd:\t0000000000001000\n"
    )
    missing = missing_right(status=status)
    assert (missing is None) is enough
    assert missing is None or missing.startswith("CAP_NET_ADMIN is missing")


def test_a_kernel_that_tells_nothing_grants_nothing(tmp_path):
    (tmp_path / "status").write_text("Name:\tmailward\n")
    assert missing_right(status=tmp_path / "status") is not None


def test_a_missing_binding_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert missing_library() == "the Python module nftables is missing: install pip-nftables"
    with pytest.raises(FirewallError, match="pip-nftables"):
        NftablesFirewall([143]).open()


def test_a_missing_library_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr("guard.firewall.permission.LIBRARY", "libnftables.so.0")
    assert "libnftables1" in (missing_capability() or "")
    assert LIBRARY == "libnftables.so.1"


@pytest.mark.system
def test_root_without_net_admin_is_told_so_before_and_at_opening():
    requires_namespaces()
    # In a new namespace, lest a broken test touch the machine's own tables.
    command = ["unshare", "--net", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    said = subprocess.run(
        [*command, sys.executable, "-c", ATTEMPT], check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    assert len(said) == 2
    assert all(line.startswith("CAP_NET_ADMIN is missing") for line in said)
