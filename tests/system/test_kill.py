"""kill -9 at random moments of a live run: in the end the counts and the bans are those of an uninterrupted one."""

from __future__ import annotations

import json
import os
import time

import pytest

from guard.firewall.nftables import NftablesFirewall
from tests.daemon import mailward
from tests.system.killed import captured, live_run
from tests.system.netns import namespace, requires_namespaces

pytestmark = pytest.mark.system

KILLS = int(os.environ.get("MAILWARD_TEST_KILLS", "3"))
CASES = ("bookworm-mailcow", "trixie-mailcow", "bookworm-verbose") if KILLS > 10 else ("trixie-cacheworker",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    log = captured(*CASES, until=time.time() - 2)
    return log, live_run(folder / "run", log, kills=0)


@pytest.mark.parametrize("rotation", ["rename", "copytruncate"])
@pytest.mark.timeout(60 + 20 * KILLS)
def test_killed_again_and_again_a_live_run_comes_to_what_an_uninterrupted_one_does(tmp_path, whole, rotation):
    log, uninterrupted = whole
    (tmp_path / "whole.log").write_bytes(log)
    replayed = json.loads(mailward("replay", "--format", "json", str(tmp_path / "whole.log")).stdout)
    del replayed["schema"]
    nets: set[str] = set()
    requires_namespaces()
    with namespace("host") as host, host.entered():  # without addresses that a capture's clients have
        kernel = NftablesFirewall([143])

        def look() -> None:
            kernel.open()
            nets.update(element.net for element in kernel.banned())
            kernel.close()

        within = ("ip", "netns", "exec", host.name)
        killed = live_run(
            tmp_path / "run",
            log,
            kills=KILLS,
            rotation=rotation,
            backend="nftables",
            within=within,
            look=look,
        )
    assert killed.report == uninterrupted.report == replayed
    wanted = [ban["net"] for ban in uninterrupted.bans]
    assert wanted
    assert [ban["net"] for ban in killed.bans if ban["enforced"]] == wanted
    assert nets == set(wanted)
