"""The firewalls that must all do the same on the wire, and whether this machine can run them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence

import pytest

from guard.firewall import Firewall, FirewallError
from guard.firewall.iptables import IptablesFirewall
from guard.firewall.nftables import NftablesFirewall
from guard.firewall.raw_table import Variant
from tests.system.netns import namespace, requires_namespaces

BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")
VARIANTS: tuple[Variant, ...] = ("nft", "legacy")


def firewall_of(backend: str, ports: Sequence[int] | None) -> Firewall:
    """Return a backend, not yet open; skip the test, loudly, where this machine lacks it."""
    if backend == "nftables":
        return NftablesFirewall(ports)
    variant: Variant = "legacy" if backend == "iptables-legacy" else "nft"
    requires_iptables(variant)
    return IptablesFirewall(ports, variant=variant)


def requires_iptables(variant: Variant) -> None:
    """Skip the test, loudly, where iptables of this variant cannot work; fail it in CI, where a skip proves nothing."""
    requires_namespaces()
    if variant not in _reasons:
        _reasons[variant] = _reason(variant)
    reason = _reasons[variant]
    if reason is None:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


_reasons: dict[Variant, str | None] = {}


def _reason(variant: Variant) -> str | None:
    missing = [name for name in (f"iptables-{variant}", "ipset") if shutil.which(name) is None]
    if missing:
        return f"NOT RUN: {' and '.join(missing)} not found; apt-get install iptables ipset"
    if variant == "legacy" and importlib.util.find_spec("iptc") is None:
        return "NOT RUN: no module iptc; pip install python-iptables"
    with namespace("probe") as probe, probe.entered():
        try:
            IptablesFirewall([25], variant=variant).open()
        except FirewallError as error:
            return f"NOT RUN: this kernel does not do it: {error}"
    return None
