"""The nftables backend: a table of our own, through libnftables and without a process.

It touches nothing but `inet mailward`: Docker, firewalld and the administrator keep theirs, and ours survives
their restarts.  Bans are set elements with a timeout: the kernel ends them, with or without us.

`reconcile` reads the kernel without the lock, a third of a second at 100,000 bans, and takes it for one batch at a
time to mend: a ban decided meanwhile waits for that batch alone.  What was decided meanwhile stands.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final

from guard.firewall import STRANGERS, Drift, Drops, Element, FirewallError, Refused, nft_dump
from guard.firewall.admission import Admission
from guard.firewall.differences import Differences, Recent, compare, paced
from guard.firewall.libnftables import ABSENT, NO_ROOM, NOT_PERMITTED, TOO_LONG
from guard.firewall.nets import Net, read_net
from guard.firewall.nft_table import Table
from guard.firewall.permission import missing_library
from guard.firewall.ruleset import HASH_SIZE, WIDTHS, Ruleset, Width, hash_set
from guard.model import Ban, Unban

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from guard.firewall.protected import Protected

    Wanted = list[tuple[Net, Ban | Unban]]
    Commands = Callable[[Sequence[tuple[Net, Ban | Unban]], float], list[str]]

BATCH: Final = 1000  # nets in one transaction; larger ones are no faster, and hold up a single ban for longer
_FULL: Final = "the set is full"
_YIELD: Final = 0.0003  # seconds between two batches, in which a ban gets the lock


class NftablesFirewall:
    """A `Firewall` of hash sets with per-element timeouts, looked up in raw prerouting."""

    name: Final = "nftables"
    aside: Final = True

    def __init__(
        self,
        ports: Sequence[int] | None,
        prefix4: int = 32,
        prefix6: int = 64,
        trusted: Sequence[str] | Protected = (),
        table: str = "mailward",
        *,
        size: int = HASH_SIZE,
    ) -> None:
        """Take what a ban closes, and the widths that the rules ban with.

        `ports` are the TCP ports that a ban closes, None is the whole host, every protocol.  A ban that overlaps
        `trusted` is refused.  `size` is how many nets a set made anew holds.  Raises ValueError for what cannot be
        meant.
        """
        self._ruleset = Ruleset(table, ports, (*WIDTHS, (4, prefix4), (6, prefix6)), size)
        self._admission = Admission(trusted)
        self._table: Table | None = None
        self._lock = threading.Lock()
        self._recent = Recent()  # what `apply` did a moment ago, and does
        self._batch = BATCH

    def open(self) -> None:
        """Make table, sets, counters and rules where they are missing; bans in the kernel stay.

        A table of this name in another shape is replaced in one transaction, its bans carried over where they can be
        read.  Raises FirewallError with the remedy where a library, the right or the kernel's support is missing.
        """
        missing = missing_library()
        if missing is not None:
            raise FirewallError(missing)
        with self._lock:
            table = Table(self._ruleset)
            table.adopt()
            self._table = table

    def apply(self, actions: Sequence[Ban | Unban], now: float) -> list[Refused]:
        """Do `actions` as of `now`, in transactions of at most BATCH nets; see `Firewall.apply`.

        Raises FirewallError where our table is gone or not whole: then `open` and `reconcile` bring it back.
        """
        self._opened()
        began = time.monotonic()
        wanted, refused = self._admission.sort_out(actions, now)
        new = {Width(net.family, net.width) for net, action in wanted if isinstance(action, Ban)}
        last = {net.text: action for net, action in wanted}
        with self._lock:
            self._recent.begin(last)
            self._widen(new)
        failed = set(last.values())
        try:
            refusals = self._in_batches(wanted, _Clock(now, began), self._ruleset.changes)
            failed = {refusal.action for refusal in refusals}
        finally:
            with self._lock:
                self._recent.end(last, failed)
        return refused + refusals

    def reconcile(self, wanted: Mapping[str, Ban], now: float, *, keep_foreign: bool = True) -> Drift:
        """Compare the kernel with `wanted` and mend the difference; see `Firewall.reconcile`."""
        table = self._opened()
        began = time.monotonic()
        clock = _Clock(now, began)
        held = table.held(clock)
        found = self._compare(wanted, held, began, clock)
        # A dump beside changes can leave an element out, but hardly the same one twice.
        if held and found.missing:
            held |= table.held(clock)
            found = self._compare(wanted, held, began, clock)
        return self._mend(wanted, held, found, began, clock, keep_foreign=keep_foreign)

    def banned(self) -> list[Element]:
        """Return what the kernel holds.  Raises FirewallError where the table is gone."""
        table = self._opened()
        start = time.monotonic()
        held = table.held(_Clock(0.0, start))
        if not held and not table.outline():
            raise table.gone()
        passed = time.monotonic() - start
        return [Element(net, end - passed) for net, end in held.items()]

    def drops(self) -> Mapping[str, Drops]:
        """Return what the two named counters say.  Raises FirewallError where they are gone."""
        table = self._opened()
        found = nft_dump.counters(table.name)
        if not found:
            raise table.gone()
        return {f"ipv{family}": found.get(f"dropped{family}", Drops(0, 0)) for family in (4, 6)}

    def flush(self) -> None:
        """End every ban.  Raises FirewallError where the kernel refuses."""
        with self._lock:
            table = self._opened()
            table.run([f"flush set inet {table.name} {hash_set(width)}" for width in self._ruleset.widths])

    def close(self) -> None:
        """Let go of libnftables; table and bans stay in the kernel.  Closing twice is no error."""
        self._table = None  # the binding frees its context with its last reference

    def remove(self) -> None:
        """Delete our table with all that is in it, and close; no table is no error."""
        with self._lock:
            self._opened().run(self._ruleset.replacement())
            self.close()

    def _widen(self, widths: set[Width]) -> None:
        """Make sets for widths that have none."""
        if not widths <= self._ruleset.widths:
            table = self._opened()
            self._ruleset.widths |= widths
            table.make(table.outline())

    # -- reconciling -----------------------------------------------------------------------------------------------

    def _compare(
        self, wanted: Mapping[str, Ban], held: Mapping[str, float], began: float, clock: _Clock
    ) -> Differences:
        with self._lock:
            before, since = self._recent.told(began)
        return compare(wanted, held, clock(), before, since)

    def _mend(
        self,
        wanted: Mapping[str, Ban],
        held: dict[str, float],
        found: Differences,
        began: float,
        clock: _Clock,
        *,
        keep_foreign: bool,
    ) -> Drift:
        """Make again what is gone, and assert what is missing: structure and the first batch in one transaction."""
        missing, refused = self._admission.sort_out(found.missing, clock())
        structure, lost, done = self._mend_structure(held, missing, clock)
        if lost:  # sets went away after they were read
            held = {net: end for net, end in held.items() if _width(net) not in lost}
            found = self._compare(wanted, held, began, clock)
            missing, refused = self._admission.sort_out(found.missing, clock())
        failed = self._in_batches(missing[done:], clock, self._ruleset.additions, began)
        wrong, objections = self._admission.sort_out(found.timeout, clock())
        gone = [] if keep_foreign else found.foreign
        foreign: Wanted = [(read_net(net), Unban(net, clock(), "manual")) for net in gone]
        objections += self._in_batches([*wrong, *foreign], clock, self._ruleset.changes, began)
        unheld = {refusal.action.net for refusal in failed}
        return Drift(
            missing=len(missing) - len(failed),
            foreign=len(found.foreign),
            timeout=len(wrong),
            structure=structure,
            held=(held.keys() | {net.text for net, _ in missing if net.text not in unheld}) - set(gone),
            strangers=tuple(sorted(found.foreign)[:STRANGERS]) if keep_foreign else (),
            refused=(*refused, *failed, *objections),
        )

    def _mend_structure(
        self, held: Mapping[str, float], missing: Wanted, clock: _Clock
    ) -> tuple[int, set[Width], int]:
        """Compare our structure with what it was, and make it again where it differs.

        Returns in how many parts it did, the sets that were gone although they were read, and how many of `missing`
        are done.
        """
        rules = self._ruleset
        new = {Width(*width) for width in {(net.family, net.width) for net, _ in missing}}
        seen = {_width(net) for net in paced(held)}
        with self._lock:
            table = self._opened()
            outline = table.outline()
            differs = table.differs(outline)
            lost = {width for width in seen if f"set {hash_set(width)}" in differs}
            recent = {_width(net) for net in self._recent.nets()}
            idle = rules.widths - rules.always - seen - new - recent
            if not (differs or idle or not new <= rules.widths):
                return 0, lost, 0
            rules.widths = rules.widths - idle | new
            first = [] if lost else missing[: self._batch]
            done = table.make(outline, idle, rules.additions(first, clock()))
        return len(differs), lost, len(first) if done else 0

    # -- transactions ----------------------------------------------------------------------------------------------

    def _in_batches(
        self, wanted: Wanted, clock: _Clock, commands: Commands, began: float = math.inf
    ) -> list[Refused]:
        """Do `wanted`, a batch at a time; leave out what `apply` has done since `began`.

        Raises FirewallError where our structure is gone or the kernel does not permit it.
        """
        refused: list[Refused] = []
        full: set[Width] = set()
        start = 0
        while start < len(wanted):
            with self._lock:
                batch = wanted[start : start + self._batch]
                start += len(batch)
                _, since = self._recent.told(began) if began < math.inf else ({}, ())
                if since:
                    batch = [item for item in batch if item[0].text not in since]
                refused += self._transact(batch, clock, commands, full)
            if start < len(wanted):
                time.sleep(_YIELD)
        return refused

    def _transact(self, wanted: Wanted, clock: _Clock, commands: Commands, full: set[Width]) -> list[Refused]:
        """Do `wanted` in one transaction, or in halves where that fails, so that a bad net loses no other.

        A transaction that fails costs some 10 ms in the kernel: once a set is found full, bans that would go
        there are refused untried, or 10,000 of them would hold up everything for minutes.
        """
        refused: list[Refused] = []
        if full:
            hopeless = [isinstance(action, Ban) and _width(net.text) in full for net, action in wanted]
            refused = [Refused(item[1], _FULL) for item, bad in zip(wanted, hopeless, strict=True) if bad]
            wanted = [item for item, bad in zip(wanted, hopeless, strict=True) if not bad]
        table = self._opened()
        lines = commands(wanted, clock())
        said = table.transact(lines) if lines else ""
        if not said:
            self._batch = min(BATCH, self._batch + 1 + self._batch // 8)
            return refused
        if any(word in said for word in ABSENT) and table.differs(table.outline()):
            raise table.gone()
        if any(word in said for word in NOT_PERMITTED):
            raise table.failure(said)
        if len(wanted) == 1:
            net, action = wanted[0]
            if NO_ROOM in said:
                full.add(Width(net.family, net.width))
            return [*refused, Refused(action, _FULL if NO_ROOM in said else said)]
        if any(word in said for word in TOO_LONG):
            self._batch = max(1, len(wanted) // 2)
        half = len(wanted) // 2
        refused += self._transact(wanted[:half], clock, commands, full)
        return refused + self._transact(wanted[half:], clock, commands, full)

    def _opened(self) -> Table:
        if self._table is None:
            raise FirewallError("the firewall is not open: call open() first")
        return self._table


class _Clock:
    """The time of day that a caller told, going on from there: a step of the host's clock does not move it."""

    def __init__(self, now: float, began: float) -> None:
        self._offset = now - began

    def __call__(self) -> float:
        return self._offset + time.monotonic()


def _width(net: str) -> Width:
    """Return the width of a net in canonical CIDR."""
    return Width(6 if ":" in net else 4, int(net.rpartition("/")[2]))
