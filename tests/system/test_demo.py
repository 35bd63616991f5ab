"""`make demo` on the installed package: what it tells is so, and nothing of it is left however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.netns import Namespace, namespace, requires_namespaces, run

DEMO = Path(__file__).parents[2] / "demo/attack.py"


@pytest.fixture
def command(tmp_path):
    requires_namespaces()
    if not Path(sys.executable).with_name("mailward").exists():
        pytest.skip("NOT RUN: mailward is not installed; make setup")
    (tmp_path / "t").mkdir()
    with namespace("host") as host:  # one of its own, where no other test changes anything meanwhile
        before = outside(host)
        within = ["ip", "netns", "exec", host.name]
        yield {
            "args": [*within, sys.executable, str(DEMO)],
            "env": os.environ | {"TMPDIR": str(tmp_path / "t")},
        }
        assert list((tmp_path / "t").iterdir()) == [], "its folder is gone"
        assert [line for line in commands() if str(tmp_path) in line] == [], "so is its daemon"
        assert outside(host) == before, "the host's own network is as it was"


def outside(host: Namespace) -> tuple[str, ...]:
    return host.run("nft", "list", "tables"), host.run("ip", "-br", "address")


def commands() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_text(errors="replace").replace("\0", " ")
        except OSError:  # it has just ended
            continue


@pytest.mark.system
def test_it_tells_what_is_so(command):
    done = subprocess.run(**command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    said = done.stdout
    assert "NOT SO" not in said
    assert said.count("  ok  ") == 10
    dead = re.search(r"his connection is dead: last byte ([0-9.]+) ms after", said)
    assert dead
    assert float(dead[1]) < 15_000, "also on a machine that is busy with other tests"
    assert "a new connection of his to port 143 fails" in said
    assert "port 22 stays open to him" in said
    assert re.search(r"^  198\.51\.100\.7/32 +brute_force +5 .* yes ", said, re.MULTILINE)
    assert "5 failed logins (" in said
    table = dict(re.findall(r"^  (\w[\w ]+?) +0 +([\d,]+)$", said, re.MULTILINE))
    numbers = {name: int(text.replace(",", "")) for name, text in table.items()}
    assert numbers["lines read"] == 6812
    assert numbers["lines unreadable"] == 0
    assert numbers["bans decided"] == numbers["bans in the kernel"] > 100
    assert numbers["packets dropped"] > 0
    assert max(map(len, said.splitlines())) < 130


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_can_be_stopped_amid_the_attack(command, number):
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        assert any("wrong password 2" in line for line in demo.stdout)
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=20)
    if number == signal.SIGKILL:
        folder = next(Path(command["env"]["TMPDIR"]).iterdir())  # which nobody could take away
        run("rm", "-r", str(folder))
    else:
        assert (demo.returncode, errors) == (130, "\ndemo: stopped; nothing of it is left\n")


def test_without_root_it_says_what_it_needs():
    code = f"import os, runpy; os.geteuid = lambda: 1000; runpy.run_path({str(DEMO)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "needs root" in done.stderr
