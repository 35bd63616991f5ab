"""`mailward doctor`: what makes a guard useless on a real host.  It looks and changes nothing; the whole takes seconds.

Each check is one small function in `_CHECKS`.  What it may not see it says, as a warning, rather than calling it fine.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from guard.app._diagnosis import OK, PROBLEM, WARNING, Diagnosis, Verdict
from guard.app._doctor_logs import sample
from guard.config import Config, ConfigError, DockerTable, FileTable, JournalTable, RedisTable
from guard.control import ControlError
from guard.control.client import ask
from guard.firewall import nft_outline
from guard.firewall.nets import read_net
from guard.firewall.permission import RIGHTS, missing_library, missing_programs, missing_right
from guard.firewall.protected import Protected

_TABLE: Final = "mailward"
_PREROUTING: Final = 0  # NF_INET_PRE_ROUTING
_BEFORE: Final = -200  # priority of conntrack, which comes before every DNAT (linux/netfilter_ipv4.h)
_ROOM: Final = 100 << 20  # bytes; a checkpoint of full tables takes less
_PATIENCE: Final = 2.0  # seconds for a server to answer
DOCKER: Final = Path("/etc/docker/daemon.json")
_JOURNAL: Final = Path("/var/log/journal")
_NO_IPV6: Final = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")

Check = Callable[[Config], Iterable[Verdict]]


def examine(config: Config) -> list[Diagnosis]:
    """Return what every check found, in the table's order.  A check that the system refuses is a warning."""
    found: list[Diagnosis] = []
    for name, check in _CHECKS.items():
        try:
            verdicts = list(check(config))
        except OSError as error:
            verdicts = [Verdict(WARNING, f"could not look: {error}", "run it as root")]
        found += [Diagnosis(name, *verdict) for verdict in verdicts]
    return found


def _right(config: Config) -> Iterator[Verdict]:
    backend = config.firewall.backend
    if backend == "none":
        yield Verdict(
            WARNING, "it only observes and bans nobody", 'set firewall.backend = "nftables" to enforce'
        )
        return
    missing = missing_programs() if backend == "iptables" else missing_library()
    if missing:
        yield Verdict(PROBLEM, missing.partition(":")[0], missing)
    elif lacking := missing_right(*RIGHTS[backend]):
        mine = os.geteuid() == 0
        yield Verdict(
            PROBLEM if mine else WARNING,
            "root lacks the right to enforce" if mine else "this user may not see the firewall",
            lacking,
        )
    else:
        yield Verdict(OK, f"{backend} is installed and this process may use it")


def _table(config: Config) -> Iterator[Verdict]:
    if config.firewall.backend != "nftables" or missing_library() or missing_right():
        yield Verdict(WARNING, "the nftables table was not looked at", "see the check `right`")
        return
    try:
        found = nft_outline.outline(_TABLE)
        flowtables = nft_outline.flowtables()
    except OSError as error:
        yield Verdict(PROBLEM, "nftables does not work on this kernel", str(error))
        return
    hooks = [chain.priority for chain in found.chains.values() if chain.hook == _PREROUTING] if found else []
    if not hooks:
        yield Verdict(
            PROBLEM,
            f"the table inet {_TABLE} or its hook is missing: no ban is enforced",
            "start `mailward run`",
        )
    elif any(priority is None or priority >= _BEFORE for priority in hooks):
        yield Verdict(
            PROBLEM,
            "our hook comes after conntrack and DNAT: published ports stay open",
            f"nft delete table inet {_TABLE}, and restart mailward",
        )
    else:
        # Another chain's `accept` ends that chain alone (nft(8)): it opens nothing that ours closes.
        yield Verdict(OK, f"inet {_TABLE} hooks prerouting before conntrack and DNAT")
    if flowtables:
        yield Verdict(
            WARNING,
            "a flowtable carries established connections past every hook",
            "leave the mail ports out of it",
        )


def _ipv6(_config: Config) -> Iterator[Verdict]:
    off = not _NO_IPV6.exists() or _NO_IPV6.read_text().strip() == "1"
    yield Verdict(OK, f"IPv6 is {'off' if off else 'on'}")


def _docker(_config: Config) -> Iterator[Verdict]:
    yield from docker_settings(DOCKER)


def docker_settings(file: Path) -> Iterator[Verdict]:
    """Judge the Docker engine's own settings: whether containers see their clients' addresses."""
    try:
        settings = json.loads(file.read_text())
    except FileNotFoundError:
        yield Verdict(
            OK, f"{file} is not here: the engine, if there is one, has its defaults or is not visible"
        )
        return
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        yield Verdict(PROBLEM, f"{file} is no JSON object", "correct it: the engine will not start again")
        return
    hiding = [key for key in ("iptables", "ip6tables") if settings.get(key) is False]
    for key in hiding:
        yield Verdict(
            PROBLEM,
            f"{file} has {key} off: published ports show the gateway instead of the client",
            f"remove {key} from it and restart the engine",
        )
    if not hiding:
        yield Verdict(OK, "the Docker engine's settings leave clients their addresses")


def _sources(config: Config, root: str = "/") -> Iterator[Verdict]:
    try:
        tables = config.sources(root)
    except ConfigError as error:
        yield Verdict(PROBLEM, f"there is nothing to read: {error}", "name it in [[source]]")
        return
    for table in tables:
        if isinstance(table, FileTable):
            yield from sample(table.name, table.path, config.lists.trusted)
        elif isinstance(table, DockerTable):
            yield _reached(table.name, table.url or "unix:///var/run/docker.sock")
        elif isinstance(table, RedisTable):
            yield _reached(table.name, table.url)
        elif isinstance(table, JournalTable):
            yield from journal(table.name, Path(table.directory) if table.directory else _JOURNAL)
        else:
            yield Verdict(
                OK, f"{table.name}: {table.type} is the daemon's own to open; see the check `daemon`"
            )


def journal(name: str, folder: Path) -> Iterator[Verdict]:
    """Say whether the journal can be read and outlives a restart of the host."""
    if shutil.which("journalctl") is None:
        yield Verdict(PROBLEM, f"{name}: there is no journalctl", "install systemd")
    elif not folder.is_dir():
        yield Verdict(
            WARNING,
            f"{name}: no journal in {folder}: it is lost when the host restarts",
            "set Storage=persistent in journald.conf and restart systemd-journald",
        )
    elif not os.access(folder, os.R_OK | os.X_OK):
        yield Verdict(
            WARNING, f"{name}: this user may not read {folder}", "join the group systemd-journal, or use root"
        )
    else:
        yield Verdict(OK, f"{name}: the journal is kept in {folder}")


def _reached(name: str, url: str) -> Verdict:
    """Say whether somebody listens there.  The address is shown without what may be a password."""
    parts = urlsplit(url)
    place: Any = parts.path
    family = socket.AF_UNIX
    if not parts.scheme.startswith(("unix", "redis+unix")):
        try:
            port = parts.port or 6379
        except ValueError:
            return Verdict(
                WARNING, f"{name}: several servers are not asked one by one", "see mailward status"
            )
        host = parts.hostname or "127.0.0.1"
        if "sentinel" in parts.scheme or "cluster" in parts.scheme:
            return Verdict(
                WARNING, f"{name}: several servers are not asked one by one", "see mailward status"
            )
        try:
            with socket.create_connection((host, port), _PATIENCE):
                return Verdict(OK, f"{name}: {host}:{port} takes connections")
        except OSError as error:
            return Verdict(
                PROBLEM, f"{name}: {host}:{port}: {error}", "start the server or correct the address"
            )
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(place)
        except OSError as error:
            return Verdict(
                PROBLEM,
                f"{name}: {place}: {error.strerror or error}",
                "start the server, or give us the right",
            )
    return Verdict(OK, f"{name}: {place} takes connections")


def _ssh(config: Config) -> Iterator[Verdict]:
    client = (os.environ.get("SSH_CONNECTION", "") or os.environ.get("SSH_CLIENT", "")).partition(" ")[0]
    if not client:
        yield Verdict(OK, "this shell did not come by SSH")
        return
    protected = Protected(config.lists.trusted)
    protected.look()
    net = read_net(client)
    allowed = any(
        read_net(entry).first <= net.first and net.last <= read_net(entry).last
        for entry in config.list_nets("allow")
        if read_net(entry).family == net.family
    )
    if allowed:
        yield Verdict(OK, f"you come from {client}, which is allowed")
    else:
        held = protected.objection(net, "brute_force") is not None
        text = "protected only while this session lasts" if held else "not allowed"
        yield Verdict(WARNING, f"you come from {client}, which is {text}", f"mailward allow add {client}")


def _state(config: Config) -> Iterator[Verdict]:
    if config.store.own.startswith("sqlite://"):
        folder = Path(config.store.own.removeprefix("sqlite://")).parent
        if not folder.is_dir():
            yield Verdict(
                WARNING, f"{folder} is not there, or not to be seen", "the first start of mailward makes it"
            )
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield Verdict(
                PROBLEM if os.geteuid() == 0 else WARNING,
                f"this user may not write {folder}",
                "give it to the user that runs mailward, and look again as that user",
            )
        elif shutil.disk_usage(folder).free < _ROOM:
            yield Verdict(PROBLEM, f"{folder} has less than 100 MiB free", "make room")
        else:
            yield Verdict(OK, f"{folder} can be written and has room")
    if config.store.shared:
        yield _reached("store", config.store.url)


def _daemon(config: Config) -> Iterator[Verdict]:
    try:
        status = ask(config.control.socket, {"do": "status"}, _PATIENCE)
    except ControlError as error:
        yield Verdict(PROBLEM, "the daemon does not answer", str(error))
        return
    yield from of_status(status)


def of_status(status: dict[str, Any]) -> Iterator[Verdict]:
    """Judge what the running daemon says of itself."""
    for source in status["sources"]:
        if not source["up"]:
            yield Verdict(
                PROBLEM, f"source {source['name']} is not read: {source['detail']}", "mailward status"
            )
    for part in ("firewall", "store"):
        if not status[part]["up"]:
            yield Verdict(PROBLEM, f"the {part} is in trouble: {status[part]['detail']}", "mailward status")
    bans = status["bans"]
    wanted, enforced = (sum(bans[key].values()) for key in ("wanted", "enforced"))
    foreign, drift = sum(bans["foreign"].values()), sum(bans["drift"].values())
    if status["firewall"]["backend"] != "none" and wanted != enforced - foreign:
        yield Verdict(
            PROBLEM, f"{wanted} bans are wanted, {enforced - foreign} of them enforced", "mailward status"
        )
    if drift:
        yield Verdict(
            WARNING,
            f"somebody changed our table: {drift} differences were mended",
            "find out what flushes or edits nftables",
        )
    if not status["configuration"]["ok"]:
        yield Verdict(PROBLEM, "the daemon refused the configuration on disk", "mailward check")
    yield Verdict(OK, f"the daemon answers; {wanted} bans wanted, since {status['started']}")


def _clock(_config: Config) -> Iterator[Verdict]:
    good = time.time() > 1_700_000_000  # 2023: before the first release
    yield (
        Verdict(OK, "the clock is plausible")
        if good
        else Verdict(PROBLEM, "the clock is years behind", "start a time service")
    )


_CHECKS: Final[dict[str, Check]] = {
    "right": _right,
    "table": _table,
    "ipv6": _ipv6,
    "docker": _docker,
    "clock": _clock,
    "source": _sources,
    "ssh": _ssh,
    "state": _state,
    "daemon": _daemon,
}
