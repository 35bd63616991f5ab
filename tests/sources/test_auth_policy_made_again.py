"""Reports at full speed while the source is made again five times: each that was answered is delivered, once.

    MAILWARD_TEST_LINES=1000000 pytest -s tests/sources/test_auth_policy_made_again.py -o timeout=400

What was not answered Dovecot loses: its request fails open.  Of those some may have been delivered, none twice.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections import Counter

from guard.sources import Chunk
from guard.sources.auth_policy import AuthPolicySource
from tests.sources.test_auth_policy import request

REPORTS = int(os.environ.get("MAILWARD_TEST_LINES", "20000"))
RESTARTS, CLIENTS, DEPTH = 5, 8, 20


async def test_every_answered_report_is_delivered_once(tmp_path):
    path = str(tmp_path / "policy.sock")
    turn = iter(range(REPORTS))
    delivered: Counter[int] = Counter()
    answered: set[int] = set()
    sent: set[int] = set()

    async def put(chunk: Chunk) -> None:
        await asyncio.sleep(0)
        for line in chunk.data.splitlines():
            delivered[int(json.loads(line.partition(b" ")[2])["login"].removeprefix("u"))] += 1

    async def client() -> None:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(path)
            except OSError:
                await asyncio.sleep(0.002)
                continue
            try:
                while batch := list(itertools.islice(turn, DEPTH)):
                    for n in batch:
                        fields = {
                            "login": f"u{n}",
                            "remote": "198.51.100.9",
                            "success": False,
                            "policy_reject": False,
                        }
                        writer.write(request("report", fields))
                    sent.update(batch)
                    for n in batch:
                        head = await reader.readuntil(b"\r\n\r\n")
                        await reader.readexactly(
                            int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                        )
                        assert b" 200 " in head
                        answered.add(n)
                return
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

    began = time.monotonic()
    lost = 0
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client()) for _ in range(CLIENTS)]
        for n in range(RESTARTS + 1):
            source = AuthPolicySource("policy", f"unix://{path}", lambda _: 0, note=lambda _: None)
            running = asyncio.create_task(source.run(put))
            goal = (n + 1) * REPORTS // (RESTARTS + 1)
            if n < RESTARTS:
                while len(sent) < goal:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.002)
            else:
                await asyncio.wait(clients)
            running.cancel()
            await asyncio.wait([running])
            lost += source.health().lost
    print(
        f"auth_policy: {len(sent)} sent, {len(answered)} answered, {len(answered - set(delivered))} of them missing, "
        f"{sum(delivered.values()) - len(delivered)} twice, {lost} counted, {time.monotonic() - began:.1f} s"
    )
    assert len(sent) == REPORTS
    assert answered <= set(delivered)
    assert max(delivered.values()) == 1
