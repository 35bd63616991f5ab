"""What the administrator orders, by hand or by the configuration: it decides the same things as the rules do."""

from __future__ import annotations

import math

from guard.judge import Judge
from guard.model import Action, Policy
from guard.nets import width
from guard.notices import ALLOWED, MANUAL


class Orders(Judge):
    """Takes orders.  Enforces nothing."""

    __slots__ = ()

    def ban(self, net: str, seconds: float, now: float, *, force: bool = False) -> list[Action]:
        """Ban a net (canonical CIDR) by hand; ValueError says why it may not be."""
        refusal = self._bans.refusal(net, force=force)
        if refusal is not None:
            raise ValueError(refusal)
        done: list[Action] = []
        notices = self.notices
        before = self._bans.active.get(net)
        if notices is not None and before is not None and now + seconds < before.ban.until:
            notices.lift(net, now, before.ban.until, MANUAL, inside=False)  # elsewhere the later end wins
        if notices is not None:
            now = notices.after(net, now)
        self._count(self._bans.by_hand(net, now, now + seconds, MANUAL), done)
        if notices is not None:
            notices.ban(self._bans.active[net].ban, [], [], 0)
        return done

    def unban(self, net: str, now: float) -> list[Action]:
        """End the bans of a net, of every net inside it, and what a rule banned around it; [] when there were none."""
        around = [ban.net for ban in self._bans.collective_around(net, now)]
        inside = self._bans.inside(net)
        if self.notices is not None and inside + around:
            found = [self._bans.active[other].ban for other in inside + around]
            most = max([ban.until for ban in found])
            now = max(
                [now, *[ban.at for ban in found]]
            )  # whose clock is ahead of ours has his ban lifted, too
            for other in {net, *inside}:  # each is in force elsewhere under its own name
                self.notices.lift(
                    other, now, max(most, now + self._policy.ban_max), MANUAL, inside=other == net
                )
        return self._lift(inside + around, now, MANUAL)

    def allow(self, net: str, now: float) -> list[Action]:
        """Add a net to the allow list; the bans that touch it end at once."""
        self._entry("allow", net, there=True)
        self._bans.allow(net)
        nets = self._bans.touching(net)
        notices = self.notices
        if notices is not None:
            notices.entry("allow", net, True, now)
            for other in nets:
                active = self._bans.active[other]
                if not active.collective() and active.ban.rule != "deny":
                    notices.lift(other, now, active.ban.until, ALLOWED, inside=False)
        return self._lift(nets, now, ALLOWED)

    def disallow(self, net: str, now: float) -> bool:
        """Take a net that was added by hand from the allow list; whether it was there."""
        if net in self._allow and self.notices is not None:
            self.notices.entry("allow", net, False, now)
        return self._allowed_no_more(net)

    def _allowed_no_more(self, net: str) -> bool:
        there = net in self._allow
        self._entry("allow", net, there=False)
        if there and net not in self._policy.allow:
            self._bans.disallow(net)
        return there

    def deny(self, net: str, now: float, *, force: bool = False) -> list[Action]:
        """Add a net to the deny list: a ban without end.  ValueError says why it may not be."""
        refusal = self._bans.refusal(net, force=force)
        if refusal is not None:
            raise ValueError(refusal)
        self._entry("deny", net, there=True)
        if self.notices is not None:
            self.notices.entry("deny", net, True, now)
        done: list[Action] = []
        self._count(self._bans.by_hand(net, now, math.inf, "deny"), done)
        return done

    def undeny(self, net: str, now: float) -> list[Action]:
        """Take a net that was added by hand from the deny list; [] when it was not there, or is configured too.

        What bans it for another reason by now stays: an attacker that was let go and came back.
        """
        if net not in self._deny:
            return []
        self._entry("deny", net, there=False)
        if self.notices is not None:
            self.notices.entry("deny", net, False, now)
        return self._denied_no_more(net, now)

    def _denied_no_more(self, net: str, now: float) -> list[Action]:
        active = self._bans.active.get(net)
        if net in self._policy.deny or active is None or active.ban.rule != "deny":
            return []
        return self._lift([net], now, MANUAL)

    def by_hand(self) -> dict[str, list[str]]:
        """Return what was added to the lists by hand."""
        return {"allow": sorted(self._allow), "deny": sorted(self._deny)}

    def refuse(self, net: str, now: float, label: str) -> list[Action]:
        """Take back a ban that something outside the core stands against; [] when there is none.

        `label` says what, as `mailward_ignored_total` has it.  It does not count as a ban of the net, and from now on
        the net's addresses are judged one by one.
        """
        active = self._bans.active.get(net)
        if active is None:
            return []
        if active.ban.rule not in ("manual", "deny"):
            self._bans.split(net)
        if self.notices is not None:
            self.notices.withdraw(net)
        self.stats.ignored.add((label,))
        done: list[Action] = []
        self._revoke(net, now, done)
        return done

    def deny_again(self, nets: set[str], now: float) -> list[Action]:
        """Ban those of `nets` that the deny list still holds and whose ban was refused."""
        listed = nets.intersection((*self._policy.deny, *self._deny))
        done: list[Action] = []
        for net in sorted(listed):
            if net not in self._bans.active and not self._bans.allows(net):
                done += self._bans.by_hand(net, now, math.inf, "deny")
        return done

    def lists(self) -> dict[str, list[str]]:
        """Return both lists, configured and added by hand."""
        return {
            "allow": sorted({*self._policy.allow, *self._allow}),
            "deny": sorted({*self._policy.deny, *self._deny}),
        }

    def configure(self, policy: Policy, now: float) -> list[Action]:
        """Take a configuration (also the first one: its deny list is enforced here); return what it changes."""
        self._policy = policy
        self._brute.reconfigure(policy)
        self._logins.reconfigure(policy)
        self._neighbourhood.reconfigure(policy)
        self._relist()
        listed = {*policy.deny, *self._deny}
        done = self._lift(
            [n for n, a in self._bans.active.items() if a.ban.rule == "deny" and n not in listed],
            now,
            MANUAL,
        )
        done += self._lift([n for n in self._bans.active if self._bans.allows(n)], now, ALLOWED)
        for net in sorted(listed):
            active = self._bans.active.get(net)
            # What else stands against it, whoever enforces it says so (`refuse`): not in silence, as here.
            if (active is None or active.ban.rule != "deny") and not self._bans.allows(net):
                done += self._bans.by_hand(net, now, math.inf, "deny")
        return done

    def _relist(self) -> None:
        self._bans.reconfigure(self._policy, (*self._policy.allow, *self._allow))

    def _lift(self, nets: list[str], now: float, cause: str) -> list[Action]:
        """End bans, inner ones first: what comes back out of a collective ban is what is not ended here."""
        done: list[Action] = []
        for net in sorted(nets, key=width, reverse=True):
            self._count(self._bans.lift(net, now, cause), done)
        return done
