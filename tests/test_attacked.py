"""An account that many networks guess at: counted where a rule would count, within an hour, in bounded memory."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
import urllib.request

import pytest

from exporters import exposition, registry_of
from exporters.guard import GuardCollector, Snapshot
from guard.attacked import PLACES, Targets
from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy
from tests.daemon import failure, session
from tests.exporters.test_live_guard import guard

NOW = 1_795_640_000.0  # 25 November 2026, 20:53:20
HOUR = 3600.0


def engine(**policy) -> Engine:
    return Engine(Policy(**policy), clock=Clock(year=2026, now=NOW))


def fed(guard: Engine, *lines: str) -> Engine:
    guard.feed("mail", "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), None)
    return guard


def rejected(ip: str, user: str = "alice", at: str = "20:50:00", *, why: str = "Password mismatch") -> str:
    return f"Nov 25 {at} mx dovecot: auth: passwd-file({user},{ip},<{session(ip)}>): {why}"


def seen(guard: Engine, now: float = NOW) -> dict[str, int]:
    return {row.account: row.networks for row in guard.attacked.top(now)}


def test_one_guess_from_each_of_many_networks_bans_nobody_and_shows_at_the_account():
    guard = fed(engine(), *(rejected(f"198.51.{n}.7") for n in range(50)))
    assert guard.active_bans() == []
    assert seen(guard) == {"alice": 50}


def test_addresses_of_one_network_are_one():
    guard = fed(
        engine(),
        *(rejected(ip) for ip in ("198.51.100.7", "198.51.100.9", "198.51.101.7", "198.51.100.7")),
        *(rejected(ip, "bob") for ip in ("2001:db8:1:2::7", "2001:db8:1:3::7", "2001:db8:2::7")),
    )
    assert seen(guard) == {"alice": 2, "bob": 2}


def test_a_name_in_other_letters_is_the_same_account_and_may_hold_any_bytes():
    odd = b"x\xff\x1b[31m\xe2\x82".decode("utf-8", "surrogateescape")
    guard = fed(
        engine(),
        rejected("198.51.100.7", "Alice"),
        rejected("198.51.101.7", "aLICE"),
        rejected("198.51.102.7", odd),
    )
    assert seen(guard) == {"alice": 2, odd: 1}
    long = fed(engine(), rejected("198.51.100.7", "y" * 600))
    assert set(seen(long)) <= {"y" * 254}


def test_only_what_counts_toward_the_rules_counts():
    guard = fed(
        engine(allow=("203.0.113.0/24",), own=("192.0.2.9/32",)),
        rejected("203.0.113.7"),
        rejected("10.0.0.7"),
        rejected("192.0.2.9"),
        rejected("198.51.100.7", why="Temporary internal failure"),
        f"Nov 25 20:50:01 mx dovecot: imap-login: Login: user=<alice>, method=PLAIN, rip=198.51.100.8, lip=192.0.2.1, TLS, session=<{session('198.51.100.8')}>",
    )
    assert seen(guard) == {}
    assert seen(fed(guard, rejected("198.51.100.7", at="20:50:02"))) == {"alice": 1}


def test_after_an_hour_a_network_counts_no_more():
    targets = Targets()
    targets.failed("alice", "198.51.100.7", NOW)
    targets.failed("alice", "198.51.101.7", NOW + 1800)
    assert targets.networks(NOW + HOUR - 1) == [2]
    assert targets.networks(NOW + HOUR + 301) == [1]
    assert targets.networks(NOW + 2 * HOUR + 301) == []
    targets.failed("alice", "198.51.102.7", NOW)  # it comes late, and is over
    assert targets.networks(NOW + 2 * HOUR + 301) == []
    targets.failed("alice", "198.51.100.7", NOW + 3 * HOUR)
    assert targets.top(NOW + 3 * HOUR) == [("alice", 1)]


def test_random_histories_are_as_a_plain_count_has_them():
    """Within what linear counting promises: exact for most, never off by more than two in sixty."""
    chance = random.Random(7)
    targets = Targets()
    last: dict[tuple[str, str], int] = {}
    at, off, looks = NOW, 0, 0
    for _ in range(20_000):
        at += chance.choice((0.0, 1.0, 30.0, 400.0, 20.0 * HOUR if chance.random() < 0.005 else 0.0))
        late = at - chance.choice((0.0, 0.0, 0.0, 700.0))
        user, network = f"u{chance.randrange(3)}", f"10.{chance.randrange(60)}.7"
        targets.failed(user, f"{network}.{chance.randrange(256)}", late)
        key = user, network
        last[key] = max(last.get(key, 0), int(late / 300))
        if chance.random() < 0.05:
            newest = {user: max(step for (name, _), step in last.items() if name == user) for user, _ in last}
            plain: dict[str, int] = {}
            for (name, _), step in last.items():
                if step > max(int(at / 300), newest[name]) - 13:
                    plain[name] = plain.get(name, 0) + 1
            rows = {row.account: row.networks for row in targets.top(at)}
            assert rows.keys() == plain.keys()
            off += sum(abs(n - rows[name]) for name, n in plain.items())
            looks += sum(plain.values())
            assert all(abs(n - rows[name]) <= 2 for name, n in plain.items())
    assert off < looks / 50


@pytest.mark.parametrize("networks", [2, 11, 101, 1000])
def test_how_far_an_estimate_is_off(networks):
    errors = []
    for case in range(100):
        chance = random.Random(case)
        targets = Targets()
        for n in chance.sample(range(1 << 24), networks):
            targets.failed("alice", f"{n >> 16}.{n >> 8 & 255}.{n & 255}.7", NOW)
        errors.append(targets.networks(NOW)[0] - networks)
    assert max(map(abs, errors)) <= 1 + networks * 0.06
    assert abs(sum(errors) / len(errors)) <= 0.1 + networks * 0.005


def test_a_flood_of_names_hides_no_account_under_attack_and_takes_no_more_memory():
    limit = 1000
    targets = Targets(limit)
    for n in range(12):
        targets.failed("alice", f"198.51.{n}.7", NOW)
    sizes = []
    tracemalloc.start()
    # Each name is forgotten before it comes again; what tally.py remembers is its own.
    for n in range(8 * limit):
        targets.failed(f"nobody{n % (3 * limit)}", "203.0.113.7", NOW + n / 1000)
        if n in {2 * limit, 8 * limit - 1}:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert targets.top(NOW)[0] == ("alice", 12)
    assert len(targets.accounts) <= limit + limit // 4
    assert len(targets.accounts) + targets.accounts.evicted == 8 * limit + 1
    assert sizes[1] < sizes[0] * 1.5


def test_more_networks_than_can_be_told_apart_are_many():
    targets = Targets()
    for n in range(40_000):
        targets.failed("alice", f"10.{n >> 8}.{n & 255}.7", NOW)
    assert targets.networks(NOW)[0] > 5 * PLACES
    assert targets.networks(NOW + 2 * HOUR) == []


@pytest.mark.parametrize(
    ("networks", "above"), [([], [0, 0, 0, 0]), ([1, 2, 4], [2, 1, 0, 0]), ([11, 101, 1], [2, 2, 2, 1])]
)
def test_the_gauges_are_there_from_the_start(networks, above):
    guard = engine()
    snapshot = Snapshot("1", [], {}, {}, {}, {}, {}, True, True, True, 0.0, True, attacked=networks)
    body = exposition(registry_of(GuardCollector(guard.stats, lambda: snapshot)), "")[0].decode()
    for bound, n in zip((1, 3, 10, 100), above, strict=True):
        assert f'mailward_attacked_accounts{{above="{bound}"}} {n}.0' in body
    assert f"mailward_attacked_busiest_networks {max(networks, default=0)}.0" in body
    assert 'mailward_evicted_total{kind="attacked"} 0.0' in body


def test_a_live_guard_counts_them_and_names_them_only_in_the_list(tmp_path):
    daemon, port = guard(tmp_path)
    daemon.config.write_text(daemon.config.read_text() + "[exporters]\nmail = false\n")
    with daemon:
        at = time.time() - 2
        daemon.write(
            *(failure(f"198.51.{n}.7", "carol\x1b[31m", at) for n in range(11)),
            failure("198.51.1.9", "dave", at),
        )
        daemon.has_read(12)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            body = answer.read().decode()
        text = daemon.command("top").stdout
        found = json.loads(daemon.command("top", "--limit", "1", "--format", "json").stdout)
    assert 'mailward_attacked_accounts{above="10"} 1.0' in body
    assert "mailward_attacked_busiest_networks 11.0" in body
    assert "carol" not in body
    assert found["attacked_count"] == 2
    assert found["attacked"] == [{"account": "carol\\x1b[31m", "networks": 11}]
    assert "carol\\x1b[31m" in text
    assert "2 accounts were guessed at" in text
