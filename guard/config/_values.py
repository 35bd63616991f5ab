"""What the values of the configuration may be.  A ValueError's text is what was expected."""

from __future__ import annotations

import math
import os
import re
from ipaddress import ip_address
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from guard import addresses

UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?([smhdw])", re.ASCII)
LABEL: Final = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
HOST: Final = re.compile(rf"(?:{LABEL}\.)*{LABEL}\.?", re.ASCII)
LISTEN: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})", re.ASCII)
UNIT: Final = re.compile(  # systemd.unit(5)
    r"[A-Za-z0-9:_.\\-]{1,200}(?:@[A-Za-z0-9:_.\\*-]{0,200})?\.(?:service|scope|slice)", re.ASCII
)
NARROWEST: Final = {
    4: 8,
    6: 16,
}  # the fewest bits of a net that may be shut out: a slip must not close the house
DOCKER: Final = "unix:///var/run/docker.sock"
LONGEST: Final = 100 * 365 * 86400.0


def duration(value: object) -> float:
    """Return seconds: "10m", "1h30m", "7d", "90s", or a number of seconds."""
    seconds = -1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        text = value.strip()
        parts = DURATION.findall(text)
        if parts and not re.sub(r"\s", "", DURATION.sub("", text)):
            seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
        elif re.fullmatch(r"\d{1,12}(?:\.\d+)?", text, re.ASCII):  # from the environment
            seconds = float(text)
    if not math.isfinite(seconds) or not 0 < seconds <= LONGEST:
        raise ValueError('a duration, such as "90s", "10m", "1h", "7d", or a number of seconds')
    return seconds


def net(value: object) -> str:
    """Return an address or a net as canonical CIDR."""
    if isinstance(value, str) and "%" not in value:  # a zone means something on one host only
        try:
            return addresses.network(value)
        except ValueError:
            pass
    raise ValueError('an address or a net, such as "192.0.2.7", "192.0.2.0/24" or "2001:db8::/32"')


def net_to_deny(value: object) -> str:
    """Return a net that may be shut out as a whole; no host name, whose owner would decide who is shut out."""
    try:
        canonical = net(value)
    except ValueError as error:
        never = "" if _host(value) is None else "; never a host name: its owner would decide who is shut out"
        raise ValueError(f"{error}{never}") from None
    version = 6 if ":" in canonical else 4
    if int(canonical.rpartition("/")[2]) < NARROWEST[version]:
        raise ValueError(f"a net of at least /{NARROWEST[version]}: a wider one shuts out the internet")
    return canonical


def net_or_host(value: object) -> str:
    """Return a net as canonical CIDR, or a host name in lower case."""
    name = _host(value)
    if name is not None:
        return name
    try:
        return net(value)
    except ValueError as error:
        raise ValueError(f'{error}, or a host name, such as "office.example.org"') from None


def to_allow(value: object) -> str:
    """Return an entry of lists.allow: the path of a file as it is, else as `net_or_host`."""
    return value if isinstance(value, str) and is_path(value) else net_or_host(value)


def to_deny(value: object) -> str:
    """Return an entry of lists.deny: the path of a file as it is, else as `net_to_deny`."""
    return value if isinstance(value, str) and is_path(value) else net_to_deny(value)


def is_path(entry: str) -> bool:
    """Is an entry of a list the path of a file?  Neither a net nor a name begins with a slash."""
    return entry.startswith("/")


def is_net(entry: str) -> bool:
    """Is an entry of a list, as this module returns it, a net?  Names hold no slash."""
    return "/" in entry and not is_path(entry)


def is_name(entry: str) -> bool:
    """Is an entry of a list, as this module returns it, a host name?"""
    return "/" not in entry


def _host(value: object) -> str | None:
    if isinstance(value, str) and "/" not in value and ":" not in value:
        name = value.strip().rstrip(".").lower()
        if HOST.fullmatch(name) and len(name) <= 253 and re.search(r"[a-z]", name.rpartition(".")[2]):
            return name
    return None


def listen(value: object) -> str:
    """Return `host:port` as it is; "" listens nowhere."""
    match = LISTEN.fullmatch(value) if isinstance(value, str) else None
    if isinstance(value, str) and (not value or (match and 0 < int(match[2]) <= 65535)):
        return value
    raise ValueError('an address and a port, such as "127.0.0.1:9780" or "[::1]:9780"; "" for none')


def token(value: object) -> str:
    """Return a token as it is; "" is none."""
    if isinstance(value, str) and re.fullmatch(r"(?:[A-Za-z0-9._~+/-]{16,512}=*)?", value):
        return value
    raise ValueError(
        '16 or more letters, digits and "-._~+/", such as `openssl rand -hex 16` makes; "" for none'
    )


def policy_listen(value: object) -> str:
    """Return `host:port` or `unix:///path` as it is."""
    if isinstance(value, str) and re.fullmatch(r"unix:///[^\0\s]{1,100}", value):
        return value
    try:
        if value and isinstance(value, str):
            return listen(value)
    except ValueError:
        pass
    raise ValueError(
        'an address and a port, such as "127.0.0.1:4001", or "unix:///run/mailward/auth_policy.sock"'
    )


def interface(value: object) -> str:
    """Return the name of a network interface as it is (Linux: up to 15 bytes); "" is any."""
    if isinstance(value, str) and re.fullmatch(r"[!-.0-9;-~]{0,15}", value):
        return value
    raise ValueError('the name of a network interface, such as "br-mail"; "" for all')


def is_local(address: str) -> bool:
    """Does only this host reach an address to listen on, as this module returns it?"""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def policy_key(value: object) -> str:
    """Return what Dovecot's auth_policy_server_api_header says: a value, or `Header: value`; "" for none."""
    if value == "":
        return ""
    header = r"[A-Za-z0-9-]{1,64}:[ \t]*[!-~](?:[ -~]{0,510}[!-~])?"
    pattern = rf"{header}|[!-9;-~](?:[ -9;-~]{{0,510}}[!-9;-~])?"
    if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII):
        return value
    raise ValueError(
        'the text of Dovecot\'s auth_policy_server_api_header, such as "X-API-Key: SECRET"; "" for none'
    )


def delay(value: object) -> int:
    """Return how many seconds Dovecot is to wait before it judges; 0 for none."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,2}", value, re.ASCII):  # from the environment
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 60:
        return value
    raise ValueError("0 (off), or a whole number of 1 to 60, in seconds")


def file_path(value: object) -> str:
    """Return the absolute path of a file."""
    if isinstance(value, str) and re.fullmatch(r"/.*[^/]", value):
        return value
    raise ValueError('the path of a file, such as "/var/lib/mailward/state.db"')


def node_name(value: object) -> str:
    """Return a name of a node of a fleet; "" for the host's."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:-]{0,64}", value):
        return value
    raise ValueError("a name of at most 64 letters, digits and . _ : -")


def whole(value: object) -> object:
    """Refuse what Python takes for a whole number and TOML does not."""
    if isinstance(value, bool | float):
        raise ValueError("a whole number")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def members(value: object) -> int:
    """Return how many banned members make a bad net; 0 for never."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,4}", value, re.ASCII):  # from the environment
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and (value == 0 or 2 <= value <= 1000):
        return value
    raise ValueError("0 (off), or a whole number of 2 to 1000")


def source_name(value: object) -> str:
    """Return a name that fits a metrics label; "" to be given one."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.:/-]{0,64}", value):
        return value
    raise ValueError("a name of at most 64 letters, digits and . _ : / -")


def docker_url(value: object) -> str:
    """Return the address of a Docker engine; "" for that of DOCKER_HOST, else the engine's own socket."""
    found = value or os.environ.get("DOCKER_HOST") or DOCKER
    if isinstance(found, str):
        if found.startswith("unix:///") and len(found) > 8:
            return found
        match = LISTEN.fullmatch(found.removeprefix("tcp://").rstrip("/"))
        if found.startswith("tcp://") and match and 0 < int(match[2]) <= 65535:
            return found.rstrip("/")
    whose = "" if value else " in DOCKER_HOST"
    raise ValueError(f"unix:///PATH or tcp://HOST:PORT{whose}, of a Docker engine or of a proxy before it")


def project_name(value: object) -> str:
    """Return the name of a compose project; "" for the only one that has the services."""
    if isinstance(value, str) and re.fullmatch(r"(?:[a-z0-9][a-z0-9_-]{0,127})?", value):
        return value
    raise ValueError("the name of a compose project: lower case letters, digits, _ and -")


def service_name(value: object) -> str:
    """Return the name of a compose service, or of a container."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", value):
        return value
    raise ValueError("the name of a service: letters, digits and _ . -")


def label(value: object) -> str:
    """Return a container's label."""
    if isinstance(value, str) and re.fullmatch(r"[^=\s]{1,256}=[^\n\r\0]{0,1024}", value):
        return value
    raise ValueError('a label and its value, such as "org.example.logs=mail"')


def unit(value: object) -> str:
    """Return the name of a systemd unit, or a pattern of the instances of one template."""
    if isinstance(value, str) and UNIT.fullmatch(value):
        return value
    raise ValueError('a unit, such as "dovecot.service", or a template, such as "postfix@*.service"')


def tag(value: object) -> str:
    """Return a syslog tag as the core reads it."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_./+-]{1,100}", value):
        return value
    raise ValueError('a syslog tag, such as "dovecot" or "postfix/smtpd"')


def folder(value: object) -> str:
    """Return an absolute path; "" for the usual place."""
    if isinstance(value, str) and (not value or (value.startswith("/") and "\0" not in value)):
        return value
    raise ValueError('an absolute path of a folder; "" for the usual place')


def _kind(value: object) -> str:
    return "<all>" if isinstance(value, str) else "<list>"


Duration = Annotated[float, BeforeValidator(duration)]
Net = Annotated[str, BeforeValidator(net)]
ToAllow = Annotated[str, BeforeValidator(to_allow)]
ToDeny = Annotated[str, BeforeValidator(to_deny)]
Listen = Annotated[str, BeforeValidator(listen)]
PolicyListen = Annotated[str, BeforeValidator(policy_listen)]
Interface = Annotated[str, BeforeValidator(interface)]
PolicyKey = Annotated[str, BeforeValidator(policy_key)]
Delay = Annotated[int, BeforeValidator(delay)]
FilePath = Annotated[str, BeforeValidator(file_path)]
NodeName = Annotated[str, BeforeValidator(node_name)]
SourceName = Annotated[str, BeforeValidator(source_name)]
DockerUrl = Annotated[str, BeforeValidator(docker_url)]
ProjectName = Annotated[str, BeforeValidator(project_name)]
ServiceName = Annotated[str, BeforeValidator(service_name)]
Label = Annotated[str, BeforeValidator(label)]
Unit = Annotated[str, BeforeValidator(unit)]
SyslogTag = Annotated[str, BeforeValidator(tag)]
Folder = Annotated[str, BeforeValidator(folder)]
Text = Annotated[str, Field(min_length=1)]
Token = Annotated[str, BeforeValidator(token)]
Whole = BeforeValidator(whole)
Count = Annotated[int, Whole, Field(ge=1, le=10**9)]
Port = Annotated[int, Whole, Field(ge=1, le=65535)]
# No rule bans a net wider than /16, nor an IPv6 net of /32 and wider (guard/firewall/protected.py).
Prefix4 = Annotated[int, Whole, Field(ge=16, le=32)]
Prefix6 = Annotated[int, Whole, Field(ge=33, le=128)]
Around4 = Annotated[int, Whole, Field(ge=16, le=31)]  # what a rule may ban for what its members did
Around6 = Annotated[int, Whole, Field(ge=33, le=127)]
Members = Annotated[int, BeforeValidator(members)]
Ports = Annotated[
    Annotated[Literal["all"], Tag("<all>")] | Annotated[list[Port], Field(min_length=1), Tag("<list>")],
    Discriminator(_kind),
]
