"""One table through libnftables, without a process: transactions, and what their errors mean.

What there is the kernel itself tells (nft_dump, nft_outline).  A context is not thread-safe: whoever owns a `Library`
sees to it that one thread at a time uses it.
"""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Final, Protocol, cast

from guard.firewall import FirewallError
from guard.firewall.permission import missing_right

if TYPE_CHECKING:
    from collections.abc import Sequence

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
