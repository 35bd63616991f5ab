"""The kernel tells who changed our table; our own threads are known by their name."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from guard.firewall.monitor import Monitor, own_thread
from guard.firewall.nftables import NftablesFirewall
from guard.model import Ban
from tests.system.netns import mail_host

pytestmark = pytest.mark.system


@pytest.fixture
def host():
    with mail_host() as lab, lab.host.entered():
        yield lab.host


@pytest.fixture
def monitor(host):
    with contextlib.closing(Monitor()) as monitor:
        yield monitor


def in_own_thread(host, work) -> None:
    def named() -> None:
        own_thread()
        with host.entered():
            work()

    thread = threading.Thread(target=named)
    thread.start()
    thread.join()


def test_our_own_changes_are_no_news_and_everybody_elses_are(host, monitor):
    firewall = NftablesFirewall([25])
    now = time.time()
    in_own_thread(host, firewall.open)
    in_own_thread(host, lambda: firewall.apply([Ban("198.51.100.7/32", now, now + 60, "x")], now))
    assert not monitor.foreign()
    for change in (
        "add element inet mailward ban4_32 { 198.51.100.8 }",
        "delete element inet mailward ban4_32 { 198.51.100.7 }",
        "flush chain inet mailward banned",
        "delete table inet mailward",
        "add table inet mailward",
        "flush ruleset",
    ):
        host.nft(change)
        assert monitor.foreign(), change
        assert not monitor.foreign()


def test_other_tables_are_no_news(host, monitor):
    host.nft("add table inet other; add chain inet other c; add rule inet other c accept")
    assert not monitor.foreign()


def test_more_than_the_buffer_holds_may_be_anything(host, monkeypatch):
    monkeypatch.setattr("guard.firewall.monitor._BUFFER", 1 << 15)
    monitor = Monitor()
    lists = [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(20_000)]
    host.nft(f"table ip x {{ set s {{ type ipv4_addr; elements = {{ {', '.join(lists)} }}; }}; }}")
    with contextlib.closing(monitor):
        assert any(monitor.foreign() for _ in range(100))
