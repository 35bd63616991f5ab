"""A real Prometheus of a test's own, and what its queries name.

    targets = [Target("guard", "127.0.0.1:9780"), Target("node", recorded, "/node")]
    with prometheus(folder, targets, rules=[...], within=("ip", "netns", "exec", ...)) as server:
        server.query('sum(rate(mailward_auth_failures_total[30s]))')

Its data lies in `folder`, it listens on loopback only, and it ends with the `with`.  Recorded expositions of other
programs are served to it by `recorded(folder)`, each under the name of its job.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

PATIENCE = 60.0  # seconds; the machine may be busy
INTERVAL = 1  # seconds between scrapes
# What a dashboard's query holds besides PromQL, as Grafana would fill it in; the window of a test is short.
VARIABLES = {"$__rate_interval": "60s", "$__range": "120s"}
VARIABLES |= dict.fromkeys(("$host", "$service", "$job", "$target"), ".*")

_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`')
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS = frozenset(
    "by without on ignoring group_left group_right bool and or unless offset atan2 inf nan".split()
)
_NAME = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:])(?!\s*\()")
_SELECTOR = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})")


class Target(NamedTuple):
    """What is scraped: a job's name, host:port, path, and labels of its own."""

    job: str
    address: str
    path: str = "/metrics"
    labels: Mapping[str, str] = MappingProxyType({})


def filled(expr: str) -> str:
    """Return a dashboard's query with its variables filled in."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"a variable that nobody fills in: {expr}"
    return expr


def metric_names(expr: str) -> set[str]:
    """Return the metrics that a PromQL expression names."""
    bare = _LABELS.sub(" ", re.sub(r"\[[^]]*\]", " ", re.sub(r"\{[^}]*\}", " ", _TEXT.sub('""', expr))))
    return {name for name in _NAME.findall(bare) if name.lower() not in _WORDS}


def selectors(expr: str) -> dict[str, set[str]]:
    """Return by metric every selector with labels of an expression, as it stands there."""
    found: dict[str, set[str]] = {}
    for match in _SELECTOR.finditer(expr):
        found.setdefault(match[1], set()).add(f"{match[1]}{match[2]}")
    return found


def requires_prometheus() -> str:
    """Return the program's path; skip the test, loudly, where it is missing; fail it in CI."""
    found = shutil.which("prometheus")
    if found is None:
        reason = "NOT RUN: prometheus not found; apt-get install prometheus"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Prometheus:
    """Asks the server."""

    def __init__(self, url: str, alive: Callable[[], object]) -> None:
        self.url = url
        self._alive = alive

    def get(self, path: str, **params: str) -> Any:
        """Return the data of one answer; AssertionError with Prometheus' own words where it refuses."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(params)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it reads its own data first
                raise
            raise AssertionError(f"{params}: {error.read().decode()}") from None

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query: each has `metric` (its labels) and `value` (time, text)."""
        data = self.get("query", query=expr)
        assert data["resultType"] == "vector", f"{data['resultType']}: {expr}"
        found: list[dict[str, Any]] = data["result"]
        return found

    def names(self) -> set[str]:
        """Return every metric that was ever scraped or recorded."""
        return set(self.get("label/__name__/values"))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it may fail to connect while the server starts."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if condition():
                    return
            assert self._alive(), "Prometheus ended"
            assert time.monotonic() < deadline, f"not in {PATIENCE} s"
            time.sleep(0.05)

    def scraped(self, job: str) -> int:
        """Return how many good scrapes of a job there were."""
        found = self.query(f'sum(sum_over_time(up{{job="{job}"}}[10m]))')
        return int(float(found[0]["value"][1])) if found else 0

    def scrape_again(self, job: str, times: int = 1) -> None:
        """Wait until a job was scraped so many times more."""
        before = self.scraped(job)
        self.until(lambda: self.scraped(job) >= before + times)


@contextlib.contextmanager
def prometheus(
    folder: Path,
    targets: Sequence[Target],
    *,
    rules: Sequence[Path] = (),
    within: Sequence[str] = (),
    port: int | None = None,
) -> Iterator[Prometheus]:
    """Run it until the end of the `with`; `within` is a command that runs it elsewhere."""
    port = free_port() if port is None else port
    jobs = [
        {
            "job_name": target.job,
            "metrics_path": target.path,
            "static_configs": [{"targets": [target.address], "labels": dict(target.labels)}],
        }
        for target in targets
    ]
    config = folder / "prometheus.json"  # JSON is YAML, too
    config.write_text(
        json.dumps({
            "global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": f"{INTERVAL}s", "scrape_timeout": f"{INTERVAL}s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": jobs,
        })
    )  # fmt: skip
    command = [
        *within, requires_prometheus(), f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder)
    try:
        server = Prometheus(f"http://127.0.0.1:{port}", lambda: process.poll() is None)
        server.until(lambda: all(server.scraped(target.job) for target in targets))
        yield server
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `folder`/JOB.txt as /JOB on loopback; yield host:port and the jobs."""
    texts = {f"/{path.stem}": path.read_bytes() for path in sorted(folder.glob("*.txt"))}

    class Exposition(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = texts[self.path]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Exposition) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", [path[1:] for path in texts]
        finally:
            server.shutdown()
            thread.join()
