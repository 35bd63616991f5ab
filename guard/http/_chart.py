"""Charts of the last hour: a bar a minute, as SVG that stretches; its words stand beside it in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from guard.http._moment import MINUTES
from guard.http._text import clock, many, number, stamp

_WIDTH, _HEIGHT, _BAR, _GAP = 600, 100, 8, 2
_MINUTE: Final = 60.0


def top(highest: int) -> int:
    """Return where the scale ends: an even, round number that `highest` does not exceed, 4 at least."""
    power = 1
    while True:
        for step in (4, 6, 8, 10, 12, 16, 20, 24, 30):
            if step * power >= highest:
                return step * power
        power *= 10


def chart(key: str, title: str, one: str, points: Sequence[tuple[float, int]], now: float) -> str:
    """Return a figure of counts by minute, oldest first, the last still running; "" stands for nothing known."""
    end = now // _MINUTE * _MINUTE
    values = dict(points)
    highest = max(values.values(), default=0)
    scale = top(highest)
    total = sum(values.values())
    words = f"{many(total, one)} in the last hour"
    words = words[0].upper() + words[1:]
    if total:
        peak = next(at for at, n in points if n == highest)
        words += (
            f"; {number(highest)} at most, at {clock(peak, now)}; {number(values.get(end, 0))} in this minute"
        )
    bars: list[str] = []
    for i in range(MINUTES):
        at = end - (MINUTES - 1 - i) * _MINUTE
        n = values.get(at, 0)
        if n:
            height = max(1.5, n * _HEIGHT / scale)
            running = ' class="now"' if at == end else ""
            bars.append(
                f'<rect{running} x="{i * (_BAR + _GAP) + 1}" y="{_HEIGHT - height:.4g}" width="{_BAR}" height="{height:.4g}">'
                f"<title>{clock(at, now)}: {many(n, one)}</title></rect>"
            )
    first = min(values, default=end)
    blank = max(0, MINUTES - 1 - round((end - first) / _MINUTE)) * (_BAR + _GAP)
    unknown = (
        f'<rect class="unknown" width="{blank}" height="{_HEIGHT}"><title>before the start</title></rect>'
        if blank
        else ""
    )
    started = f'<p class="note">Counted since {stamp(first, clock(first, now))}.</p>' if blank else ""
    return f"""<figure class="card chart {key}">
<figcaption><h2 id="{key}">{title}</h2><p>{words}</p></figcaption>
<div class="plot"><span class="scale" aria-hidden="true">{number(scale)}</span>
<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{title}: {words}">
<path class="grid" d="M0 .5H{_WIDTH}M0 {_HEIGHT // 2}H{_WIDTH}"/>{unknown}{"".join(bars)}<path class="base" d="M0 {_HEIGHT - 0.5}H{_WIDTH}"/></svg>
<p class="axis" aria-hidden="true"><span>{clock(end - 59 * _MINUTE, now)}</span><span>{clock(end - 30 * _MINUTE, now)}</span><span>{clock(end, now)}</span></p></div>
{started}</figure>"""


def figures(points: Sequence[tuple[float, int, int]], now: float) -> str:
    """Return the same numbers as a table by five minutes, folded."""
    rows: dict[float, tuple[int, int]] = {}
    for at, failures, bans in points:
        start = at // 300 * 300
        before = rows.get(start, (0, 0))
        rows[start] = before[0] + failures, before[1] + bans
    body = "".join(
        f'<tr><th scope="row">{stamp(at, clock(at, now))}</th><td>{number(f)}</td><td>{number(b)}</td></tr>'
        for at, (f, b) in sorted(rows.items(), reverse=True)
    )
    return f"""<details id="figures" class="card"><summary>The last hour in figures</summary>
<table><caption>By five minutes, from the time on, newest first</caption>
<thead><tr><th scope="col">From</th><th scope="col">Failed logins</th><th scope="col">New bans</th></tr></thead>
<tbody>{body}</tbody></table></details>"""
