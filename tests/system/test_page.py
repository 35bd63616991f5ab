"""The page at `/` as a person sees it: a live guard, a replayed attack, the kernel's bans, a real browser.

The pictures stay in MAILWARD_TEST_ARTIFACTS.  MAILWARD_TEST_PLAYS is how many seconds the attack takes: docs/page.png
was made with 900.  MAILWARD_TEST_AXE is an axe.min.js (npm's axe-core) that looks at the page as well.
"""

from __future__ import annotations

import itertools
import lzma
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.chromium import Browser, Page, chromium, requires_chromium
from tests.daemon import ROOT, Daemon, failure, stamp
from tests.system.netns import CLIENTS, Lab, mail_host

pytestmark = [pytest.mark.system, pytest.mark.servers]

CAPTURE = ROOT / "fixtures/replay/bookworm-verbose/mail.log.xz"
URL = "http://127.0.0.1:9780/"
TOKEN = "0123456789abcdef"
WIDTHS = (360, 768, 1280, 1920)
IMAP = 143
TAB, ENTER, SPACE = ("Tab", 9), ("Enter", 13), (" ", 32)


class Scene(NamedTuple):
    lab: Lab
    daemon: Daemon
    browser: Browser
    pictures: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    """A guard that an attack has reached, and a browser on its host."""
    requires_chromium()
    folder = tmp_path_factory.mktemp("page")
    artifacts = os.environ.get("MAILWARD_TEST_ARTIFACTS")
    with mail_host() as lab:
        daemon = Daemon(folder, within=("ip", "netns", "exec", lab.host.name))
        daemon.configure('[firewall]\nbackend = "nftables"\n[http]\nlisten = "127.0.0.1:9780"')
        with daemon, lab.host.entered(), chromium(folder) as browser:
            pictures = Path(artifacts) / "page" if artifacts else folder
            seen(browser, width=1280).shot(pictures / "quiet-1280-light.png")
            play(daemon, float(os.environ.get("MAILWARD_TEST_PLAYS", "0")))
            assert not lab.reaches(CLIENTS[0], IMAP)  # what he sends is dropped, and counted
            daemon.until(
                lambda: sum(d["packets"] for d in daemon.ask("status")["firewall"]["dropped"].values())
            )
            yield Scene(lab, daemon, browser, pictures)


def seen(browser: Browser, **how: Any) -> Page:
    return browser.page(URL, **how)


def play(daemon: Daemon, seconds: float) -> None:
    """Write the capture into the log, stamped now, in waves where it may take its time; and one who guesses by himself."""
    stamped = re.compile(rb"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d ")
    lines = [
        line[15:].decode("utf-8", "surrogateescape")
        for line in lzma.decompress(CAPTURE.read_bytes()).splitlines()
        if stamped.match(line)
    ]
    chance, written, pieces = random.Random(6), 0, max(1, int(seconds))
    weights = [chance.random() ** 3 * (1 + 4 * n / pieces) for n in range(pieces)]
    upto = [round(len(lines) * part / sum(weights)) for part in itertools.accumulate(weights)]
    for end in upto:
        daemon.write(*(stamp() + line for line in lines[written:end]))
        written = end
        if seconds:
            time.sleep(1)
    daemon.write(*(failure(CLIENTS[0], sid="SGlzT3duU2Vzc2lvbg") for _ in range(6)))
    daemon.has_read(len(lines) + 6)
    daemon.until(lambda: (bans := daemon.ask("bans")["bans"]) and all(ban["enforced"] for ban in bans))


# What is seen: the foreground against what stands behind it (WCAG 2.2, 1.4.3), of every element with words of its own.
CONTRAST = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith('color(srgb') ? [...n.slice(0, 3).map((v) => v * 255), n[3] ?? 1] : [n[0], n[1], n[2], n[3] ?? 1]; };
  const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const words = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join('');
    if (!words || e.closest('svg, noscript') || !e.checkVisibility() || e.getBoundingClientRect().width < 2) continue;
    const style = getComputedStyle(e), a = light(parse(style.color).slice(0, 3)), b = light(behind(e).slice(0, 3));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05), size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < needed) found.push([e.tagName, e.className, words.slice(0, 30), style.color, ratio.toFixed(2)]);
  }
  return found;
})()"""
# What sticks out of the page, where the page itself would not scroll.
OUTSIDE = """[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('svg, .unseen, caption, thead, .skip')
  && (e.getBoundingClientRect().right > innerWidth + .5 || e.getBoundingClientRect().left < -.5)).map((e) => e.outerHTML.slice(0, 80))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
FOCUS = "(document.activeElement.id || document.activeElement.getAttribute('href') || document.activeElement.textContent.trim())"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_reads_well_and_complains_of_nothing(scene, width, dark):
    page = seen(scene.browser, width=width, dark=dark, height=900)
    name = f"attack-{width}-{'dark' if dark else 'light'}"
    page.shot(scene.pictures / f"{name}.png")
    assert page.value("document.querySelector('#page').dataset.said") == "Under attack. Guarding."
    assert page.value(OVERFLOW) == 0
    assert page.value(OUTSIDE) == []
    assert page.value(CONTRAST) == []
    page.value("document.querySelector('#figures').open = true")
    assert page.value(OVERFLOW) == 0
    assert page.complaints() == []
    axe = os.environ.get("MAILWARD_TEST_AXE")
    if axe:
        page.value(Path(axe).read_text() + "; 0")
        found = page.value(
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        )
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
        assert len(found["passes"]) > 20


def test_the_picture_of_the_readme(scene):
    page = seen(scene.browser, width=1280, height=800)
    picture = scene.pictures / "page.png"
    page.shot(picture, whole=False)
    assert 20_000 < picture.stat().st_size < 150_000


def test_it_says_what_the_daemon_says(scene):
    report, status, bans = (scene.daemon.ask(what) for what in ("report", "status", "bans"))
    page = seen(scene.browser)
    shown = page.value(
        "Object.fromEntries([...document.querySelectorAll('.steps div')].map((d) => [d.querySelector('dt').innerText, d.querySelector('b').innerText.trim()]))"
    )
    wanted = sum(status["bans"]["wanted"].values())
    assert wanted == len(bans["bans"]) > 5
    assert shown["Detected"] == f"{report['failures']['total']:,}"
    assert (shown["Decided"], shown["Enforced"], shown["Gap"]) == (str(wanted), str(wanted), "0")
    assert int(shown["Dropped"].replace(",", "")) > 0
    nets = page.value("[...document.querySelectorAll('.active tbody th')].map((th) => th.innerText)")
    decided = {ban["net"]: ban["at"] for ban in bans["bans"]}
    assert len(nets) == min(100, len(decided))
    times = [decided[net] for net in nets]
    assert times == sorted(times, reverse=True)
    assert times[0] == max(decided.values())
    by_protocol = {name: n for name, n in report["failures"]["by_protocol"].items() if n}
    ranked = page.value(
        "Object.fromEntries([...document.querySelectorAll('.protocols tbody tr')].map((tr) => [tr.cells[0].innerText, Number(tr.cells[1].innerText.replace(',', ''))]))"
    )
    assert ranked == by_protocol


def test_without_a_script_everything_is_there(scene):
    page = seen(scene.browser, width=360, script=False)
    text = page.value("document.body.innerText")
    for essential in ("Under attack", "bans are in force", "Detected", "Gap", "Failed logins a minute", "Sources", "Bans in force", "Brute force"):  # fmt: skip
        assert essential in text
    assert page.value("document.querySelectorAll('.chart rect').length") >= 2
    assert page.value("!document.querySelector('#pause').checkVisibility()")
    assert page.value("document.querySelector('noscript meta').getAttribute('http-equiv')") == "refresh"
    assert page.complaints() == []


def test_the_keyboard_reaches_every_control_in_order(scene):
    page = seen(scene.browser, height=900)
    order = []
    for _ in range(7):
        page.press(*TAB)
        order.append(page.value(FOCUS))
        assert page.value("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert order == ["#page", "pause", "/", "The last hour in figures", "active-table", "/metrics", "/readyz"]
    page.value("document.querySelector('.skip').focus()")
    assert page.value("document.querySelector('.skip').getBoundingClientRect().top >= 0")
    page.press(*ENTER)
    assert page.value(FOCUS) == "page"
    page.value("document.querySelector('summary').focus()")
    page.press(*ENTER)
    assert page.value("document.querySelector('#figures').open")


def refreshed(page: Page) -> None:
    """Have it look for news at once, as it does when its tab is shown again, and wait until they are there."""
    page.value(
        "window.before = document.querySelector('#fresh').firstElementChild; document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.until(lambda: page.value("!before.isConnected"))


def test_it_brings_itself_up_to_date_and_leaves_the_reader_where_he_was(scene):
    page = seen(scene.browser, height=900)
    page.value(
        "window.mark = 1; document.querySelector('#figures').open = true; document.querySelector('summary').focus()"
    )
    page.value("document.querySelector('#active-table').scrollTop = 40")
    before = page.value("document.querySelector('.detected b').innerText")
    scene.daemon.write(failure("192.0.2.77"))
    scene.daemon.until(lambda: scene.daemon.ask("report")["failures"]["total"] > int(before.replace(",", "")))
    time.sleep(1.0)  # a page is kept for a second
    refreshed(page)
    assert page.value("document.querySelector('.detected b').innerText") != before
    assert page.value(
        "[mark, document.querySelector('#figures').open, document.activeElement.tagName, document.querySelector('#active-table').scrollTop]"
    ) == [1, True, "SUMMARY", 40]
    assert page.value("document.querySelector('#said').textContent") == "", (
        "nothing to tell: the state is the same"
    )
    assert page.complaints() == []


def test_paused_it_stays_as_it_is(scene):
    page = seen(scene.browser)
    page.value("document.querySelector('#pause').focus()")
    page.press(*SPACE)
    assert page.value("document.querySelector('#pause').textContent") == "Resume"
    page.value(
        "window.asked = 0; window.fetch = () => { asked += 1; return Promise.reject(new Error('no')) }; document.dispatchEvent(new Event('visibilitychange'))"
    )
    assert page.value("asked") == 0
    page.press(*SPACE)
    assert page.value("asked") == 1
    assert page.value("document.querySelector('#pause').textContent") == "Pause"


def test_a_guard_that_is_gone_is_told_and_so_is_its_return(scene):
    page = seen(scene.browser)
    page.ask(
        "Network.emulateNetworkConditions",
        offline=True,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )
    page.value("document.dispatchEvent(new Event('visibilitychange'))")
    page.until(lambda: page.value("document.querySelector('#fresh.stale') !== null"))
    assert "cannot be reached" in page.value("document.querySelector('#said').textContent")
    page.ask(
        "Network.emulateNetworkConditions",
        offline=False,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )
    refreshed(page)
    assert page.value("document.querySelector('#fresh.stale') === null")
    assert page.value("document.querySelector('#said').textContent") == "Under attack. Guarding."


def test_what_somebody_gave_as_a_reason_stays_text(scene):
    reason = "\"><script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
    assert scene.daemon.command("ban", "192.0.2.99", "--reason", reason).returncode == 0
    try:
        time.sleep(1.0)
        page = seen(scene.browser, width=360)
        assert reason in page.value("document.querySelector('.active').innerText")
        assert page.value("window.owned") is None
        assert page.value(OVERFLOW) == 0
        assert page.complaints() == []
        refreshed(page)
        assert page.value("window.owned") is None
        page.value(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned = 1\"><b style=\"color: red\">x</b>')"
        )
        page.until(
            lambda: len(page.said("Audits.issueAdded")) >= 2
        )  # the second wall: the policy lets nothing of it run
        assert page.value("window.owned") is None
    finally:
        assert scene.daemon.command("unban", "192.0.2.99").returncode == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_a_screen_reader_finds_landmarks_headings_and_tables(scene, width):
    page = seen(scene.browser, width=width)
    nodes = [node for node in page.ask("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]

    def of(role: str) -> list[str]:
        return [node.get("name", {}).get("value", "") for node in nodes if node["role"]["value"] == role]

    assert [len(of(role)) for role in ("banner", "main", "contentinfo", "status")] == [1, 1, 1, 1]
    assert of("RootWebArea")[0].startswith("Under attack · Guarding · ")
    levels = page.value("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for role in ("heading", "button", "link", "image", "img", "table", "region", "columnheader", "rowheader"):
        assert all(of(role)), role
    assert len(of("table")) == 4  # named by their captions
    assert len(set(of("table"))) == 4
    assert len(of("rowheader")) >= min(100, len(scene.daemon.ask("bans")["bans"]))
    assert "State" in of("columnheader")
    assert any(name.startswith("Failed logins a minute: ") for name in of("image") + of("img"))
    assert page.value("document.documentElement.lang") == "en"


def test_with_a_token_the_browser_asks_for_a_password(scene, tmp_path):
    daemon = Daemon(tmp_path, within=("ip", "netns", "exec", scene.lab.host.name))
    daemon.configure(f'[firewall]\nbackend = "none"\n[http]\nlisten = "127.0.0.1:9781"\ntoken = "{TOKEN}"')
    with daemon:
        page = scene.browser.page(f"http://me:{TOKEN}@127.0.0.1:9781/")
        assert page.value("document.querySelector('#page').dataset.said") == "Quiet. Only observing."
        assert page.value("getComputedStyle(document.querySelector('.card')).borderTopStyle") == "solid", (
            "its style came"
        )
        time.sleep(1.0)
        refreshed(page)
        assert page.complaints() == []
