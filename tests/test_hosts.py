"""Host names stand in log lines, so their writers choose them: what is kept of hosts is bounded."""

from __future__ import annotations

from guard.clock import Clock
from guard.engine import Engine
from guard.model import Policy


def test_a_flood_of_host_names_is_forgotten_whole():
    engine = Engine(Policy(), clock=Clock(year=2026, now=1.8e9))
    for n in range(600):
        engine.feed(
            "log", f"Nov 23 17:00:00 mx{n} postfix/smtpd[41]: connect from unknown[198.51.100.7]\n".encode()
        )
    ledger = engine._sessions.ledger
    assert len(ledger.hosts) == 256
    assert set(ledger.orphans) == set(ledger.hosts.values())
