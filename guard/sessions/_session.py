"""The ledger of one Dovecot session: what each kind of witness has said, and the best estimate from all of them."""

from __future__ import annotations

from typing import Any, Final

from mypy_extensions import mypyc_attr

from guard.bounded import Entry
from guard.model import MECHANISMS

_NAMES: Final = 16
_STAMPS: Final = 1024
_UNKNOWN: Final = 128
LIFE: Final = 3600.0
_TOLD: Final = 23  # the place of what came with the reports among the values saved


@mypyc_attr(acyclic=True)
class Told(Entry):
    """What Dovecot's policy reports say (guard/sessions/policy.py), and its log lines of what nobody judged."""

    __slots__ = ("heard", "lost", "passed", "refused", "rejected", "reported")

    def __init__(self) -> None:
        self.heard = 0  # reports of attempts that did not succeed
        self.reported = 0  # those that were judged and failed
        self.rejected = 0  # those that a policy server refused: ours, the client is banned
        self.refused = 0  # lines of what was refused before any judgement, for that reason or another
        self.lost = 0  # lines that a report or a question could not be posted
        self.passed: str | None = None  # the user who got in

    def internal(self) -> int:
        """Return how many attempts the backend could not judge, as reports say."""
        return self.heard - self.reported - self.rejected

    def unjudged(self) -> int:
        """Return how many attempts were refused before any judgement."""
        return max(self.refused, self.rejected)

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return ("heard", "reported", "rejected", "refused", "lost", "passed")


@mypyc_attr(acyclic=True)
class Session(Entry):
    """One session's witnesses.  `counted` is what has been reported as attempts so far."""

    __slots__ = (
        "anonymous",
        "authenticate",
        "cause",
        "counted",
        "ended",
        "errors",
        "first",
        "held",
        "ip",
        "last",
        "lines",
        "name",
        "nameless",
        "names",
        "odd",
        "protocol",
        "reason",
        "said",
        "stamp",
        "stamps",
        "success",
        "told",
        "unknown",
        "user",
    )

    def __init__(self, ip: str, at: float) -> None:
        self.ip = ip
        self.first = at
        self.last = at
        self.protocol = "unknown"
        self.user: str | None = None
        self.reason = "unspecified"
        self.counted = 0
        self.stamp = at  # of the first attempt counted, and of the others, so that they can be taken back
        self.stamps: list[float] | None = None
        self.name = ""  # the first passdb or mechanism that wrote lines, and how many
        self.lines = 0
        self.names: dict[str, int] | None = None  # the others'
        self.held: dict[str, int] | None = None  # of all of them, those that a success may still explain
        self.unknown: dict[str, int] | None = None  # "passdb user" -> lines that call the user unknown
        self.odd = 0  # lines whose user is "?"
        self.nameless = 0  # lines of a worker that names no passdb
        self.authenticate = 0  # 2.4: `Authenticate X failed` lines: cancelled or refused, not judged
        self.errors = 0  # lines of a broken password database
        self.anonymous = 0  # lines without user and address that this session's N explains
        self.ended = ""  # "end_2.3", "end_2.4" or ""
        self.cause = ""  # failed | aborted | waiting | other
        self.said = 0  # N
        self.success = False
        self.told: Told | None = None  # of most sessions nothing is

    def hear(self, passdb: str, user: str | None, reason: str, at: float) -> None:
        """Note one auth line."""
        self.last = at
        if user is None:
            self.odd += 1
        elif not passdb:
            self.nameless += 1
        else:
            self._add(passdb)
            if reason == "unknown_user":
                self._unknown(f"{passdb} {user}")
        self.user = user
        self.reason = reason

    def _add(self, passdb: str) -> None:
        if not self.name:
            self.name = passdb
        if self.name == passdb:
            self.lines += 1
            return
        if self.names is None:
            self.names = {}
        if passdb in self.names or len(self.names) < _NAMES:
            self.names[passdb] = self.names.get(passdb, 0) + 1
        else:
            self.nameless += 1

    def _unknown(self, key: str) -> None:
        if self.unknown is None:
            self.unknown = {}
        if key in self.unknown or len(self.unknown) < _UNKNOWN:
            self.unknown[key] = self.unknown.get(key, 0) + 1

    def by_name(self) -> dict[str, int]:
        """Return the auth lines by passdb or mechanism."""
        lines = {} if self.names is None else dict(self.names)
        if self.lines:
            lines[self.name] = self.lines
        return lines

    def hold(self, passdb: str, n: int) -> bool:
        """Hold `n` more lines of a passdb back (negative: let go); whether there were that many."""
        if self.held is None:
            self.held = {}
        held = self.held.get(passdb, 0) + n
        if held < 0:
            return False
        self.held[passdb] = held
        return True

    def stamped(self, at: float) -> None:
        """Note the time of one more attempt counted."""
        self.counted += 1
        if self.counted == 1:
            self.stamp = at
        elif self.stamps is None:
            self.stamps = [at]
        elif len(self.stamps) < _STAMPS:
            self.stamps.append(at)

    def unstamped(self) -> float:
        """Take the newest attempt back; return its time."""
        self.counted -= 1
        return self.stamps.pop() if self.stamps else self.stamp

    def times(self) -> list[float]:
        """Return the times of the attempts counted."""
        if not self.counted:
            return []
        return [self.stamp] if self.stamps is None else [self.stamp, *self.stamps]

    def attempts(self, per_attempt: dict[str, int], *, chained: bool) -> int:
        """Return how many attempts the auth lines speak of: the most that one passdb speaks of, plus what none saw."""
        if self.names is None and self.held is None and not per_attempt:
            return self.lines + self.odd + self.nameless
        most = alone = passdbs = 0
        names = self.by_name()
        for name in names:
            if name not in MECHANISMS:
                passdbs += 1
        chain = chained or passdbs > 1
        for name, heard in names.items():
            n = heard if self.held is None else heard - self.held.get(name, 0)
            if name in MECHANISMS and not chain:
                alone += n
            else:
                k = per_attempt.get(name, 1)
                most = max(most, (n + k - 1) // k)
        return most + alone + self.odd + self.nameless

    def before_success(self, user: str | None, per_attempt: dict[str, int], *, chained: bool) -> int:
        """Return the failures before a success: without the lines that the chain wrote for the login that went through."""
        rest: list[int] = []
        alone = passdbs = 0
        for name, n in self.by_name().items():
            left = n if self.unknown is None else n - self.unknown.get(f"{name} {user}", 0)
            if name in MECHANISMS:
                alone += left
            else:
                passdbs += 1
                if left > 0:
                    k = per_attempt.get(name, 1)
                    rest.append((left + k - 1) // k)
        if chained or passdbs > 1:
            if alone > 0:
                rest.append(alone)
            return (min(rest) if rest else 0) + self.odd + self.nameless
        return (max(rest) if rest else 0) + alone + self.odd + self.nameless

    def estimate(self, per_attempt: dict[str, int], *, chained: bool, verbose: bool) -> int:
        """Return the best estimate of this session's failed attempts from all that was said up to now."""
        told = self.told
        if told is not None and told.passed is not None:
            return max(self.before_success(told.passed, per_attempt, chained=chained), self.by_reports())
        lines = self.attempts(per_attempt, chained=chained)
        if told is None or not told.heard:
            return self._by_lines(lines, verbose=verbose) if self.ended else lines
        reported = self.by_reports()
        if not self.ended:
            return max(lines, reported)
        # Where each attempt is reported, the end line's N adds only what could not be.
        seen = 0 if not verbose else min(lines, self._judged()) if self.ended == "end_2.3" else lines
        return max(
            reported, min(self._by_lines(lines, verbose=verbose), max(seen, reported + told.lost)), seen
        )

    def by_reports(self) -> int:
        """Return how many attempts were reported as failed; 2.3 does not say there that the backend was at fault."""
        told = self.told
        if told is None:
            return 0
        return told.reported - max(0, min(told.reported, self.errors - told.internal()))

    def hearing(self) -> Told:
        """Return what was told beside the lines of attempts."""
        if self.told is None:
            self.told = Told()
        return self.told

    def _judged(self) -> int:
        """Return N without what was refused before any judgement."""
        return self.said if self.told is None else max(0, self.said - self.told.unjudged())

    def _by_lines(self, lines: int, *, verbose: bool) -> int:
        """Return what the lines of a session that has ended say alone."""
        said = self._judged()
        if not verbose:  # N is the only witness
            if self.cause == "failed":
                return said
            return max(0, said - 1) if self.cause in ("aborted", "waiting") else 0
        if self.ended == "end_2.3":
            # N also counts what was cancelled; auth lines that name nobody may explain the rest.
            return min(lines, said) + self.anonymous if self.said else lines
        if self.cause == "other":
            return lines
        return max(lines, said - self.authenticate - self.errors - (1 if self.cause == "waiting" else 0))

    def fields(self) -> tuple[str, ...]:
        """Return what is saved."""
        return (
            "ip",
            "first",
            "last",
            "protocol",
            "user",
            "reason",
            "counted",
            "stamp",
            "stamps",
            "name",
            "lines",
            "names",
            "held",
            "unknown",
            "odd",
            "nameless",
            "authenticate",
            "errors",
            "anonymous",
            "ended",
            "cause",
            "said",
            "success",
            "told",
        )

    def dump(self) -> list[object]:
        """Return the session as JSON values."""
        values = super().dump()
        values[_TOLD] = None if self.told is None else self.told.dump()
        return values

    def load(self, values: list[Any]) -> None:
        """Take the values that `dump` gave; a state of before the reports has none of theirs."""
        told: Told | None = None
        if len(values) > _TOLD and values[_TOLD] is not None:
            told = Told()
            told.load(values[_TOLD])
        super().load([*values[:_TOLD], told])
