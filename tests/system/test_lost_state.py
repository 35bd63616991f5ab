"""The state is damaged: the daemon starts, says so, and wants what the kernel still holds, for the rest of its time."""

from __future__ import annotations

import pytest

from tests.daemon import Daemon, failure, session
from tests.system.netns import mail_host

pytestmark = pytest.mark.system

BANS = 100


@pytest.mark.parametrize("foreign", ["keep", "remove"])
def test_bans_in_the_kernel_outlive_the_state_that_knew_why(tmp_path, foreign):
    with mail_host() as lab:
        within = ("ip", "netns", "exec", lab.host.name)
        with Daemon(tmp_path, within=within, backend=f'nftables"\nforeign = "{foreign}') as daemon:
            for n in range(1, BANS + 1):
                sid = session(f"203.0.113.{n}")
                daemon.write(*(failure(f"203.0.113.{n}", sid=sid) for _ in range(5)))
            daemon.until(lambda: sum(ban["enforced"] for ban in daemon.ask("bans")["bans"]) == BANS)
            before = {ban["net"]: ban["left"] for ban in daemon.ask("bans")["bans"]}
            daemon.stop()
            state = tmp_path / "state" / "state.db"
            state.write_bytes(b"no database\n" * 1000)
            daemon.start()
            bans = {ban["net"]: ban for ban in daemon.ask("bans")["bans"]}
            assert bans.keys() == before.keys()
            assert daemon.ask("bans")["foreign"] == []
            assert all(ban["enforced"] for ban in bans.values())
            # The kernel's time runs from its transaction: on a busy machine that is a moment after the decision.
            assert all(before[net] - 60 < ban["left"] <= before[net] + 5 for net, ban in bans.items())
            assert {ban["reason"] for ban in bans.values()} == {"in force when the state was lost"}
            assert list(state.parent.glob("state.db.corrupt-*"))
            assert "the state was damaged" in daemon.said()
