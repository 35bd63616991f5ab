"""The ways to a server: a password and least rights, TLS, Sentinel with a failover, a Cluster whose slots move."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
import redis

from guard.fleet import PARTITIONS, FleetError, partition_of
from guard.fleet._scripts import BEAT, PUBLISH, keys
from guard.fleet.link import Link
from tests.fleet.test_link import NET, fact, links, numbers, put
from tests.redis_server import PATIENCE, RedisServer, free_port, requires_redis

pytestmark = pytest.mark.servers

T = TypeVar("T")

# As docs/fleet.md has them.
RIGHTS = (
    "~mailward:1:* -@all +eval +evalsha +time +expire +hget +hset +hdel +hlen +hgetall +hscan "
    "+xadd +xrange +zadd +zrem +zrange +zrangebyscore +zrevrange"
)
CLUSTER_RIGHTS = f"{RIGHTS} +cluster|slots +command +asking"


def test_the_documented_rights_are_those_that_the_scripts_need():
    page = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
    assert RIGHTS in page
    assert CLUSTER_RIGHTS.removeprefix(RIGHTS).strip() in page
    used = set(re.findall(r"redis\.call\('(\w+)'", PUBLISH.text + BEAT.text))
    assert {f"+{name.lower()}" for name in used} <= set(RIGHTS.split())


async def eventually(work: Callable[[], Awaitable[T]], *, patience: float = PATIENCE) -> T:
    """Return what `work` returns, once it raises no more."""
    until = time.monotonic() + patience
    while True:
        try:
            return await work()
        except (FleetError, AssertionError):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.05)


async def exchange(url: str, *, span: float = 600.0) -> None:
    """One tells what is in every partition, the other hears it."""
    async with links(url, "a", "b", span=span) as (a, b):
        nets: dict[int, str] = {}
        for n in range(256):
            nets.setdefault(partition_of(f"10.{n}.0.1"), f"10.{n}.0.1")
        await a.send([fact(1 + n, net=nets[n]) for n in range(PARTITIONS)])
        await a.send([put(100), put(101, at=5, live=False)])
        assert await numbers(b) == [*range(1, PARTITIONS + 1), 100, 101]
        assert len(await b.beat({})) == 2


def test_a_user_with_least_rights(tmp_path):
    with RedisServer(tmp_path / "r").start() as server:
        server.do("ACL", "SETUSER", "mailward", "on", ">s3cr/et:x", *RIGHTS.split())
        server.do("ACL", "SETUSER", "default", "off")
        url = f"redis://mailward:s3cr%2Fet%3Ax@127.0.0.1:{server.port}"
        asyncio.run(exchange(url))
        with redis.Redis(
            unix_socket_path=str(server.socket), username="mailward", password="s3cr/et:x"
        ) as us:
            us.hset("mailward:1:nodes", "x", "y")
            with pytest.raises(redis.exceptions.NoPermissionError):
                us.hset("other", "x", "y")
            with pytest.raises(redis.exceptions.NoPermissionError):
                us.flushall()

        async def refused() -> None:
            for wrong in (url.replace("s3cr", "wr0ng"), server.url):
                with pytest.raises(FleetError) as caught:
                    await Link(wrong, "a", "i", {}, span=1).connect()
                assert "wr0ng" not in str(caught.value)
                assert (
                    "WRONGPASS" in str(caught.value)
                    or "invalid username" in str(caught.value)
                    or "uthenti" in str(caught.value)
                )

        asyncio.run(refused())


def test_no_log_of_denied_commands(tmp_path):
    """The rights are what is used: the server has nothing to complain of."""
    with RedisServer(tmp_path / "r").start() as server:
        admin = server.client()
        server.do("ACL", "SETUSER", "mailward", "on", ">x", *RIGHTS.split())
        asyncio.run(exchange(f"redis://mailward:x@127.0.0.1:{server.port}"))
        assert admin.acl_log() == []


def test_a_missing_right_is_named(tmp_path):
    with RedisServer(tmp_path / "r").start() as server:
        server.do("ACL", "SETUSER", "mailward", "on", ">x", "~mailward:1:*", "-@all", "+hget")

        async def main() -> None:
            with pytest.raises(FleetError, match=r"docs/fleet\.md"):
                await Link(f"redis://mailward:x@127.0.0.1:{server.port}", "a", "i", {}, span=1).connect()

        asyncio.run(main())


def test_full_memory_is_an_error_and_nothing_is_lost(tmp_path):
    with RedisServer(tmp_path / "r", "--maxmemory-policy", "noeviction").start() as server:

        async def main() -> None:
            async with links(server.url, "a", "b") as (a, b):
                server.client().config_set("maxmemory", 1)
                with pytest.raises(FleetError, match="maxmemory"):
                    await a.send([fact(1)])
                server.client().config_set("maxmemory", 0)
                await a.connect()
                await a.send([fact(1)])
                assert await numbers(b) == [1]

        asyncio.run(main())


# ------------------------------------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two authorities, and a server's certificate of the first, for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        openssl(
            "req", "-x509", *curve, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"
        )
    openssl(
        "req",
        "-x509",
        *curve,
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-keyout",
        "r.key",
        "-out",
        "r.pem",
        "-subj",
        "/CN=r",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    )
    return folder


def tls(certificates: Path, tmp_path: Path) -> tuple[RedisServer, int]:
    port = free_port()
    files = ["--tls-cert-file", "r.pem", "--tls-key-file", "r.key", "--tls-ca-cert-file", "ca.pem"]
    files = [str(certificates / word) if "." in word else word for word in files]
    return RedisServer(
        tmp_path / "r", "--tls-port", str(port), "--tls-auth-clients", "no", *files, port=0
    ), port


def test_tls(certificates, tmp_path):
    server, port = tls(certificates, tmp_path)
    with server.start():
        asyncio.run(exchange(f"rediss://127.0.0.1:{port}?ca={certificates}/ca.pem"))

        async def refused() -> None:
            for options in ("", f"?ca={certificates}/other.pem", f"?ca={certificates}/missing.pem"):
                with pytest.raises(FleetError):
                    await Link(f"rediss://127.0.0.1:{port}{options}", "c", "i", {}, span=1).connect()
            with pytest.raises(FleetError):  # the certificate is another name's
                await Link(
                    f"rediss://localhost:{port}?ca={certificates}/ca.pem", "c", "i", {}, span=1
                ).connect()
            with pytest.raises(FleetError):  # speaks TLS only
                await Link(f"redis://127.0.0.1:{port}", "c", "i", {}, span=1).connect()
            async with links(f"rediss://localhost:{port}?insecure=yes", "c"):
                pass
            for ca, answer in (("ca", "cluster"), ("other", "certificate")):
                url = f"rediss+cluster://127.0.0.1:{port}?ca={certificates}/{ca}.pem"
                with pytest.raises(FleetError, match=rf"(?i){answer}"):  # a Cluster has the same options
                    await Link(url, "c", "i", {}, span=1).connect()

        asyncio.run(refused())


# ------------------------------------------------------------------------------------------------ Sentinel


def test_a_failover_to_a_replica_that_lags(tmp_path):
    sentinel_program = requires_redis("redis-sentinel")
    with ExitStack() as stack:
        master = stack.enter_context(RedisServer(tmp_path / "m").start())
        replica = stack.enter_context(
            RedisServer(tmp_path / "s", "--replicaof", "127.0.0.1", str(master.port)).start()
        )
        port = free_port()
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nprotected-mode no\n"
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 300\nsentinel failover-timeout mymaster 3000\n"
        )
        with (tmp_path / "sentinel.log").open("wb") as log:
            sentinel = subprocess.Popen([sentinel_program, str(configuration)], stdout=log, stderr=log)
        stack.callback(sentinel.wait)
        stack.callback(sentinel.kill)
        dead = free_port()
        url = f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{port}/mymaster"

        async def main() -> None:
            asking = redis.Redis(port=port)

            async def sees_the_replica() -> None:
                try:
                    [row] = asking.sentinel_slaves("mymaster")
                    assert row["master-link-status"] == "ok"
                except (redis.exceptions.RedisError, ValueError, KeyError) as error:
                    raise AssertionError from error

            await eventually(sees_the_replica)
            asking.close()
            a, b = (Link(url, name, f"of-{name}", {}, span=600) for name in "ab")
            for link in (a, b):
                await eventually(link.connect)
            await a.send([fact(1), put(2)])
            await asyncio.to_thread(master.client().wait, 1, 5000)
            assert await numbers(b) == [1, 2]
            # The replica lags: what comes now reaches the master only.
            assert replica.process is not None
            replica.process.send_signal(signal.SIGSTOP)
            master.client().client_kill_filter(_type="replica")  # else it would find the rest in its socket
            await a.send([fact(3), put(4, ends=2000)])
            assert await numbers(b) == [3, 4]
            master.kill()
            replica.process.send_signal(signal.SIGCONT)
            with pytest.raises(FleetError):
                await a.send([fact(5)])
            greeting = await eventually(a.connect)
            assert greeting.known[partition_of(NET)] == 2
            await a.send([fact(3), put(4, ends=2000), fact(5)])
            await eventually(b.connect)
            assert await numbers(b) == [5]
            for link in (a, b):
                await link.close()
            with pytest.raises(FleetError):
                await Link(url.replace("mymaster", "nobody"), "c", "i", {}, span=1).connect()

        asyncio.run(main())


# ------------------------------------------------------------------------------------------------ Cluster


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        servers = []
        for number in range(3):
            options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port"]
            folder = tmp_path / f"c{number}"
            servers.append(stack.enter_context(RedisServer(folder, *options, str(free_port())).start()))
        cli = shutil.which("redis-cli")
        assert cli is not None
        hosts = [f"127.0.0.1:{server.port}" for server in servers]
        subprocess.run([cli, "--cluster", "create", *hosts, "--cluster-yes"], check=True, capture_output=True)
        until = time.monotonic() + PATIENCE
        while any(server.client().cluster("info")["cluster_state"] != "ok" for server in servers):
            assert time.monotonic() < until
            time.sleep(0.02)
        yield servers


@pytest.fixture
def cluster(three):
    for server in three:
        server.client().flushall()
        server.do("ACL", "LOG", "RESET")
    return three


def cluster_url(servers: list[RedisServer], who: str = "") -> str:
    return f"redis+cluster://{who}127.0.0.1:{free_port()}," + ",".join(f"127.0.0.1:{s.port}" for s in servers)


def test_a_cluster(cluster):
    asyncio.run(exchange(cluster_url(cluster)))
    used = [len(server.client().keys("mailward:1:*")) for server in cluster]
    assert all(used)


def test_least_rights_in_a_cluster(cluster):
    for server in cluster:
        server.do("ACL", "SETUSER", "mailward", "on", ">x", *CLUSTER_RIGHTS.split())
    asyncio.run(exchange(cluster_url(cluster, "mailward:x@")))
    assert [server.client().acl_log() for server in cluster] == [[], [], []]


def test_slots_that_move(cluster):
    """Key by key, as a Cluster is resharded, with the link at work in between."""
    url = cluster_url(cluster)
    slot = cluster[0].do("CLUSTER", "KEYSLOT", keys(partition_of(NET))[0])

    async def main() -> tuple[list[int], int]:
        async with links(url, "a", "b") as (a, b):
            await a.send([fact(1), put(2)])
            owners = [s for s in cluster if s.client().keys(f"{keys(partition_of(NET))[0]}")]
            [source] = owners
            target = next(s for s in cluster if s is not source)
            ids = {s.port: s.do("CLUSTER", "MYID").decode() for s in cluster}
            target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
            source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
            names = source.do("CLUSTER", "GETKEYSINSLOT", slot, 100)
            assert len(names) == 4
            found = await numbers(b)
            seq = 3
            for name in names:
                source.do("MIGRATE", "127.0.0.1", target.port, name, 0, 1000)
                for link in (a, b):  # in the middle a call may fail: keys of one slot stand on two servers

                    async def work(link: Link = link, seq: int = seq) -> None:
                        if link is a:
                            await a.send([fact(seq)])
                        else:
                            found.extend(await numbers(b))

                    try:
                        await work()
                    except FleetError:
                        await link.connect()
                seq += 1
            for server in (target, source):
                server.do("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
            for link in (a, b):
                await link.connect()
            await a.send([fact(n) for n in range(3, seq + 1)])
            found.extend(await numbers(b))
            return found, seq

    found, seq = asyncio.run(main())
    assert sorted(set(found)) == sorted(found)
    assert set(found) >= {1, 2, seq}


def test_a_server_of_a_cluster_that_is_named_as_a_single_one(cluster):
    async def main() -> None:
        async def each() -> None:
            for server in cluster:
                await Link(server.url, "a", "i", {}, span=1).connect()

        with pytest.raises(FleetError, match=r"redis\+cluster://"):
            await each()

    asyncio.run(main())


def test_a_cluster_that_lost_a_server(cluster):
    async def main() -> None:
        async with links(cluster_url(cluster), "a") as [a]:
            cluster[1].kill()
            began = time.monotonic()
            with pytest.raises(FleetError):
                await a.read()
            with pytest.raises(FleetError):
                await a.read()
            assert time.monotonic() - began < 15
            cluster[1].start()
            await eventually(a.connect)
            await a.read()

    asyncio.run(main())
