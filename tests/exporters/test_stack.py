"""The stack exporter against real sockets: TLS, DNS, HTTP, and servers that say nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from dns.asyncresolver import Resolver

from exporters import exposition, registry_of
from exporters.stack import certificates, daemons, dns_records, mta_sts, settings, spool
from exporters.stack.board import Board, Found, Look
from exporters.stack.certificates import Port
from tests.exporters.certificates import NAME, Authority, TlsServer
from tests.nameserver import NameServer, Records

ROOT = Path(__file__).parent.parent.parent
DAY = 86400


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def seen(authority: Authority, server: TlsServer) -> tuple[dict[str, float], tuple[str, ...]]:
    port = Port("127.0.0.1", server.port, server.mode)
    context = ssl.create_default_context(cafile=authority.file)
    found = asyncio.run(certificates.look([port], NAME, context, 5.0))
    return {key[0].removeprefix("certificate_"): value for key, value in found.values.items()}, found.troubles


@pytest.mark.parametrize("mode", certificates.MODES)
def test_a_good_certificate_is_trusted_and_its_end_is_known(authority, mode):
    with TlsServer(authority.signed(days=20), mode) as server:
        values, troubles = seen(authority, server)
    assert (values["up"], values["trusted"], troubles) == (1, 1, ())
    assert abs(values["expiry_timestamp_seconds"] - (time.time() + 20 * DAY)) < 3600


@pytest.mark.parametrize(
    ("certificate", "days", "why"),
    [
        (lambda a: a.self_signed(), 30, "self-signed"),
        (lambda a: a.signed(days=-3), -3, "expired"),
        (lambda a: a.signed("other.example.org"), 20, "not valid for"),
    ],
)
@pytest.mark.parametrize("mode", ["tls", "imap"])
def test_a_certificate_that_does_not_verify_is_up_and_not_trusted(authority, certificate, days, why, mode):
    with TlsServer(certificate(authority), mode) as server:
        values, [trouble] = seen(authority, server)
    assert (values["up"], values["trusted"]) == (1, 0)
    assert abs(values["expiry_timestamp_seconds"] - (time.time() + days * DAY)) < 3600
    assert why in trouble.replace("self signed", "self-signed")  # OpenSSL 1.1 wrote it so


@pytest.mark.parametrize(
    ("greeting", "mode", "why"),
    [
        (b"", "tls", "no answer in time"),
        (b"", "smtp", "no answer in time"),
        (b"220-no end\r\n" * 200, "smtp", "without an end"),
        (b"x" * 100_000, "imap", "ValueError"),
        (b"554 go away\r\n", "smtp", "refuses"),
        (b"-ERR \x1b[2J\r\n", "pop3", "refuses"),
    ],
)
def test_a_port_that_makes_no_sense_is_not_up_and_costs_no_more_than_its_patience(
    authority, greeting, mode, why
):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = Port("127.0.0.1", listening.getsockname()[1], mode)

        async def look() -> Found:
            wait = asyncio.create_task(
                certificates.look([port], NAME, ssl.create_default_context(cafile=authority.file), 0.5)
            )
            client = (await asyncio.to_thread(listening.accept))[0]
            with client:
                await asyncio.to_thread(client.sendall, greeting)
                return await wait

        began = time.monotonic()
        found = asyncio.run(look())
    assert set(found.values.values()) == {0.0}
    assert why in found.troubles[0]
    assert "\x1b" not in found.troubles[0]
    assert time.monotonic() - began < 3


def test_a_port_that_nobody_serves_is_not_up(authority):
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    found = asyncio.run(
        certificates.look([Port("127.0.0.1", number, "tls")], NAME, ssl.create_default_context(), 2)
    )
    assert found.values == {
        ("certificate_up", str(number)): 0.0,
        ("certificate_trusted", str(number)): 0.0,
    }


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x82\xff\xff", b"\x30\x80", b"\x30\x03\x30\x01\x30"])
def test_what_is_no_certificate_raises_value_error(der):
    with pytest.raises(ValueError, match="cut off"):
        certificates.expiry(der)


D = "example.org"
GOOD: Records = {
    (D, "MX"): (60, ["10 mail.example.org."]),
    (D, "TXT"): (60, ['"v=spf1 mx -all"', '"other"']),
    ("mail._domainkey.example.org", "TXT"): (60, ['"v=DKIM1; k=rsa; " "p=MIIB"']),
    ("_dmarc.example.org", "TXT"): (60, ['"v=DMARC1; p=reject"']),
    ("_25._tcp.mail.example.org", "TLSA"): (60, ["3 1 1 " + "ab" * 32]),
    ("_mta-sts.example.org", "TXT"): (60, ['"v=STSv1; id=2026;"']),
    ("mta-sts.example.org", "A"): (60, ["127.0.0.1"]),
}


def resolver(server: NameServer) -> Resolver:
    made = Resolver(configure=False)
    made.nameservers, made.port = ["127.0.0.1"], server.port
    return made


def dns_seen(zone: Records, fault: str = "", patience: float = 3.0) -> tuple[set[str], Found]:
    with NameServer(zone) as server:
        if fault:
            setattr(server, fault, True)
        found = asyncio.run(dns_records.look([D], NAME, ["mail"], resolver(server), patience))
    return {key[2] for key, value in found.values.items() if not value}, found


def test_published_records_are_well():
    bad, found = dns_seen(GOOD)
    assert (bad, found.troubles) == (set(), ())
    assert {key[2] for key in found.values} == set(dns_records.RECORDS)


@pytest.mark.parametrize(
    ("key", "texts", "bad"),
    [
        ((D, "MX"), None, {"mx", "tlsa"}),
        ((D, "MX"), ["0 ."], {"mx", "tlsa"}),
        ((D, "MX"), ["10 elsewhere.example.net."], {"mx", "tlsa"}),
        ((D, "TXT"), None, {"spf"}),
        ((D, "TXT"), ['"v=spf1 -all"', '"v=spf1 mx -all"'], {"spf"}),
        ((D, "TXT"), ['"v=spf10 -all"'], {"spf"}),
        (("mail._domainkey.example.org", "TXT"), None, {"dkim"}),
        (("mail._domainkey.example.org", "TXT"), ['"v=DKIM1; p="'], {"dkim"}),
        (("_dmarc.example.org", "TXT"), None, {"dmarc"}),
        (("_dmarc.example.org", "TXT"), ['"v=DMARC1; p=perhaps"'], {"dmarc"}),
        (("_25._tcp.mail.example.org", "TLSA"), None, {"tlsa"}),
    ],
)
def test_a_record_that_is_missing_or_wrong_is_not_ok(key, texts, bad):
    zone = {**GOOD, key: (60, texts or [])}
    if texts is None:
        del zone[key]
    assert dns_seen(zone)[0] == bad


@pytest.mark.parametrize("fault", ["fails", "silent"])
def test_a_name_server_that_fails_leaves_nothing_ok(fault):
    bad, found = dns_seen(GOOD, fault, 0.5)
    assert bad == set(dns_records.RECORDS)
    assert len(found.troubles) == 5


POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.org\r\nmax_age: 604800\r\n"


def sts_seen(
    authority: Authority, *, zone: Records = GOOD, policy: str = POLICY, status: str = "200 OK",
    kind: str = "text/plain", certificate: Path | None = None,
) -> set[str]:  # fmt: skip
    certificate = certificate or authority.signed("mta-sts.example.org")
    reply = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n{policy}".encode()
    with TlsServer(certificate, reply=reply) as web, NameServer(zone) as names:
        context = ssl.create_default_context(cafile=authority.file)
        found = asyncio.run(mta_sts.look([D], resolver(names), context, 5, web.port))
    assert {key[2] for key in found.values} == set(mta_sts.CHECKS)
    return {key[2] for key, value in found.values.items() if not value}


@pytest.mark.parametrize("mx", ["mail.example.org", "*.example.org", "MAIL.example.org"])
def test_a_policy_that_agrees_with_dns_is_well(authority, mx):
    assert sts_seen(authority, policy=POLICY.replace("mail.example.org", mx)) == set()


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        ({"zone": {key: value for key, value in GOOD.items() if "_mta" not in key[0]}}, {"record"}),
        ({"zone": {**GOOD, ("_mta-sts.example.org", "TXT"): (60, ['"v=STSv1; id="'])}}, {"record"}),
        ({"zone": {**GOOD, (D, "MX"): (60, ["1 mail.example.org.", "2 b.example.net."])}}, {"mx"}),
        ({"policy": POLICY.replace("mail.", "*.mail.")}, {"mx"}),
        ({"policy": POLICY.replace("enforce", "maybe")}, {"policy", "mx"}),
        ({"policy": POLICY.replace("604800", "soon")}, {"policy", "mx"}),
        ({"policy": POLICY.replace("mx:", "m:")}, {"policy", "mx"}),
        ({"policy": "a" * 70_000}, {"policy", "mx", "certificate"}),
        ({"status": "301 Moved"}, {"policy", "mx"}),
        ({"kind": "text/html"}, {"policy", "mx"}),
    ],
)
def test_each_part_of_mta_sts_can_be_wrong(authority, change, bad):
    assert sts_seen(authority, **change) == bad


def test_a_policy_behind_a_certificate_that_does_not_verify_is_none(authority):
    for certificate in (authority.signed("other.example.org"), authority.self_signed("mta-sts.example.org")):
        assert sts_seen(authority, certificate=certificate) == {"policy", "mx", "certificate"}


def test_freshclam_is_judged_by_its_newest_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="never fetched"):
        asyncio.run(daemons.freshclam(tmp_path, 3600))
    (tmp_path / "eicar.ndb").touch()  # not freshclam's
    daily, main = tmp_path / "daily.cld", tmp_path / "main.cvd"
    for file in (daily, main):
        file.touch()
        os.utime(file, (time.time() - 7200, time.time() - 7200))
    assert asyncio.run(daemons.freshclam(tmp_path, 3600)).values == {("service_up", "freshclam"): 0.0}
    daily.touch()
    assert asyncio.run(daemons.freshclam(tmp_path, 3600)).values == {("service_up", "freshclam"): 1.0}
    assert asyncio.run(daemons.freshclam(main, 3600)).values == {("service_up", "freshclam"): 0.0}


def test_olefy_answers_the_ping_of_the_stacks_own():
    code = "import asyncio, olefy, sys; olefy.PORT = int(sys.argv[1]); asyncio.run(olefy.main())"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = f"127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(port)], cwd=ROOT / "stack/olefy", stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            assert b"listening" in process.stdout.readline()
            assert asyncio.run(daemons.olefy(where)).values == {("service_up", "olefy"): 1.0}
        finally:
            process.terminate()
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        asyncio.run(daemons.olefy(where))


def test_a_look_that_fails_or_hangs_stands_at_zero_and_is_told_once():
    told: list[str] = []
    state = {"hang": False, "fail": True}

    async def take():
        if state["hang"]:
            await asyncio.sleep(60)
        if state["fail"]:
            raise ConnectionResetError("gone \x1b")
        return Found({("service_up", "olefy"): 1.0})

    look = Look("olefy", 1, 0.2, take, {("service_up", "olefy"): 0.0})
    board = Board([look], told.append)

    def shown() -> list[float]:
        asyncio.run(board.once())
        text = exposition(registry_of(board), "application/openmetrics-text")[0].decode()
        assert "_created" not in text
        assert text.endswith("# EOF\n")
        return [
            float(re.findall(rf"^mailward_stack_{name}\{{.*\}} (\S+)$", text, re.MULTILINE)[0])
            for name in ("service_up", "check_ok", "check_seconds", "check_timestamp_seconds")
        ]

    assert shown()[:2] == [0, 0]
    assert shown()[:2] == [0, 0]
    assert told == ["olefy: ConnectionResetError: gone \\x1b"]
    state["hang"] = True
    up, ok, took, at = shown()
    assert (up, ok) == (0, 0)
    assert 0.2 <= took < 5
    assert abs(at - time.time()) < 5
    state.update(hang=False, fail=False)
    assert shown()[:2] == [1, 1]
    assert told[-1] == "olefy: well again"


def test_queue_files_that_are_none_of_postfix_count_by_their_mtime(tmp_path):
    for queue in spool.QUEUES:
        (tmp_path / queue).mkdir()
    odd = tmp_path / "corrupt" / "odd"
    odd.write_bytes(b"C\xff" + b"\x00" * 300)
    os.utime(odd, (1000, 1000))
    (tmp_path / "hold" / "loop").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "hold" / "fifo")
    values = spool.measured(tmp_path, 1600.0).values
    assert values["queue_messages", "corrupt"] == 1
    assert values["queue_oldest_seconds", "corrupt"] == 600
    assert values["queue_messages", "hold"] == 0
    with pytest.raises(FileNotFoundError, match="no queue directory"):
        spool.measured(tmp_path / "hold", 0)


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporters.stack", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **variables}, timeout=30, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ports", "h:25"], "--hostname (EXPORTER_HOSTNAME)"),
        (["--ports", "h:25/ftp", "--hostname", "a.b"], "--ports (EXPORTER_PORTS) is 'h:25/ftp'; expected: HOST:PORT"),
        (["--ports", "h:25 i:25", "--hostname", "a.b"], "each port number once"),
        (["--domains", "exämple.org"], "IDN in its xn-- form"),
        (["--domains", 'a"b'], "EXPORTER_DOMAINS"),
        (["--resolver", "unbound"], "HOST:PORT"),
        (["--resolver", "unbound:53"], "an IP address"),
        (["--queue", "spool"], "an absolute path"),
        (["--intervals", "queues=1"], "with a LOOK of queue"),
        (["--timeout", "0"], "more than 0"),
        (["--listen", "9117"], "HOST:PORT"),
        (["--clamd", "clamd"], "EXPORTER_CLAMD"),
        (["--nonsense"], "--help"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_names_key_and_remedy(arguments, says):
    with pytest.raises(settings.Wrong, match=re.escape(says)):
        settings.read(arguments, {})


def test_variables_stand_in_for_arguments_which_go_first():
    variables = {"EXPORTER_PORTS": "postfix:25 [::1]:465 dovecot:4190", "EXPORTER_HOSTNAME": NAME, "EXPORTER_TIMEOUT": "3"}  # fmt: skip
    read = settings.read(["--timeout", "4", "--resolver", "[::1]:5353"], variables)
    assert read.ports == (
        Port("postfix", 25, "smtp"),
        Port("::1", 465, "tls"),
        Port("dovecot", 4190, "sieve"),
    )
    assert (read.timeout, read.resolver) == (4, ("::1", 5353))


def test_the_exit_status_says_whose_fault_it_is(tmp_path):
    wrong = command("--once", EXPORTER_TIMEOUT="never")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "EXPORTER_TIMEOUT" in wrong.stderr
    world = command("--once", "--ca", str(tmp_path / "missing.pem"))
    assert (world.returncode, world.stdout) == (3, "")
    assert "missing.pem" in world.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command("--listen", f"127.0.0.1:{taken.getsockname()[1]}").returncode == 3
    assert "examples:" in command("--help").stdout


def test_it_serves_while_a_server_hangs_and_ends_at_sigterm(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        subprocess.Popen(
            [sys.executable, "-m", "exporters.stack", "--listen", "127.0.0.1:0", "--timeout", "0.3",
             "--olefy", f"127.0.0.1:{silent.getsockname()[1]}", "--freshclam", str(tmp_path), "--intervals", "freshclam=0.1"],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stderr
            port = next(m[1] for line in process.stderr if (m := re.search(r"listening on .*:(\d+)", line)))

            def scraped() -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                    return str(answer.read(), "utf-8")

            text = scraped()
            assert 'mailward_stack_service_up{service="olefy"} 0.0' in text
            assert 'mailward_stack_service_up{service="freshclam"} 0.0' in text
            (tmp_path / "daily.cld").touch()
            until = time.monotonic() + 10
            while 'mailward_stack_service_up{service="freshclam"} 1.0' not in scraped():
                assert time.monotonic() < until
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_sigterm_ends_it_during_the_first_look_too():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        subprocess.Popen(
            [sys.executable, "-m", "exporters.stack", "--listen", "127.0.0.1:0", "--timeout", "60",
             "--olefy", f"127.0.0.1:{silent.getsockname()[1]}"],
            cwd=ROOT,
        ) as process,
    ):  # fmt: skip
        try:
            with silent.accept()[0]:  # it looks
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
        finally:
            process.kill()
