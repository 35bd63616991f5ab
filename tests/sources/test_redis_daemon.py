"""The real daemon, killed on the spot while it reads a stream and a list: every line counted once."""

import random
import subprocess
import time
from typing import Any

import pytest

from tests.daemon import Daemon, environment
from tests.sources.redis_server import LIVES, Pusher, Server, number, requires_redis

LINES = 6000
KILLS = 2
pytestmark = [requires_redis, pytest.mark.servers]


def test_kills_at_any_moment_lose_and_double_nothing(tmp_path):
    with Server(tmp_path, *LIVES) as server:
        source = f'[[source]]\ntype = "redis"\nurl = "{server.url}"\nfrom = "start"\n'
        more = f'{source}keys = ["LIST"]\npop = true\n{source}mode = "stream"\nstream = "STREAM"\n'

        def push(pipe: Any, some: list[bytes]) -> None:
            pipe.lpush("LIST", *some)
            for one in some:
                pipe.xadd("STREAM", {"line": one})

        def last() -> int:
            newest = server.admin.xrevrange("STREAM", count=1)
            return number(newest[0][1][b"line"].rstrip(b"\n")) if newest else -1

        pusher = Pusher(server, LINES, push, last, batch=20)
        with Daemon(tmp_path, more=more) as daemon:
            pusher.limit = 0
            pusher.start()
            for turn in range(KILLS):
                pusher.limit = LINES * (turn + 1) // (KILLS + 1)
                daemon.until(lambda: pusher.pushed >= pusher.limit)
                pusher.limit += LINES // 10
                time.sleep(random.uniform(0.0, 1.2))  # somewhere between two checkpoints
                daemon.kill()
                daemon.start()
            pusher.limit = LINES
            pusher.join()
            daemon.has_read(2 * LINES)
            time.sleep(0.3)  # nothing more comes
            assert daemon.ask("report")["lines"]["read"] == 2 * LINES
            sources = {one["name"]: one for one in daemon.ask("status")["sources"]}
            assert [(sources[name]["up"], sources[name]["lost"]) for name in ("redis1", "redis2")] == [
                (True, 0)
            ] * 2
            daemon.until(lambda: server.admin.xinfo_groups("STREAM")[0]["lag"] == 0)
            daemon.until(lambda: server.admin.llen("LIST") < 2000)


def test_a_password_is_nowhere(tmp_path):
    with Server(tmp_path, password="hunter2") as server:
        url = server.url.replace("unix://", "unix://:hunter3@")
        daemon = Daemon(tmp_path, more=f'[[source]]\ntype = "redis"\nurl = "{url}"\n')
        with daemon.errors.open("ab") as errors:  # it is never ready: nothing to wait for
            daemon.process = subprocess.Popen(
                daemon.started(), env=environment(), stdout=errors, stderr=errors
            )
        try:
            daemon.until(lambda: "invalid username-password pair" in daemon.said() and daemon.ask("status"))
            assert "hunter" not in daemon.said() + str(daemon.ask("status"))
        finally:
            daemon.stop()
