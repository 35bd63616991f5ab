"""Our sets of ipset(8), in which either variant of iptables looks a client up.

    mailward4, mailward6   hash:net, elements with their own timeout: a ban ends without us
    mailward_ports         bitmap:port, what a ban closes

hash:net serves addresses and nets alike (100,000 addresses load as fast as into hash:ip), and nets that overlap
are elements of their own: an unban of the inner one leaves the outer one, and the other way round.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from guard.firewall import FirewallError
from guard.firewall.permission import missing_right
from guard.firewall.process import find, run

if TYPE_CHECKING:
    from collections.abc import Iterable

SETS: Final = {4: "mailward4", 6: "mailward6"}
PORTS: Final = "mailward_ports"
LONGEST: Final = 2_147_483  # seconds, 24.8 days: the kernel counts milliseconds in 31 bits
FULL: Final = "the set is full"
GONE: Final = "the set is gone, something destroyed it: open() makes it again"

_FAMILY: Final = {4: "inet", 6: "inet6"}
_WIDTH: Final = {4: "/32", 6: "/128"}
_LINE: Final = re.compile(r"Error in line ([0-9]+): (.*)")
_PLAIN: Final = (("is full", FULL), ("does not exist", GONE))
_MODULES: Final = "the kernel needs ip_set, ip_set_hash_net, ip_set_bitmap_port and xt_set"


class Member(NamedTuple):
    """One element: its net, and its remaining seconds, rounded down.

    An `exception` (nomatch) is the contrary of a ban: it lets a net through that a wider one shuts out.
    """

    net: str
    seconds: float
    exception: bool


class Failure(NamedTuple):
    """Which line, counted from 0, was the first that could not be done, and why."""

    line: int
    reason: str


def creation(family: int, size: int) -> str:
    """Return the line that makes the set of a family; the hash grows by itself up to `size` elements."""
    return f"create {SETS[family]} hash:net family {_FAMILY[family]} maxelem {size} timeout 0"


def addition(family: int, net: str, seconds: float) -> str:
    """Return the line that puts a net in, or sets its end anew.

    Rounded up to whole seconds.  What is longer than the kernel can count gets no end there: a ban may outlive
    its decision until somebody unbans or reconciles, but must never be shorter.
    """
    timeout = math.ceil(seconds) if seconds <= LONGEST else 0
    return f"add {SETS[family]} {net} timeout {timeout}"


def deletion(family: int, net: str) -> str:
    """Return the line that takes a net out; no error where it is absent."""
    return f"del {SETS[family]} {net}"


def restore(lines: Iterable[str]) -> Failure | None:
    """Do `lines` in one process, what is there or absent already being no error; return the first that failed.

    Those after it were not done, those before it perhaps (ipset sends them in messages of many).
    Raises FirewallError where it is no single line's fault.
    """
    done = run(_program(), "restore", "-exist", given="\n".join([*lines, ""]))
    if not done.status:
        return None
    found = _LINE.search(done.error)
    if found is None or "Kernel error" in found[2]:
        raise _failure(done.error)
    reason = next((plain for word, plain in _PLAIN if word in found[2]), found[2])
    return Failure(int(found[1]) - 1, reason)


def names() -> set[str]:
    """Return the names of all sets there are, ours and others'."""
    return set(_asked("list", "-name").split())


def members(family: int) -> list[Member]:
    """Return what the set of a family holds.  Raises FirewallError where it is gone."""
    width = _WIDTH[family]
    found = []
    for line in _asked("save", SETS[family]).splitlines():
        if not line.startswith("add "):
            continue
        _, _, net, *options = line.split()
        seconds = float(options[1]) if options[:1] == ["timeout"] else 0.0
        found.append(Member(net if "/" in net else net + width, seconds or math.inf, "nomatch" in options))
    return found


def ports() -> set[int]:
    """Return the ports in the set of ports.  Raises FirewallError where it is gone."""
    lines = (line.split() for line in _asked("save", PORTS).splitlines())
    return {int(words[2]) for words in lines if words[:1] == ["add"]}


def destroy(name: str) -> str | None:
    """Destroy a set; return why not.  A set that is absent is destroyed."""
    done = run(_program(), "destroy", name)
    if not done.status or "does not exist" in done.error:
        return None
    return _said(done.error)


def _asked(*arguments: str) -> str:
    done = run(_program(), *arguments)
    if done.status:
        raise _failure(done.error)
    return done.output


def _program() -> str:
    program = find("ipset")
    if program is None:
        raise FirewallError("the program ipset is missing: install the package ipset")
    return program


def _failure(error: str) -> FirewallError:
    said = _said(error)
    if "does not exist" in said:
        return FirewallError(GONE)
    return FirewallError(missing_right() or f"ipset failed ({said}): {_MODULES}")


def _said(error: str) -> str:
    """Return the message without the program's name and version."""
    return error.strip().partition(": ")[2] or "no message"
