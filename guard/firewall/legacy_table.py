"""Writes our chain into the table raw of legacy iptables, through python-iptables.

It is read elsewhere (`raw_table`): python-iptables would load an extension for each rule of others, and leaks.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import os
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from guard.firewall import FirewallError
from guard.firewall.ipset import PORTS, SETS
from guard.firewall.permission import RIGHTS, missing_right

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOCK: Final = "/run/xtables.lock"  # what iptables itself locks; python-iptables does not
PATIENCE: Final = 10.0  # seconds for somebody else to let go of it
_OTHER_TABLES: Final = ("filter", "nat", "mangle", "security")
_REMEDY: Final = "install mailward[iptables] and the package iptables"


def missing_binding() -> str | None:
    """Return the remedy where python-iptables or a library that it loads is not installed."""
    if importlib.util.find_spec("iptc") is None:
        return f"legacy iptables needs the Python module iptc: {_REMEDY}"
    try:
        _binding()
    except Exception as error:  # noqa: BLE001 - where a library is missing, it raises whatever comes of that
        return f"the Python module iptc does not load ({error}): {_REMEDY}"
    return None


def write(chain: str, family: int, *, there: bool, jumps: int, every_port: bool) -> None:
    """Make our chain and the jump to it anew, in one commit; `jumps` are there.  Raises FirewallError."""
    with _raw(family) as (iptc, table):
        _unhook(iptc, table, family, chain, jumps)
        if there:
            table.flush_entries(chain)
        else:
            table.create_chain(chain)
        ours = iptc.Chain(table, chain)
        ours.append_rule(_rule(iptc, family, "RETURN", interface="lo"))
        sets = [(SETS[family], "src")] if every_port else [(PORTS, "dst"), (SETS[family], "src")]
        ours.append_rule(_rule(iptc, family, "DROP", tcp=not every_port, sets=sets))
        iptc.Chain(table, "PREROUTING").insert_rule(_rule(iptc, family, chain))


def remove(chain: str, family: int, *, there: bool, jumps: int) -> None:
    """Take jump and chain away, in one commit.  Raises FirewallError."""
    if not there:
        return
    with _raw(family) as (iptc, table):
        _unhook(iptc, table, family, chain, jumps)
        table.flush_entries(chain)
        table.delete_chain(chain)


def _binding() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its patterns hold escapes that newer Pythons warn of
        return importlib.import_module("iptc")


@contextlib.contextmanager
def _raw(family: int) -> Iterator[tuple[Any, Any]]:
    """Give the binding and the table raw, under iptables' own lock; commit at the end.

    A commit replaces the table as a whole: without the lock it would undo what somebody else wrote meanwhile.
    """
    iptc = _binding()
    kind = iptc.Table6 if family == 6 else iptc.Table
    # To learn whether a target is a chain the binding looks into every table, and so has the kernel make it.
    kind.existing_table_names.update(dict.fromkeys(_OTHER_TABLES, False))
    with _locked():
        try:
            table = kind(kind.RAW, autocommit=False)
            table.refresh()
            try:
                yield iptc, table
                table.commit()
            finally:
                table.close()
        except (iptc.IPTCError, iptc.errors.XTablesError, ValueError) as error:
            reason = missing_right(*RIGHTS["iptables"]) or f"legacy iptables failed: {error}"
            raise FirewallError(reason) from None


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    try:
        lock = os.open(LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FirewallError(f"{LOCK}: {error.strerror}; legacy iptables needs root") from None
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FirewallError(f"{LOCK} is held by another program: iptables is busy") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(lock)


def _unhook(iptc: Any, table: Any, family: int, chain: str, jumps: int) -> None:
    for _ in range(jumps):
        iptc.Chain(table, "PREROUTING").delete_rule(_rule(iptc, family, chain))


def _rule(
    iptc: Any,
    family: int,
    target: str,
    *,
    interface: str = "",
    tcp: bool = False,
    sets: Sequence[tuple[str, str]] = (),
) -> Any:
    rule = iptc.Rule6() if family == 6 else iptc.Rule()
    if interface:
        rule.in_interface = interface
    if tcp:
        rule.protocol = "tcp"
    for pair in sets:
        rule.create_match("set").match_set = list(pair)
    rule.target = iptc.Target(rule, target)
    return rule
