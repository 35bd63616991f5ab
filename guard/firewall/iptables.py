"""The iptables backend, for hosts that have nothing better: sets of ipset, and a chain of our own in the table raw.

Bans are elements with a timeout: the kernel ends them, with or without us.  Everything that touches the kernel is a
process (2 ms a batch), whose text goes through its standard input; only legacy tables are written by a library.
What outlives the 24.8 days that ipset can count stands there without end: `apply` of its unban, or `reconcile`, ends it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from guard.firewall import STRANGERS, Drift, Drops, Element, FirewallError, Refused, ipset, raw_table
from guard.firewall.admission import Admission
from guard.firewall.ipset_drift import Recent, compare
from guard.firewall.legacy_table import missing_binding
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.firewall.nets import Net
    from guard.firewall.protected import Protected
    from guard.firewall.raw_table import State, Variant
    from guard.model import Unban

SIZE: Final = 1 << 20  # nets a family
_IPV6: Final = "/proc/net/if_inet6"  # absent where the kernel has no IPv6 at all
_RELEASE: Final = 2.0  # seconds until the kernel has let go of a set whose rule is gone
_CHAIN_GONE: Final = (
    f"chain {raw_table.CHAIN} of table raw is gone, something flushed it: open() makes it again"
)


class IptablesFirewall:
    """A `Firewall` of two ipsets, looked up by one rule a family in raw PREROUTING."""

    name: Final = "iptables"
    aside: Final = False

    def __init__(
        self,
        ports: Sequence[int] | None,
        trusted: Sequence[str] | Protected = (),
        *,
        variant: Variant | None = None,
        size: int = SIZE,
    ) -> None:
        """Take the TCP ports that a ban closes (None is the whole host, every protocol), and the nets of `lists.trusted`.

        `variant` is what the host's `iptables` is, found out at opening where it is not given; `size` is how many
        nets a set made anew holds.  Raises ValueError for what cannot be meant.
        """
        if ports is not None and (not ports or not all(1 <= port <= 65535 for port in ports)):
            raise ValueError(f"ports must name at least one of 1 to 65535, or be 'all': {ports!r}")
        self._ports = None if ports is None else set(ports)
        self._admission = Admission(trusted)
        self._wish = variant
        self._size = size
        self._variant: Variant | None = None
        self._recent = Recent()

    def open(self) -> None:
        """Make sets, chains and jumps where they are missing or other than ours; bans in the kernel stay.

        Raises FirewallError with the remedy where a program, the right or the kernel's support is missing.
        """
        variant = self._wish or raw_table.variant_of_host()
        missing = missing_binding() if variant == "legacy" else None
        if missing is not None:
            raise FirewallError(missing)
        self._mend(variant)
        self._variant = variant

    def apply(self, actions: Sequence[Ban | Unban], now: float) -> list[Refused]:
        """Do `actions` as of `now`, all in one process; see `Firewall.apply`."""
        self._opened()
        wanted, refused = self._admission.sort_out(actions, now)
        wanted.sort(key=lambda item: isinstance(item[1], Ban))  # what goes makes room for what comes
        failed = self._carry_out(wanted, now)
        undone = {id(refusal.action) for refusal in failed}
        self._recent.note((item for item in wanted if id(item[1]) not in undone), time.monotonic())
        return refused + failed

    def reconcile(self, wanted: Mapping[str, Ban], now: float, *, keep_foreign: bool = True) -> Drift:
        """Compare the kernel with `wanted`, mend the difference, and say what it was; see `Firewall.reconcile`.

        What goes is taken away after what is missing was added, and an end is set anew in place: at no moment a
        wanted ban is gone.  What `apply` did after `wanted` was told is not undone.  A ban that came to hold an address of this host's own is taken away, too.
        """
        began = time.monotonic()
        structure = self._mend(self._opened())
        held = [member for family in ipset.SETS for member in ipset.members(family)]
        after = now + time.monotonic() - began
        self._recent.note((), time.monotonic())
        wanted = self._recent.upon(wanted)
        admitted, refused = self._admission.sort_out(list(wanted.values()), now)
        bans = [(net, action) for net, action in admitted if isinstance(action, Ban)]
        ended = {net for net, ban in wanted.items() if ban.until <= now}
        forbidden = {refusal.action.net for refusal in refused}
        found = compare(bans, ended, forbidden, held, now, after, keep_foreign=keep_foreign)
        failed = self._carry_out(found.bans, after)
        gone = {member.net for member in found.surplus}
        self._restore_all([ipset.deletion(6 if ":" in net else 4, net) for net in gone])
        holds = {member.net for member in held if not member.exception}
        holds |= {net.text for net, _ in found.bans} - {refusal.action.net for refusal in failed} - holds
        return Drift(
            found.missing,
            len(found.foreign) + found.exceptions,
            found.timeout,
            structure,
            holds - gone,
            tuple(found.foreign[:STRANGERS]) if keep_foreign else (),
            (*refused, *failed),
        )

    def banned(self) -> list[Element]:
        """Return what the kernel holds; the remaining time is in whole seconds, rounded down.

        Raises FirewallError where a set is gone.
        """
        self._opened()
        return [
            Element(member.net, member.seconds)
            for family in ipset.SETS
            for member in ipset.members(family)
            if not member.exception
        ]

    def drops(self) -> Mapping[str, Drops]:
        """Return the counters of our rules.  Raises FirewallError where chain or jump is gone."""
        variant = self._opened()
        found = dict.fromkeys(("ipv4", "ipv6"), Drops(0, 0))
        for family in _families():
            state = raw_table.read(variant, family)
            if not state.rules or not state.jumps:
                raise FirewallError(_CHAIN_GONE)
            found[f"ipv{family}"] = state.drops
        return found

    def flush(self) -> None:
        """End every ban.  Raises FirewallError where a set is gone."""
        self._opened()
        self._restore_all([f"flush {name}" for name in ipset.SETS.values()])
        self._recent.clear()

    def close(self) -> None:
        """Let go; chains, sets and bans stay in the kernel.  Closing twice is no error."""
        self._variant = None

    def remove(self) -> None:
        """Take jumps, chains and sets away, and close; what is absent is no error.

        The table raw itself stays, empty of us: whether others count on it cannot be told.
        """
        variant = self._opened()
        for family in _families():
            raw_table.remove(variant, family, raw_table.read(variant, family))
        for name in (*ipset.SETS.values(), ipset.PORTS):
            deadline = time.monotonic() + _RELEASE  # nf_tables lets go of a deleted rule's set a little later
            while (reason := ipset.destroy(name)) is not None:
                if time.monotonic() > deadline:
                    raise FirewallError(f"ipset {name} stays: {reason}")
                time.sleep(0.02)
        self.close()

    # -- structure -----------------------------------------------------------------------------------------------------

    def _mend(self, variant: Variant) -> int:
        """Make what is missing or other than ours; return how many sets, chains and jumps that were."""
        mended = self._mend_sets()
        for family in _families():
            state = raw_table.read(variant, family)
            faults = self._faults(family, state)
            if faults:
                raw_table.write(variant, family, state, every_port=self._ports is None)
                if self._faults(family, raw_table.read(variant, family)):
                    raise FirewallError(
                        f"iptables does not keep the rules of chain {raw_table.CHAIN} as given"
                    )
            mended += faults
        return mended

    def _mend_sets(self) -> int:
        there = ipset.names()
        lines = [ipset.creation(family, self._size) for family in ipset.SETS]
        mended = sum(name not in there for name in ipset.SETS.values())
        if self._ports is not None:
            held = ipset.ports() if ipset.PORTS in there else set()
            lines.append(f"create {ipset.PORTS} bitmap:port range 0-65535")
            lines += [f"add {ipset.PORTS} {port}" for port in self._ports - held]
            lines += [f"del {ipset.PORTS} {port}" for port in held - self._ports]
            mended += held != self._ports
        failure = ipset.restore(lines)
        if failure is not None:
            words = lines[failure.line].split()
            raise FirewallError(
                f"ipset {words[1]} is there in another shape ({failure.reason}): without the rules that use it, "
                f"`ipset destroy {words[1]}` takes it away, its bans too, and the next start makes it anew"
            )
        return mended

    def _faults(self, family: int, state: State) -> int:
        rules = raw_table.rules(family, every_port=self._ports is None)
        return (state.rules != rules) + (state.jumps != 1 or not state.first)

    # -- elements ------------------------------------------------------------------------------------------------------

    def _carry_out(self, todo: Sequence[tuple[Net, Ban | Unban]], now: float) -> list[Refused]:
        """Do `todo` in one process, and again without what fails, so that a bad net loses no other.

        Doing a thing twice is no error.
        """
        refused: list[Refused] = []
        while todo:
            failure = ipset.restore([_line(net, action, now) for net, action in todo])
            if failure is None:
                break
            hopeless = _hopeless(todo, failure)
            refused += [Refused(action, failure.reason) for net, action in todo if net.text in hopeless]
            todo = [item for item in todo if item[0].text not in hopeless]
        return refused

    def _restore_all(self, lines: list[str]) -> None:
        failure = ipset.restore(lines) if lines else None
        if failure is not None:
            raise FirewallError(f"ipset failed at `{lines[failure.line]}`: {failure.reason}")

    def _opened(self) -> Variant:
        if self._variant is None:
            raise FirewallError("the firewall is not open: call open() first")
        return self._variant


def _hopeless(todo: Sequence[tuple[Net, Ban | Unban]], failure: ipset.Failure) -> set[str]:
    """Return the nets whose action fails as this one did."""
    if failure.reason == ipset.GONE:
        return {net.text for net, _ in todo}
    culprit = todo[failure.line][0]
    if failure.reason != ipset.FULL:
        return {culprit.text}
    inside = {member.net for member in ipset.members(culprit.family)}  # these can still get another end
    bans = {net.text for net, action in todo if net.family == culprit.family and isinstance(action, Ban)}
    return (bans - inside) | {culprit.text}


def _families() -> list[int]:
    """Return the families that this kernel has: where IPv6 is compiled out or off, it has no tables either."""
    return [4, 6] if Path(_IPV6).exists() else [4]


def _line(net: Net, action: Ban | Unban, now: float) -> str:
    if isinstance(action, Ban):
        return ipset.addition(net.family, net.text, action.until - now)
    return ipset.deletion(net.family, net.text)
