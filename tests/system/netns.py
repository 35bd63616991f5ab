"""A mail host and the internet on one machine: network namespaces joined by a veth pair.

    with mail_host() as lab:                        # needs root, `ip` and `nft`; otherwise the test is skipped
        with lab.host.entered():                    # this thread is inside: sockets and handles made here belong there
            firewall.open()
        connection = lab.connect("198.51.100.7", 143)       # a client on the internet, out of CLIENTS
        assert connection.delivers()

Sockets and libnftables handles keep the namespace in which they were made, so that a test needs no process and
no thread per machine.  Everything lies inside the namespaces, which end with the `with`: nothing of the machine's
own network is touched.  The addresses are documentation and benchmark ranges (RFC 5737, 3849, 2544).
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

HOST4, HOST6 = "198.18.0.1", "2001:db8:ffff::1"
GATEWAY4, GATEWAY6 = "198.18.0.2", "2001:db8:ffff::2"
CLIENTS = (
    "198.51.100.7",
    "198.51.100.8",
    "198.51.101.7",
    "2001:db8:1:2::7",
    "2001:db8:1:2:aaaa::8",  # the same /64 as ::7
    "2001:db8:1:3::7",  # its neighbour: the same /48 and /56
)
PATIENCE = 1.0  # seconds for something to arrive that should not; what should arrive does so in under 10 ms

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def requires_namespaces() -> None:
    """Skip the test, loudly, where this machine cannot make namespaces; fail it in CI, where a skip proves nothing."""
    missing = [program for program in ("ip", "nft") if shutil.which(program) is None]
    reason = None
    if missing:
        reason = f"NOT RUN: {' and '.join(missing)} not found; apt-get install iproute2 nftables"
    elif os.geteuid() != 0:
        reason = "NOT RUN: network namespaces need root"
    else:
        with contextlib.suppress(subprocess.CalledProcessError), namespace("probe"):
            return
        reason = "NOT RUN: this machine does not permit network namespaces (ip netns add fails)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command: str, given: str | None = None) -> str:
    """Run a command to its end and return what it wrote; CalledProcessError with its stderr where it fails."""
    try:
        return subprocess.run(
            command, input=given, check=True, capture_output=True, text=True, timeout=60
        ).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise


class Namespace:
    """One network namespace, by its name in /run/netns."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread into the namespace, and back."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as home,
            Path("/run/netns", self.name).open("rb") as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def run(self, *command: str, given: str | None = None) -> str:
        """Run a command inside and return what it wrote."""
        return run("ip", "netns", "exec", self.name, *command, given=given)

    def nft(self, ruleset: str) -> str:
        """Feed text to nft(8) inside, as somebody other than the guard would, and return what it wrote."""
        return self.run("nft", "-f", "-", given=ruleset)

    @contextlib.contextmanager
    def owned(self, table: str) -> Iterator[None]:
        """Have a table `inet <table>` that only its own process may change; process and table end with the `with`."""
        command = ("ip", "netns", "exec", self.name, "nft", "-i")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as owner:
            assert owner.stdin
            with owner.stdin as said:
                made = f"add table inet {table}; delete table inet {table}; add table inet {table} {{ flags owner; }}"
                said.write(made + "\n")
                said.flush()
                while "flags owner" not in self.run("nft", "list", "ruleset"):
                    assert owner.poll() is None
                    time.sleep(0.01)
                yield


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:  # os.setns came with Python 3.12
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


@contextlib.contextmanager
def namespace(role: str) -> Iterator[Namespace]:
    """Make a namespace with its loopback up, and delete it at the end."""
    name = f"mailward-{os.getpid()}-{next(_numbers)}-{role}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield Namespace(name)
    finally:
        run("ip", "netns", "del", name)


def link(left: Namespace, right: Namespace, device: str = "eth0") -> None:
    """Join two namespaces by a veth pair, `device` in both, up."""
    run("ip", "-n", left.name, "link", "add", device, "type", "veth", "peer", device, "netns", right.name)
    for end in (left, right):
        run("ip", "-n", end.name, "link", "set", device, "up")


def give(owner: Namespace, addresses: Sequence[str], device: str = "eth0") -> None:
    """Give addresses, with their prefix length, to a device; IPv6 without waiting for duplicates."""
    for address in addresses:
        extra = ("nodad",) if ":" in address else ()
        run("ip", "-n", owner.name, "address", "add", address, "dev", device, *extra)


class Connection:
    """An established TCP connection between a client and the host, both ends in hand."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server

    def delivers(self, patience: float = PATIENCE) -> bool:
        """Tell whether new data reaches the host and an answer the client, within `patience` seconds."""
        return self.upstream(patience) and self.downstream(patience)

    def upstream(self, patience: float = PATIENCE) -> bool:
        """Tell whether data from the client reaches the host."""
        return _passes(self.client, self.server, patience)

    def downstream(self, patience: float = PATIENCE) -> bool:
        """Tell whether data from the host is acknowledged by the client, as the host's kernel sees it.

        A drop of what comes in does not keep a first answer from going out; it keeps the host from learning so.
        """
        self.server.sendall(secrets.token_bytes(16))
        return _until(lambda: _unacknowledged(self.server) == 0, patience)

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()


def _passes(sender: socket.socket, receiver: socket.socket, patience: float) -> bool:
    """Send a nonce and wait until the receiver has read exactly that, whatever stalled before it."""
    nonce = secrets.token_bytes(16)
    try:
        sender.sendall(nonce)
    except ConnectionError:  # one of the two ends was closed from outside
        return False
    received = b""
    deadline = time.monotonic() + patience
    while not received.endswith(nonce):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        receiver.settimeout(left)
        try:
            received += receiver.recv(4096)
        except (TimeoutError, ConnectionError):
            return False
    return True


def _unacknowledged(sock: socket.socket) -> int:
    """Return tcpi_unacked of TCP_INFO: how many segments were sent and not yet acknowledged (linux/tcp.h)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[24:28], sys.byteorder)


def _until(condition: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Lab:
    """A mail host and the clients that the internet holds."""

    def __init__(self, host: Namespace, internet: Namespace) -> None:
        self.host = host
        self.internet = internet
        self._sockets = contextlib.ExitStack()
        self._listeners: dict[tuple[str, int], socket.socket] = {}

    def connect(self, client: str, port: int, patience: float = PATIENCE) -> Connection:
        """Connect from a client's address to a port of the host, which listens there from now on.

        Raises TimeoutError where no connection comes about within `patience` seconds.
        """
        host = HOST6 if ":" in client else HOST4
        listener = self._listener(host, port)
        with self.internet.entered():
            end = socket.socket(listener.family, socket.SOCK_STREAM)
        self._sockets.callback(end.close)
        end.bind((client, 0))
        end.settimeout(patience)
        try:
            end.connect((host, port))
        except TimeoutError:
            end.close()
            raise
        other, peer = listener.accept()
        self._sockets.callback(other.close)
        assert peer[:2] == end.getsockname()[:2], "another connection was still waiting to be accepted"
        return Connection(end, other)

    def reaches(self, client: str, port: int, patience: float = PATIENCE) -> bool:
        """Tell whether the client can open a new connection to the port."""
        try:
            self.connect(client, port, patience).close()
        except TimeoutError:
            return False
        return True

    def publish(self, port: int, server: Namespace, address: str) -> None:
        """Let `server` answer on its own address what clients send to the host's port; the NAT is yours to make."""
        self._listen(HOST6 if ":" in address else HOST4, port, server, address)

    def close(self) -> None:
        """Close every socket of the lab."""
        self._sockets.close()

    def _listener(self, host: str, port: int) -> socket.socket:
        if (host, port) not in self._listeners:
            self._listen(host, port, self.host, host)
        return self._listeners[host, port]

    def _listen(self, host: str, port: int, server: Namespace, address: str) -> None:
        with server.entered():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.create_server((address, port), family=family)
        self._sockets.callback(listener.close)
        listener.settimeout(5)
        self._listeners[host, port] = listener


@contextlib.contextmanager
def mail_host() -> Iterator[Lab]:
    """Make a host at HOST4 and HOST6 and, a router away, every address of CLIENTS; skip where that cannot be."""
    requires_namespaces()
    with namespace("host") as host, namespace("internet") as internet:
        link(host, internet)
        give(host, (f"{HOST4}/30", f"{HOST6}/64"))
        give(internet, (f"{GATEWAY4}/30", f"{GATEWAY6}/64"))
        give(internet, [f"{client}/{128 if ':' in client else 32}" for client in CLIENTS])
        run("ip", "-n", host.name, "route", "add", "default", "via", GATEWAY4)
        run("ip", "-n", host.name, "-6", "route", "add", "default", "via", GATEWAY6)
        lab = Lab(host, internet)
        with contextlib.closing(lab):
            yield lab
