"""The structure of one nftables table, asked of the kernel itself, to be compared with what it was when we made it.

libnftables would list it as JSON, and is never asked to: 1.0.6 (Debian 12) uses freed memory for a table's flags, and
crashed over sets that nftables 1.1 had made, and over rules beside a Docker engine's, in whoever's table they stood.
The messages and their attributes are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from guard.firewall import netlink
from guard.firewall.nft_dump import INET, NETFILTER, SUBSYSTEM, elements, generation

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNED: Final = 2  # NFT_TABLE_F_OWNER: only its owner's process may change the table
INTERVAL, TIMEOUT = 0x04, 0x10  # NFT_SET_INTERVAL, NFT_SET_TIMEOUT
_ANONYMOUS: Final = 0x01  # NFT_SET_ANONYMOUS
_GET_TABLES, _GET_CHAINS, _GET_RULES = 1, 4, 7  # NFT_MSG_GETTABLE, _GETCHAIN, _GETRULE
_GET_SETS, _GET_OBJECTS, _GET_FLOWTABLES = 10, 19, 23  # NFT_MSG_GETSET, _GETOBJ, _GETFLOWTABLE
_TABLE: Final = 1  # NFTA_*_TABLE, in a table's own message NFTA_TABLE_NAME
_FLAGS: Final = 2  # NFTA_TABLE_FLAGS
_CHAIN_NAME, _HOOK, _POLICY, _TYPE, _CHAIN_FLAGS = 3, 4, 5, 7, 10  # NFTA_CHAIN_*
_NUMBER, _PRIORITY = 1, 2  # NFTA_HOOK_HOOKNUM, _PRIORITY
_RULE_CHAIN, _EXPRESSIONS = 2, 4  # NFTA_RULE_*
_SET_NAME, _SET_FLAGS, _KEY_TYPE, _KEY_SIZE, _DESCRIPTION, _SET_TIMEOUT = 2, 3, 4, 5, 9, 11  # NFTA_SET_*
_OBJECT_NAME, _OBJECT_TYPE = 2, 3  # NFTA_OBJ_*
_COUNTER: Final = 1  # NFT_OBJECT_COUNTER
_TRIES: Final = 5


class Chain(NamedTuple):
    """A chain without its rules; `hook` and `priority` are a base chain's (NF_INET_*), as are policy and type."""

    hook: int | None
    priority: int | None
    policy: int
    type: bytes
    flags: int


class Set(NamedTuple):
    """A set without its elements; `key_type` is libnftables' number, `timeout` that of elements without their own."""

    flags: int
    key_type: int
    key_size: int  # bytes
    timeout: int
    description: bytes  # its size


class Outline(NamedTuple):
    """A table: its flags and its parts by name.

    A rule is its expressions as the kernel writes them, and the keys of its own nameless set.
    """

    flags: int
    chains: dict[str, Chain]
    rules: dict[str, tuple[bytes, ...]]  # by chain, in their order
    sets: dict[str, Set]
    counters: frozenset[str]


def outline(table: str) -> Outline | None:
    """Return the structure of `inet <table>`, None where there is none.  Raises OSError where the kernel does not tell.

    Where others keep changing what there is the last answer may be of several moments.
    """
    found: Outline | None = None
    for _ in range(_TRIES):
        before = generation()
        try:
            found = _outline(table)
        except FileNotFoundError:
            found = None
        if generation() == before:
            break
    return found


def flowtables() -> bool:
    """Tell whether any table of any family has a flowtable.  Raises OSError."""
    return any(True for _ in netlink.dump(NETFILTER, SUBSYSTEM << 8 | _GET_FLOWTABLES, bytes(len(INET))))


def _outline(table: str) -> Outline | None:
    flags = next((_number(parts, _FLAGS) for parts in _parts(_GET_TABLES, table)), None)
    if flags is None:
        return None
    sets = {name: _set(parts) for name, parts in _named(_GET_SETS, table, _SET_NAME)}
    nameless = {
        name.encode() + b"\0": b"".join(sorted(key for key, _ in elements(table, name)))
        for name, made in sets.items()
        if made.flags & _ANONYMOUS
    }
    rules: dict[str, tuple[bytes, ...]] = {}
    for chain, parts in _named(_GET_RULES, table, _RULE_CHAIN):
        rule = parts.get(_EXPRESSIONS, b"")
        keys = b"".join(keys for name, keys in nameless.items() if name in rule)
        rules[chain] = (*rules.get(chain, ()), rule + keys)
    return Outline(
        flags,
        {name: _chain(parts) for name, parts in _named(_GET_CHAINS, table, _CHAIN_NAME)},
        rules,
        sets,
        frozenset(
            name
            for name, parts in _named(_GET_OBJECTS, table, _OBJECT_NAME)
            if _number(parts, _OBJECT_TYPE) == _COUNTER
        ),
    )


def _chain(parts: dict[int, bytes]) -> Chain:
    hook = dict(netlink.attributes(parts[_HOOK], 0)) if _HOOK in parts else {}
    return Chain(
        _number(hook, _NUMBER) if hook else None,
        int.from_bytes(hook.get(_PRIORITY, b""), "big", signed=True) if hook else None,
        _number(parts, _POLICY),
        parts.get(_TYPE, b""),
        _number(parts, _CHAIN_FLAGS),
    )


def _set(parts: dict[int, bytes]) -> Set:
    return Set(
        _number(parts, _SET_FLAGS),
        _number(parts, _KEY_TYPE),
        _number(parts, _KEY_SIZE),
        _number(parts, _SET_TIMEOUT),
        parts.get(_DESCRIPTION, b""),
    )


def _parts(kind: int, table: str) -> Iterator[dict[int, bytes]]:
    """Yield the attributes of each thing of one kind in a table; not every kernel leaves out other tables'."""
    name = table.encode() + b"\0"
    for _, message in netlink.dump(NETFILTER, SUBSYSTEM << 8 | kind, INET + netlink.attribute(_TABLE, name)):
        parts = dict(netlink.attributes(message, len(INET)))
        if parts.get(_TABLE) == name:
            yield parts


def _named(kind: int, table: str, name: int) -> Iterator[tuple[str, dict[int, bytes]]]:
    """Yield what `_parts` does, each with the text of its attribute `name`."""
    for parts in _parts(kind, table):
        yield parts.get(name, b"").rstrip(b"\0").decode("utf-8", "replace"), parts


def _number(parts: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(parts.get(kind, b""), "big")
