"""What the daemon takes from the host before it begins: its lock, its key, its firewall's right."""

from __future__ import annotations

import fcntl
import os
import secrets
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from guard.app._suspicion import Suspicion
from guard.config import Config
from guard.firewall import Firewall
from guard.firewall.monitor import Monitor
from guard.firewall.permission import missing_capability
from guard.firewall.protected import Protected
from guard.log import logger
from guard.store import Store, StoreError, open_store

WRONG: Final = 2
REFUSED: Final = 3
_SQLITE: Final = "sqlite://"
_KEY_BYTES: Final = 32


class CannotRunError(Exception):
    """The daemon cannot begin; `status` is the exit status that says why, as contracts.md has it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def folders(config: Config) -> list[tuple[Path, int]]:
    """Return the folders that the daemon writes to, each with its mode."""
    found = [(Path(config.control.socket).parent, 0o755)]
    if config.store.own.startswith(_SQLITE):
        found.append((Path(config.store.own.removeprefix(_SQLITE)).parent, 0o700))
    return found


def opened(url: str) -> Store:
    """Return the store of this node's own state; what was damaged is told."""
    try:
        store = open_store(url)
    except StoreError as error:
        raise CannotRunError(REFUSED, str(error)) from None
    if store.trouble:
        logger().error("the state was damaged", reason=store.trouble)
    return store


def lock(url: str) -> int | None:
    """Take the state's lock and return its descriptor; None where there is no state.  The kernel drops it with us."""
    if not url.startswith(_SQLITE):
        return None
    path = Path(url.removeprefix(_SQLITE) + ".lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotRunError(
            REFUSED,
            f"{path.parent}: {error.strerror}; give it to the user that runs mailward, or set another path (store.url, in a fleet store.file)",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise CannotRunError(
            REFUSED,
            f"{path}: another mailward uses this state; stop it first, or set store.url (in a fleet store.file)",
        ) from None
    return descriptor


def secret_of(url: str) -> bytes:
    """Return the key beside the state, made at the first start; without state a key of this run."""
    if not url.startswith(_SQLITE):
        return secrets.token_bytes(_KEY_BYTES)
    path = Path(url.removeprefix(_SQLITE)).parent / "secret"
    try:
        key = path.read_bytes()
        if len(key) >= _KEY_BYTES:
            return key
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CannotRunError(REFUSED, f"{path}: {error.strerror}") from None
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        fresh = path.with_name("secret.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        fresh.rename(path)
    except OSError as error:
        raise CannotRunError(REFUSED, f"{path}: {error.strerror}") from None
    return key


def firewall_of(config: Config, protected: Protected) -> Firewall:
    """Return the backend, not yet open.  Raises `CannotRunError` with the capability that is missing."""
    table = config.firewall
    if table.backend == "none":
        from guard.firewall.dry_run import DryRunFirewall  # noqa: PLC0415 - the one or the other

        return DryRunFirewall(protected)
    missing = missing_capability(table.backend)
    if missing is not None:
        raise CannotRunError(REFUSED, f'{missing}; or set firewall.backend = "none" to observe only')
    ports = None if table.ports == "all" else table.ports
    if table.backend == "iptables":
        from guard.firewall.iptables import IptablesFirewall  # noqa: PLC0415 - as above

        logger().warning(
            'firewall.backend = "iptables": nftables is the better choice where the host has it: '
            "no process a batch, one transaction, bans of any length, and CAP_NET_ADMIN alone"
        )
        return IptablesFirewall(ports, protected)
    from guard.firewall.nftables import NftablesFirewall  # noqa: PLC0415 - as above

    rule = config.rules.brute_force
    return NftablesFirewall(ports, rule.prefix4, rule.prefix6, protected)


def suspicion_of(firewall: Firewall) -> Suspicion:
    """Return what tells when to look after the firewall; the kernel tells of others' changes to nftables alone."""
    return Suspicion(monitor=Monitor if firewall.name == "nftables" else None)


def local_zone() -> tzinfo:
    """Return this host's time zone, in which its logs are written: TZ, else /etc/localtime, else UTC."""
    try:
        name = os.environ.get("TZ", "").removeprefix(":")
        if name and not name.startswith("/"):
            return ZoneInfo(name)
        with Path(name or "/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file, key="local")
    except (OSError, ValueError, KeyError):
        return UTC
