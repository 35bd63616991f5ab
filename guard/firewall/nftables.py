"""The nftables backend: a table of our own, through libnftables and without a process.

It touches nothing but `inet mailward`: Docker, firewalld and the administrator keep theirs, and ours survives
their restarts.  Bans are set elements with a timeout: the kernel ends them, with or without us.
The handle is not thread-safe: open, use and close it in one thread.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from guard.firewall import Drops, Element, FirewallError, Refused
from guard.firewall.admission import Admission, Net, read_net
from guard.firewall.permission import missing_library, missing_right
from guard.firewall.ruleset import (
    HASH_SIZE,
    WIDTHS,
    Ruleset,
    Width,
    hash_set,
    holds_bans,
    interval_set,
    width_of,
)
from guard.model import Ban

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.firewall.protected import Protected
    from guard.model import Unban

    Wanted = list[tuple[Net, Ban | Unban]]

BATCH: Final = 5000  # nets in one transaction; in a user namespace even these can be "Message too long"
_ABSENT: Final = ("No such file or directory", "does not exist")
_NO_ROOM: Final = "Too many open files in system"  # ENFILE, as the kernel says it of a set
_FULL: Final = "the set is full"
_PLAIN: Final = (
    ("interval overlaps", "it overlaps a ban of another width, which an interval set cannot hold"),
    ("File exists", "it overlaps a ban of another width, which an interval set cannot hold"),
    (_NO_ROOM, _FULL),
)


class _Library(Protocol):
    """The part of the binding's untyped `nftables.Nftables` that we use."""

    def cmd(self, cmdline: str) -> tuple[int, str, str]: ...

    def json_cmd(self, json_root: object) -> tuple[int, Any, str]: ...

    def set_terse_output(self, val: bool) -> bool: ...


class NftablesFirewall:
    """A `Firewall` of hash sets with per-element timeouts, looked up in raw prerouting."""

    name: Final = "nftables"

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
        """Take what a ban closes, and which widths are many.

        `ports` are the TCP ports that a ban closes, None is the whole host, every protocol.  `prefix4` and
        `prefix6` are the widths the rules ban with; they get a hash set, as /32, /24, /128, /64, /56 and /48
        have anyway.  A ban that overlaps `trusted` is refused.  `size` is how many nets a hash set made anew
        holds.  Raises ValueError for what cannot be meant.
        """
        if ports is not None and (not ports or not all(1 <= port <= 65535 for port in ports)):
            raise ValueError(f"ports must name at least one of 1 to 65535, or be 'all': {ports!r}")
        self._ports = None if ports is None else sorted(set(ports))
        self._ruleset = Ruleset(table, (*WIDTHS, (4, prefix4), (6, prefix6)), size)
        self._admission = Admission(trusted)
        self._handle: _Library | None = None

    def open(self) -> None:
        """Make table, sets, counters and rules where they are missing; bans in the kernel stay.

        Raises FirewallError with the remedy where a library, the right or the kernel's support is missing, or
        where a table of this name has another shape.
        """
        missing = missing_library()
        if missing is not None:
            raise FirewallError(missing)
        handle = _new_handle()
        there = {entry["set"]["name"] for entry in self._outline(handle) if "set" in entry}
        for name in there:
            width = width_of(name)
            if width is not None:
                self._ruleset.widths.add(width)  # of an earlier configuration: its bans stay in force
        commands = self._ruleset.structure(self._ports)
        for width in self._ruleset.widths:
            if hash_set(width) not in there and interval_set(width.family) in there:
                commands += self._move_to_hash_set(handle, width)
        code, _, error = handle.cmd("\n".join(commands))
        if code and there:
            table = f"inet {self._ruleset.table}"
            remedy = (
                f"`nft delete table {table}` takes it away, its bans too, and the next start makes it anew"
            )
            raise FirewallError(f"table {table} is there in another shape ({_first_line(error)}): {remedy}")
        if code:
            raise self._failure(error)
        self._handle = handle

    def apply(self, actions: Sequence[Ban | Unban], now: float) -> list[Refused]:
        """Do `actions` as of `now`, in transactions of at most BATCH nets; see `Firewall.apply`."""
        self._opened()
        wanted, refused = self._admission.sort_out(actions, now)
        full: set[str] = set()
        for start in range(0, len(wanted), BATCH):
            refused += self._transact(wanted[start : start + BATCH], now, full)
        return refused

    def banned(self) -> list[Element]:
        """Return what the kernel holds; the remaining time is in whole seconds, rounded down.

        Raises FirewallError where the table is gone.
        """
        self._opened()
        # A handle keeps what it listed in its cache: 100,000 bans are better forgotten with a handle of their own.
        return self._elements(_new_handle(), {"table": {"family": "inet", "name": self._ruleset.table}})

    def drops(self) -> Mapping[str, Drops]:
        """Return what the two named counters say.  Raises FirewallError where the table is gone."""
        found = {
            entry["counter"]["name"]: Drops(entry["counter"]["packets"], entry["counter"]["bytes"])
            for entry in self._outline(self._opened())
            if "counter" in entry
        }
        if not found:
            raise self._gone()
        return {f"ipv{family}": found.get(f"dropped{family}", Drops(0, 0)) for family in (4, 6)}

    def flush(self) -> None:
        """End every ban.  Raises FirewallError where the kernel refuses."""
        handle = self._opened()
        names = [entry["set"]["name"] for entry in self._outline(handle) if "set" in entry]
        self._run(
            handle, [f"flush set inet {self._ruleset.table} {name}" for name in names if holds_bans(name)]
        )

    def close(self) -> None:
        """Let go of libnftables; table and bans stay in the kernel.  Closing twice is no error."""
        self._handle = None  # the binding frees its context with its last reference

    def remove(self) -> None:
        """Delete our table with all that is in it, and close; no table is no error."""
        table = f"inet {self._ruleset.table}"
        self._run(self._opened(), [f"add table {table}", f"delete table {table}"])
        self.close()

    def _transact(self, wanted: Wanted, now: float, full: set[str]) -> list[Refused]:
        """Do `wanted` in one transaction, or in halves where that fails, so that a bad net loses no other.

        A transaction that fails costs some 10 ms in the kernel: once a set is found full, bans that would go
        there are refused untried, or 10,000 of them would hold up everything for minutes.
        """
        refused: list[Refused] = []
        if full:
            hopeless = [isinstance(action, Ban) and self._ruleset.home(net) in full for net, action in wanted]
            refused = [Refused(item[1], _FULL) for item, bad in zip(wanted, hopeless, strict=True) if bad]
            wanted = [item for item, bad in zip(wanted, hopeless, strict=True) if not bad]
        if not wanted:
            return refused
        code, _, error = self._opened().cmd("\n".join(self._ruleset.changes(wanted, now)))
        if not code:
            return refused
        # The kernel complains of each net, and what does not fit into the socket spoils the next answer there
        # ("Protocol error"): a new handle has a new socket.
        self._handle = _new_handle()
        if len(wanted) == 1:
            if _NO_ROOM in error:
                full.add(self._ruleset.home(wanted[0][0]))
            return refused + self._last_try(self._handle, *wanted[0], error)
        if not any(self._outline(self._handle)):
            return refused + [Refused(action, str(self._gone())) for _, action in wanted]
        half = len(wanted) // 2
        refused += self._transact(wanted[:half], now, full)
        return refused + self._transact(wanted[half:], now, full)

    def _last_try(self, handle: _Library, net: Net, action: Ban | Unban, error: str) -> list[Refused]:
        """Return why one action fails.  An absent net that overlaps a ban cannot be added only to be deleted."""
        if not isinstance(action, Ban):
            code, _, error = handle.cmd(self._ruleset.deletion(net))
            if not code or (any(word in error for word in _ABSENT) and any(self._outline(handle))):
                return []
        if not any(self._outline(handle)):
            return [Refused(action, str(self._gone()))]
        return [Refused(action, _plain(error))]

    def _move_to_hash_set(self, handle: _Library, width: Width) -> list[str]:
        """Return the commands for bans whose width gets its hash set now: an unban would not find them."""
        source = interval_set(width.family)
        place = {"family": "inet", "table": self._ruleset.table, "name": source}
        commands: list[str] = []
        for element in self._elements(handle, {"set": place}):
            net = read_net(element.net)
            if net.width == width.length:
                commands.append(f"delete element inet {self._ruleset.table} {source} {{ {net.text} }}")
                ban = Ban(net.text, 0.0, max(element.seconds, 1.0), "moved")
                commands += self._ruleset.changes([(net, ban)], 0.0)
        return commands

    def _elements(self, handle: _Library, what: object) -> list[Element]:
        """Return the bans in what a listing shows."""
        sets = [entry["set"] for entry in self._list(handle, what) if "set" in entry]
        return [element for members in sets if holds_bans(members["name"]) for element in _read(members)]

    def _outline(self, handle: _Library) -> list[dict[str, dict[str, Any]]]:
        """Return sets, counters, chains and rules of our table; nothing where it is gone.

        A terse `list ruleset` is the one listing for which libnftables 1.0.6 does not read every element of every
        set first: 0.7 ms at 50,000 bans, where `list counters` takes 150 ms.
        """
        handle.set_terse_output(True)
        try:
            entries = self._list(handle, {"ruleset": {"family": "inet"}})
        finally:
            handle.set_terse_output(False)
        return [
            entry for entry in entries for part in entry.values() if part.get("table") == self._ruleset.table
        ]

    def _list(self, handle: _Library, what: object) -> list[dict[str, dict[str, Any]]]:
        code, output, error = handle.json_cmd({"nftables": [{"list": what}]})
        if code:
            raise self._failure(error)
        return cast("list[dict[str, dict[str, Any]]]", output["nftables"])

    def _run(self, handle: _Library, commands: list[str]) -> None:
        if commands:
            code, _, error = handle.cmd("\n".join(commands))
            if code:
                raise self._failure(error)

    def _opened(self) -> _Library:
        if self._handle is None:
            raise FirewallError("the firewall is not open: call open() first")
        return self._handle

    def _gone(self) -> FirewallError:
        table = f"inet {self._ruleset.table}"
        return FirewallError(f"table {table} is gone, something flushed the ruleset: open() makes it again")

    def _failure(self, error: str) -> FirewallError:
        """Return the exception for what libnftables wrote, with the remedy where we know one."""
        said = _first_line(error)
        if "Operation not permitted" in said or "Permission denied" in said:
            return FirewallError(missing_right() or f"the kernel does not permit changes to nftables: {said}")
        if any(word in said for word in _ABSENT):
            return self._gone()
        if "not supported" in said:
            return FirewallError(
                f"this kernel lacks nf_tables or a part of it ({said}): load the module nf_tables"
            )
        return FirewallError(f"nftables failed: {said}")


def _new_handle() -> _Library:
    # The binding has no types, and importlib keeps the checkers from asking for them.
    return cast("_Library", importlib.import_module("nftables").Nftables())


def _read(members: Mapping[str, Any]) -> list[Element]:
    """Read the elements of one set as libnftables-json(5) writes them; an endless one stands bare."""
    width = width_of(members["name"])
    found: list[Element] = []
    for item in members.get("elem", ()):
        inner = item["elem"] if isinstance(item, dict) and "elem" in item else {"val": item}
        value = inner["val"]
        if isinstance(value, dict) and "prefix" in value:
            net = f"{value['prefix']['addr']}/{value['prefix']['len']}"
        elif isinstance(value, dict):
            net = "-".join(value["range"])  # none of ours: shown as it is, so that somebody wonders
        else:
            net = f"{value}/{width.length}" if width is not None else read_net(value).text
        found.append(Element(net, float(inner["expires"]) if "expires" in inner else math.inf))
    return found


def _plain(error: str) -> str:
    """Return what libnftables wrote about one element in the administrator's words."""
    return next((plain for word, plain in _PLAIN if word in error), _first_line(error))


def _first_line(error: str) -> str:
    """Return the message without the command it quotes, which may hold thousands of nets."""
    lines = error.strip().splitlines()
    return lines[0].rpartition("Error: ")[2] if lines else "no message"
