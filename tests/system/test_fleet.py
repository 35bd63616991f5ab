"""Three guards in three network namespaces, one Redis: one mind over several hosts, whatever becomes of the Redis."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from guard.firewall.nftables import NftablesFirewall
from tests.daemon import Daemon, failure, mailward, session
from tests.redis_server import RedisServer
from tests.system.netns import Namespace, give, link, namespace, requires_namespaces, run

pytestmark = [pytest.mark.system, pytest.mark.servers]

ROUNDS = int(os.environ.get("MAILWARD_TEST_ROUNDS", "5"))
KILLS = int(os.environ.get("MAILWARD_TEST_KILLS", "3"))
PORT = 6379
SERVER = "198.18.1.254"
SOON = 1.0  # seconds from the last guess to every kernel
PROMPT = 30.0  # the same where it is not what is tested: the machine may be busy
MENDED = 60.0  # seconds: a server that is back is found by then

_hosts = itertools.count(1)


def fresh() -> str:
    """Return an address that no other test has used."""
    n = next(_hosts)
    return f"198.51.{100 + n // 250}.{1 + n % 250}"


class Node(Daemon):
    """A guard of the fleet, in a namespace of its own."""

    def __init__(self, folder: Path, home: Namespace, server: str, backend: str = "nftables") -> None:
        folder.mkdir()
        self.name = folder.name
        self.home = home
        self.server = server
        super().__init__(folder, within=("ip", "netns", "exec", home.name), backend=backend)
        self.kernel = NftablesFirewall([143])

    def configure(self, text: str) -> None:
        self.config.write_text(
            f'[[source]]\ntype = "file"\nname = "mail"\npath = "{self.log}"\n{text}\n'
            f'[store]\nurl = "redis://{self.server}:{PORT}"\nfile = "{self.folder}/state/state.db"\nnode = "{self.name}"\n'
            f'[control]\nsocket = "{self.socket}"\n'
        )

    def guesses(self, ip: str, times: int = 1) -> None:
        sid = session(ip)
        self.write(*(failure(ip, sid=sid) for _ in range(times)))

    def enforces(self, ip: str) -> bool:
        """Whether the kernel shuts an address out."""
        with self.home.entered():
            return f"{ip}/32" in {element.net for element in self.kernel.banned()}

    def fleet(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("status")["fleet"]
        return found

    def known(self, ip: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("explain", ip=ip)["address"]
        return found


class Lab:
    def __init__(self, nodes: list[Node], redis: RedisServer, switch: Namespace) -> None:
        self.nodes = nodes
        self.redis = redis
        self.switch = switch

    def all(self, condition: Callable[[Node], object], patience: float = PROMPT) -> None:
        """Wait until `condition` holds on every node."""
        for node in self.nodes:
            node.until(partial(condition, node), patience)

    def enforced(self, ip: str, patience: float = PROMPT) -> None:
        self.all(lambda node: node.enforces(ip), patience)

    def counted(self, ip: str, guesses: int) -> None:
        """Wait until every node has counted so many guesses of an address, and has told what it knows."""
        self.all(lambda node: len(node.known(ip)["window"]) == guesses)

    def joined(self) -> None:
        self.all(lambda node: node.fleet()["up"], MENDED)

    def starts_redis(self) -> None:
        with self.switch.entered():
            self.redis.start()

    def registers(self) -> set[str]:
        with self.redis.client() as client:
            keys = client.keys("mailward:1:*:registers")
            return {name.decode() for key in keys for name in client.hkeys(key)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    requires_namespaces()
    folder = tmp_path_factory.mktemp("fleet")
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(namespace("switch"))
        run("ip", "-n", switch.name, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", switch.name, "link", "set", "br0", "up")
        give(switch, [f"{SERVER}/24"], "br0")
        durable = ("--bind", "0.0.0.0", "--appendonly", "yes", "--appendfsync", "always")
        redis = RedisServer(folder / "redis", *durable, port=PORT)
        nodes = []
        for n in range(3):
            home = stack.enter_context(namespace(f"mx{n}"))
            link(home, switch, f"port{n}")
            run("ip", "-n", switch.name, "link", "set", f"port{n}", "master", "br0")
            give(home, [f"198.18.1.{n + 1}/24"], f"port{n}")
            nodes.append(Node(folder / f"mx{n}", home, SERVER))
        lab = Lab(nodes, redis, switch)
        with switch.entered():
            stack.enter_context(redis)
        for node in nodes:
            stack.enter_context(node)
            with node.home.entered():
                node.kernel.open()
            stack.callback(node.kernel.close)
        lab.joined()
        yield lab


def once(lab: Lab, *ips: str) -> None:
    """Every node comes to have each ban once, and all to the same end."""

    def agreed(ip: str) -> bool:
        known = [node.known(ip) for node in lab.nodes]
        ends = {found["ban"] and found["ban"]["until"] for found in known}
        return [(found["bans"], found["window"]) for found in known] == [(1, [])] * 3 and len(ends) == 1

    for ip in ips:
        lab.nodes[0].until(partial(agreed, ip), PROMPT)
        time.sleep(0.02)
        assert agreed(ip), "and it stays so"


def test_guesses_spread_over_three_hosts_ban_on_all_within_a_second(lab, record_property):
    taken, ips = [], []
    for n in range(ROUNDS):
        a, b, c = (lab.nodes[(n + k) % 3] for k in range(3))
        ip = fresh()
        ips.append(ip)
        a.guesses(ip, 2)
        b.guesses(ip, 2)
        lab.counted(ip, 4)
        time.sleep(random.uniform(0, 0.15))
        assert not any(node.enforces(ip) for node in lab.nodes)
        began = time.monotonic()
        c.guesses(ip)
        lab.enforced(ip)
        taken.append(time.monotonic() - began)
    taken.sort()
    p50, p99 = taken[len(taken) // 2], taken[min(len(taken) - 1, len(taken) * 99 // 100)]
    record_property("last_guess_to_kernel_everywhere_ms", [round(seconds * 1000, 1) for seconds in taken])
    print(f"last guess -> every kernel, {ROUNDS} rounds: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")
    assert p50 < SOON
    assert p99 < SOON or ROUNDS < 100
    once(lab, *ips[-5:])


def test_own_counts_are_the_hosts_own(lab):
    a, b, _ = lab.nodes
    ip = fresh()
    a.guesses(ip, 3)
    lab.counted(ip, 3)
    assert a.known(ip)["source"]["failures"] == 3
    assert b.known(ip)["source"] is None


@pytest.mark.parametrize("data", ["with its data", "without its data"])
def test_a_redis_killed_in_the_middle_of_an_attack_holds_up_nobody(lab, data):
    a, b, c = lab.nodes
    spread, local, before, late = fresh(), fresh(), fresh(), fresh()
    a.guesses(before, 5)
    a.guesses(spread, 2)
    lab.enforced(before)
    lab.counted(spread, 2)
    lab.redis.kill()
    b.guesses(spread, 2)
    b.guesses(local, 5)
    c.guesses(late, 3)
    b.until(lambda: b.enforces(local), PROMPT)
    b.until(lambda: len(b.known(spread)["window"]) == 4, PROMPT)
    lab.all(lambda node: not node.fleet()["up"], MENDED)
    b.until(lambda: b.fleet()["pending"] >= 7, PROMPT)
    assert a.ask("status")["ready"], "alone it still guards"
    assert not a.enforces(local)
    if data == "without its data":
        shutil.rmtree(lab.redis.folder / "appendonlydir")
    lab.starts_redis()
    lab.joined()
    lab.enforced(local)
    lab.counted(spread, 4)
    a.guesses(late, 2)
    a.guesses(spread)
    lab.enforced(spread)
    lab.enforced(late)
    lab.enforced(before, 0.1)
    once(lab, spread, local, before, late)
    lab.all(lambda node: not node.fleet()["pending"])
    assert {f"ban {ip}/32" for ip in (spread, local, before, late)} <= lab.registers()


def test_a_partition_heals_without_counting_twice_or_losing_a_ban(lab):
    a, b, c = lab.nodes
    both, here, there, shared = fresh(), fresh(), fresh(), fresh()
    run("ip", "-n", lab.switch.name, "link", "set", "port2", "down")
    a.guesses(both, 2)
    c.guesses(both, 2)
    c.guesses(here, 5)
    b.guesses(there, 5)
    for node in (a, c):
        node.guesses(shared, 5)
    c.until(lambda: c.enforces(here) and c.enforces(shared), PROMPT)
    b.until(lambda: b.enforces(there) and b.enforces(shared), PROMPT)
    c.until(lambda: not c.fleet()["up"], MENDED)
    assert not any(node.enforces(both) for node in lab.nodes)
    assert not c.enforces(there)
    assert not a.enforces(here)
    run("ip", "-n", lab.switch.name, "link", "set", "port2", "up")
    lab.joined()
    lab.enforced(here)
    lab.enforced(there)
    lab.counted(both, 4)
    b.guesses(both)
    lab.enforced(both)
    once(lab, both, here, there, shared)


def test_what_is_done_by_hand_on_one_host_is_done_on_all(lab):
    a, b, c = lab.nodes
    ip, spared, denied = fresh(), fresh(), fresh()
    a.guesses(ip, 5)
    b.guesses(spared, 5)
    lab.enforced(ip)
    lab.enforced(spared)
    assert c.command("unban", ip).returncode == 0
    lab.all(lambda node: not node.enforces(ip))
    assert b.command("allow", "add", spared).returncode == 0
    lab.all(lambda node: not node.enforces(spared))
    a.guesses(spared, 5)
    assert a.command("deny", "add", denied).returncode == 0
    lab.enforced(denied)
    lab.all(lambda node: node.ask("lists")["allow"] == [f"{spared}/32"])
    assert not any(node.enforces(spared) for node in lab.nodes)
    assert c.command("allow", "remove", spared).returncode == 0
    assert c.command("deny", "remove", denied).returncode == 0
    lab.all(lambda node: not node.enforces(denied) and node.ask("lists")["allow"] == [])
    assert b.command("ban", denied, "--for", "1h").returncode == 0
    lab.enforced(denied)
    listed = {ban["net"]: ban["node"] for ban in a.ask("bans")["bans"]}
    assert listed[f"{denied}/32"] == "mx1"
    assert "mx1" in a.command("bans").stdout
    told = [event for event in a.events() if event["event"] == "ban" and event["net"] == f"{denied}/32"]
    assert [event.get("node") for event in told][-1] == "mx1"


def test_a_node_that_was_away_finds_what_is_in_force(lab):
    a, b, c = lab.nodes
    ip, gone, half = fresh(), fresh(), fresh()
    a.guesses(gone, 5)
    lab.enforced(gone)
    assert c.stop() == 0
    a.guesses(ip, 5)
    b.guesses(half, 3)
    b.until(lambda: b.enforces(ip), PROMPT)
    assert a.command("unban", gone).returncode == 0
    c.start()
    c.until(lambda: c.enforces(ip) and not c.enforces(gone), MENDED)
    c.until(lambda: len(c.known(half)["window"]) == 3, MENDED)
    once(lab, ip)


def test_status_shows_every_node(lab):
    lab.all(lambda node: len(node.fleet()["nodes"]) == 3, MENDED)
    a = lab.nodes[0]
    found = a.fleet()
    assert (found["node"], found["up"], found["detail"]) == ("mx0", True, "")
    assert [(node["name"], node["here"]) for node in found["nodes"]] == [
        ("mx0", True),
        ("mx1", False),
        ("mx2", False),
    ]
    a.until(lambda: all(node["age"] < 15 for node in a.fleet()["nodes"]), MENDED)
    text = a.command("status").stdout
    assert "fleet      mx0: up" in text
    assert "mx2" in text


def test_two_nodes_of_one_name_are_told_apart(lab, tmp_path):
    with Node(tmp_path / "mx0", lab.nodes[1].home, SERVER, "none") as other:
        other.until(lambda: "store.node" in other.fleet()["detail"], MENDED)
        assert not other.fleet()["up"]


def test_kills_at_any_moment_count_and_tell_everything_once(lab):
    """Kill -9 a node that reads, saves and tells, again and again."""
    drawn = random.Random(7)
    c = lab.nodes[2]
    before = len(c.log.read_bytes().splitlines())
    report = c.ask("report")
    ips = {fresh(): drawn.randint(1, 9) for _ in range(30 * (KILLS + 1))}
    lines = [failure(ip, sid=session(ip, n)) for ip, guesses in ips.items() for n in range(1, guesses + 1)]
    drawn.shuffle(lines)

    def attack() -> None:
        for line in lines:
            c.write(line)
            time.sleep(0.008)

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(attack)
        kills = 0
        while kills < KILLS or not written.done():
            time.sleep(drawn.uniform(0, 0.5))
            if kills < KILLS:
                c.kill()
                c.start()
                kills += 1
        written.result()
    c.has_read(before + len(lines))
    log = c.folder / "attack.log"
    log.write_text("\n".join(lines) + "\n")
    whole = json.loads(mailward("replay", "--format", "json", str(log)).stdout)
    now = c.ask("report")
    assert now["lines"]["read"] == before + len(lines)
    assert now["failures"]["total"] - report["failures"]["total"] == whole["failures"]["total"] == len(lines)
    mine = {source["ip"]: source["failures"] for source in now["sources"] if source["ip"] in ips}
    assert mine == ips
    banned = {f"{ip}/32" for ip, guesses in ips.items() if guesses >= 5}
    assert {ban["net"] for ban in whole["bans"]} == banned
    assert Counter(ban["net"] for ban in now["bans"] if ban["net"].partition("/")[0] in ips) == Counter(
        banned
    )
    lab.all(lambda node: all(node.enforces(net.partition("/")[0]) for net in banned), MENDED)
    lab.all(lambda node: not node.fleet()["pending"], MENDED)
    for node in lab.nodes:
        for ip, guesses in ips.items():
            found = node.known(ip)
            assert (len(found["window"]), found["bans"]) == ((guesses, 0) if guesses < 5 else (0, 1)), (
                node.name,
                ip,
            )
    with lab.redis.client() as client:
        streams: Any = [client.xrange(key) for key in client.keys("mailward:1:*:events")]
    told = Counter(
        fields[b"net"].decode() for stream in streams for _, fields in stream if fields[b"register"] == b""
    )
    assert {ip: told[ip] for ip in ips} == ips, "each attempt was told once"
