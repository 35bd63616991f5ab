"""The source redis against a real server: what lists, streams and channels do to it, and who may know its password."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.clock import Clock
from guard.engine import Engine
from guard.envelope import Envelope
from guard.model import BARE, Policy
from guard.sources._redis_lines import bare, of_list, of_stream, one_line
from guard.sources._redis_place import DEPTH, SAVED, Place, digest, load
from tests.sources.redis_server import Reader, Running, Server, record, requires_redis

pytestmark = [requires_redis, pytest.mark.servers]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("guard.sources._redis_stream.BLOCK", 0.1)


@pytest.fixture
def server(tmp_path: Any) -> Any:
    with Server(tmp_path) as server:
        yield server


def push(server: Any, first: Any, last: Any, key: Any = "LOG") -> Any:
    for number in range(first, last):
        server.admin.lpush(key, record(number))


def add(server: Any, first: Any, last: Any) -> Any:
    return [server.admin.xadd("LOG", {"line": record(n)}) for n in range(first, last)]


def lists(server: Any, reader: Any = None, **options: Any) -> Any:
    return Running(server.url, reader, mode="list", **{"keys": ["LOG"], **options})


def streams(server: Any, reader: Any = None, **options: Any) -> Any:
    return Running(server.url, reader, mode="stream", stream="LOG", **options)


# ------------------------------------------------------------------------------------------------ where it begins


@pytest.mark.parametrize("mode", [lists, streams])
@pytest.mark.parametrize(("start", "expected"), [("start", 15), ("now", 5), ("resume", 5)])
async def test_without_state_from_says_where_to_begin(server, mode, start, expected):
    more = push if mode is lists else add
    more(server, 0, 10)
    async with mode(server, start=start) as running:
        await running.up()
        more(server, 10, 15)
        await running.lines(expected)
        assert running.reader.numbers() == list(range(15 - expected, 15))


@pytest.mark.parametrize("mode", [lists, streams])
async def test_what_comes_while_the_source_is_away_is_read_once(server, mode):
    more = push if mode is lists else add
    reader = Reader()
    async with mode(server, reader) as running:
        await running.up()
        more(server, 0, 3)
        await running.lines(3)
    more(server, 3, 2000)
    async with mode(server, reader) as running:
        await running.lines(2000)
        assert reader.numbers() == list(range(2000))
        assert running.source.health()._replace(detail="") == ("r", True, 0.0, 0, "")


async def test_several_lists_are_streams_of_their_own(server):
    async with lists(server, keys=["A", "B"], start="start") as running:
        push(server, 0, 3, "A")
        push(server, 3, 5, "B")
        await running.lines(5)
        assert sorted(running.reader.numbers()) == list(range(5))
        assert set(running.reader.positions) == {"r/A", "r/B"}


# ------------------------------------------------------------------------------------------------ lists


async def test_a_list_is_left_as_it_is(server):
    push(server, 0, 10)
    async with lists(server, start="start") as running:
        await running.lines(10)
        assert server.admin.llen("LOG") == 10


async def test_identical_records_are_as_many_lines(server):
    async with lists(server) as running:
        await running.up()
        for count in (1, 2, 40, 1, 300, 7):
            server.admin.lpush("LOG", *[record(1)] * count)
            await running.until(lambda: not running.source.health().lag)
            await asyncio.sleep(0.06)
        await running.lines(351)
        assert running.source.health().lost == 0


async def test_a_capped_list_full_of_twins_is_read_exactly(server):
    """Each push trims: the length says nothing, and neither does the newest record."""
    reader = Reader()
    server.admin.lpush("LOG", *(record(n) for n in range(200)))
    sent = 0
    async with lists(server, reader) as running:
        await running.up()
        for turn, count in enumerate((3, 50, 1, 70, 20)):
            pair = [record(0), record(1)] if turn % 2 else [record(7)]
            pipe = server.admin.pipeline()
            for n in range(count):
                pipe.lpush("LOG", pair[n % len(pair)]).ltrim("LOG", 0, 199)
            pipe.execute()
            sent += count
            await running.until(lambda: len(reader.lines) >= sent)  # noqa: B023 - awaited here
            if turn == 2:
                await running.again()
        await running.lines(sent)
        assert running.source.health().lost == 0, running.notes


async def test_trimmed_between_two_looks_and_while_away(server):
    reader = Reader()
    async with lists(server, reader) as running:
        await running.up()
        push(server, 0, 500)
        await running.lines(500)
        server.admin.ltrim("LOG", 0, 99)
        push(server, 500, 520)
        await running.lines(520)
    push(server, 520, 600)
    server.admin.ltrim("LOG", 0, 99)  # holds 500 to 599
    async with lists(server, reader) as running:
        await running.lines(600)
        assert reader.numbers() == list(range(600))
        assert running.source.health().lost == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_is_pushed_and_trimmed_is_read_once_and_in_order(server, monkeypatch, seed):
    """Pushes with many twins, trims, restarts of the source, in any order; at least 40 records stay."""
    monkeypatch.setattr("guard.sources.redis.FASTEST", 0.002)
    monkeypatch.setattr("guard.sources.redis.SLOWEST", 0.002)
    chance = random.Random(seed)
    sent: list[bytes] = []
    async with lists(server, start="start") as running:
        for turn in range(120):
            batch = [record(turn * 3 + chance.randrange(3)) for _ in range(chance.randrange(70))]
            pipe = server.admin.pipeline()
            for one in batch:
                pipe.lpush("LOG", one)
            if chance.random() < 0.4:
                unread = len(sent) - len(running.reader.lines) + len(batch)
                pipe.ltrim("LOG", 0, unread + 40 + chance.randrange(400))
            pipe.execute()
            sent += [one.rstrip(b"\n") for one in batch]
            if chance.random() < 0.2:
                await running.again()
            elif chance.random() < 0.7:
                await running.until(partial(running.has, len(sent)))
                assert running.reader.lines == sent
        await running.lines(len(sent))
        assert running.reader.lines == sent
        assert running.lost + running.source.health().lost == 0, running.notes


async def test_more_than_the_list_holds_is_a_loss_and_the_list_is_read(server):
    reader = Reader()
    async with lists(server, reader) as running:
        await running.up()
        push(server, 0, 50)
        await running.lines(50)
    push(server, 50, 300)
    server.admin.ltrim("LOG", 0, 99)
    async with lists(server, reader) as running:
        await running.lines(150)
        assert reader.numbers() == [*range(50), *range(200, 300)]
        assert running.source.health().lost == 1
        assert "more was pushed than it holds" in running.notes[0]


@pytest.mark.parametrize("away", [False, True])
async def test_a_list_restored_from_an_older_copy_doubles_nothing(server, away):
    """A host loses its power: Redis has saved less than we have read."""
    reader = Reader()
    async with lists(server, reader) as running:
        await running.up()
        push(server, 0, 900)
        await running.lines(900)
        if away:
            await running.__aexit__()
        server.admin.eval(
            "redis.call('LTRIM', KEYS[1], 400, -1) redis.call('LPUSH', KEYS[1], ARGV[1])",
            1,
            "LOG",
            record(900),
        )
        if away:
            await running.again()
        await running.lines(901)
        assert reader.numbers() == list(range(901))
        assert "restored from an older copy" in "".join(running.notes)


async def test_a_list_that_comes_back_older_than_its_place_is_known_doubles_one_second_at_most(server):
    """The whole host loses its power: Redis had saved its lists minutes ago, we had saved our place a second ago."""
    reader = Reader()
    async with lists(server, reader) as running:
        await running.up()
        server.admin.lpush("LOG", *(record(n) for n in range(9000)))  # 500 a second
        await running.lines(9000)
    server.admin.ltrim("LOG", 5000, -1)
    push(server, 9000, 9100)
    async with lists(server, reader) as running:
        await running.lines(9100)
        assert reader.numbers() == list(range(9100))
        assert running.source.health().lost == 1


@pytest.mark.parametrize("gone", ["delete", "rename"])
async def test_a_list_that_goes_is_a_loss_and_the_next_one_is_read(server, gone):
    async with lists(server) as running:
        await running.up()
        push(server, 0, 50)
        await running.lines(50)
        server.admin.delete("LOG") if gone == "delete" else server.admin.rename("LOG", "OLD")
        await running.until(lambda: running.source.health().lost == 1)
        push(server, 50, 60)
        await running.lines(60)
        assert running.reader.numbers() == list(range(60))
        assert running.source.health().lost == 1


async def test_a_key_of_another_type_is_told_and_the_others_are_read(server):
    server.admin.set("A", "text")
    async with lists(server, keys=["A", "LOG"], start="start") as running:
        push(server, 0, 3)
        await running.lines(3)
        health = running.source.health()
        assert not health.up
        assert "A: WRONGTYPE" in health.detail
        server.admin.delete("A")
        await running.up()


async def test_pop_takes_what_is_safe_and_no_more(server):
    reader = Reader()
    server.admin.lpush("LOG", *(record(n) for n in range(5000)))
    async with lists(server, reader, start="start", pop=True) as running:
        await running.lines(5000)
        assert server.admin.llen("LOG") == 5000
        saved = dict(reader.positions)
        push(server, 5000, 6000)
        await running.lines(6000)
        running.source.saved(saved)
        await running.until(lambda: server.admin.llen("LOG") < 6000)
        assert server.admin.llen("LOG") == 1000 + SAVED
        reader.positions = saved  # killed before the next checkpoint
        await running.again()
        await running.lines(7000)
        assert reader.numbers()[6000:] == list(range(5000, 6000))


def newest_first(numbers: Any) -> Any:
    return [digest(b"%d" % n) for n in numbers]


@given(
    st.lists(st.integers(0, 3), max_size=150),
    st.lists(st.integers(0, 3), max_size=60),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_a_place_that_is_found_agrees_with_everything_below_it(old, new, gone, trimmed):
    place = Place()
    place.passed(newest_first(old))
    now = newest_first(reversed(new)) + place.seen[gone:]
    now = now[: max(0, len(now) - trimmed)]
    hit = place.find(now, whole=True) if place.seen else None
    if hit:
        i, j = hit
        depth = min(len(now) - i, len(place.seen) - j)
        assert depth
        assert now[i : i + depth] == place.seen[j : j + depth]
    if not gone and not trimmed and old:
        assert hit is not None


def test_a_place_survives_its_text_and_nothing_else_is_one():
    place = Place(time=1763900000)
    place.passed(newest_first(range(DEPTH + 10)))
    assert len(place.seen) == DEPTH
    again = load(place.dump())
    assert again is not None
    assert (again.below, again.number, again.time) == (place.below, place.number, place.time)
    assert again.seen == place.seen[:SAVED]
    for text in (
        "",
        "[]",
        "1-0 5",
        '{"below": 1}',
        '{"below":-1,"number":0,"time":0,"seen":""}',
        '{"below":1,"number":0,"time":0,"seen":"QQ=="}',
    ):
        assert load(text) is None


# ------------------------------------------------------------------------------------------------ streams


async def test_the_group_shows_what_is_safe_not_what_is_read(server):
    ids = add(server, 0, 10)
    async with streams(server, start="start") as running:
        await running.lines(10)
        [group] = server.admin.xinfo_groups("LOG")
        assert (group["name"], group["last-delivered-id"], group["lag"]) == (b"mailward", b"0-0", 10)
        running.save()
        await running.until(lambda: server.admin.xinfo_groups("LOG")[0]["lag"] == 0)
        [group] = server.admin.xinfo_groups("LOG")
        assert (group["last-delivered-id"], group["pending"]) == (ids[-1], 0)


async def test_a_place_saved_while_the_group_is_being_set_is_set_after_it(server):
    add(server, 0, 5)
    async with streams(server, start="start") as running:
        await running.lines(5)
        fifth = dict(running.reader.positions)
        *_, tenth = add(server, 5, 10)
        await running.lines(10)
        server.admin.client_pause(20_000, all=False)  # writes wait, as at a busy server
        running.source.saved(fifth)
        await running.until(lambda: "xgroup|setid" in [one["cmd"] for one in server.admin.client_list()])
        running.save()
        server.admin.client_unpause()
        await running.until(lambda: server.admin.xinfo_groups("LOG")[0]["last-delivered-id"] == tenth)


async def test_without_our_state_the_group_says_where_to_go_on(server):
    async with streams(server, start="start") as running:
        add(server, 0, 10)
        await running.lines(10)
        running.save()
        await running.until(lambda: server.admin.xinfo_groups("LOG")[0]["lag"] == 0)
    add(server, 10, 15)
    async with streams(server) as running:
        await running.lines(5)
        assert running.reader.numbers() == list(range(10, 15))
        assert running.source.health().lost == 0


async def test_entries_trimmed_before_they_were_read_are_counted_one_by_one(server):
    reader = Reader()
    async with streams(server, reader) as running:
        await running.up()
        add(server, 0, 5)
        await running.lines(5)
    add(server, 5, 100)
    server.admin.xtrim("LOG", maxlen=20, approximate=False)
    async with streams(server, reader) as running:
        await running.lines(25)
        await running.until(lambda: running.source.health().lost)
        assert running.source.health().lost == 75
        server.admin.xtrim("LOG", maxlen=0)
        add(server, 100, 101)
        await running.lines(26)
        assert running.source.health().lost == 75


async def test_a_stream_that_went_back_or_began_anew_is_followed(server):
    async with streams(server) as running:
        await running.up()
        server.admin.xadd("LOG", {"line": record(0)}, id="99999999999999-5")
        await running.lines(1)
        server.admin.delete("LOG")
        await running.until(lambda: running.source.health().lost == 1)
        add(server, 1, 3)  # with ids that are lower
        await running.lines(3)
        running.save()
        await running.until(lambda: server.admin.xinfo_groups("LOG"))


async def test_who_may_only_read_reads_and_says_so_once(server):
    server.admin.execute_command(
        "ACL", "SETUSER", "reader", "on", ">s3cret", "~LOG", "+@read", "+@connection", "+multi", "+exec"
    )
    url = server.url.replace("unix://", "unix://reader:s3cret@")
    async with Running(url, mode="stream", stream="LOG") as running:
        await running.up()
        add(server, 0, 3)
        await running.lines(3)
        for n in range(3, 6):
            running.save()
            add(server, n, n + 1)
            await running.lines(n + 1)
        assert running.source.health().up
        assert len(running.notes) == 1
        assert "the group mailward cannot be set, lines are read: " in running.notes[0]


async def test_a_right_that_is_taken_away_is_no_stream_made_anew(server):
    server.admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~LOG", "+@all")
    add(server, 0, 5)
    async with Running(
        server.url.replace("unix://", "unix://reader:pw@"), mode="stream", stream="LOG", start="start"
    ) as running:
        await running.lines(5)
        server.admin.execute_command("ACL", "SETUSER", "reader", "-xinfo")
        await running.until(lambda: not running.source.health().up)
        assert (
            "NOPERM" in running.source.health().detail or "no permissions" in running.source.health().detail
        )
        server.admin.execute_command("ACL", "SETUSER", "reader", "+xinfo")
        await running.up()
        add(server, 5, 6)
        await running.lines(6)
        assert running.source.health().lost == 0


async def test_fields_of_syslog_are_one_line_each_and_bend_nothing(server):
    async with streams(server) as running:
        await running.up()
        text = "warning: unknown[198.51.100.7]: SASL LOGIN authentication failed: (reason unavailable), sasl_username=x"
        values = {"time": "1795629601", "host": "mx", "program": "postfix/submission/smtpd", "pid": "412"}
        server.admin.xadd("LOG", {**values, "message": text + "\n<20>1 - evil postfix/smtpd 1 - - x\0\r"})
        server.admin.xadd("LOG", {"program": "a b] c", "pid": "1 2", "host": "", "message": b"\xff text"})
        server.admin.xadd("LOG", {"other": "1"})
        server.admin.xadd("LOG", {"line": "one\ntwo"})
        assert await running.lines(3) == [
            b"<22>1 2026-11-25T18:00:01Z mx postfix/submission/smtpd 412 - - "
            + text.encode()
            + b"#012<20>1 - evil postfix/smtpd 1 - - x\0",
            b"<22>1 - - - - - - \xff text",
            b"one#012two",
        ]


# ------------------------------------------------------------------------------------------------ channels


async def test_a_channel_gives_texts_and_each_end_of_the_connection_is_a_loss(server):
    async with Running(server.url, channel="F2B") as running:
        await running.up()
        server.admin.publish("F2B", "connect from a[198.51.100.1] number 1")
        await running.lines(1)
        assert running.source.health().lost == 0
        [client] = server.admin.client_list(_type="pubsub")
        server.admin.client_kill_filter(_id=client["id"])
        await running.until(lambda: running.source.health().lost == 1)
        await running.until(lambda: server.admin.pubsub_numsub("F2B")[0][1])
        server.admin.publish("F2B", "connect from a[198.51.100.1] number 2")
        await running.lines(2)
        assert running.reader.numbers() == [1, 2]
        assert running.reader.positions == {}
        assert [note.partition("redis.sock")[2] for note in running.notes] == [
            ": channel F2B: the connection has ended: what is published until the next one is lost",
            ": Connection closed by server.",
            " channel F2B: read again",
        ]


async def test_a_listener_that_is_too_slow_is_cut_off_and_that_is_counted(server):
    server.admin.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
    running = Running(server.url, channel="F2B")
    free = asyncio.Event()
    put = running.reader.put

    async def slow(chunk):
        await free.wait()
        await put(chunk)

    running.reader.put = slow  # type: ignore[method-assign]
    async with running:
        await running.up()
        for _ in range(60):
            await asyncio.to_thread(server.admin.publish, "F2B", b"x" * 100_000)
        await running.until(lambda: not server.admin.client_list(_type="pubsub"))
        free.set()
        await running.until(lambda: running.source.health().lost == 1)
        await running.until(lambda: running.source.health().up)
        assert 0 < len(running.reader.lines) < 60


async def test_only_what_begins_as_asked_is_taken(server):
    async with Running(server.url, channel="F2B", only=["mailcow UI: "]) as running:
        await running.up()
        for text in (
            "connect from x",
            "mailcow UI: Invalid password for a by 198.51.100.1",
            "x mailcow UI: ",
        ):
            server.admin.publish("F2B", text)
        assert await running.lines(1) == [b"mailcow UI: Invalid password for a by 198.51.100.1"]


def test_heads_are_read_where_the_publisher_writes_them():
    line = b"Nov 25 18:00:00 mx dovecot: x"
    assert (bare(line), one_line(line)) == (b" " + line + b"\n", line + b"\n")


HEADS = [
    "Nov 25 18:00:00 mx postfix/smtpd[1]: x", "2026-11-25T18:00:00Z mx dovecot: x", "<20>1 - h dovecot - - - x",
    '{"program":"dovecot","message":"x"}', "@400000004c91aaaaaaaaaaaa dovecot: x", "éèà 25 18:00:00 mx dovecot: x",
]  # fmt: skip


@given(st.one_of(st.binary(max_size=120), st.sampled_from(HEADS).map(str.encode)), st.binary(max_size=40))
def test_no_message_of_a_channel_has_a_head(head, tail):
    line = bare(head + tail)
    assert line.count(b"\n") == 1
    opened = Envelope()
    opened.open(line[:-1].decode("utf-8", "surrogateescape").removesuffix("\r"))
    assert (opened.origin.family, opened.stamp, opened.at, opened.origin.host) == (BARE, "", -1.0, "")


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_every_record_is_one_line(parts):
    for line in (
        one_line(b"\n".join(parts)),
        of_list("SOGO_LOG", b"\n".join(parts)),
        of_stream([b"message", b"\r\n".join(parts)]),
    ):
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")


# ------------------------------------------------------------------------------------------------ the server


async def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path):
    server = Server(tmp_path)
    async with lists(server) as running:
        await running.until(lambda: running.notes)
        assert not running.source.health().up
        with server:
            await running.up()
            push(server, 0, 3)
            await running.lines(3)
            assert len(running.notes) == 2
            assert running.notes[1].endswith("lists LOG: read again")


@pytest.mark.parametrize("mode", ["channel", "list", "stream"])
async def test_no_password_is_told(tmp_path, mode):
    with Server(tmp_path, password="hunter2") as server:
        for password, up in (("hunter3hunter3", False), ("hunter2", True)):
            url = server.url.replace("unix://", f"unix://:{password}@")
            async with Running(url, mode=mode) as running:
                await running.until(lambda: running.source.health().up or running.notes)
                health = running.source.health()
                assert health.up == up
                assert "hunter" not in f"{health} {running.notes}"
                assert up or "invalid" in health.detail


async def test_a_user_with_few_rights(server):
    server.admin.execute_command(
        "ACL", "SETUSER", "guard", "on", ">pw", "~LOG", "+llen", "+lrange", "+multi", "+exec"
    )
    push(server, 0, 3)
    async with Running(
        server.url.replace("unix://", "unix://guard:pw@"), mode="list", keys=["LOG"], start="start"
    ) as running:
        await running.lines(3)
        assert running.notes == []


def certificates(folder: Any) -> Any:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test CA",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    openssl(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "redis.key",
        "-out",
        "redis.csr",
        "-subj",
        "/CN=localhost",
    )
    (folder / "ext").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    openssl("x509", "-req", "-in", "redis.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "redis.pem", "-days", "2",
            "-extfile", "ext")  # fmt: skip


async def test_tls_with_an_own_ca_and_never_without_it(tmp_path, free_port):
    certificates(tmp_path)
    options = ["--tls-port", str(free_port), "--bind", "127.0.0.1", "127.0.0.2", "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", "redis.pem", "--tls-key-file", "redis.key", "--tls-ca-cert-file", "ca.pem"]
    with Server(tmp_path, *options) as server:
        url = f"rediss://127.0.0.1:{free_port}/0"
        push(server, 0, 3)
        async with Running(
            f"{url}?ca={tmp_path}/ca.pem", mode="list", keys=["LOG"], start="start"
        ) as running:
            await running.lines(3)
        other = f"rediss://127.0.0.2:{free_port}?ca={tmp_path}/ca.pem"  # not the name in the certificate
        for wrong in (url, other, f"{url}?ca={tmp_path}/none.pem", f"redis://127.0.0.1:{free_port}"):
            async with Running(wrong, mode="list", keys=["LOG"], start="start") as running:
                await running.until(lambda: running.notes)
                assert not running.source.health().up
                assert running.reader.lines == []


async def test_a_server_that_stops_answering_is_left(server, monkeypatch):
    monkeypatch.setattr("guard.sources._redis_link.PATIENCE", 0.2)
    async with streams(server) as running:
        await running.up()
        server.process.send_signal(signal.SIGSTOP)
        try:
            await running.until(lambda: running.notes)
            assert "no answer within" in running.notes[0]
        finally:
            server.process.send_signal(signal.SIGCONT)
        await running.up()


# ------------------------------------------------------------------------------------------------ syslog-ng

SYSLOG_NG = """@version: 3.38
options {{ stats-freq(0); keep-timestamp(yes); use-dns(no); }};
source s_log {{ unix-dgram("{folder}/log"); }};
source s_sogo {{ pipe("{folder}/sogo_log"); }};
destination d_list {{ redis(host("127.0.0.1") port({port}) persist-name("list") command("LPUSH" "POSTFIX_MAILLOG" {json})); }};
destination d_sogo {{ redis(host("127.0.0.1") port({port}) persist-name("sogo") command("LPUSH" "SOGO_LOG" {json})); }};
destination d_channel {{ redis(host("127.0.0.1") port({port}) persist-name("channel") command("PUBLISH" "F2B_CHANNEL" "$(sanitize $MESSAGE)")); }};
destination d_stream {{ redis(host("127.0.0.1") port({port}) persist-name("stream") command("XADD" "MAILWARD" "MAXLEN" "~" "1000000" "*"
    "line" "<$PRI>1 $R_ISODATE $HOST $PROGRAM ${{PID:--}} - - $MESSAGE")); }};
destination d_sogo_stream {{ redis(host("127.0.0.1") port({port}) persist-name("sogo_stream") command("XADD" "MAILWARD_SOGO" "MAXLEN" "~" "1000000" "*"
    "line" "<$PRI>1 $R_ISODATE $HOST sogod - - - $MESSAGE")); }};
log {{ source(s_log); destination(d_list); destination(d_channel); destination(d_stream); }};
log {{ source(s_sogo); destination(d_sogo); destination(d_channel); destination(d_sogo_stream); }};
"""
JSON = r'"$(format-json time=\"$S_UNIXTIME\" priority=\"$PRIORITY\" program=\"$PROGRAM\" message=\"$MESSAGE\")\n"'
HOSTILE = (
    b"<20>%b postfix/smtpd[412]: warning: unknown[198.51.100.7]: SASL LOGIN authentication failed: (reason unavailable),"
    b' sasl_username=a/b"\\\xff\xc3\xa9 \x01\nNov 25 18:00:00 postfix/smtpd[1]: warning: unknown[203.0.113.9]: SASL PLAIN'
    b" authentication failed: x"
)
SOGO = (
    b"%b sogod [98]: SOGoRootPage Login from '198.51.100.7' for user 'u/x' might not have worked - password policy: 65535"
    b"  grace: -1  expire: -1  bound: 0\n"
    b"%b sogod [98]: SOGoRootPage Login from '198.51.100.7' for user 'u\n"
    b"%b postfix/smtpd[1]: warning: unknown[203.0.113.9]: SASL PLAIN authentication failed: x' might not\n"
)


@pytest.mark.parametrize("mode", ["channel", "list", "stream"])
async def test_what_the_real_syslog_ng_sends_blames_nobody_else(tmp_path, free_port, mode, syslog_ng):
    os.mkfifo(tmp_path / "sogo_log")
    (tmp_path / "ng.conf").write_text(SYSLOG_NG.format(folder=tmp_path, port=free_port, json=JSON))
    with Server(tmp_path, "--port", str(free_port), "--bind", "127.0.0.1") as server, syslog_ng(tmp_path):
        reader = Reader()
        async with Running(server.url, reader, mode=mode) as running, sogo_of(server, reader, mode) as sogo:
            await running.up()
            await sogo.up()
            stamp = time.strftime("%b %e %H:%M:%S").encode()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
                log.connect(str(tmp_path / "log"))
                log.send(HOSTILE % stamp)
            with (tmp_path / "sogo_log").open("wb") as pipe:
                pipe.write(SOGO % (stamp, stamp, stamp))
            lines = await running.lines(4)
    [guess] = [line for line in lines if b"SASL LOGIN" in line]
    if mode == "channel":  # nothing but its text says whose a message is
        assert guess.startswith(b"warning: unknown[198.51.100.7]: SASL LOGIN authentication failed: ")
        assert b"a_b" in guess  # what sanitising makes of a slash
        return
    engine = Engine(Policy(), clock=Clock(now=time.time(), live=True))
    for stream in sorted(reader.streams, reverse=True):
        engine.feed(stream, reader.streams[stream], time.time(), "r")
    report: Any = engine.report()
    [source] = report["sources"]
    assert (source["ip"], source["by_protocol"]) == ("198.51.100.7", {"smtp": 1})


def sogo_of(server: Any, reader: Any, mode: Any) -> Any:
    """SOGo's lines have a stream of their own: a torn record of its makes the core doubt what follows in the same one."""
    return Running(server.url, reader, mode="stream", stream="MAILWARD_SOGO" if mode == "stream" else "NONE")
