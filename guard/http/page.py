"""The page at `/`: what matters of the daemon's state for people without a dashboard.  Values in, bytes out.

HTML that needs no script: the one beside it (page.js) only fetches the page again.  No text of a log is on it; what
administrators and servers wrote is escaped (`guard.http._text.text`), and the policy of `HEADERS` lets nothing run
but our own two files.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from guard.http import _chart
from guard.http._moment import LATELY, MINUTES, Hour, Minute, Moment
from guard.http._text import clock, icon, large, many, number, span, stamp, text
from guard.http._verdict import LAG, Verdict, attack, guarding

__all__ = ["HEADERS", "LATELY", "MINUTES", "SHOWN", "Hour", "Minute", "Moment", "render"]

SHOWN: Final = 100  # bans in the table
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    f"Content-Security-Policy: {_POLICY}",
    "Referrer-Policy: no-referrer",
    "Cross-Origin-Opener-Policy: same-origin",
    "Cross-Origin-Resource-Policy: same-origin",
)
_RULES: Final = {
    "brute_force": "Brute force",
    "bad_neighbourhood": "Bad neighbourhood",
    "manual": "By hand",
}
# Symbols differ in shape, not in colour alone.
_SYMBOLS: Final = {
    "well": '<circle cx="12" cy="12" r="9"/><path d="m8 12.4 2.8 2.8L16.2 9.5"/>',
    "attack": '<path d="M12 2.8 4.5 5.6v5.6c0 4.7 3 8.3 7.5 10 4.5-1.7 7.5-5.3 7.5-10V5.6z"/><path d="m13 6.8-3.2 5.4h4.4L11 17.4"/>',
    "trouble": '<path d="M8.3 3h7.4L21 8.3v7.4L15.7 21H8.3L3 15.7V8.3z"/><path d="M12 7.5v5.4M12 16.2v.4"/>',
    "watch": '<path d="M2.5 12S6 5.8 12 5.8 21.5 12 21.5 12 18 18.2 12 18.2 2.5 12 2.5 12z"/><circle cx="12" cy="12" r="2.6"/>',
    "unknown": '<circle cx="12" cy="12" r="9" stroke-dasharray="3 2.6"/><path d="M9.4 9.4a2.7 2.7 0 1 1 3.7 2.9c-.8.3-1.1.8-1.1 1.6M12 16.6v.2"/>',
    "logo": '<path d="M12 2.8 4.5 5.6v5.6c0 4.7 3 8.3 7.5 10 4.5-1.7 7.5-5.3 7.5-10V5.6z"/><path d="M7.8 9.2h8.4v6H7.8z"/><path d="m7.8 9.6 4.2 3.2 4.2-3.2"/>',
}
_SPRITE: Final = "".join(
    f'<symbol id="sign-{name}" viewBox="0 0 24 24">{paths}</symbol>' for name, paths in _SYMBOLS.items()
)


def render(moment: Moment) -> bytes:
    """Return the page."""
    status, now = moment.status, moment.at
    asked, works = attack(moment), guarding(moment)
    host = text(moment.host)
    said = f"{asked.word}. {works.word}."
    minutes = moment.hour.minutes
    failures = _chart.chart(
        "failures", "Failed logins a minute", "failed login", [(m.at, m.failures) for m in minutes], now
    )
    bans = _chart.chart("bans", "New bans a minute", "new ban", [(m.at, m.bans) for m in minutes], now)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{asked.word} · {works.word} · {host} · Mailward</title>
<link rel="stylesheet" href="/page.css">
<link rel="icon" href="/page.svg" type="image/svg+xml">
<script src="/page.js" defer></script>
<noscript><meta http-equiv="refresh" content="60"></noscript>
</head>
<body>
<svg width="0" height="0" aria-hidden="true" class="sprite">{_SPRITE}</svg>
<a class="skip" href="#page">Skip to the state</a>
<header>
<p class="brand">{icon("logo")}<b>Mailward</b> <span>{host}</span></p>
<div class="fresh"><p id="fresh">As of {stamp(now, _seconds(now))}</p>
<button type="button" id="pause" hidden>Pause</button><a class="button" href="/">Refresh</a></div>
</header>
<p id="said" class="unseen" role="status"></p>
<main id="page" tabindex="-1" data-said="{said}">
<h1 class="unseen">State of {host}</h1>
<div class="verdicts">{_verdict("attack", "Attack", asked)}{_verdict("guard", "Guard", works)}</div>
{_steps(moment)}
<div class="charts">{failures}{bans}</div>
{_chart.figures(minutes, now)}
<div class="rest">
<div class="column">
{_sources(status["sources"])}
{_parts(moment)}
{_protocols(moment.hour.failures)}
{_fleet(status["fleet"])}
</div>
{_bans(moment)}
</div>
</main>
<footer id="foot"><p>Mailward {text(status["version"])}, process {number(status["pid"]).replace(",", "")}, started {_moment(status["started"], now)}. All times are UTC.</p>
<p><a href="/metrics">Metrics</a> <a href="/readyz">Readiness</a></p></footer>
</body>
</html>
""".encode()


def _verdict(key: str, title: str, verdict: Verdict) -> str:
    more = "".join(f"<li>{item}</li>" for item in verdict.more)
    return (
        f'<section class="card verdict {verdict.level}" aria-labelledby="{key}">{icon(verdict.level)}<div>'
        f'<h2 id="{key}"><span class="unseen">{title}: </span>{verdict.word}</h2><p>{verdict.sentence}</p>'
        f"{f'<ul>{more}</ul>' if more else ''}</div></section>"
    )


def _steps(moment: Moment) -> str:
    """The way from a failed login to the kernel: what was detected, decided, enforced, and what is missing."""
    status, hour = moment.status, moment.hour
    bans, dropped = status["bans"], status["firewall"]["dropped"]
    failed, decided = sum(m.failures for m in hour.minutes), sum(m.bans for m in hour.minutes)
    held, foreign = sum(bans["enforced"].values()), sum(bans["foreign"].values())
    gap, packets = moment.gap(), sum(drops["packets"] for drops in dropped.values())
    if moment.observing():
        apart, level = "nothing is enforced: only observing", "watch" if gap else "well"
    else:
        apart, level = (
            ("decided and not in force" if gap else "every ban is in force"),
            "trouble" if gap else "well",
        )
    cells = (
        ("detected", "Detected", number(failed), f"failed logins in the last hour, {number(status['attempts']['failures'])} in all", ""),
        ("decided", "Decided", number(moment.wanted()), f"bans wanted now, {number(decided)} new in the last hour", ""),
        ("enforced", "Enforced", number(held), f"nets in the kernel{f', {number(foreign)} of them not ours' if foreign else ''}", ""),
        (f"gap {level}", "Gap", number(gap), apart, icon(level)),
        ("dropped", "Dropped", large(packets), "packets of banned nets", ""),
    )  # fmt: skip
    items = "".join(
        f'<div class="{key}"><dt>{name}</dt><dd><b>{mark}{value}</b> <span>{words}</span></dd></div>'
        for key, name, value, words, mark in cells
    )
    return f'<section class="card" aria-labelledby="steps"><h2 id="steps" class="unseen">From detection to the kernel</h2><dl class="steps">{items}</dl></section>'


def _sources(sources: list[Mapping[str, Any]]) -> str:
    rows = []
    for source in sources:
        if not source["up"]:
            level, word = "trouble", "not read"
        elif source["lag"] > LAG:
            level, word = "trouble", "behind"
        else:
            level, word = "well", "read"
        lost = f", {number(source['lost'])} lost" if source["lost"] else ""
        detail = f" <small>{text(source['detail'])}</small>" if source["detail"] else ""
        rows.append(
            f'<tr class="{level}"><th scope="row">{text(source["name"])}{detail}</th><td class="state">{icon(level)}{word}{lost}</td>'
            f"<td>{span(source['lag'])}</td><td>{number(source['lines'])}</td></tr>"
        )
    body = "".join(rows) or '<tr><td colspan="4" class="none">There is no source.</td></tr>'
    return _table("sources", "Sources", "Where log lines come from, and how far behind they are",
                  ("Source", "State", "Lag", "Lines"), body)  # fmt: skip


def _parts(moment: Moment) -> str:
    status, now = moment.status, moment.at
    firewall, store, taken = status["firewall"], status["store"], status["configuration"]
    if moment.observing():
        wall, wall_level = "enforces nothing", "watch"
    else:
        wall, wall_level = ("enforces", "well") if firewall["up"] else ("does not enforce", "trouble")
    unparsed, hour = status["attempts"]["unparsed"], moment.hour.unparsed
    rows = [
        ("Firewall", text(firewall["backend"]), wall_level, wall),
        ("Store", text(store["kind"]), *(("well", "saved") if store["up"] else ("trouble", "not saved"))),
        ("Configuration", f"taken {_moment(taken['taken'], now)}", *(("well", "in use") if taken["ok"] else ("trouble", "has mistakes"))),
        ("Unreadable lines", f"{number(hour)} in the last hour, {number(unparsed)} in all", *(("watch", "formats changed?") if hour else ("well", "none new"))),
        ("Lines", f"{number(status['rates']['lines_per_second'])} a second", "", ""),
    ]  # fmt: skip
    body = "".join(
        f'<tr class="{level}"><th scope="row">{name}</th><td>{value}</td><td class="state">{icon(level) if level else ""}{word}</td></tr>'
        for name, value, level, word in rows
    )
    return _table("parts", "Parts", "The guard’s own parts", ("Part", "What", "State"), body)


def _protocols(failures: Mapping[str, int]) -> str:
    ranked = sorted(((n, name) for name, n in failures.items() if n), reverse=True)[:8]
    total = max(1, sum(failures.values()))
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{number(n)}</td><td class="share"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{max(0.5, n * 100 / total):.3g}" height="8"/></svg><span>{f"{n * 100 // total}" if n * 100 >= total else "&lt;1"} %</span></td></tr>'
        for n, name in ranked
    )
    body = body or '<tr><td colspan="3" class="none">No login failed in the last hour.</td></tr>'
    caption = "Failed logins in the last hour by protocol"
    return _table("protocols", "Protocols", caption, ("Protocol", "Failed", "Share"), body)


def _fleet(fleet: Mapping[str, Any] | None) -> str:
    if fleet is None:
        return ""
    level, word = ("well", "in touch") if fleet["up"] else ("trouble", "out of reach")
    body = "".join(
        f'<tr><th scope="row">{text(node["name"])}{" <small>this one</small>" if node["here"] else ""}</th>'
        f"<td>{span(node['age'])} ago</td><td>{span(node['lag'])}</td><td>{number(node['pending'])}</td></tr>"
        for node in fleet["nodes"]
    )
    body = body or '<tr><td colspan="4" class="none">No node was heard of yet.</td></tr>'
    note = f'<p class="note {level}">{icon(level)}{word}, {many(fleet["pending"], "event")} to tell, {number(fleet["lost"])} lost</p>'
    return _table(
        "fleet", "Fleet", "Hosts that share what they see", ("Node", "Seen", "Lag", "To tell"), body, note
    )


def _bans(moment: Moment) -> str:
    now, bans = moment.at, moment.bans
    others = moment.wanted() - moment.listed
    notes = []
    if len(bans) < others:
        notes.append(
            f"The newest {number(len(bans))} of {number(others)}; <code>mailward bans</code> lists all."
        )
    if moment.listed:
        notes.append(
            f"Besides these, {many(moment.listed, 'ban')} of the deny list: <code>mailward deny</code>."
        )
    note = f'<p class="note">{" ".join(notes)}</p>' if notes else ""
    body = "".join(_ban(ban, now) for ban in bans)
    body = body or '<tr><td colspan="5" class="none">Nobody is banned.</td></tr>'
    return _table("active", "Bans in force" if not moment.observing() else "Bans decided",
                  "Who is shut out, why and until when, newest first",
                  ("Net", "Reason", "Since", "Ends", "State"), body, note, long=len(bans) > 10)  # fmt: skip


def _ban(ban: Mapping[str, Any], now: float) -> str:
    rule = text(_RULES.get(ban["rule"], ban["rule"]))
    words = [f"{many(ban['failures'], 'failed login')}"] if ban["failures"] else []
    words += [text(ban["reason"])] if ban["reason"] else []
    words += [f"from {text(ban['node'])}"] if ban["node"] else []
    more = f" <small>{', '.join(words)}</small>" if words else ""
    ends = "never" if ban["left"] is None else f"in {span(ban['left'])}"
    ends = ends if ban["until"] is None else stamp(_seconds_of(ban["until"]), ends)
    held = f"{icon('well')}in force" if ban["enforced"] else f"{icon('trouble')}not in force"
    return (
        f'<tr><th scope="row">{text(ban["net"])}</th><td class="why">{rule}{more}</td>'
        f'<td>{_moment(ban["at"], now)}</td><td>{ends}</td><td class="state {"well" if ban["enforced"] else "trouble"}">{held}</td></tr>'
    )


def _table(
    key: str,
    title: str,
    caption: str,
    columns: tuple[str, ...],
    body: str,
    note: str = "",
    *,
    long: bool = False,
) -> str:
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    table = f"<table><caption>{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    if long:  # it scrolls where there is room for two columns: so the keyboard must reach it
        table = f'<div class="scroll" tabindex="0" role="group" aria-labelledby="{key}" id="{key}-table">{table}</div>'
    return f'<section class="card {key}" aria-labelledby="{key}"><h2 id="{key}">{title}</h2>{note}{table}</section>'


def _seconds_of(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()


def _moment(when: str, now: float) -> str:
    at = _seconds_of(when)
    return stamp(at, clock(at, now))


def _seconds(at: float) -> str:
    return f"{clock(at, at)}:{int(at) % 60:02d}"
