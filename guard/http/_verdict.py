"""The two questions that the page answers first: is there an attack, and does the guard do its work?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from guard.http._moment import LATELY, Moment
from guard.http._text import clock, many, number, span, text

FAILURES: Final = 30  # failed logins in `LATELY` minutes that are an attack even without a ban
SETTLES: Final = 5.0  # seconds that a ban may take on its way into the kernel before it is trouble
LAG: Final = 10.0  # seconds behind that are trouble
_MINUTE: Final = 60.0


class Verdict(NamedTuple):
    """One answer.  `level` is the name of its symbol and colour: well, attack, unknown, watch, trouble."""

    level: str
    word: str
    sentence: str
    more: tuple[str, ...] = ()


def attack(moment: Moment) -> Verdict:
    """Return whether there is an attack: a ban, or `FAILURES` failed logins, within the last minutes."""
    hour = moment.hour
    lately = [m for m in hour.minutes if m.at > moment.at - (LATELY + 1) * _MINUTE]
    failures, bans = sum(m.failures for m in lately), sum(m.bans for m in lately)
    young = moment.at - hour.minutes[0].at < LATELY * _MINUTE if hour.minutes else True
    within = "since the start" if young else f"in the last {LATELY} minutes"
    more: tuple[str, ...] = ()
    if hour.logins:
        again = many(hour.logins, "login", "logins")
        more = (
            f"{again} after failed ones in the last hour: an account may be stolen, the log’s findings name it",
        )
    sentence = f"{many(failures, 'failed login')} and {many(bans, 'new ban')} {within}."
    sentence = sentence[0].upper() + sentence[1:]
    sources = moment.status["sources"]
    if not any(source["up"] for source in sources):
        return Verdict(
            "unknown", "Not known", "No source of log lines is read: an attack would not show.", more
        )
    if bans or failures >= FAILURES:
        return Verdict("attack", "Under attack", sentence, more)
    return Verdict("well", "Quiet", sentence, more)


def guarding(moment: Moment) -> Verdict:
    """Return whether the guard does its work, and what is in its way."""
    troubles = tuple(_troubles(moment))
    wanted, gap = moment.wanted(), moment.gap()
    if moment.observing():
        decided = f"{many(wanted, 'ban')} decided, none enforced"
        sentence = f"{decided[0].upper()}{decided[1:]}: the configuration says firewall.backend = “none”."
        return Verdict("trouble" if troubles else "watch", "Only observing", sentence, troubles)
    if not gap:
        sentence = f"All {number(wanted)} bans are in force." if wanted > 1 else "The one ban is in force."
        sentence = sentence if wanted else "Nobody is banned at present."
    elif _open(moment):
        sentence = f"{number(gap)} of {many(wanted, 'ban')} {'is' if gap == 1 else 'are'} not in force."
    else:
        sentence = f"{many(gap, 'ban')} on the way into the kernel."
    return (
        Verdict("trouble", "In trouble", sentence, troubles)
        if troubles
        else Verdict("well", "Guarding", sentence)
    )


def _open(moment: Moment) -> bool:
    """Whether the gap is more than a ban on its way."""
    since = moment.gap_since
    return moment.gap() > 0 and (
        not moment.status["firewall"]["up"] or (since is not None and moment.at - since >= SETTLES)
    )


def _troubles(moment: Moment) -> Iterator[str]:
    """Yield what is wrong, fit for HTML."""
    status = moment.status
    firewall, store, fleet = status["firewall"], status["store"], status["fleet"]
    for source in status["sources"]:
        if not source["up"]:
            yield f"Source <b>{text(source['name'])}</b> is not read{_why(source['detail'])}"
        elif source["lag"] > LAG:
            yield f"Source <b>{text(source['name'])}</b> is {span(source['lag'])} behind"
    if not moment.observing():
        if not firewall["up"]:
            yield f"Decisions do not reach the kernel{_why(firewall['detail'])}"
        if _open(moment):
            since = moment.gap_since
            seen = "" if since is None else f", seen since {clock(since, moment.at)}"
            yield f"The gap is open: {many(moment.gap(), 'ban')} decided and not in force{seen}"
    if not store["up"]:
        yield f"The state is not saved{_why(store['detail'])}"
    if fleet is not None and not fleet["up"]:
        yield f"The fleet is out of reach, this node decides alone{_why(fleet['detail'])}"
    if not status["configuration"]["ok"]:
        yield "The configuration on disk has mistakes and is not taken: <code>mailward check</code>"


def _why(detail: str) -> str:
    return f": {text(detail)}" if detail else ""
