"""`make demo`: a captured attack against a live daemon, in two network namespaces of this process's own.

    .venv/bin/python demo/attack.py       # needs root; exit status 0 all as told, 1 something not so, 3 cannot be

The namespaces have no names: they end with the processes in them, however those end.  Nothing of this host's own
network is touched; the addresses are the capture's (RFC 5737, 1918).
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import http.client
import lzma
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

CAPTURE: Final = Path(__file__).parents[1] / "fixtures/replay/bookworm-verbose/mail.log.xz"
MAILWARD: Final = str(Path(sys.executable).with_name("mailward"))
HOST, GUESSER, BYSTANDER = "10.66.0.10", "198.51.100.7", "198.51.100.8"
IMAP, SSH, METRICS = 143, 22, 9780
GUESSES, ACCOUNT = 5, "alice@example.org"
PLAYS: Final = 5.0  # seconds for the whole capture, which took 82
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CONFIGURATION: Final = """
source = [{{ type = "file", name = "mail", path = "{folder}/mail.log" }}]
firewall.backend = "nftables"
store.url = "sqlite://{folder}/state/state.db"
http.listen = "127.0.0.1:{port}"
control.socket = "{folder}/control.sock"
"""
COUNTERS: Final = {  # the second is what was taken back of the first
    "lines read": ("lines_total", ""), "failed logins": ("auth_failures_total", "auth_revoked_total"),
    "logins": ("auth_successes_total", ""), "lines unreadable": ("unparsed_total", ""),
    "bans decided": ("bans_total", ""), "bans in the kernel": ("bans_enforced", ""),
    "packets dropped": ("dropped_packets_total", ""),
}  # fmt: skip
_CLONE_NEWNET, _PR_SET_PDEATHSIG = 0x40000000, 1
_libc = ctypes.CDLL(None, use_errno=True)


class CannotRunError(Exception):
    """The demo cannot be had here; the text says why."""


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:  # os.unshare and os.setns came with Python 3.12
        raise CannotRunError(f"no network namespaces here: {name}: {os.strerror(ctypes.get_errno())}")


class Namespace:
    """A network namespace without a name.  What is made while this thread has entered it stays inside."""

    def __init__(self) -> None:
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        _call("unshare", _CLONE_NEWNET)
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _call("setns", self._home, _CLONE_NEWNET)
        self.path = f"/proc/{os.getpid()}/fd/{self._own}"
        self.ip("link set lo up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        _call("setns", self._own, _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", self._home, _CLONE_NEWNET)

    def ip(self, *lines: str) -> None:
        with self.entered():
            for line in lines:
                done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
                if done.returncode:
                    raise CannotRunError(f"ip {line}: {done.stderr.strip()}")


class Wire(threading.Thread):
    """An open connection on which the client sends a byte each millisecond, and when the last one arrived."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        super().__init__(daemon=True)
        self.sent = self.arrived = 0
        self.last = time.monotonic()  # when the last byte arrived
        self._closed = False  # the ban closes the server's side
        self._client, self._server, self._over = client, server, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.001):
            with contextlib.suppress(OSError):  # what is not acknowledged fills the buffer
                self.sent += self._client.send(b".", socket.MSG_DONTWAIT)
            self._receive(0.001)
        for _ in range(4):  # what was under way
            self._receive(0.05)

    def _receive(self, patience: float) -> None:
        if self._closed:
            time.sleep(patience)
        elif select.select([self._server], [], [], patience)[0]:
            try:
                self.arrived += len(self._server.recv(4096))
            except ConnectionError:
                self._closed = True
            else:
                self.last = time.monotonic()

    def dead(self) -> bool:
        return self._closed or (self.sent - self.arrived > 20 and time.monotonic() - self.last > 0.3)

    def stop(self) -> None:
        self._over.set()
        self.join()


class Demo:
    """The mail host, its daemon and the internet, and what is told of them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.wrong, self.began = 0, time.monotonic()
        self.console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 100)
        self.log = stack.enter_context((folder / "mail.log").open("ab", buffering=0))
        self._folder, self._stack = folder, stack
        self._config = folder / "mailward.toml"
        self._config.write_text(CONFIGURATION.format(folder=folder, port=METRICS))
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAILWARD_", "PYTHON"))}
        self._environment["TZ"] = "UTC"
        self._host, self._internet = Namespace(), Namespace()
        self._host.ip(
            f"link add eth0 type veth peer name eth0 netns {self._internet.path}", f"address add {HOST}/32 dev eth0",
            "link set eth0 up", "route add 198.51.100.0/24 dev eth0",
        )  # fmt: skip
        self._internet.ip(
            f"address add {GUESSER}/32 dev eth0", f"address add {BYSTANDER}/32 dev eth0",
            "link set eth0 up", f"route add {HOST}/32 dev eth0",
        )  # fmt: skip
        with self._host.entered():
            self._imap, _ = (stack.enter_context(socket.create_server((HOST, port))) for port in (IMAP, SSH))

    def step(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:5.1f} s[/]  {text}", soft_wrap=True)

    def fact(self, so: bool, text: str) -> None:
        self.wrong += not so
        self.step(f"[bold green]ok[/]  {text}" if so else f"[bold red]NOT SO[/]  {text}")

    def connect(self, client: str, port: int) -> socket.socket:
        with self._internet.entered():
            end = self._stack.enter_context(socket.socket())
        end.bind((client, 0))
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.settimeout(1.0)  # a connection that comes about takes less than a millisecond
        end.connect((HOST, port))
        return end

    def reaches(self, client: str, port: int) -> bool:
        with contextlib.suppress(TimeoutError):
            self.connect(client, port).close()
            return True
        return False

    def wire(self, client: str) -> tuple[Wire, int]:  # and the client's port
        end = self.connect(client, IMAP)
        wire = Wire(end, self._stack.enter_context(self._imap.accept()[0]))
        self._stack.callback(wire.stop)
        return wire, end.getsockname()[1]

    def guard(self) -> None:
        errors = self._stack.enter_context((self._folder / "stderr").open("wb"))
        with self._host.entered():
            daemon = subprocess.Popen(
                [MAILWARD, "run", "--config", str(self._config)], env=self._environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - no thread runs yet
            )  # fmt: skip
        self._stack.enter_context(daemon)  # waits
        self._stack.callback(daemon.kill)  # no need to be gentle: its state goes as well
        if not until(lambda: self._get("/readyz")[0] == 200, 10.0):
            said = (self._folder / "stderr").read_text(errors="replace")
            raise CannotRunError(f"mailward run does not guard:\n{said}")

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", METRICS, timeout=5)
        with self._host.entered(), contextlib.closing(connection), contextlib.suppress(ConnectionError):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        return 0, ""

    def counters(self) -> dict[str, int]:
        sums: Counter[str] = Counter()
        for family in text_string_to_metric_families(self._get("/metrics")[1]):
            for sample in family.samples:
                sums[sample.name.removeprefix("mailward_")] += int(sample.value)
        return {name: sums[more] - sums[less] for name, (more, less) in COUNTERS.items()}

    def command(self, *words: str) -> list[str]:
        """Run one of our commands; return the lines that it wrote."""
        self.console.print(f"\n[bold]$ mailward {' '.join(words)}[/]")
        done = subprocess.run(
            [MAILWARD, *words, "--config", str(self._config)],
            env=self._environment, capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        if done.returncode:
            self.fact(False, f"exit status {done.returncode}: {done.stderr.strip()}")
        return [line.rstrip() for line in done.stdout.splitlines() if line.strip()]

    def quote(self, lines: list[str]) -> None:
        self.console.print("\n".join(f"  {line}" for line in lines), markup=False, soft_wrap=True)


def until(condition: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def captured() -> list[bytes]:
    """Return the capture's lines without their stamps, and without those of the two addresses that act here."""
    acting = re.compile(rb"(?<![0-9.])198\.51\.100\.[78](?![0-9.])")
    stamped = re.compile(rb"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d ")
    lines = lzma.decompress(CAPTURE.read_bytes()).splitlines(keepends=True)
    return [line[15:] for line in lines if stamped.match(line) and not acting.search(line)]


def play(demo: Demo, lines: list[bytes], his: Wire, port: int) -> bool:
    """Write the capture at speed and his guesses among it; return whether he was alive before and is dead after."""
    head = (time.time_ns() // 1000).to_bytes(8, "little")[:6] + port.to_bytes(2, "little")
    session = base64.b64encode(head + socket.inet_aton(GUESSER)).decode()  # as Dovecot 2.3 does
    guess = f" mx dovecot: auth: passwd-file({ACCOUNT},{GUESSER},<{session}>): Password mismatch\n"
    began, at, tried, told, passed, written = time.monotonic(), 0, 0, False, 0.0, 0.0
    while at < len(lines) or (not told and passed < 4):
        passed = (time.monotonic() - began) / PLAYS
        upto = min(len(lines), int(len(lines) * passed) + 1)
        stamp = time.strftime("%b %e %H:%M:%S", time.gmtime()).encode()
        demo.log.write(b"".join(stamp + line for line in lines[at:upto]))
        at = upto
        if tried < GUESSES and passed > (tried + 1) / (GUESSES + 2):
            tried += 1
            written = time.monotonic()
            demo.log.write(stamp + guess.encode())
            demo.step(f"{GUESSER}: wrong password {tried} of {GUESSES}, line {at + tried:,} of the log")
        elif tried == GUESSES and not told and his.dead():
            told, after = True, max(0.0, his.last - written) * 1000
            demo.step(
                f"[bold]his connection is dead: last byte {after:.1f} ms after that line was written[/]"
            )
        time.sleep(0.02)
    return told and his.last > written - 0.3


def show(demo: Demo) -> None:
    head = demo.console.print
    head("\n[bold]Mailward: a captured attack, played into the log of a live daemon[/]")
    demo.step("two network namespaces, joined; this host's own firewall stays as it is")
    demo.step(f"mail host {HOST} answers on {IMAP} and {SSH}; guesser {GUESSER}, bystander {BYSTANDER}")
    demo.guard()
    demo.step("mailward run: it guards the mail host, and reads its mail.log")
    lines, before = captured(), demo.counters()
    (his, port), (other, _) = demo.wire(GUESSER), demo.wire(BYSTANDER)
    demo.step(f"both hold a connection to port {IMAP}, and send a byte each millisecond")
    head(f"\n[bold]{len(lines):,} captured lines in {PLAYS:.0f} s, stamped now; five guesses among them[/]")
    dead = play(demo, lines, his, port)
    arrived = his.arrived
    demo.fact(dead, f"{arrived:,} of his bytes arrived until then")
    demo.fact(not demo.reaches(GUESSER, IMAP), f"a new connection of his to port {IMAP} fails")
    demo.fact(demo.reaches(GUESSER, SSH), f"port {SSH} stays open to him: a ban closes the mail ports")
    demo.fact(demo.reaches(BYSTANDER, IMAP), f"the bystander opens a new connection to port {IMAP}")
    other.stop()
    his.stop()
    demo.fact(
        other.arrived == other.sent, f"and keeps his old one: {other.arrived:,} of {other.sent:,} bytes"
    )
    demo.fact(his.arrived == arrived, f"the guesser's stays dead: {his.sent - arrived:,} bytes sent in vain")
    listed = demo.command("bans")
    ban = [line for line in listed if line.startswith(f"{GUESSER}/32 ")]
    demo.quote([*listed[:6], "...", *ban])
    demo.fact(len(ban) == 1 and " yes " in ban[0], f"{GUESSER}/32 is banned, and the kernel has it")
    explained = demo.command("explain", "--ip", GUESSER)
    demo.quote(explained)
    demo.fact(f"{GUESSES} failed logins" in " ".join(explained), f"{GUESSES} guesses, {GUESSES} counted")
    head("\n[bold]Counters, from /metrics[/]")
    until(lambda: demo.counters()["packets dropped"] > 0, 8.0)  # the daemon looks at the kernel's every 5 s
    after = demo.counters()
    demo.quote(["                    before   after"])
    demo.quote([f"{name:18}{n:8,}{after[name]:8,}" for name, n in before.items()])
    demo.fact(after["packets dropped"] > 0, "the kernel dropped packets, all of them the guesser's")
    read, written = after["lines read"], len(lines) + GUESSES
    demo.fact(read == written, f"{read:,} of {written:,} lines written were read")


def main() -> int:
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if os.geteuid() != 0:
        print("demo: needs root, for network namespaces of its own: sudo make demo", file=sys.stderr)
        return 3
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mw-")))
            try:
                demo = Demo(folder, stack)
                show(demo)
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # tidying up is not to be disturbed
        end = f"{demo.wrong} of it NOT SO" if demo.wrong else "All as told, and nothing of it is left"
        demo.console.print(f"\n[bold]{end}: {time.monotonic() - demo.began:.0f} s[/]")
    except (CannotRunError, FileNotFoundError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("\ndemo: stopped; nothing of it is left", file=sys.stderr)
        return 130
    return 1 if demo.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
