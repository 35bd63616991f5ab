"""Brings together what the page at `/` shows, at most once a second however many look at it."""

from __future__ import annotations

import socket
import time
from importlib.resources import files
from typing import Final

from guard.app._newest import Newest
from guard.app._requests import Requests
from guard.app._view import View
from guard.http import Answer, Headers, Route
from guard.http.page import HEADERS, SHOWN, Moment, render

_KEPT: Final = 1.0  # seconds
_HTML: Final = "text/html; charset=utf-8"
_FILES: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.svg": "image/svg+xml",
}


class Page:
    """Looks at everything and changes nothing."""

    def __init__(self, newest: Newest, view: View, requests: Requests) -> None:
        self._newest = newest
        self._view = view
        self._requests = requests
        self._host = socket.gethostname()
        self._made = -_KEPT  # monotonic
        self._body = b""
        self._gap_since: float | None = None

    def routes(self) -> dict[str, Route]:
        """Return the page and its files by path."""
        folder = files("guard.http")
        beside = {
            f"/{name}": Answer(folder.joinpath(name).read_bytes(), kind, fields=HEADERS)
            for name, kind in _FILES.items()
        }
        return {"/": self._show, **{path: _always(answer) for path, answer in beside.items()}}

    def _show(self, _: Headers) -> Answer:
        now = time.monotonic()
        if now - self._made >= _KEPT:
            self._body = render(self.moment(time.time()))
            self._made = now
        return Answer(self._body, _HTML, fields=HEADERS)

    def moment(self, now: float) -> Moment:
        """Return what is so now.  What it costs: benchmarks/page.py."""
        moment = Moment(
            at=now,
            host=self._host,
            status=self._view.brief(),
            hour=self._view.history.hour(now),
            listed=self._newest.listed,
        )
        newest = self._newest.shown(SHOWN, moment.wanted())
        moment = moment._replace(bans=[self._requests.shown(ban) for ban in newest])
        if not moment.gap():
            self._gap_since = None
        elif self._gap_since is None:
            self._gap_since = now
        return moment._replace(gap_since=self._gap_since)


def _always(answer: Answer) -> Route:
    return lambda _: answer
