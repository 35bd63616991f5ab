"""Host names of the allow list against a name server on the wire: TTL, what fails, what is kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import dns.asyncresolver
import pytest
from structlog.testing import capture_logs

from guard.app import _names
from guard.app._names import NAME_TABLE, Names
from tests.nameserver import NameServer

OFFICE = "office.example.org"
A, AAAA = (OFFICE, "A"), (OFFICE, "AAAA")
Changes = list[tuple[str, ...]]


@pytest.fixture
def server():
    with NameServer() as server:
        yield server


@pytest.fixture
def make(server, tmp_path):
    def make_them(*wanted: str, saved: Iterable[tuple[str, str]] = (), **more: Any) -> Names:
        def resolver() -> dns.asyncresolver.Resolver:
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.nameservers, resolver.port, resolver.timeout = ["127.0.0.1"], server.port, 0.2
            return resolver

        more = {"hosts": tmp_path / "hosts", "floor": 0.1, "patience": 0.4, "resolver": resolver} | more
        names = Names(saved, **more)
        names.want(wanted)
        return names

    return make_them


def begun(names: Names) -> tuple[str, ...]:
    asyncio.run(names.begin())
    return names.nets()


async def following(names: Names, work: Coroutine[Any, Any, None], changes: Changes) -> None:
    """Let `work` happen while the names are followed."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(names.run(lambda: changes.append(names.nets())))
        await work
        task.cancel()


async def until(condition: Callable[[], object], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def tried_again(names: Names, due: float) -> bool:
    return names[OFFICE].due > due


def test_both_kinds_of_address_through_a_chain_of_other_names(server, make):
    server.zone |= {
        (OFFICE, "CNAME"): (300, ["gate.example.net"]),
        ("gate.example.net", "CNAME"): (60, ["gate.example.com"]),
        ("gate.example.com", "A"): (600, ["192.0.2.7", "192.0.2.8"]),
        ("gate.example.com", "AAAA"): (600, ["2001:DB8::7", "::ffff:192.0.2.9"]),
    }
    names = make(OFFICE)
    assert begun(names) == ("192.0.2.7/32", "192.0.2.8/32", "192.0.2.9/32", "2001:db8::7/128")
    assert names[OFFICE].ttl == 60, "the least of the chain"


@pytest.mark.parametrize(("ttl", "used"), [(0, 30.0), (300, 300.0), (86400, 3600.0)])
def test_the_ttl_has_a_floor_and_a_ceiling(server, make, ttl, used):
    server.zone |= {A: (ttl, ["192.0.2.7"]), AAAA: (max(ttl, 7200), ["2001:db8::7"])}
    names = make(OFFICE, floor=_names.FLOOR)
    begun(names)
    assert names[OFFICE].ttl == used
    assert names[OFFICE].due - time.monotonic() == pytest.approx(used, abs=1.0)


def test_an_answer_that_is_cut_short_is_asked_for_by_tcp(server, make):
    server.zone[A] = 300, ["192.0.2.7"]
    server.short = True
    assert begun(make(OFFICE)) == ("192.0.2.7/32",)


def test_a_new_address_is_taken_when_the_ttl_is_over_and_not_before(server, make):
    server.zone[A] = 1, ["192.0.2.7"]
    names = make(OFFICE)
    changes: Changes = []

    async def move() -> None:
        await until(lambda: changes)
        asked = len(server.asked)
        began = time.monotonic()
        server.zone[A] = 600, ["203.0.113.9"]
        await until(lambda: len(changes) == 2)
        assert 0.5 < time.monotonic() - began < 20.0
        assert len(server.asked) == asked + 2, "one look-up: an A and an AAAA"

    asyncio.run(following(names, move(), changes))
    assert changes == [("192.0.2.7/32",), ("203.0.113.9/32",)]


@pytest.mark.parametrize("how", ["fails", "silent", "gone", "no such name", "no address"])
def test_what_fails_keeps_the_last_good_addresses_and_is_told_once(server, make, how):
    server.zone |= {A: (0, ["192.0.2.7"]), AAAA: (0, ["2001:db8::7"])}
    good = ("192.0.2.7/32", "2001:db8::7/128")
    names = make(OFFICE)
    changes: Changes = []
    with capture_logs() as said:

        async def fail() -> None:
            await until(lambda: changes)
            if how == "gone":
                server.close()
            elif how == "no such name":
                server.zone.clear()
            elif how == "no address":
                server.zone = {(OFFICE, "TXT"): (0, ["x"])}
            else:
                setattr(server, how, True)
            await until(lambda: names[OFFICE].trouble)
            for _ in range(2):
                await until(partial(tried_again, names, names[OFFICE].due))
            assert names.nets() == good
            if how == "gone":
                return
            server.fails = server.silent = False
            server.zone = {A: (600, ["192.0.2.7"]), AAAA: (600, ["2001:db8::7"])}
            await until(lambda: not names[OFFICE].trouble)

        asyncio.run(following(names, fail(), changes))
    told = [event["event"].partition(": ")[2] for event in said]
    assert told == [
        "a name has other addresses",
        "a name does not resolve: its last addresses stay",
        *([] if how == "gone" else ["a name resolves again"]),
    ]
    assert changes == [good]


def test_one_kind_that_fails_keeps_its_own_and_the_other_moves_on(server, make):
    server.zone |= {A: (300, ["192.0.2.7"]), AAAA: (300, ["2001:db8::7"])}
    names = make(OFFICE)
    begun(names)
    server.zone[A] = 300, ["192.0.2.8"]
    server.refuses = "AAAA"
    names.want([OFFICE], again=True)
    asyncio.run(names._look_up([OFFICE]))
    assert names.nets() == ("192.0.2.8/32", "2001:db8::7/128")
    assert names[OFFICE].trouble


def test_a_kind_of_address_that_a_name_has_no_more_goes(server, make):
    server.zone |= {A: (300, ["192.0.2.7"]), AAAA: (300, ["2001:db8::7"])}
    names = make(OFFICE)
    begun(names)
    del server.zone[AAAA]
    asyncio.run(names._look_up([OFFICE]))
    assert names.nets() == ("192.0.2.7/32",)
    assert names[OFFICE].trouble == ""


def test_the_last_good_addresses_survive_a_restart_without_dns(server, make):
    server.zone[A] = 300, ["192.0.2.7"]
    first = make(OFFICE)
    begun(first)
    rows = {key: text for table, key, text in first.unsaved if table == NAME_TABLE}
    server.close()
    second = make(OFFICE, "new.example.org", saved=rows.items())
    assert second.nets() == ("192.0.2.7/32",), "before anybody is asked"
    assert begun(second) == ("192.0.2.7/32",)
    assert second["new.example.org"].trouble == "no name server answers"
    second.want(["new.example.org"])
    assert second.nets() == ()
    assert second.unsaved == [(NAME_TABLE, OFFICE, None)], "what nobody wants is not kept"


def test_what_was_saved_is_looked_up_again_at_once(server, make):
    saved = json.dumps({"found": {"A": ["192.0.2.7/32"], "AAAA": []}, "at": time.time(), "ttl": 3600.0})
    server.zone[A] = 300, ["192.0.2.8"]
    names = make(OFFICE, saved=[(OFFICE, saved)])
    changes: Changes = []

    async def wait() -> None:
        await until(lambda: changes)

    asyncio.run(following(names, wait(), changes))
    assert changes == [("192.0.2.8/32",)]


def test_the_hosts_file_goes_before_dns(server, make, tmp_path):
    (tmp_path / "hosts").write_text(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost # office.example.org\n"
        "fe80::1%eth0 other\n nonsense office.example.org\n\n"
        "198.51.100.1  gate Office.Example.ORG.\n198.51.100.2 office.example.org\n"
    )
    server.zone[A] = 300, ["192.0.2.7"]
    names = make(OFFICE, "localhost", "nonsense")
    assert begun(names) == ("198.51.100.1/32", "198.51.100.2/32", "127.0.0.1/32", "::1/128")
    assert {name for name, _ in server.asked} == {"nonsense"}


def test_a_name_stands_for_a_bounded_number_of_addresses(server, make):
    server.zone[A] = 300, [f"192.0.2.{n}" for n in range(100)]
    names = make(OFFICE)
    assert len(begun(names)) == _names.MOST
    assert "more than 64 addresses" in names[OFFICE].trouble


def test_without_a_resolver_the_reason_is_told(make, tmp_path):
    names = make(OFFICE, resolver=lambda: dns.asyncresolver.Resolver(str(tmp_path / "resolv.conf")))
    assert begun(names) == ()
    assert "resolv.conf" in names[OFFICE].trouble


def test_a_thousand_names_are_looked_up_together(server, make):
    wanted = [f"h{n}.example.org" for n in range(1000)]
    server.zone |= {(name, "A"): (300, ["192.0.2.7"]) for name in wanted}
    names = make(*wanted, patience=20.0)
    assert begun(names) == ("192.0.2.7/32",) * 1000


def test_resolv_conf_is_read_anew_at_each_look_up(server, tmp_path, make):
    path: Path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")

    def resolver() -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(str(path))
        resolver.port, resolver.timeout = server.port, 0.2
        return resolver

    server.zone[A] = 300, ["192.0.2.7"]
    names = make(OFFICE, resolver=resolver)
    path.write_text("nameserver 127.0.0.1\n")
    assert begun(names) == ("192.0.2.7/32",)
