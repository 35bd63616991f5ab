"""What the page says: of an attack, of none, of trouble; and that no text of others becomes markup."""

from __future__ import annotations

import html.parser
import math
from typing import Any

import pytest

from guard.http import _chart
from guard.http._text import large, many, span, text
from guard.http.page import SHOWN, Hour, Minute, Moment, render
from guard.reader import when

NOW = 1_764_105_000.0  # 2025-11-25 21:10 UTC
START = NOW // 60 * 60
VOID = {"meta", "link", "br"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[31m\x00\udcff&lt;"


class Reader(html.parser.HTMLParser):
    """Holds what a browser would see: elements that are closed as they were opened, attributes, text."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == []

    def handle_decl(self, decl: str) -> None:
        assert decl == "DOCTYPE html"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._apart(tag)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        self._apart(tag)

    def _apart(self, tag: str) -> None:
        if tag not in {"b", "code", "time", "small"}:
            self.words.append(" ")

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def status(**other: Any) -> dict[str, Any]:
    """Return a `Status` of docs/json.md: all is well, nobody is banned."""
    none = {"ipv4": 0, "ipv6": 0}
    values: dict[str, Any] = {
        "version": "0.1.0", "pid": 12345, "started": when(NOW - 86400),
        "sources": [{"name": "mail", "up": True, "lag": 0.4, "lost": 0, "detail": "/var/log/mail.log", "lines": 1204332}],
        "rates": {"lines_per_second": 41.2, "failures_per_minute": 3.2},
        "attempts": {"failures": 0, "successes": 9, "unjudged": 0, "unparsed": 0},
        "bans": {"wanted": none, "enforced": none, "foreign": none},
        "firewall": {"backend": "nftables", "up": True, "detail": "", "dropped": {"ipv4": {"packets": 1234, "bytes": 1}}},
        "store": {"kind": "sqlite", "up": True, "detail": ""}, "fleet": None,
        "configuration": {"taken": when(NOW - 3600), "ok": True},
    }  # fmt: skip
    return values | other


def counts(wanted: int, enforced: int, foreign: int = 0) -> dict[str, Any]:
    return {
        "wanted": {"ipv4": wanted, "ipv6": 0},
        "enforced": {"ipv4": enforced, "ipv6": 0},
        "foreign": {"ipv4": foreign},
    }


def ban(net: str, **other: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "net": net, "at": when(NOW - 60), "rule": "brute_force", "failures": 5, "until": when(NOW + 3540), "left": 3540,
        "enforced": True, "reason": None, "node": None,
    }  # fmt: skip
    return values | other


def hour(failures: int = 0, bans: int = 0, minutes: int = 60, **other: Any) -> Hour:
    """Return an hour in whose last minute that was counted."""
    before = [Minute(START - 60 * i, 0, 0) for i in range(minutes - 1, 0, -1)]
    values: dict[str, Any] = {"failures": {"imap": failures}, "unparsed": 0, "logins": 0}
    return Hour(minutes=[*before, Minute(START, failures, bans)], **(values | other))


def read(hour: Hour, *bans: dict[str, Any], **other: Any) -> Reader:
    more: dict[str, Any] = {key: other.pop(key) for key in ("host", "listed", "gap_since") if key in other}
    return Reader(
        render(Moment(at=NOW, status=status(**other), hour=hour, bans=bans, **({"host": "mx1"} | more)))
    )


def test_a_quiet_night():
    page = read(hour())
    assert "Quiet No failed logins and no new bans in the last 10 minutes." in page.text
    assert "Guarding Nobody is banned at present." in page.text
    assert "Nobody is banned." in page.text
    assert page.named("main")[0]["data-said"] == "Quiet. Guarding."


def test_an_attack_that_is_held():
    page = read(
        hour(250, 3), ban("198.51.100.7/32"), ban("2001:db8:1:2::/64", failures=12), bans=counts(2, 2)
    )
    assert "Under attack 250 failed logins and 3 new bans in the last 10 minutes." in page.text
    assert "All 2 bans are in force." in page.text
    assert "198.51.100.7/32 Brute force 5 failed logins 21:09 in 59 min in force" in page.text
    assert "2001:db8:1:2::/64 Brute force 12 failed logins" in page.text
    assert "imap 250" in page.text


@pytest.mark.parametrize(
    ("failures", "bans", "word"),
    [(29, 0, "Quiet"), (30, 0, "Under attack"), (5, 1, "Under attack"), (0, 0, "Quiet")],
)
def test_what_counts_as_an_attack(failures, bans, word):
    assert read(hour(failures, bans)).named("main")[0]["data-said"] == f"{word}. Guarding."


def test_an_attack_is_over_ten_minutes_later():
    minutes = [Minute(START - 60 * i, 500 if i == 11 else 0, 9 if i == 11 else 0) for i in range(59, -1, -1)]
    assert "Quiet" in read(Hour(minutes, {}, 0, 0)).text
    minutes[-11] = Minute(START - 600, 0, 1)  # it reached into the ten minutes
    assert "Under attack" in read(Hour(minutes, {}, 0, 0)).text


def test_without_a_source_it_does_not_say_that_all_is_quiet():
    down = [{"name": "mail", "up": False, "lag": 9.0, "lost": 0, "detail": "Permission denied", "lines": 0}]
    page = read(hour(), sources=down)
    assert "Not known" in page.text
    assert "Quiet" not in page.text
    assert "Source mail is not read: Permission denied" in page.text


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            {"firewall": {"backend": "nftables", "up": False, "detail": "no right", "dropped": {}}},
            "Decisions do not reach the kernel: no right",
        ),
        (
            {"store": {"kind": "sqlite", "up": False, "detail": "disk full"}},
            "The state is not saved: disk full",
        ),
        (
            {"configuration": {"taken": when(NOW), "ok": False}},
            "has mistakes and is not taken: mailward check",
        ),
        (
            {"fleet": {"up": False, "detail": "refused", "pending": 7, "lost": 0, "nodes": []}},
            "this node decides alone: refused",
        ),
        (
            {"sources": [{"name": "mail", "up": True, "lag": 44.0, "lost": 2, "detail": "", "lines": 1}]},
            "Source mail is 44 s behind",
        ),
    ],
)
def test_what_is_in_the_way_stands_at_the_top(other, says):
    page = read(hour(), **other)
    assert "In trouble" in page.text
    assert says in page.text


def test_a_ban_on_its_way_is_no_trouble_yet_and_an_open_gap_is():
    fresh = read(hour(9, 3), bans=counts(3, 2), gap_since=NOW - 1)
    assert "1 ban on the way into the kernel." in fresh.text
    assert "In trouble" not in fresh.text
    open_ = read(hour(9, 3), bans=counts(3, 2), gap_since=NOW - 60)
    assert "1 of 3 bans is not in force." in open_.text
    assert "The gap is open: 1 ban decided and not in force, seen since 21:09" in open_.text


def test_nets_that_nobody_decided_do_not_close_the_gap():
    page = read(hour(9, 3), bans=counts(3, 3, foreign=1), gap_since=NOW - 60)
    assert "1 of 3 bans is not in force." in page.text
    assert "nets in the kernel, 1 of them not ours" in page.text


def test_who_only_observes_reads_that_nobody_is_banned():
    firewall = {"backend": "none", "up": False, "detail": "", "dropped": {}}
    page = read(hour(9, 3), bans=counts(3, 0), firewall=firewall)
    assert "Only observing 3 bans decided, none enforced" in page.text
    assert "In trouble" not in page.text


def test_a_stolen_account_is_told_without_its_name():
    assert "1 login after failed ones in the last hour" in read(hour(4, logins=1)).text


def test_no_text_of_others_becomes_markup():
    ours = {name for name, _ in read(hour(3), ban("198.51.100.7/32", reason="x", node="mx2")).elements}
    fleet = {"up": False, "detail": HOSTILE, "pending": 1, "lost": 0,
             "nodes": [{"name": HOSTILE, "here": False, "age": 1.0, "lag": 0.0, "pending": 0}]}  # fmt: skip
    page = read(
        hour(3)._replace(failures={HOSTILE: 3}),
        ban("198.51.100.7/32", reason=HOSTILE, node=HOSTILE, rule=HOSTILE),
        host=HOSTILE, fleet=fleet, version=HOSTILE,
        sources=[{"name": HOSTILE, "up": False, "lag": 1.0, "lost": 0, "detail": HOSTILE, "lines": 0}],
        store={"kind": HOSTILE, "up": False, "detail": HOSTILE},
        firewall={"backend": HOSTILE, "up": False, "detail": HOSTILE, "dropped": {}},
    )  # fmt: skip
    assert {name for name, _ in page.elements} <= ours | {"ul", "li", "b", "code", "small"}
    assert len(page.named("script")) == 1
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert page.text.count("<script>alert(1)</script>") >= 9
    assert not {"\u202e", "\x1b", "\x00", "\udcff"} & set("".join(page.words))


def test_any_text_has_an_end():
    assert len(text("<" * 10_000)) == 299 * len("&lt;") + 1


def test_of_many_bans_it_shows_the_newest_and_tells_how_to_see_all():
    shown = [ban(f"198.51.{i // 256}.{i % 256}/32") for i in range(SHOWN)]
    page = read(hour(9, 9), *shown, bans=counts(100_040, 100_040), listed=40)
    assert "The newest 100 of 100,000; mailward bans lists all." in page.text
    assert "Besides these, 40 bans of the deny list" in page.text
    assert sum(word.endswith("/32") for word in page.words) == SHOWN


def test_a_ban_without_end_never_ends():
    page = read(
        hour(),
        ban("2001:db8::/48", rule="manual", failures=0, until=None, left=None, reason="a & b", node="mx2"),
    )
    assert "2001:db8::/48 By hand a & b, from mx2 21:09 never in force" in page.text


def test_the_fleet_stands_there_where_there_is_one():
    assert "Fleet" not in read(hour()).text
    nodes = [{"name": "mx2", "here": False, "age": 3.0, "lag": 0.2, "pending": 4}]
    page = read(hour(), fleet={"up": True, "detail": "", "pending": 4, "lost": 0, "nodes": nodes})
    assert "in touch, 4 events to tell, 0 lost" in page.text
    assert "mx2 3 s ago 0 s 4" in page.text


def test_what_was_before_the_start_is_not_shown_as_nothing():
    young, old = read(hour(3, minutes=4)), read(hour(3))
    assert "Counted since 21:07." in young.text
    assert "3 failed logins and no new bans since the start." in young.text
    assert "Counted since" not in old.text


def test_every_chart_says_in_words_what_it_draws():
    [failures, bans] = [
        svg["aria-label"] for svg in read(hour(250, 3)).named("svg") if svg.get("role") == "img"
    ][:2]
    assert failures == (
        "Failed logins a minute: 250 failed logins in the last hour; 250 at most, at 21:10; 250 in this minute"
    )
    assert bans is not None
    assert bans.startswith("New bans a minute: 3 new bans in the last hour")


def test_every_id_is_there_once_and_everything_that_names_one_finds_it():
    fleet = {"up": True, "detail": "", "pending": 0, "lost": 0, "nodes": []}
    page = read(hour(3, 1), *[ban(f"198.51.100.{i}/32") for i in range(20)], fleet=fleet)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes.get("aria-labelledby") for _, attributes in page.elements]
    links = [(attributes.get("href") or "") for _, attributes in page.elements]
    assert {name for name in named if name} | {href[1:] for href in links if href.startswith("#")} <= set(ids)


@pytest.mark.parametrize("highest", [0, 1, 4, 5, 7, 31, 99, 100, 101, 104, 250, 3001, 10**6 + 1])
def test_the_scale_is_a_round_number_not_far_above(highest):
    top = _chart.top(highest)
    assert max(4, highest) <= top <= max(4, highest * 1.5)
    assert top % 2 == 0


def test_numbers_and_spans_read_well():
    assert [many(0, "ban"), many(1, "ban"), many(1234, "ban")] == ["no bans", "1 ban", "1,234 bans"]
    assert [large(n) for n in (0, 999_999, 1_234_567, 999_400_000, 5 * 10**9)] == [
        "0",
        "999,999",
        "1.23 M",
        "999 M",
        "5 G",
    ]
    assert [span(s) for s in (0.4, 99, 3600, 7 * 86400, math.inf)] == [
        "0 s",
        "99 s",
        "60 min",
        "7 days",
        "ages",
    ]
