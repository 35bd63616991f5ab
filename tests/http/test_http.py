"""A scraper, a browser and somebody with bad intentions at the metrics' port."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket

import pytest

from guard import http
from guard.http import Answer

ROUTES: dict[str, http.Route] = {
    "/metrics": lambda headers: Answer(headers.get("accept", "-").encode(), "text/plain"),
    "/healthz": lambda _: Answer(b"ok"),
}


def talk(*requests: bytes, patience: float = 60.0, token: str = "") -> list[bytes]:
    """Return what the server answers to each request on a connection of its own, all opened at once."""

    async def converse() -> list[bytes]:
        server = await http.listen("127.0.0.1:0", ROUTES, token)
        port = server.sockets[0].getsockname()[1]

        async def one(request: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                answer = await asyncio.wait_for(reader.read(), patience)
            writer.close()
            return answer

        async with server:
            return list(await asyncio.gather(*(one(request) for request in requests)))

    return asyncio.run(converse())


def test_a_get_is_answered_and_the_connection_closed():
    [answer] = talk(
        b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost:9780\r\nAccept: text/a\r\naccept: text/b\r\n\r\n"
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in head
    assert b"Content-Length: 14" in head
    assert body == b"text/a, text/b"


def test_with_a_token_nobody_else_learns_anything_but_that_the_process_lives():
    token = "0123456789abcdef"
    ask = "GET {} HTTP/1.1\r\n{}\r\n"
    header = "Authorization: {}\r\n"
    wrong = [
        header.format(text)
        for text in (f"Bearer {token}0", f"Bearer {token[:-1]}", f"Basic {token}", "Bearer ", "\xff")
    ]
    requests = [ask.format("/metrics", field) for field in ("", *wrong)]
    requests += [
        ask.format("/metrics", header.format(f"Bearer {token}")),
        ask.format("/healthz", ""),
        ask.format("/no", ""),
    ]

    answers = talk(*(request.encode("latin-1") for request in requests), token=token)

    assert [answer[9:12] for answer in answers] == [b"401"] * 6 + [b"200", b"200", b"401"]
    assert b"WWW-Authenticate: Bearer" in answers[0]


def basic(user_and_password: str) -> str:
    return f"Basic {base64.b64encode(user_and_password.encode()).decode()}"


def test_a_browser_may_send_the_token_as_a_password():
    token = "0123456789abcdef"
    right = [basic(f":{token}"), basic(f"anybody:{token}"), f"bearer {token}"]
    wrong = [basic(token), basic(f"{token}:"), basic(f"a:{token}0"), basic(f"a:b:{token}"), "Basic !", "Basic", f"Digest {token}"]  # fmt: skip
    answers = talk(
        *(f"GET /metrics HTTP/1.1\r\nAuthorization: {field}\r\n\r\n".encode() for field in right + wrong), token=token
    )  # fmt: skip
    assert [answer[9:12] for answer in answers] == [b"200"] * len(right) + [b"401"] * len(wrong)
    assert b'WWW-Authenticate: Basic realm="mailward"' in answers[-1]


OWN = socket.gethostname()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, b"200") for host in ("127.0.0.1:9780", "[::1]:9780", "localhost", "LocalHost.:80", OWN, "192.0.2.7")),
        *((host, b"421") for host in ("evil.example", "evil.example:9780", "127.0.0.1.evil.example", "localhost, x", "[::1", "a:b:c", "[evil]", "127.0.0.1@evil.example", "localhost.evil.example:1")),
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_lead_here_is_not_answered(host, status):
    metrics, healthy = talk(
        f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(),
        f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(),
    )
    assert metrics[9:12] == status
    assert healthy[9:12] == b"200"


def test_with_a_token_any_name_will_do():
    token = "0123456789abcdef"
    [answer] = talk(
        f"GET /metrics HTTP/1.1\r\nHost: mx1.example.org\r\nAuthorization: Bearer {token}\r\n\r\n".encode(),
        token=token,
    )
    assert answer[9:12] == b"200"


def test_a_route_may_add_fields(monkeypatch):
    monkeypatch.setitem(ROUTES, "/", lambda _: Answer(b"page", "text/html", fields=("Referrer-Policy: x",)))
    [answer] = talk(b"GET / HTTP/1.1\r\n\r\n")
    assert b"\r\nReferrer-Policy: x\r\n" in answer


def test_a_head_has_no_body():
    [answer] = talk(b"HEAD /metrics HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /../metrics HTTP/1.1\r\n\r\n", b"404"),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/2\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n folded: x\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nname : x\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * http.HEAD_BYTES + b"\r\n\r\n", b"431"),
    ],
)
def test_what_is_no_get_of_ours_is_refused(request_, status):
    [answer] = talk(request_)
    assert answer.startswith(b"HTTP/1.1 " + status + b" ")


def test_who_says_nothing_is_left_after_a_while(monkeypatch):
    monkeypatch.setattr(http, "PATIENCE", 0.1)
    assert talk(b"", b"GET /metrics HTTP/1.1\r\nHost:") == [b"", b""]


def test_too_many_at_once_are_turned_away_and_the_rest_served(monkeypatch):
    monkeypatch.setattr(http, "CONNECTIONS", 2)
    monkeypatch.setattr(http, "PATIENCE", 0.3)
    answers = talk(*[b""] * 2, *[b"GET /metrics HTTP/1.1\r\n\r\n"] * 3)
    assert answers.count(b"") >= 2
    [served] = talk(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert served.startswith(b"HTTP/1.1 200 ")


def test_an_address_in_use_is_an_error_with_the_remedy():
    async def twice() -> None:
        server = await http.listen("127.0.0.1:0", {})
        async with server:
            await http.listen(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", {})

    with pytest.raises(http.HttpError, match=r"http\.listen.*choose another port"):
        asyncio.run(twice())
