"""The page as the daemon serves it: its header fields, its files, and what it knows of the daemon."""

from __future__ import annotations

import http.client
import socket

import pytest

from guard.http.page import SHOWN
from tests.daemon import Daemon, failure

ROUTES = {
    "/": "text/html",
    "/page.css": "text/css",
    "/page.js": "text/javascript",
    "/page.svg": "image/svg+xml",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("served"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon.configure(
        f'[rules.brute_force]\nfailures = 2\n[firewall]\nbackend = "none"\n[http]\nlisten = "127.0.0.1:{port}"'
    )
    with daemon:
        yield daemon, port


def ask(port: int, path: str, method: str = "GET", **fields: str) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, headers=fields)
        answer = connection.getresponse()
        return answer, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ROUTES)
def test_nothing_but_its_own_files_may_run_or_load(served, path):
    answer, body = ask(served[1], path)
    assert (answer.status, answer.headers.get_content_type()) == (200, ROUTES[path])
    assert body
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_head_has_the_fields_alone_and_what_is_not_there_is_not_found(served):
    answer, body = ask(served[1], "/", "HEAD")
    assert (answer.status, body) == (200, "")
    assert int(answer.headers["Content-Length"]) > 5000
    for path in ("/index.html", "/page.py", "/page.css/", "//", "/../page.css", "/favicon.ico"):
        assert ask(served[1], path)[0].status == 404
    assert ask(served[1], "/", "POST")[0].status == 405
    assert ask(served[1], "/", Host="evil.example")[0].status == 421


def test_it_shows_the_newest_of_the_bans_and_no_user(served):
    daemon, port = served
    nets = [f"198.51.{n // 200}.{n % 200 + 1}" for n in range(SHOWN + 20)]
    for ip in nets:
        daemon.write(*(failure(ip, user="secret.name@example.org") for _ in range(2)))
    daemon.until(lambda: len(daemon.ask("bans")["bans"]) == len(nets))
    daemon.until(lambda: f"The newest {SHOWN} of {len(nets)};" in ask(port, "/")[1])
    page = ask(port, "/")[1]
    assert f">{nets[-1]}/32<" in page
    assert f">{nets[0]}/32<" not in page
    assert "secret.name" not in page
    assert "Under attack" in page
    assert daemon.command("unban", nets[-1]).returncode == 0
    daemon.until(lambda: f">{nets[-1]}/32<" not in ask(port, "/")[1])
