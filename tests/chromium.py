"""A headless Chromium, spoken to over a pipe in its own DevTools protocol: no driver, no port, no package.

with chromium(folder) as browser:
    page = browser.page("http://127.0.0.1:9780/", width=360)
    page.value("document.title")
    page.shot(folder / "page.png")
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0  # seconds for an answer; the machine may be busy
# What nobody should see: a script's errors, what the policy blocked, what did not load.
_COMPLAINTS = {"Runtime.exceptionThrown", "Log.entryAdded", "Audits.issueAdded", "Network.loadingFailed"}
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-breakpad", "--hide-scrollbars", "--disable-lcd-text", "--force-color-profile=srgb", "--font-render-hinting=none",
)  # fmt: skip


def requires_chromium() -> str:
    """Return the program's path.  Without one skip the test, loudly, and fail it in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        found = shutil.which(name)
        if found:
            return found
    reason = "NOT RUN: no Chromium here; apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Browser:
    """The process, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, of: int) -> None:
        self._process, self._to, self._of = process, to, of
        self._numbers = itertools.count(1)
        self._half = b""
        self._answers: dict[int, Any] = {}
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str = "", **params: Any) -> Any:
        """Send one command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        deadline = time.monotonic() + PATIENCE
        while number not in self._answers:
            self._listen(deadline - time.monotonic(), method)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _listen(self, patience: float, wanted: str) -> None:
        assert select.select([self._of], [], [], max(0.0, patience))[0], f"Chromium does not answer {wanted}"
        piece = os.read(self._of, 1 << 20)
        assert piece, f"Chromium ended: {self._process.poll()}"
        *whole, self._half = (self._half + piece).split(b"\0")
        for text in whole:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self.events.append(message)

    def page(
        self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False, script: bool = True, scale: float = 1,
        headers: dict[str, str] | None = None,
    ) -> Page:  # fmt: skip
        """Open `url` in a page of its own and wait until it is there."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "Accessibility", "DOM"):
            page.ask(f"{domain}.enable")
        page.size(width, height, scale)
        page.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        page.ask("Emulation.setScriptExecutionDisabled", value=not script)
        page.ask("Network.setExtraHTTPHeaders", headers=headers or {})
        page.go(url)
        return page


class Page:
    """One page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def ask(self, method: str, **params: Any) -> Any:
        """Send one command to this page."""
        return self._browser.ask(method, self._session, **params)

    def go(self, url: str) -> None:
        """Open `url` and wait until it is loaded."""
        self._browser.events = [e for e in self._browser.events if e.get("sessionId") != self._session]
        failed = self.ask("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        self.until(lambda: self.said("Page.loadEventFired"))

    def said(self, method: str) -> list[dict[str, Any]]:
        """Return this page's events of one kind."""
        self.ask("Page.getFrameTree")  # what was said before has arrived now
        return [
            event["params"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] == method
        ]

    def complaints(self) -> list[dict[str, Any]]:
        """Return what went wrong in the page."""
        return [event for method in sorted(_COMPLAINTS) for event in self.said(method)]

    def until(self, condition: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until `condition` holds."""
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        """Return the JSON value of a script's expression; works with the page's own script disabled."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def size(self, width: int, height: int = 800, scale: float = 1) -> None:
        """Give the page this size, in CSS pixels; as a telephone has it where it is narrow."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip

    def press(self, key: str, code: int, modifiers: int = 0) -> None:
        """Press and release a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code, modifiers=modifiers, **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def shot(self, path: Path, *, whole: bool = True) -> None:
        """Keep a picture of the page, or of what is seen of it."""
        picture = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run a browser with its profile in `folder`."""
    program = requires_chromium()
    theirs_in, to = os.pipe()
    of, theirs_out = os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]  # clear of 3 and 4
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash", program, *FLAGS, *sandbox, f"--user-data-dir={folder / 'profile'}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=ends, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    for end in (theirs_in, theirs_out, *ends):
        os.close(end)
    browser = Browser(process, to, of)
    try:
        yield browser
        with contextlib.suppress(OSError, AssertionError):
            browser.ask("Browser.close")
    finally:
        for descriptor in (to, of):
            os.close(descriptor)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
