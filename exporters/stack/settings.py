"""The exporter's configuration: arguments, and for each one a variable of the environment that stands in for it."""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from exporters.stack.certificates import MODES, Port

MODE_OF: Final = {25: "smtp", 587: "smtp", 143: "imap", 110: "pop3", 4190: "sieve"}  # every other: tls
INTERVALS: Final = {
    "queue": 15.0, "certificates": 300.0, "dns": 300.0, "mta_sts": 300.0,
    "clamd": 60.0, "freshclam": 60.0, "olefy": 60.0,
}  # fmt: skip
_NAME: Final = re.compile(
    r"\A(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62}){0,30}\Z"
)
_EXAMPLES: Final = """\
A look is taken only where its option is set.  Each option can be a variable instead: --dkim-selectors is
EXPORTER_DKIM_SELECTORS; an argument goes first.

examples:
  python -m exporters.stack --once --queue /var/spool/postfix
  python -m exporters.stack --hostname mail.example.org --ports "localhost:25 localhost:465 localhost:993"
  python -m exporters.stack --hostname mail.example.org --domains example.org --dkim-selectors mail --resolver 127.0.0.1
  EXPORTER_CLAMD=/run/clamav/clamd.ctl EXPORTER_FRESHCLAM=/var/lib/clamav python -m exporters.stack --intervals "clamd=30"

exit status: 2 wrong configuration, 3 the world refused (the address is in use, a file cannot be read)
"""


class Wrong(Exception):  # noqa: N818 - the user's news
    """The configuration is wrong; the text names the key, what was expected and the remedy."""


class Settings(NamedTuple):
    """What to look at.  Empty means: not."""

    listen: tuple[str, int]
    once: bool
    queue: Path | None
    hostname: str
    ports: tuple[Port, ...]
    ca: Path | None
    domains: tuple[str, ...]
    selectors: tuple[str, ...]
    resolver: tuple[str, int] | None
    clamd: str
    olefy: str
    freshclam: Path | None
    freshclam_age: float
    intervals: Mapping[str, float]
    timeout: float


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Wrong(f"{message}; see --help")


def read(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings.  Raises Wrong; `--help` ends the process."""
    parser = _Parser(
        prog="python -m exporters.stack",
        description="Metrics of a mail stack that have no good exporter of their own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--once", action="store_true", help="print the metrics and end")
    for name, default, text in (
        ("listen", "127.0.0.1:9117", "ADDRESS:PORT that serves /metrics"),
        ("queue", "", "Postfix' queue_directory"),
        ("hostname", "", "the mail host's name: in its certificate, among its MX"),
        ("ports", "", "HOST:PORT[/MODE] ...: certificates to look at; MODE: " + ", ".join(MODES)),
        ("ca", "", "file of the authorities to trust instead of the system's"),
        ("domains", "", "mail domains ...: their DNS records and MTA-STS"),
        ("dkim-selectors", "", "DKIM selectors ... that every domain publishes"),
        ("resolver", "", "name server ADDRESS[:PORT] instead of the system's"),
        ("clamd", "", "clamd, HOST:PORT or the path of its socket"),
        ("olefy", "", "olefy, HOST:PORT"),
        ("freshclam", "", "freshclam's log, or the folder of its database"),
        ("freshclam-age", "172800", "seconds after which that is too old"),
        ("intervals", "", "LOOK=SECONDS ...; " + " ".join(f"{k}={v:.0f}" for k, v in INTERVALS.items())),
        ("timeout", "10", "seconds for each server"),
    ):
        variable = _variable(name)
        value = environment.get(variable) or default
        parser.add_argument(f"--{name}", default=value, metavar="...", help=f"{text} [{default or 'none'}]")
    given = parser.parse_args(arguments)
    words = {key: value for key, value in vars(given).items() if isinstance(value, str)}
    hostname = _names("hostname", words["hostname"])
    if len(hostname) > 1:
        raise Wrong(_says("hostname", words["hostname"], "one host name"))
    ports = tuple(_port(word) for word in words["ports"].split())
    if ports and not hostname:
        raise Wrong("--ports needs --hostname (EXPORTER_HOSTNAME): the name that the certificate must hold")
    if len({port.number for port in ports}) < len(ports):
        raise Wrong(_says("ports", words["ports"], "each port number once: it is the label"))
    listen = _address("listen", words["listen"])
    return Settings(
        listen=listen,
        once=given.once,
        queue=_path("queue", words["queue"]),
        hostname=hostname[0] if hostname else "",
        ports=ports,
        ca=_path("ca", words["ca"]),
        domains=_names("domains", words["domains"]),
        selectors=_names("dkim-selectors", words["dkim_selectors"]),
        resolver=_resolver(words["resolver"]),
        clamd=words["clamd"] if words["clamd"].startswith("/") else _server("clamd", words["clamd"]),
        olefy=_server("olefy", words["olefy"]),
        freshclam=_path("freshclam", words["freshclam"]),
        freshclam_age=_seconds("freshclam-age", words["freshclam_age"]),
        intervals=_intervals(words["intervals"]),
        timeout=_seconds("timeout", words["timeout"]),
    )


def _variable(name: str) -> str:
    return "EXPORTER_" + name.replace("-", "_").upper()


def _says(name: str, value: str, expected: str) -> str:
    return f"--{name} ({_variable(name)}) is {value!r}; expected: {expected}"


def _address(name: str, value: str) -> tuple[str, int]:
    host, gap, port = value.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not gap or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port[:6]) <= 65535:
        raise Wrong(_says(name, value, "HOST:PORT, for IPv6 [ADDRESS]:PORT"))
    return host, int(port)


def _server(name: str, value: str) -> str:
    if value:
        _address(name, value)
    return value


def _port(word: str) -> Port:
    where, _, mode = word.partition("/")
    host, number = _address("ports", where)
    mode = mode or MODE_OF.get(number, "tls")
    if mode not in MODES or not number:
        raise Wrong(_says("ports", word, f"HOST:PORT[/MODE], with a MODE of {', '.join(MODES)}"))
    return Port(host, number, mode)


def _names(name: str, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(word.lower().rstrip(".") for word in value.split()))
    for word in names:
        if not _NAME.match(word):
            raise Wrong(_says(name, word, "a name of letters, digits, - and . (IDN in its xn-- form)"))
    return names


def _path(name: str, value: str) -> Path | None:
    if value and not value.startswith("/"):
        raise Wrong(_says(name, value, "an absolute path"))
    return Path(value) if value else None


def _resolver(value: str) -> tuple[str, int] | None:
    if not value:
        return None
    try:
        return str(ipaddress.ip_address(value)), 53
    except ValueError:
        host, port = _address("resolver", value)
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        raise Wrong(_says("resolver", value, "an IP address, with :PORT where it is not 53")) from None


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise Wrong(_says(name, value, "seconds, more than 0"))
    return seconds


def _intervals(value: str) -> Mapping[str, float]:
    found = dict(INTERVALS)
    for word in value.split():
        look, gap, seconds = word.partition("=")
        if not gap or look not in INTERVALS:
            raise Wrong(_says("intervals", word, f"LOOK=SECONDS, with a LOOK of {', '.join(INTERVALS)}"))
        found[look] = _seconds("intervals", seconds)
    return found


def complain(text: str) -> None:
    """Say on stderr why the exporter ends."""
    print(f"stack exporter: {text}", file=sys.stderr)
