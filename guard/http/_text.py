"""Words and numbers for the page.  Every text that is not the page's own passes through `text`."""

from __future__ import annotations

import time
from html import escape
from typing import Final

from guard.model import readable

_LONGEST: Final = 300  # characters of any text that is not our own
_DAY: Final = 86400.0


def text(value: object) -> str:
    """Return a value fit for HTML, in an element or in quotes: nothing of it is markup, control or direction."""
    words = readable(str(value))
    return escape(words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…")


def number(n: float) -> str:
    """Return a count with its thousands apart."""
    return f"{n:,.0f}"


def large(n: int) -> str:
    """Return a count that may have no end in few characters."""
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if n >= size:
            return f"{n / size:.3g} {unit}" if n < 1000 * size else f"{n // size:,} {unit}"
    return number(n)


def many(n: int, one: str, more: str = "") -> str:
    """Return `n` of something in words."""
    return f"{number(n) if n else 'no'} {one if n == 1 else more or one + 's'}"


def span(seconds: float) -> str:
    """Return a time span, short."""
    for size, unit, above in (
        (1, "s", 100),
        (60, "min", 100 * 60),
        (3600, "h", 48 * 3600),
        (_DAY, "days", 1e12),
    ):
        if seconds < above:
            return f"{seconds / size:.0f} {unit}"
    return "ages"


def clock(at: float, now: float) -> str:
    """Return a time of day in UTC; with its date where that is not today."""
    near = time.gmtime(at)[:3] == time.gmtime(now)[:3]
    return time.strftime("%H:%M" if near else "%-d %b %H:%M", time.gmtime(at))


def stamp(at: float, words: str) -> str:
    """Return `words` as the element of a time."""
    return f'<time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))}">{words}</time>'


def icon(name: str, label: str = "") -> str:
    """Return one of the page's symbols; without a label it says nothing that the text beside it does not."""
    says = f'role="img" aria-label="{label}"' if label else 'aria-hidden="true"'
    return f'<svg class="icon" {says}><use href="#sign-{name}"/></svg>'
