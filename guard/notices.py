"""What this node has to tell the others of its fleet, and what it must remember of orders to understand them.

A fact is an attempt; a register is what is in force: `ban NET`, `allow NET`, `deny NET`.  Times of registers decide
between nodes (the later one wins), so each order by hand is kept with its time, and each ban that was ended early with
the time until which it shall not come back.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Container
from typing import Any, Final

from guard.model import Ban, Notice, readable
from guard.nets import NetSet

LINE: Final = 1000  # characters of a line that are told
_EVIDENCE: Final = 3000  # bytes of a ban's lines: a body is at most 4 KiB
_TIMES: Final = 40  # attempts that a ban names
_TOMBSTONE: Final = 400 * 86400.0  # seconds: no register lives longer
_LIFTED: Final = 1000
_TAKEN: Final = 256
_OWED: Final = 1000
MANUAL: Final = "manual"
ALLOWED: Final = "allowed"
REVOKED: Final = "revoked"


class Lifted:
    """A net whose bans decided until `at` are over; remembered until `ends`."""

    __slots__ = ("at", "ends", "inside", "revoked")

    def __init__(self, at: float, ends: float, inside: bool, revoked: bool) -> None:
        self.at = at
        self.ends = ends
        self.inside = inside  # those of the nets inside, too
        self.revoked = revoked  # the attempts still count


class Notices:
    """Collects what is to be told until `take`."""

    __slots__ = ("_fresh", "_nets", "_owed", "_taken", "entries", "lifted")

    def __init__(self) -> None:
        self._fresh: list[Notice] = []
        self._taken: deque[tuple[str, float]] = deque(maxlen=_TAKEN)  # net, time of attempts taken back
        self._owed: dict[
            tuple[str, float], int
        ] = {}  # net, time of attempts that a ban named before they came
        self._nets = NetSet()  # of `lifted`
        self.lifted: dict[str, Lifted] = {}
        self.entries: dict[str, tuple[float, bool]] = {}  # "allow NET" -> when it was set, and whether it is

    def __len__(self) -> int:
        return len(self._fresh)

    def take(self) -> list[Notice]:
        """Return what is to be told since the last call."""
        fresh = self._fresh
        self._fresh = []
        return fresh

    # -- to be told ------------------------------------------------------------------------------------------------

    def attempt(self, ip: str, at: float, n: int, line: str, span: float) -> None:
        """Tell of an attempt counted (`n` = 1) or taken back (-1)."""
        text = readable(line[:LINE])[:LINE] if line else ""
        body = json.dumps({"n": n, "line": text}, ensure_ascii=False, separators=(",", ":"))
        self._fresh.append(Notice(ip, "", True, at, at + span, body))

    def ban(self, ban: Ban, times: list[float], lines: list[str], number: int) -> None:
        """Tell of a ban: by a rule, with the attempts that it rests on, the `number`-th of its net; or by hand."""
        told: list[str] = []
        room = _EVIDENCE
        for line in reversed(lines[-_TIMES:]):
            text = readable(line)[:LINE]
            room -= len(text.encode()) + 4 + text.count("\\") + text.count('"')
            if room < 0:
                text = ""
            told.append(text)
        told.reverse()
        values = {
            "rule": ban.rule,
            "failures": ban.failures,
            "open": ban.session_open,
            "number": number,
            "times": times[-_TIMES:],
            "lines": told,
        }
        body = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        self._fresh.append(Notice(ban.net, f"ban {ban.net}", True, ban.at, ban.until, body))

    def lift(self, net: str, at: float, ends: float, cause: str, *, inside: bool) -> None:
        """Tell that the bans of a net (and of those inside it) that were decided until `at` are over."""
        body = json.dumps({"cause": cause, "inside": inside}, separators=(",", ":"))
        self.remember(net, at, ends, inside=inside, revoked=cause == REVOKED)
        self._fresh.append(Notice(net, f"ban {net}", False, at, ends, body))

    def withdraw(self, net: str) -> None:
        """Do not tell of a ban that this host alone refuses."""
        name = f"ban {net}"
        self._fresh = [notice for notice in self._fresh if notice.register != name or not notice.live]

    def entry(self, key: str, net: str, live: bool, now: float) -> None:
        """Tell of an entry of the list `key` that the administrator has made, or taken away."""
        name = f"{key} {net}"
        known = self.entries.get(name)
        at = now if known is None else max(now, known[0] + 0.001)  # he has seen what he changes
        self.entries[name] = at, live
        self._fresh.append(Notice(net, name, live, at, math.inf if live else at + _TOMBSTONE, "{}"))

    def again(self, found: Container[str]) -> None:
        """Tell the entries again that are not among the registers `found`; those that are told anyway twice."""
        for name, (at, live) in self.entries.items():
            if name not in found:
                ends = math.inf if live else at + _TOMBSTONE
                self._fresh.append(Notice(name.partition(" ")[2], name, live, at, ends, "{}"))

    # -- to be remembered ------------------------------------------------------------------------------------------

    def newer(self, name: str, at: float, live: bool) -> bool:
        """Whether what is told of a list's entry is later than what is known of it; then it is known."""
        known = self.entries.get(name)
        if known is not None and (at < known[0] or (at == known[0] and (live or not known[1]))):
            return False
        self.entries[name] = at, live
        return True

    def remember(self, net: str, at: float, ends: float, *, inside: bool, revoked: bool) -> None:
        """Note that the bans of a net decided until `at` are over, and shall not come back by what is told late."""
        before = self.lifted.pop(net, None)
        if before is not None:
            if before.at > at:
                at = before.at
                revoked = before.revoked
            ends = max(ends, before.ends)
            inside = inside or before.inside
        elif len(self.lifted) >= _LIFTED:
            gone = next(iter(self.lifted))
            del self.lifted[gone]
            self._nets.discard(gone)
        self.lifted[net] = Lifted(at, ends, inside, revoked)
        self._nets.add(net)

    def is_lifted(self, net: str, at: float, *, counts: bool = False) -> bool:
        """Whether a ban of `net` decided at `at` was ended; with `counts`, so that its attempts count no more."""
        for around in self._nets.around(net):
            lifted = self.lifted[around]
            if lifted.at >= at and (lifted.inside or around == net) and not (counts and lifted.revoked):
                return True
        return False

    def after(self, net: str, now: float) -> float:
        """Return `now`, or the moment after the bans of a net were lifted: a ban by hand follows what it sees."""
        lifted = self.lifted.get(net)
        return now if lifted is None else max(now, lifted.at + 0.001)

    def took_back(self, net: str, at: float) -> None:
        """Note that an attempt was none."""
        self._taken.append((net, at))

    def was_taken_back(self, net: str, at: float) -> bool:
        """Whether an attempt is known to have been none."""
        return (net, at) in self._taken

    def owe(self, net: str, at: float) -> None:
        """Note that an attempt was named by a ban and has yet to come: it is counted already."""
        if (net, at) in self._owed:
            self._owed[net, at] += 1
            return
        if len(self._owed) >= _OWED:
            del self._owed[next(iter(self._owed))]
        self._owed[net, at] = 1

    def was_owed(self, net: str, at: float) -> bool:
        """Whether an attempt that comes was named before; once each."""
        n = self._owed.pop((net, at), 0)
        if n > 1:
            self._owed[net, at] = n - 1
        return n > 0

    def prune(self, now: float) -> None:
        """Forget what is over."""
        for net in [net for net, lifted in self.lifted.items() if lifted.ends <= now]:
            del self.lifted[net]
            self._nets.discard(net)
        over = [name for name, (at, live) in self.entries.items() if not live and at + _TOMBSTONE <= now]
        for name in over:
            del self.entries[name]

    def dump(self) -> list[object]:
        """Return what outlives a restart, as JSON values."""
        lifted = [
            [net, known.at, None if math.isinf(known.ends) else known.ends, known.inside, known.revoked]
            for net, known in self.lifted.items()
        ]
        entries = [[name, at, live] for name, (at, live) in self.entries.items()]
        owed = [[net, at, n] for (net, at), n in self._owed.items()]
        return [lifted, entries, [[net, at] for net, at in self._taken], owed]

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        lifted, entries, taken, owed = values
        for net, at, ends, inside, revoked in lifted:
            self.remember(net, at, math.inf if ends is None else ends, inside=inside, revoked=revoked)
        self.entries = {name: (at, live) for name, at, live in entries}
        self._taken.extend([(net, at) for net, at in taken])
        self._owed = {(net, at): n for net, at, n in owed}
