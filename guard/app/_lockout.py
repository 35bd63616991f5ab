"""Stands between the engine's decisions and the firewall: nobody locks this host out of itself.

What must never be banned is read from the host when a ban is decided (`guard.firewall.protected`).  A ban that may
not be is taken back in the engine at once, so that wanted and enforced never differ for it; it is told once a net
and counted in `mailward_ignored_total`.  The firewall asks the same once more before the kernel does anything.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from guard.engine import Engine
from guard.firewall import Refused
from guard.firewall.nets import read_net
from guard.firewall.protected import Protected
from guard.log import logger
from guard.model import Action, Ban

_TOLD: Final = 10_000  # nets whose refusal was told; then told again


class Lockout:
    """Admits decisions, or takes them back."""

    def __init__(self, engine: Engine, protected: Protected) -> None:
        self._engine = engine
        self._protected = protected
        self._told: set[str] = set()
        self._trouble: dict[str, str] = {}
        self._reviewed: tuple[tuple[str, ...], ...] = ()
        self._owed: set[str] = set()  # nets of the deny list that may not be banned now

    def admit(self, actions: Sequence[Action]) -> tuple[list[Action], list[Action]]:
        """Return the actions that may be, and the unbans that take the others back."""
        if not any(isinstance(action, Ban) for action in actions):
            return list(actions), []
        self._look()
        admitted: list[Action] = []
        taken_back: list[Action] = []
        for action in actions:
            objection = (
                self._protected.objection(read_net(action.net), action.rule)
                if isinstance(action, Ban)
                else None
            )
            if objection is None:
                admitted.append(action)
            else:
                taken_back += self._refuse(action, objection.label, objection.text)
        return admitted, taken_back

    def refused(self, refused: Sequence[Refused]) -> list[Action]:
        """Take back what the firewall has refused for good; return the unbans."""
        return [
            unban
            for item in refused
            if item.label and isinstance(item.action, Ban)
            for unban in self._refuse(item.action, item.label, item.reason)
        ]

    def objection(self, net: str) -> str | None:
        """Return why a net may not be banned by hand, whatever `--force` says."""
        self._look()
        objection = self._protected.objection(read_net(net), "manual")
        return None if objection is None else objection.text

    def review(self) -> list[Action]:
        """Take back the bans in force that have come to cover something protected; return the unbans.

        Only where the host's addresses and ways or lists.trusted have changed: 100,000 bans take a sixth of a second.
        """
        self._look()
        now = self._protected.host(), self._protected.trusted
        if now == self._reviewed:
            return []
        self._reviewed = now
        actions: list[Action] = []
        for ban in self._engine.active_bans():
            objection = self._protected.objection(read_net(ban.net), ban.rule)
            if objection is not None:
                actions += self._refuse(ban, objection.label, objection.text)
        return actions

    def deny_again(self) -> list[Action]:
        """Return the bans of denied nets that were refused, for another try."""
        owed, self._owed = self._owed, set()
        return self._engine.deny_again(owed, time.time()) if owed else []

    def tell_spared(self) -> None:
        """Tell, once each, which addresses that are never banned have failed to log in."""
        for ip in self._engine.take_spared():
            what = self._protected.what(ip) or "an address of this host"
            logger().warning("failed logins from an address that is never banned", ip=ip, what=what)

    def _look(self) -> None:
        self._protected.look()
        trouble = dict(self._protected.trouble)
        for what, reason in trouble.items():
            if what not in self._trouble:
                logger().error("cannot find out whom never to ban", what=what, reason=reason)
        self._trouble = trouble

    def _refuse(self, ban: Action, label: str, text: str) -> list[Action]:
        if len(self._told) >= _TOLD:
            self._told.clear()
        if ban.net not in self._told:
            self._told.add(ban.net)
            logger().error("a ban is refused", net=ban.net, reason=text)
        if isinstance(ban, Ban) and ban.rule == "deny" and len(self._owed) < _TOLD:
            self._owed.add(ban.net)
        return self._engine.refuse(ban.net, time.time(), label)
