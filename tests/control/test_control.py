"""What a client of the control socket may send, and what it gets."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from guard.control import REQUEST_BYTES, ControlError
from guard.control.client import ask
from tests.daemon import Daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Daemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


def raw(daemon: Daemon, data: bytes) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(daemon.socket)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answers:
            return [json.loads(line) for line in answers]


def test_only_root_and_the_group_reach_it(daemon):
    assert stat.S_IMODE(Path(daemon.socket).stat().st_mode) == 0o660


def test_several_requests_on_one_connection_are_answered_in_order(daemon):
    answers = raw(daemon, b'{"do": "lists"}\n{"do": "bans"}\n')
    assert [answer["result"]["schema"] for answer in answers] == ["mailward.lists/1", "mailward.bans/1"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"hello\n", 2),
        (b"[]\n", 2),
        (b"\xff\xfe\n", 2),
        (b'{"do": 5}\n', 2),
        (b'{"do": "dance"}\n', 2),
        (b'{"do": "ban"}\n', 2),
        (b'{"do": "ban", "net": "nonsense", "seconds": 5}\n', 2),
        (b'{"do": "ban", "net": "198.51.100.7", "seconds": "x"}\n', 2),
        (b'{"do": "ban", "net": "198.51.100.7", "seconds": NaN}\n', 2),
        (b'{"do": "ban", "net": "0.0.0.0/0", "seconds": 5}\n', 1),
        (b'{"do": "unban", "net": "198.51.100.9"}\n', 1),
        (b'{"do": "undeny", "net": "198.51.100.9"}\n', 1),
        (b'{"do": "disallow", "net": "198.51.100.9"}\n', 1),
        (b'{"do": "explain", "ip": "198.51.100.0/24"}\n', 2),
        (b'{"do": "status", "x": "' + b"x" * REQUEST_BYTES + b'"}\n', 2),
    ],
)
def test_a_wrong_request_is_answered_with_the_reason(daemon, request_, status):
    answer = raw(daemon, request_)[0]
    assert (answer["ok"], answer["status"]) == (False, status)
    assert answer["error"]


def test_a_client_that_says_nothing_or_leaves_in_the_middle_harms_nobody(daemon):
    assert raw(daemon, b"") == []
    raw(daemon, b'{"do": ')
    assert ask(daemon.socket, {"do": "status"})["ready"]


def test_no_daemon_is_status_3_with_the_socket_and_the_remedy(tmp_path):
    with pytest.raises(ControlError, match=r"no daemon answers on .*mailward run") as caught:
        ask(str(tmp_path / "nothing.sock"), {"do": "status"})
    assert caught.value.status == 3
