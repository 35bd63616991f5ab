"""A Docker engine of one's own on the lab's mail host, with a mail server in a container and its port published.

    with mail_host() as lab, Engine(lab, folder, {"userland-proxy": False}) as engine:
        engine.publish()                                # a container that sends back whatever it gets
        assert engine.call("198.51.100.7").upstream()   # there and back again

The engine lives in the host's network namespace and in mount and process namespaces of its own: its bridge, its
rules and its /run are nobody else's, another engine on the machine is neither used nor seen, and with the first
process all others end.  It lives as long as its standard input is open, so that no engine outlives its test.
The image is made here from Debian's busybox-static: no registry is asked.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import docker
import pytest

from tests.system.netns import CLIENTS, HOST4, HOST6, PATIENCE, Connection, Lab, requires_namespaces

PUBLISHED = 143
INSIDE = 10143  # where the server listens: a ban is of the public port
GATEWAY = "172.31.0.1"  # of the bridge: what a container sees of a client for whom the engine stands in
WITH_IPV6 = {"experimental": True, "ip6tables": True, "ipv6": True, "fixed-cidr-v6": "2001:db8:d::/64"}
STARTS = 60.0  # seconds

# An engine that writes nftables leaves forwarding to the administrator; looking for duplicates of an address on
# the bridge takes the kernel two seconds.
_KERNEL = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/default/accept_dad": "0"}
_UNSUSPECTED = CLIENTS[2], CLIENTS[5]  # whom no test bans
_BUSYBOX = Path("/bin/busybox")
_SERVER = ["/bin/busybox", "nc", "-ll", "-p", str(INSIDE), "-e", "/bin/busybox", "cat"]
# The engine's first process: it ends the engine when standard input ends, and with it end all other processes.
_ENTRY = """
mount -t tmpfs tmpfs /run
exec 3<&0
"$@" 3<&- &
engine=$!
{ read -r _ <&3; kill $engine; } &
wait $engine
"""
# What an engine from 29 on writes with its backend nftables, after Moby's description of it: the same hooks,
# priorities and verdicts; the maps of jumps are left out, for there is but one bridge.
_NATIVE = """
table {family} docker-bridges {{
    chain raw-PREROUTING {{
        type filter hook prerouting priority raw;
        {family} daddr {address} iifname != docker0 drop
    }}
    chain nat-PREROUTING {{
        type nat hook prerouting priority dstnat;
        fib daddr type local iifname != docker0 tcp dport {port} dnat to {target}
    }}
    chain nat-POSTROUTING {{
        type nat hook postrouting priority srcnat;
        iifname docker0 oifname != docker0 masquerade
    }}
    chain filter-FORWARD {{
        type filter hook forward priority filter;
        oifname docker0 jump filter-forward-in__docker0
    }}
    chain filter-forward-in__docker0 {{
        ct state established,related accept
        {family} daddr {address} tcp dport {inside} accept
        drop
    }}
}}
"""


def requires_engine() -> None:
    """Skip the test, loudly, where this machine has no engine; fail it in CI, where a skip proves nothing."""
    requires_namespaces()
    missing = [program for program in ("dockerd", "iptables", str(_BUSYBOX)) if shutil.which(program) is None]
    if missing:
        reason = f"NOT RUN: {', '.join(missing)} not found; .ci/docker installs what these tests need"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Engine:
    """dockerd on the lab's host, its state in `folder`, with `settings` as in daemon.json.

    `native` stands for the backend nftables of Docker 29: where the engine at hand is older, it writes no rules,
    and those that the new one would write are written here.
    """

    ENTRY = _ENTRY

    def __init__(
        self, lab: Lab, folder: Path, settings: Mapping[str, object], *, native: bool = False
    ) -> None:
        self._lab = lab
        self._folder = folder
        self._log = folder / "dockerd.log"
        self._socket = str(folder / "docker.sock")
        self._by_hand = native and not _writes_nftables()
        no_rules, own_rules = {"iptables": False, "ip6tables": False}, {"firewall-backend": "nftables"}
        self._settings = {
            "bip": f"{GATEWAY}/24",
            "data-root": str(folder / "data"),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],  # no systemd can be asked from in there
            "exec-root": "/run/docker",
            "hosts": [f"unix://{self._socket}"],
            "pidfile": "/run/docker.pid",
            "storage-driver": "vfs",  # the one that needs nothing of the file system below
            **settings,
            **(no_rules if self._by_hand else own_rules if native else {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets = contextlib.ExitStack()

    def launch(self) -> None:
        """Start the engine, without waiting until it answers; a container that ran when it stopped comes back."""
        settings = self._folder / "daemon.json"
        settings.write_text(json.dumps(self._settings))
        entered = ("nsenter", f"--net=/run/netns/{self._lab.host.name}")
        apart = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
        with self._lab.host.entered():
            for name, value in _KERNEL.items():
                Path("/proc/sys/net", name).write_text(value)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                (*entered, *apart, "sh", "-c", self.ENTRY, "sh", "dockerd", "--config-file", str(settings)),
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip

    def answers(self) -> bool:
        """Tell whether the engine is up; AssertionError with its log where it has ended."""
        assert self._process
        assert self._process.poll() is None, f"dockerd ended: {self._log.read_text()[-2000:]}"
        with socket.socket(socket.AF_UNIX) as asking, contextlib.suppress(OSError):
            asking.settimeout(STARTS)
            asking.connect(self._socket)
            asking.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 OK" in asking.recv(4096)
        return False

    def publish(self) -> None:
        """Run a container that sends back what it gets, publish its port, and wait until clients are served."""
        with self._client() as client:
            client.api.import_image_from_data(_image(), repository="mail")
            client.containers.run(
                "mail", _SERVER, name="mail", detach=True, ports={f"{INSIDE}/tcp": PUBLISHED},
                restart_policy={"Name": "always"}, stop_signal="SIGKILL",
            )  # fmt: skip
        self.settle()

    def settle(self) -> None:
        """Wait until the container is there, and serves a client of each family."""
        if self._by_hand:
            until(lambda: all(self._addresses().values()), STARTS)
            self._lab.host.nft("".join(_native_rules(*address) for address in self._addresses().items()))
        for client in _UNSUSPECTED:
            until(partial(self.serves, client), STARTS)

    def clients(self) -> Counter[str]:
        """Return the addresses that the server in the container takes for its clients', and of how many each."""
        with self._client() as client:
            _, output = client.containers.get("mail").exec_run(["/bin/busybox", "netstat", "-tn"])
        rows = [row.split() for row in output.decode().splitlines() if "ESTABLISHED" in row]
        return Counter(row[4].rpartition(":")[0].removeprefix("::ffff:") for row in rows)

    def call(self, client: str, patience: float = PATIENCE) -> Connection:
        """Connect from a client's address to the published port; `upstream` then is there and back again.

        Raises TimeoutError where nothing comes back, ConnectionError where nobody listens.
        """
        with self._lab.internet.entered():
            end = socket.socket(socket.AF_INET6 if ":" in client else socket.AF_INET)
        self._sockets.callback(end.close)
        end.settimeout(patience)
        end.bind((client, 0))
        try:
            end.connect((HOST6 if ":" in client else HOST4, PUBLISHED))
        except OSError:
            end.close()  # or the kernel would go on trying
            raise
        return Connection(end, end)

    def serves(self, client: str) -> bool:
        """Tell whether the client can connect and gets an answer."""
        try:
            connection = self.call(client)
            with contextlib.closing(connection):
                return connection.upstream()
        except OSError:
            return False

    def stop(self) -> None:
        """Stop the engine as its service would: containers end, bridge and rules stay behind."""
        if self._process is not None:
            assert self._process.stdin
            self._process.stdin.close()
            self._process.wait(STARTS)
            self._process = None

    def _client(self) -> contextlib.closing[Any]:
        return contextlib.closing(docker.DockerClient(base_url=f"unix://{self._socket}", version="auto"))

    def _addresses(self) -> dict[str, str]:
        with self._client() as client:
            network = client.containers.get("mail").attrs["NetworkSettings"]["Networks"]["bridge"]
        return {"ip": network["IPAddress"], "ip6": network["GlobalIPv6Address"]}

    def __enter__(self) -> Self:
        try:
            self.launch()
            until(self.answers, STARTS)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()
        self.stop()


def until(condition: Callable[[], bool], patience: float) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not in {patience} s"
        time.sleep(0.02)


def _writes_nftables() -> bool:
    done = subprocess.run(("dockerd", "--help"), capture_output=True, text=True, timeout=20, check=True)
    return "--firewall-backend" in done.stdout


def _native_rules(family: str, address: str) -> str:
    target = f"{address}:{INSIDE}" if family == "ip" else f"[{address}]:{INSIDE}"
    rules = _NATIVE.format(family=family, address=address, port=PUBLISHED, inside=INSIDE, target=target)
    return f"table {family} docker-bridges {{}}\ndelete table {family} docker-bridges\n{rules}"


def _image() -> bytes:
    """Return an image's file system as a tar archive: one static program."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        tar.add(_BUSYBOX, "bin/busybox")
    return archive.getvalue()
