"""A ban in force and an offender, as they are kept and saved."""

from __future__ import annotations

import math
from typing import Any, Final

from mypy_extensions import mypyc_attr

from guard.bounded import Entry
from guard.model import Ban

BY_HAND: Final = ("manual", "deny")  # the administrator's own rules: they rest on no attempts
_NOTHING: Final[list[float]] = []  # of every ban that rests on none; a long deny list needs no list for each


def dump_ban(ban: Ban) -> list[object]:
    """Return a ban as JSON values."""
    until = None if math.isinf(ban.until) else ban.until
    return [ban.net, ban.at, until, ban.rule, ban.failures, ban.session_open, list(ban.evidence)]


def load_ban(values: list[Any]) -> Ban:
    """Return the ban that `dump_ban` gave."""
    net, at, until, rule, failures, session_open, evidence = values
    return Ban(net, at, math.inf if until is None else until, rule, failures, session_open, tuple(evidence))


@mypyc_attr(acyclic=True)
class Active(Entry):
    """A ban in force: the attempts that it rests on, and those since that could take their place."""

    __slots__ = ("ban", "folded", "lines", "spare", "times")

    def __init__(self, ban: Ban, times: list[float], lines: list[str]) -> None:
        self.ban = ban
        self.times = times
        self.lines = lines
        self.spare: list[float] = [] if times else _NOTHING
        self.folded = False  # a collective ban around it is enforced in its place

    def collective(self) -> bool:
        """Whether it rests on the bans inside its net, not on attempts or on the administrator's word."""
        return not self.times and self.ban.rule not in BY_HAND

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("ban", "times", "lines", "spare", "folded")

    def dump(self) -> list[object]:
        """Return the ban as JSON values."""
        values = super().dump()
        values[0] = dump_ban(self.ban)
        return values

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave."""
        values[0] = load_ban(values[0])
        if len(values) == 4:  # 0.1 folded nothing
            values.append(False)
        super().load(values)


@mypyc_attr(acyclic=True)
class Offender(Entry):
    """How often a net was banned, until when it is remembered."""

    __slots__ = ("bans", "last")

    def __init__(self, bans: int, last: float) -> None:
        self.bans = bans
        self.last = last  # end of the latest ban

    def worth_keeping(self, at: float) -> bool:
        """Repeat offenders outlive a flood of new ones."""
        return self.bans > 1

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("bans", "last")
