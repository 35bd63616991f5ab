"""What `store.url` says: which servers, how to reach them, and who we are to them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote

from guard.fleet import FleetError

EXPECTED: Final = (
    "redis://[[user]:password@]host[:port][/db], rediss:// (TLS), redis+unix:///socket[?db=N], "
    "redis+sentinel://host:port,host:port/service[/db] or redis+cluster://host:port,host:port"
)
URL: Final = re.compile(
    r"redis(?P<tls>s?)(?:\+(?P<kind>unix|sentinel|cluster))?://(?:(?P<user>[^\s:@/?#,]*):(?P<password>[^\s:@/?#,]+)@)?"
    r"(?P<hosts>[^\s@/?#]*)(?P<path>/[^\s?#]*)?(?:\?(?P<query>[^\s#]+))?",
)
HOST: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([A-Za-z0-9._-]+)(?::(\d{1,5}))?", re.ASCII)
PATHS: Final = {
    "": re.compile(r"/?()(\d{0,4})", re.ASCII),
    "cluster": re.compile(r"/?()()"),
    "sentinel": re.compile(r"/([A-Za-z0-9._-]+)(?:/(\d{1,4}))?", re.ASCII),
    "unix": re.compile(r"(/.+)()"),
}


class Address(NamedTuple):
    """A URL, taken apart."""

    kind: str  # "", "unix", "sentinel" or "cluster"
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str
    db: int
    service: str  # what the Sentinels call the master
    path: str  # of the unix socket
    ca: str  # a file of certificates; "" for the system's
    insecure: bool  # take any certificate
    sentinel_password: str

    def __str__(self) -> str:
        """Return the address as an operator may read it: without user and password."""
        scheme = f"redis{'s' * self.tls}{'+' * bool(self.kind)}{self.kind}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{hosts}{self.path}{'/' * bool(self.service)}{self.service}"

    def hide(self, text: str) -> str:
        """Return the text without our passwords: a server's or a library's answer might repeat them."""
        for secret in (self.password, self.sentinel_password):
            text = text.replace(secret, "***") if secret else text
        return text


def parse(url: str) -> Address:
    """Return what the URL says.  Raises `FleetError` without repeating it: it may hold a password."""
    try:
        found = _parse(url)
    except ValueError:  # of a port, of brackets that do not match
        found = None
    if found is None:
        raise FleetError(f"store.url: expected {EXPECTED}")
    return found


def _parse(url: str) -> Address | None:
    parts = URL.fullmatch(url)  # urlsplit knows no list of hosts
    if parts is None:
        return None
    tls, kind = bool(parts["tls"]), parts["kind"] or ""
    path = PATHS[kind].fullmatch(parts["path"] or "")
    options = parse_qs(
        parts["query"] or "", keep_blank_values=True, strict_parsing=parts["query"] is not None
    )
    chosen = {key: values[-1] for key, values in options.items()}
    if (
        path is None
        or (tls and kind == "unix")
        or not chosen.keys() <= _options(kind, tls=tls)
        or not all(chosen.values())
    ):
        return None
    hosts = _hosts(parts["hosts"], 26379 if kind == "sentinel" else 6379)
    if (kind == "unix") != (not hosts) or (not kind and len(hosts) > 1) or chosen.get("ca", "/")[0] != "/":
        return None
    db = str(chosen.get("db", path[2] or "0"))
    if not re.fullmatch(r"\d{1,4}", db, re.ASCII) or chosen.get("insecure", "yes") not in ("yes", "no"):
        return None
    return Address(
        kind=kind,
        tls=tls,
        hosts=hosts,
        user=unquote(parts["user"] or ""),
        password=unquote(parts["password"] or ""),
        db=int(db),
        service=path[1] if kind == "sentinel" else "",
        path=unquote(path[1]) if kind == "unix" else "",
        ca=chosen.get("ca", ""),
        insecure=chosen.get("insecure") == "yes",
        sentinel_password=chosen.get("sentinel_password", ""),
    )


def _options(kind: str, *, tls: bool) -> set[str]:
    allowed = {"ca", "insecure"} if tls else set()
    return allowed | {"unix": {"db"}, "sentinel": {"sentinel_password"}}.get(kind, set())


def _hosts(text: str, port: int) -> tuple[tuple[str, int], ...]:
    """Return the hosts and ports.  Raises `ValueError`."""
    found = []
    for part in text.split(",") if text else ():
        match = HOST.fullmatch(part)
        number = int(match[2] or match[4] or port) if match else 0
        if match is None or not 0 < number < 65536:
            raise ValueError(part)
        found.append((match[1] or match[3], number))
    return tuple(found)
