"""The stack exporter against real sockets: TLS, DNS, HTTP, and servers that say nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dns.asyncresolver import Resolver

from exporters import exposition, registry_of
from exporters.stack import certificates, daemons, dns_records, mta_sts, settings, spool
from exporters.stack.board import Board, Found, Look
from exporters.stack.certificates import Port
from tests.exporters.certificates import NAME, Authority, TlsServer, openssl
from tests.nameserver import NameServer, Records

ROOT = Path(__file__).parent.parent.parent
DAY = 86400
OPENSSL_3 = ssl.OPENSSL_VERSION_INFO >= (3,)  # the older one writes PKCS#1 unasked


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
    assert time.monotonic() - began < 20


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


@pytest.fixture(scope="module")
def signing_keys(tmp_path_factory):
    """Files of one RSA key in every form, of an Ed25519 key, and the text that DNS holds for each."""
    folder = tmp_path_factory.mktemp("keys")
    openssl(folder, "genrsa", "-traditional" if OPENSSL_3 else "-f4", "-out", "pkcs1.key", "2048")
    openssl(folder, "pkcs8", "-topk8", "-nocrypt", "-in", "pkcs1.key", "-out", "pkcs8.key")
    openssl(folder, "rsa", "-in", "pkcs1.key", "-pubout", "-out", "rsa.pub")
    openssl(folder, "genpkey", "-algorithm", "ed25519", "-out", "ed25519.key")
    openssl(folder, "pkey", "-in", "ed25519.key", "-pubout", "-out", "ed25519.pub")
    openssl(folder, "genrsa", "-out", "other.key", "2048")
    rsa, ed25519 = (
        "".join((folder / name).read_text().splitlines()[1:-1]) for name in ("rsa.pub", "ed25519.pub")
    )
    texts = {
        "rsa": f"v=DKIM1; k=rsa; p={rsa}",
        "ed25519": f"v=DKIM1; k=ed25519; p={base64.b64encode(base64.b64decode(ed25519)[-32:]).decode()}",
    }
    # As rspamadm dkim_keygen and opendkim-genkey write it.
    parts = f'"v=DKIM1; k=rsa; "\n\t"p={rsa[:200]}"\n\t"{rsa[200:]}"'
    (folder / "zone.txt").write_text(f"mail._domainkey IN TXT ( {parts} ) ;\n")
    (folder / "bare.txt").write_text(texts["rsa"] + "\n")
    (folder / "nonsense.key").write_text("-----BEGIN PRIVATE KEY-----\nMAMC\n-----END PRIVATE KEY-----\n")
    (folder / "empty.key").touch()
    return folder, texts


def dkim_seen(published: str, path: str) -> tuple[float, str]:
    quoted = " ".join(f'"{published[n : n + 250]}"' for n in range(0, len(published), 250))
    zone = {**GOOD, ("mail._domainkey.example.org", "TXT"): (60, [quoted])}
    with NameServer(zone) as server:
        found = asyncio.run(dns_records.look([D], NAME, ["mail"], resolver(server), 3.0, path))
    return found.values["dns_ok", D, "dkim"], " ".join(found.troubles)


@pytest.mark.parametrize(
    ("kind", "file"),
    [("rsa", "pkcs1.key"), ("rsa", "pkcs8.key"), ("rsa", "rsa.pub"), ("rsa", "zone.txt"), ("rsa", "bare.txt"),
     ("ed25519", "ed25519.pub")],
)  # fmt: skip
def test_the_published_key_is_the_one_that_signs(signing_keys, kind, file):
    folder, texts = signing_keys
    assert dkim_seen(texts[kind], str(folder / file)) == (1, "")
    assert dkim_seen(texts[kind].replace("p=", "p= "), str(folder / file)) == (1, "")  # RFC 6376 2.8
    # As short as a change can be: one bit of the key; and a key of another kind.
    swapped = texts[kind][:-6] + ("B" if texts[kind][-6] == "A" else "A") + texts[kind][-5:]
    for other in (swapped, texts["ed25519" if kind == "rsa" else "rsa"], texts[kind].replace("k=", "k=x")):
        up, trouble = dkim_seen(other, str(folder / file))
        assert up == 0
        assert "selector mail: what is published is not the key in" in trouble


def test_a_key_without_k_is_rsa_and_the_path_is_each_domains_own(signing_keys, tmp_path):
    folder, texts = signing_keys
    shutil.copy(folder / "rsa.pub", tmp_path / "example.org.mail.pub")
    path = str(tmp_path / "$domain.$selector.pub")
    assert dkim_seen(texts["rsa"].replace("k=rsa; ", ""), path) == (1, "")
    assert dkim_seen("v=DKIM1; p=%%%", path)[0] == 0
    shutil.copy(folder / "other.key", tmp_path / "example.org.mail.pub")
    assert dkim_seen(texts["rsa"], path)[0] == 0


@pytest.mark.parametrize(
    ("file", "says"),
    [("missing.key", "No such file"), ("nonsense.key", "nonsense.key: no key"), ("empty.key", "empty.key: no key"),
     ("ed25519.key", "give the public key")],
)  # fmt: skip
def test_a_key_that_cannot_be_read_is_not_said_to_be_published(signing_keys, file, says):
    folder, texts = signing_keys
    up, trouble = dkim_seen(texts["ed25519"], str(folder / file))
    assert up == 0
    assert says in trouble


POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.org\r\nmax_age: 604800\r\n"


def sts_seen(
    authority: Authority, *, zone: Records = GOOD, policy: str = POLICY, status: str = "200 OK",
    kind: str = "text/plain", certificate: Path | None = None, end: str = "",
) -> set[str]:  # fmt: skip
    certificate = certificate or authority.signed("mta-sts.example.org")
    reply = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n{policy}".encode()
    with TlsServer(certificate, reply=b"" if end else reply) as web, NameServer(zone) as names:
        web.hangs = end == "hangs"
        context = ssl.create_default_context(cafile=authority.file)
        found = asyncio.run(mta_sts.look([D], resolver(names), context, 0.5 if web.hangs else 5, web.port))
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
        ({"policy": "a" * 70_000}, {"policy", "mx"}),
        ({"end": "hangs up"}, {"policy", "mx"}),
        ({"end": "hangs"}, {"policy", "mx"}),
        ({"status": "301 Moved"}, {"policy", "mx"}),
        ({"kind": "text/html"}, {"policy", "mx"}),
    ],
)
def test_each_part_of_mta_sts_can_be_wrong(authority, change, bad):
    assert sts_seen(authority, **change) == bad


def test_a_policy_behind_a_certificate_that_does_not_verify_is_none(authority):
    for certificate in (authority.signed("other.example.org"), authority.self_signed("mta-sts.example.org")):
        assert sts_seen(authority, certificate=certificate) == {"policy", "mx", "certificate"}


def freshclam(path: Path, oldest: float = 3600.0) -> float:
    return asyncio.run(daemons.freshclam(path, oldest)).values["service_up", "freshclam"]


def test_a_folder_is_judged_by_the_newest_signatures_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match="never fetched"):
        freshclam(tmp_path)
    # Not freshclam's; and what it also writes when the mirror sends it away.
    for name in ("eicar.ndb", "freshclam.dat", "freshclam.log"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match="never fetched"):
        freshclam(tmp_path)
    daily = tmp_path / "daily.cld"
    for file in (daily, tmp_path / "main.cvd"):
        file.touch()
        os.utime(file, (time.time() - 7200, time.time() - 7200))
    assert freshclam(tmp_path) == 0
    daily.touch()
    assert freshclam(tmp_path) == 1


def check(age: float, *lines: str) -> str:
    began = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - age))
    head = f"--------------------------------------\nClamAV update process started at {began}\n"
    return head + "".join(f"{line}\n" for line in lines)


WELL = "daily.cld database is up-to-date (version: 27800, sigs: 1, f-level: 90, builder: x)"
RETRIED = "ERROR: Download failed (7)  Message: Couldn't connect to server"
FAILED = "ERROR: Update failed."
AWAY = "WARNING: You are on cool-down until after: 2026-11-27 01:00:00"


@pytest.mark.parametrize(
    ("text", "up"),
    [
        (check(60, WELL), 1),
        (check(60, RETRIED, WELL), 1),
        (check(60, "daily.cvd updated (version: 27801, sigs: 1)"), 1),
        (check(60, WELL, FAILED), 0),
        (check(600, WELL) + check(60, FAILED), 0),
        (check(600, FAILED) + check(60, WELL), 1),
        (check(600, WELL) + check(1), 1),  # going on
        (check(600, FAILED) + check(1), 0),
        (check(7200, WELL) + check(60, AWAY), 0),  # it runs, and gets nothing
        (check(7200, WELL) + check(60, WELL.replace("daily", "main"), AWAY), 0),
        (check(600, WELL) + check(60, WELL.replace("daily", "main"), AWAY), 1),
        (check(7200, WELL), 0),
        ("x" * 200_000 + "\n" + check(60, WELL), 1),
    ],
)
def test_a_log_is_judged_by_the_last_check_that_ended(tmp_path, text, up):
    log = tmp_path / "freshclam.log"
    log.write_text(text)
    assert freshclam(log) == up


def test_a_log_that_was_just_rotated_is_read_with_the_one_before(tmp_path):
    (tmp_path / "freshclam.log.1").write_text(check(60, WELL))
    log = tmp_path / "freshclam.log"
    with pytest.raises(FileNotFoundError, match=r"freshclam\.log'"):
        freshclam(log)
    for text, up in (("", 1), (check(1), 1), (check(1, FAILED), 0)):
        log.write_text(text)
        assert freshclam(log) == up


@pytest.mark.parametrize(
    "text",
    ["", check(1), "ClamAV update process started at noon\n" + WELL],
    ids=["empty", "running", "no time"],
)
def test_a_log_without_a_check_that_ended_says_so(tmp_path, text):
    log = tmp_path / "freshclam.log"
    log.write_text(text)
    with pytest.raises(ValueError, match="no check"):
        freshclam(log)


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
    assert 0.2 <= took < 30
    assert abs(at - time.time()) < 30
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
        (["--dkim-key-path", "/dkim/$domain.pub", "--domains", "a.b"], "expected: --domains and --dkim-selectors beside it"),
        (["--dkim-key-path", "keys", "--domains", "a.b", "--dkim-selectors", "s"], "an absolute path"),
        ([], "nothing to look at: set one or more of --queue, --ports, --domains, --clamd, --olefy, --freshclam"),
        (["--once", "--hostname", "a.b", "--domains", " "], "nothing to look at"),
        (["--config", "/nowhere/stack.toml"], "/nowhere/stack.toml"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_names_key_and_remedy(arguments, says):
    with pytest.raises(settings.Wrong, match=re.escape(says)):
        settings.read(arguments, {})


def test_variables_stand_in_for_arguments_which_go_first():
    variables = {"EXPORTER_CONFIG": "", "EXPORTER_PORTS": "postfix:25 [::1]:465 dovecot:4190", "EXPORTER_HOSTNAME": NAME, "EXPORTER_TIMEOUT": "3"}  # fmt: skip
    read = settings.read(["--timeout", "4", "--resolver", "[::1]:5353"], variables)
    assert read.ports == (
        Port("postfix", 25, "smtp"),
        Port("::1", 465, "tls"),
        Port("dovecot", 4190, "sieve"),
    )
    assert (read.timeout, read.resolver) == (4, ("::1", 5353))


CONFIGURATION = """
hostname = "mail.example.org"
domains = ["example.org", "example.net"]
dkim-selectors = "mail"
ports = ["localhost:25", "localhost:993"]
timeout = 4

[intervals]
queue = 5
dns = 600.5
"""


def test_a_file_holds_the_same_keys_and_goes_last(tmp_path):
    file = tmp_path / "stack.toml"
    file.write_text(CONFIGURATION)
    read = settings.read(["--config", str(file), "--timeout", "6"], {"EXPORTER_DKIM_SELECTORS": "a b"})
    assert (read.hostname, read.domains) == (NAME, ("example.org", "example.net"))
    assert read.ports == (Port("localhost", 25, "smtp"), Port("localhost", 993, "tls"))
    assert (read.timeout, read.selectors) == (6, ("a", "b"))
    assert read.intervals == {**settings.INTERVALS, "queue": 5, "dns": 600.5}
    assert settings.read([], {"EXPORTER_CONFIG": str(file)}).timeout == 4
    assert settings.read(["--ports", ""], {"EXPORTER_CONFIG": str(file)}).ports == ()
    file.write_text("timeout = 4")
    with pytest.raises(settings.Wrong, match="nothing to look at") as error:
        settings.read(["--config", str(file)], {})
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("domain = 'a.b'", "domain is not a key; expected one of: listen, queue, hostname, ports"),
        ("config = '/x'", "config is not a key"),
        ("domains = ['a.b', 'c d']", "domains is 'c d'; expected: a string without a space"),
        ("domains = ['exämple.org']", "domains is 'exämple.org'; expected: a name of letters"),
        ("domains = true", "domains is True; expected: a string, a number or a list of strings"),
        ("domains = [1]", "domains is [1]; expected: a string, a number or a list of strings"),
        ("timeout = 0", "timeout is '0'; expected: seconds, more than 0"),
        ("intervals = {queues = 1}", "intervals is 'queues=1'; expected: LOOK=SECONDS"),
        ("queue = 'spool'", "queue is 'spool'; expected: an absolute path"),
        ("domains = [\n?", "line 2"),
        ("ports = 'h:25'", "ports is 'h:25'; expected: --hostname (EXPORTER_HOSTNAME) beside it"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path, text, says):
    file = tmp_path / "stack.toml"
    file.write_text(text)
    with pytest.raises(settings.Wrong, match=re.escape(f"{file}: ")) as error:
        settings.read(["--config", str(file)], {})
    assert says in str(error.value)


def test_the_exit_status_says_whose_fault_it_is(tmp_path):
    wrong = command("--once", EXPORTER_TIMEOUT="never")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "EXPORTER_TIMEOUT" in wrong.stderr
    (tmp_path / "stack.toml").write_text("nonsense = 1")
    for nothing in ((), ("--once",), ("--once", "--config", str(tmp_path / "stack.toml"))):
        wrong = command(*nothing)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "expected one of" in wrong.stderr if nothing[1:] else "set one or more of" in wrong.stderr
    world = command("--once", "--queue", str(tmp_path), "--ca", str(tmp_path / "missing.pem"))
    assert (world.returncode, world.stdout) == (3, "")
    assert "missing.pem" in world.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert command("--listen", address, "--queue", str(tmp_path)).returncode == 3
    assert "examples:" in command("--help").stdout


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """Yield the exporter, which listens, and what a scrape of it gives."""
    with subprocess.Popen(
        [sys.executable, "-m", "exporters.stack", "--listen", "127.0.0.1:0", *arguments],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr
            port = next(m[1] for line in process.stderr if (m := re.search(r"listening on .*:(\d+)", line)))

            def scraped() -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
                    return str(answer.read(), "utf-8")

            yield process, scraped
        finally:
            process.kill()


def test_it_serves_while_a_server_hangs_and_ends_at_sigterm(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serving(
            "--timeout", "0.3", "--olefy", f"127.0.0.1:{silent.getsockname()[1]}", "--freshclam", str(tmp_path),
            "--intervals", "freshclam=0.1",
        ) as (process, scraped),
    ):  # fmt: skip

        def shows(service: str, up: float) -> None:
            until = time.monotonic() + 60
            while f'mailward_stack_service_up{{service="{service}"}} {up}' not in scraped():
                assert time.monotonic() < until

        shows("olefy", 0.0)
        shows("freshclam", 0.0)
        (tmp_path / "daily.cld").touch()
        shows("freshclam", 1.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_it_listens_before_the_first_look_has_ended_and_says_so(authority):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        NameServer(GOOD) as names,
        serving(
            "--timeout", "60", "--olefy", f"127.0.0.1:{silent.getsockname()[1]}", "--domains", D,
            "--resolver", f"127.0.0.1:{names.port}", "--ca", str(authority.file), "--ports", f"127.0.0.1:{silent.getsockname()[1]}",
            "--hostname", NAME, "--dkim-selectors", "mail",
        ) as (process, scraped),
    ):  # fmt: skip
        names.silent = True
        # No verdict that is not one, above all no 0 that an alert or a panel would take for one.
        samples = [line for line in scraped().splitlines() if not line.startswith("#")]
        assert samples == [
            f'mailward_stack_check_timestamp_seconds{{check="{check}"}} 0.0'
            for check in ("certificates", "dns", "mta_sts", "olefy")
        ]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
