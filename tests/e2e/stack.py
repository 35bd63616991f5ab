"""The whole stack of compose.yaml, up, with an internet of documentation addresses beside this host."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.system.netns import Namespace, give, namespace, run

ROOT: Final = Path(__file__).parent.parent.parent
DOMAIN: Final = "example.test"
HOST: Final = f"mail.{DOMAIN}"
HERE4, HERE6 = "198.51.100.1", "2001:db8:e2e::1"
NET4, NET6 = "198.18.90", "fd4d:6169:6c78"
PUBLIC: Final = (25, 80, 110, 143, 443, 465, 587, 993, 995, 4190)
ZONE: Final = f"""
server:
    # Nothing outside is asked: what is not here is not.
    local-zone: "." static
    local-zone: "{DOMAIN}" static
    local-data: "{DOMAIN}. MX 10 {HOST}."
    local-data: "{HOST}. A {HERE4}"
    local-data: "{HOST}. AAAA {HERE6}"
    local-data: '_mta-sts.{DOMAIN}. TXT "v=STSv1; id=1"'
    local-data: "mta-sts.{DOMAIN}. A {HERE4}"
    local-data: "autoconfig.{DOMAIN}. A {HERE4}"
    local-data: "autodiscover.{DOMAIN}. A {HERE4}"
    local-data: "elsewhere.test. A 198.51.100.90"
    local-data: 'elsewhere.test. TXT "v=spf1 ip4:198.51.100.90 ip6:2001:db8:e2e:8::7 -all"'
    local-data: "mx.elsewhere.test. A 198.51.100.90"
    local-data: "mx.elsewhere.test. AAAA 2001:db8:e2e:8::7"
    local-data-ptr: "198.51.100.90 mx.elsewhere.test"
    local-data-ptr: "2001:db8:e2e:8::7 mx.elsewhere.test"
    local-data: "other.test. A 198.51.100.91"
"""


class Stack:
    """`docker compose` on the project, in a name and networks of its own."""

    def __init__(self, folder: Path, internet: Namespace) -> None:
        self.folder = folder
        self.internet = internet
        self.issuer = folder / "issued.pem"  # the root that the test CA issues under
        told = subprocess.run([ROOT / ".ci/engine"], check=True, capture_output=True, text=True).stdout
        self._environment = {**os.environ, "E2E_FOLDER": str(folder)}
        for word in shlex.split(told):
            name, equals, value = word.partition("=")
            if equals:
                self._environment[name] = value
        if (folder / "env").exists():  # kept by an earlier run
            return
        (folder / "zone.conf").write_text(ZONE)
        (folder / "env").write_text(
            f"MAIL_HOSTNAME={HOST}\nMAIL_DOMAIN={DOMAIN}\nSTACK_IPV4={NET4}\nSTACK_IPV6={NET6}\n"
            f"ACME_EMAIL=postmaster@{DOMAIN}\nACME_SERVER=https://lab:14000/dir\n"
        )
        self._authority()

    def _authority(self) -> None:
        """Make the CA that the ACME server's own certificate is of."""
        make = (
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        )
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        run(
            *make,
            *usage,
            "-subj",
            "/CN=e2e",
            "-keyout",
            f"{self.folder}/ca.key",
            "-out",
            f"{self.folder}/ca.pem",
        )
        ask = (
            "openssl",
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=lab",
            "-addext",
            "subjectAltName=DNS:lab",
        )
        run(*ask, "-keyout", f"{self.folder}/lab.key", "-out", f"{self.folder}/lab.csr")
        sign = ("openssl", "x509", "-req", "-days", "2", "-copy_extensions", "copy", "-CAcreateserial")
        signer = ("-CA", f"{self.folder}/ca.pem", "-CAkey", f"{self.folder}/ca.key")
        run(*sign, *signer, "-in", f"{self.folder}/lab.csr", "-out", f"{self.folder}/lab.pem")
        (self.folder / "trusted.pem").touch()
        listens = {"listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000"}
        shows = {"certificate": "/ca/lab.pem", "privateKey": "/ca/lab.key", "httpPort": 80, "tlsPort": 443}
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": {**listens, **shows}}))

    def compose(self, *arguments: str, given: str | None = None, timeout: float = 1500) -> str:
        """Run one command of `docker compose` and return what it wrote; CalledProcessError with its stderr."""
        command = ["docker", "compose", "--project-directory", str(ROOT), "--project-name", "mailward-e2e"]
        command += [
            "--env-file",
            str(self.folder / "env"),
            "-f",
            "compose.yaml",
            "-f",
            "tests/e2e/compose.test.yaml",
        ]
        try:
            return subprocess.run(
                [*command, *arguments],
                input=given, cwd=ROOT, env=self._environment, check=True, capture_output=True, text=True, timeout=timeout,
            ).stdout  # fmt: skip
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr[-4000:])
            raise

    def engine(self, *arguments: str) -> str:
        """Run one command of `docker` and return what it wrote."""
        return subprocess.run(
            ["docker", *arguments],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout

    def down(self) -> None:
        """Take everything away, the guard's table as well."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "10")
        self.open()

    def open(self) -> None:
        """Delete the guard's table, by its own library: nft 1.0.6 crashes on what 1.1.3 has written."""
        delete = "import nftables; nftables.Nftables().cmd('delete table inet mailward')"
        as_guard = ("--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
        python = ("--entrypoint", "/opt/mailward/bin/python", "mailward-guard:0.1")
        self.engine("run", "--rm", *as_guard, *python, "-c", delete)

    def asked(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside a service, whatever its exit status."""
        try:
            out = self.compose("exec", "-T", service, *command)
        except subprocess.CalledProcessError as error:
            return subprocess.CompletedProcess(command, error.returncode, error.stdout, error.stderr)
        return subprocess.CompletedProcess(command, 0, out, "")

    def settle(self, patience: float = 480.0) -> None:
        """Wait until every service with a health check is healthy; AssertionError with those that are not."""
        deadline = time.monotonic() + patience
        while unwell := [
            (row["Service"], row["Status"])
            for row in map(json.loads, self.compose("ps", "--format", "json").splitlines())
            if row["Health"] not in ("", "healthy")
        ]:
            assert time.monotonic() < deadline, f"not healthy in {patience} s: {unwell}"
            time.sleep(1)

    def certified(self, port: int) -> bool:
        """Tell whether this port serves a certificate that the test CA has issued."""
        context = ssl.create_default_context(cafile=str(self.issuer))
        try:
            with (
                socket.create_connection((HERE4, port), 10) as raw,
                context.wrap_socket(raw, server_hostname=HOST),
            ):
                return True
        except OSError:
            return False

    def certify(self, patience: float = 240.0) -> None:
        """Wait until the issued certificate is served; AssertionError with the ports where it is not.

        The servers take it up by a reload of their own, at most 20 s after it came.  Dovecot lets what is under way go on
        for 6 s, and then ends it: to a login that began before, Postfix answers 454.
        """
        ask = (
            "import ssl, urllib.request as u; c = ssl._create_unverified_context();"
            "print(u.urlopen('https://localhost:15000/roots/0', context=c).read().decode())"
        )
        self.issuer.write_text(self.compose("exec", "-T", "lab", "python3", "-c", ask))
        deadline = time.monotonic() + patience
        while without := [port for port in (443, 993, 465) if not self.certified(port)]:
            assert time.monotonic() < deadline, f"no issued certificate in {patience} s: {without}"
            time.sleep(1)
        time.sleep(8)

    def setup(self, *arguments: str) -> str:
        """Run a command of the directory: `mailbox add ...`."""
        return self.compose("run", "--rm", "-T", "--no-deps", "setup", *arguments)

    def secret(self, service: str, name: str) -> str:
        """Return a secret, as the service that holds it reads it."""
        return self.compose("exec", "-T", service, "cat", f"/secrets/{name}")

    def guard(self, *arguments: str) -> Any:
        """Return the JSON of a `mailward` command inside the guard's container, asked by its own user."""
        text = self.compose(
            "exec",
            "-T",
            "--user",
            "mailward",
            "guard",
            "/opt/mailward/bin/mailward",
            *arguments,
            "--format",
            "json",
        )
        return json.loads(text)

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return the guard's metrics by name and labels."""
        from prometheus_client.parser import text_string_to_metric_families

        ask = (
            f'curl -sf -H "Authorization: Bearer $(cat /secrets/guard_metrics)" http://{NET4}.1:9780/metrics'
        )
        families = text_string_to_metric_families(self.compose("exec", "-T", "prometheus", "sh", "-c", ask))
        return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}

    def failures(self, service: str, protocol: str) -> float:
        """Return the failures that count, of any of these services and protocols: reported, less those taken back."""
        total = 0.0
        for (name, labels), value in self.metrics().items():
            of = dict(labels)
            if of.get("service", "-") in service.split() and of.get("protocol", "-") in protocol.split():
                total += {"mailward_auth_failures_total": value, "mailward_auth_revoked_total": -value}.get(
                    name, 0.0
                )
        return total


@contextlib.contextmanager
def internet() -> Iterator[Namespace]:
    """Join a namespace to this host; its addresses are given by who speaks from there."""
    with namespace("internet") as outside:
        device = f"mw{os.getpid() % 100000}"
        run("ip", "link", "add", device, "type", "veth", "peer", "eth0", "netns", outside.name)
        try:
            run("ip", "address", "add", f"{HERE4}/24", "dev", device)
            run("ip", "address", "add", f"{HERE6}/48", "dev", device, "nodad")
            run("ip", "link", "set", device, "up")
            run("ip", "-n", outside.name, "link", "set", "eth0", "up")
            give(outside, [f"198.51.100.{n}/24" for n in range(70, 120)])
            give(outside, [f"2001:db8:e2e:{n:x}::7/48" for n in range(1, 10)])
            for gateway in (
                HERE4,
                HERE6,
            ):  # from there every address of this host and its bridges can be asked
                run("ip", "-n", outside.name, "route", "add", "default", "via", gateway)
            yield outside
        finally:
            subprocess.run(["ip", "link", "del", device], check=False)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Bring the stack up, and take all of it away at the end; with MAILWARD_TEST_KEEP, leave it for the next run."""
    keep = bool(os.environ.get("MAILWARD_TEST_KEEP"))
    with internet() as outside:
        stack = Stack(folder, outside)
        try:
            stack.compose("--profile", "browser", "build", "--quiet")
            if not keep:
                stack.open()
            stack.compose("up", "--detach")
            stack.settle()
            stack.certify()
            yield stack
        finally:
            (folder / "compose.log").write_text(stack.compose("logs", "--no-color", "--timestamps"))
            if not keep:
                stack.down()
