"""Which regular expressions can take more than linear time: what `re` parsed them into tells.

Two shapes are refused (law 4): an unbounded repeat within another, and two unbounded repeats that follow each
other with nothing compulsory between while one character fits both.  A possessive repeat (`a++`) and an atomic
group (`(?>a+)`) give nothing back, so they may stand first of a pair, and within or around another repeat.
"""

from __future__ import annotations

import re
from re import _constants as op  # type: ignore[attr-defined]  # private, and the only tree there is
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

Characters = frozenset[int]

# Code points that stand for all: Latin text, a space, a digit and a letter beyond it, an undecodable byte.
_EVERY = frozenset(range(0x180)) | {0x2003, 0x0663, 0x4E2D, 0xDCE9}
_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)


class Shape(NamedTuple):
    """What a part of a pattern looks like from its two sides."""

    empty: bool  # may match nothing
    first: list[Characters]  # the unbounded repeats it may begin with
    last: list[Characters]  # the unbounded repeats it may end with, and that give back
    all: Characters  # every character it may hold
    unbounded: bool  # holds an unbounded repeat that gives back


class _Reader:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.dangers: list[str] = []

    def one(self, code: Any, value: Any) -> Characters | None:
        """Return what a node for one character fits, None for any other node."""
        if code is op.LITERAL:
            fits = {value}
        elif code is op.NOT_LITERAL:
            fits = set(_EVERY - {value})
        elif code is op.ANY:
            fits = set(_EVERY if self.flags & re.DOTALL else _EVERY - {10})
        elif code is op.RANGE:
            fits = {c for c in _EVERY | {*value} if value[0] <= c <= value[1]}
        elif code is op.CATEGORY:
            kind = re.compile(_CATEGORIES[value], re.ASCII if self.flags & re.ASCII else 0)
            fits = {c for c in _EVERY if kind.match(chr(c))}
        elif code is op.IN:
            fits = {c for item in value if item[0] is not op.NEGATE for c in self.one(*item) or ()}
            if value[0][0] is op.NEGATE:
                fits = set(_EVERY - fits)
        else:
            return None
        if self.flags & re.IGNORECASE:
            fits |= {
                ord(other) for c in fits for other in (chr(c).lower(), chr(c).upper()) if len(other) == 1
            }
        return frozenset(fits)

    def sequence(self, nodes: Any) -> Shape:
        first: list[Characters] = []
        last: list[Characters] = []
        every: Characters = frozenset()
        empty, unbounded = True, False
        for node in nodes:
            shape = self.node(*node)
            self.follow(last, shape.first)
            if empty:
                first += shape.first
            last = shape.last + (last if shape.empty else [])
            empty &= shape.empty
            every |= shape.all
            unbounded |= shape.unbounded
        return Shape(empty, first, last, every, unbounded)

    def follow(self, before: list[Characters], after: list[Characters]) -> None:
        for common in (one & other for one in before for other in after):
            if common:
                self.dangers.append(f"adjacent unbounded repeats share {chr(min(common, key=_plainness))!r}")

    def node(self, code: Any, value: Any) -> Shape:
        fits = self.one(code, value)
        if fits is not None:
            return Shape(empty=False, first=[], last=[], all=fits, unbounded=False)
        if code in _REPEATS:
            return self.repeat(code, *value)
        if code is op.SUBPATTERN:
            return self.sequence(value[3])
        if code is op.ATOMIC_GROUP:
            return self.sequence(value)._replace(last=[], unbounded=False)
        if code is op.BRANCH:
            return self.either([self.sequence(branch) for branch in value[1]])
        if code is op.GROUPREF_EXISTS:
            return self.either([self.sequence(branch or ()) for branch in value[1:]])
        if code in (op.ASSERT, op.ASSERT_NOT):
            self.sequence(value[1])
        elif code is op.GROUPREF:  # repeats whatever the group held
            return Shape(empty=True, first=[], last=[], all=_EVERY, unbounded=False)
        elif code is not op.AT:
            raise NotImplementedError(code)
        return Shape(empty=True, first=[], last=[], all=frozenset(), unbounded=False)

    def either(self, shapes: list[Shape]) -> Shape:
        return Shape(
            any(shape.empty for shape in shapes),
            [one for shape in shapes for one in shape.first],
            [one for shape in shapes for one in shape.last],
            frozenset().union(*(shape.all for shape in shapes)),
            any(shape.unbounded for shape in shapes),
        )

    def repeat(self, code: Any, least: int, most: int, nodes: Any) -> Shape:
        body = self.sequence(nodes)
        unbounded = most is op.MAXREPEAT
        gives_back = code is not op.POSSESSIVE_REPEAT
        if most > 1:
            self.follow(body.last, body.first)  # the end of one turn meets the start of the next
        if unbounded and gives_back and body.unbounded:
            self.dangers.append("an unbounded repeat within another")
        shape = Shape(least == 0 or body.empty, body.first, body.last, body.all, body.unbounded)
        if unbounded:
            shape = shape._replace(first=[*body.first, body.all], last=[*body.last, body.all], unbounded=True)
        return shape if gives_back else shape._replace(last=[], unbounded=False)


def _plainness(code: int) -> tuple[bool, int]:
    return not chr(code).isalnum(), code


def _tree(pattern: re.Pattern[Any]) -> Any:
    return parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)


def anchored(pattern: re.Pattern[Any]) -> bool:
    r"""Return whether `pattern` as a whole stands between `\A` and `\Z`."""
    tree = _tree(pattern)
    ends = (op.AT, op.AT_BEGINNING_STRING), (op.AT, op.AT_END_STRING)
    return len(tree) > 1 and (tree[0], tree[-1]) == ends


def dangers(pattern: re.Pattern[Any]) -> list[str]:
    """Return what could make `pattern` slow."""
    reader = _Reader(pattern.flags)
    reader.sequence(_tree(pattern))
    return reader.dangers
