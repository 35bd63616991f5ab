"""Our chain MAILWARD in the table raw of iptables, and the one jump to it from PREROUTING.

raw comes before conntrack and before Docker's DNAT: there the destination is still the public port, and established
connections die as well.  Nothing of anybody else's is changed.

The two variants of iptables write different tables in the kernel, and what one wrote the other does not see.  The
nft variant is written by `iptables-nft-restore`, the legacy one by python-iptables (`legacy_table`).  Both are read
through `iptables-save`, whose text is the same.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from guard.firewall import Drops, FirewallError, legacy_table
from guard.firewall.ipset import PORTS, SETS
from guard.firewall.permission import missing_right
from guard.firewall.process import find, run

Variant = Literal["legacy", "nft"]

CHAIN: Final = "MAILWARD"
_JUMP: Final = f"-A PREROUTING -j {CHAIN}"
_HARMLESS: Final = ("DROP", "CT", "NOTRACK", "LOG", "NFLOG", "TRACE", "MARK")  # no way around the jump
_PROGRAM: Final = {4: "iptables", 6: "ip6tables"}


class State(NamedTuple):
    """What one family's table raw holds of us."""

    there: bool  # the chain
    rules: tuple[str, ...]
    jumps: int
    first: bool  # no rule before the jump could let a packet pass it by
    drops: Drops


def rules(family: int, *, every_port: bool) -> tuple[str, ...]:
    """Return the rules of our chain, in the words of iptables-save."""
    client = f"-m set --match-set {SETS[family]} src -j DROP"
    if not every_port:
        client = f"-p tcp -m set --match-set {PORTS} dst {client}"
    return "-i lo -j RETURN", client


def variant_of_host() -> Variant:
    """Return what the host's `iptables` writes; raises FirewallError where there is none.

    Before 1.8 there was one variant, and its version stands alone.
    """
    program = find("iptables")
    if program is None:
        raise FirewallError("the program iptables is missing: install the package iptables")
    done = run(program, "-V")
    if done.status:
        raise FirewallError(f"{program} -V failed: {done.error.strip() or done.output.strip()}")
    return "nft" if "(nf_tables)" in done.output else "legacy"


def read(variant: Variant, family: int) -> State:
    """Return what is there.  Raises FirewallError where the table cannot be read."""
    chain, found, packets, octets, jumps, first, passed = False, [], 0, 0, 0, True, True
    for line in _called(variant, family, "save", "-c", "-t", "raw").splitlines():
        if line.startswith(f":{CHAIN} "):
            chain = True
        counters, _, rule = line.partition(" ")
        if rule == _JUMP:
            first = first and passed
            jumps += 1
        elif rule.startswith("-A PREROUTING "):
            passed = passed and rule.partition(" -j ")[2].partition(" ")[0] in _HARMLESS
        elif rule.startswith(f"-A {CHAIN} "):
            found.append(rule.removeprefix(f"-A {CHAIN} "))
            if rule.endswith(" -j DROP"):
                dropped = counters.strip("[]").split(":")
                packets, octets = packets + int(dropped[0]), octets + int(dropped[1])
    return State(chain, tuple(found), jumps, first, Drops(packets, octets))


def write(variant: Variant, family: int, before: State, *, every_port: bool) -> None:
    """Make chain and jump anew, in one transaction.  Raises FirewallError where the kernel refuses."""
    wanted = rules(family, every_port=every_port)
    if variant == "legacy":
        legacy_table.write(CHAIN, family, there=before.there, jumps=before.jumps, every_port=every_port)
        return
    # A chain that is declared is made, or emptied where it is there.
    lines = [f":{CHAIN} - [0:0]", *before.jumps * [f"-D PREROUTING -j {CHAIN}"]]
    lines += [f"-I PREROUTING 1 -j {CHAIN}", *(f"-A {CHAIN} {rule}" for rule in wanted)]
    _restore(family, lines)


def remove(variant: Variant, family: int, before: State) -> None:
    """Take jump and chain away.  Raises FirewallError where the kernel refuses."""
    if variant == "legacy":
        legacy_table.remove(CHAIN, family, there=before.there, jumps=before.jumps)
        return
    lines = before.jumps * [f"-D PREROUTING -j {CHAIN}"]
    if before.there:
        lines += [f"-F {CHAIN}", f"-X {CHAIN}"]
    if lines:
        _restore(family, lines)


def _restore(family: int, lines: list[str]) -> None:
    text = "\n".join(["*raw", *lines, "COMMIT", ""])
    _called("nft", family, "restore", "--noflush", given=text)


def _called(variant: Variant, family: int, verb: str, *arguments: str, given: str = "") -> str:
    """Run iptables-VARIANT-VERB, or where a host has no such name, iptables-VERB; and return what it wrote."""
    name = _PROGRAM[family]
    program = find(f"{name}-{variant}-{verb}", f"{name}-{verb}")
    if program is None:
        raise FirewallError(f"the program {name}-{variant}-{verb} is missing: install the package iptables")
    done = run(program, *arguments, given=given)
    if done.status:
        raise _failure(name, done.error)
    return done.output


def _failure(name: str, error: str) -> FirewallError:
    said = " ".join(error.split()) or "no message"
    return FirewallError(missing_right("NET_ADMIN", "NET_RAW") or f"{name} failed: {said}")
