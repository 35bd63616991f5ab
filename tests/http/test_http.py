"""A scraper, a browser and somebody with bad intentions at the metrics' port."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from guard import http
from guard.http import Answer

ROUTES: dict[str, http.Route] = {
    "/metrics": lambda headers: Answer(headers.get("accept", "-").encode(), "text/plain"),
    "/healthz": lambda _: Answer(b"ok"),
}


def talk(*requests: bytes, patience: float = 5.0, token: str = "") -> list[bytes]:
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
    [answer] = talk(b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\nAccept: text/a\r\naccept: text/b\r\n\r\n")
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


def test_bound_to_an_interface_it_answers_there_and_nowhere_else():
    async def reached(interface: str) -> bool:
        async with await http.listen("0.0.0.0:0", {}, interface=interface) as server:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
            except ConnectionRefusedError:
                return False
            writer.close()
            return True

    assert asyncio.run(reached("lo"))
    other = next((name for _, name in socket.if_nameindex() if name != "lo"), None)
    assert other is None or not asyncio.run(reached(other))
    with pytest.raises(http.HttpError, match=r"http\.interface: nowhere0: No such device"):
        asyncio.run(reached("nowhere0"))
