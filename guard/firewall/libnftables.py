"""One table through libnftables, without a process: transactions, listings, and what their errors mean.

A context is not thread-safe: whoever owns a `Library` sees to it that one thread at a time uses it.
"""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from guard.firewall import FirewallError, nft_dump
from guard.firewall.permission import missing_right

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.firewall.ruleset import Listing

NO_ROOM: Final = "Too many open files in system"  # ENFILE, as the kernel says it of a set that is full
TOO_LONG: Final = (
    "Message too long",
    "No buffer space available",
)  # the batch does not fit the socket's buffer
ABSENT: Final = ("No such file or directory", "does not exist")
NOT_PERMITTED: Final = ("Operation not permitted", "Permission denied")
_OVERTAKEN: Final = ("Interrupted system call", "Resource temporarily unavailable")  # ERESTART, EAGAIN
_TRIES: Final = 20


class _Context(Protocol):
    """The part of the binding's untyped `nftables.Nftables` that we use."""

    def cmd(self, cmdline: str) -> tuple[int, str, str]: ...

    def json_cmd(self, json_root: object) -> tuple[int, Any, str]: ...

    def set_terse_output(self, val: bool) -> bool: ...


class Library:
    """A libnftables context in the network namespace of the thread that makes it, for `inet <table>`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._context = _new_context()

    def transact(self, commands: Sequence[str]) -> str:
        """Do all of `commands` or nothing; return "" or what stood against it, in one line.

        Where somebody else's transaction came in between, it is tried again.
        """
        said = ""
        for attempt in range(_TRIES):
            code, _, error = self._context.cmd("\n".join(commands))
            if not code:
                return ""
            # The kernel complains of each element, and what does not fit into the socket spoils the next answer there
            # ("Protocol error"): a new context has a new socket.
            self._context = _new_context()
            said = first_line(error)
            if not any(word in said for word in _OVERTAKEN):
                break
            time.sleep(0.005 * attempt)
        return said

    def outline(self) -> Listing:
        """Return sets, counters, chains and rules of the table; nothing where it is gone.  Raises FirewallError.

        A terse `list ruleset` is the one listing for which libnftables 1.0.6 does not read every element of every
        set first: 0.7 ms at 50,000 bans, where `list counters` takes 150 ms.  But what it cannot write is a table's
        flags: it uses memory that it has freed, or is not its own, which spoils the listing or ends the process.  So
        a table with flags is never listed, and ours, where somebody has put it to sleep, is woken first.
        """
        try:
            tables = nft_dump.tables()
        except OSError as error:
            raise self.failure(str(error)) from None
        if self.name not in tables:
            return []
        flags = tables.pop(self.name)
        if flags & nft_dump.OWNED:
            raise FirewallError(f"another process owns the table inet {self.name} (nft list tables): end it")
        if flags and (said := self.transact([f"add table inet {self.name}"])):
            raise self.failure(said)
        entries = self.whole() if any(tables.values()) else self._terse()
        ours = [
            entry
            for entry in entries
            for kind, part in entry.items()
            if part.get("name" if kind == "table" else "table") == self.name
        ]
        for entry in ours if flags else ():
            if "table" in entry:
                entry["table"]["flags"] = flags
        return ours

    def _terse(self) -> Listing:
        self._context.set_terse_output(True)
        try:
            return self.listing({"ruleset": {"family": "inet"}})
        finally:
            self._context.set_terse_output(False)

    def whole(self) -> Listing:
        """Return the table with all elements; costs time in proportion."""
        # A context keeps what it listed in its cache: 100,000 bans are better forgotten with a context of their own.
        return Library(self.name).listing({"table": {"family": "inet", "name": self.name}})

    def listing(self, what: object) -> Listing:
        """Return what `list` shows.  Raises FirewallError."""
        try:
            code, output, error = self._context.json_cmd({"nftables": [{"list": what}]})
        except ValueError:  # flags were set between our look at them and this
            raise self.failure("its listing is no JSON") from None
        if code:
            raise self.failure(first_line(error))
        return cast("Listing", output["nftables"])

    def gone(self) -> FirewallError:
        """Return the exception for a table that is not there, or not whole."""
        return FirewallError(
            f"table inet {self.name} or a part of it is gone, something flushed the ruleset: open() makes it again"
        )

    def failure(self, said: str) -> FirewallError:
        """Return the exception for what libnftables said, with the remedy where we know one."""
        if any(word in said for word in NOT_PERMITTED):
            return FirewallError(missing_right() or f"the kernel does not permit changes to nftables: {said}")
        if any(word in said for word in ABSENT):
            return self.gone()
        if "not supported" in said:
            return FirewallError(
                f"this kernel lacks nf_tables or a part of it ({said}): load the module nf_tables"
            )
        return FirewallError(f"nftables failed: {said}")


def _new_context() -> _Context:
    # The binding has no types, and importlib keeps the checkers from asking for them.
    return cast("_Context", importlib.import_module("nftables").Nftables())


def first_line(error: str) -> str:
    """Return the message without the command it quotes, which may hold thousands of nets."""
    lines = error.strip().splitlines()
    return lines[0].rpartition("Error: ")[2] if lines else "no message"
