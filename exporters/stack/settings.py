"""The exporter's configuration: arguments; for each one a variable of the environment, or a key of a file, stands in."""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from exporters.stack.certificates import MODES, Port

MODE_OF: Final = {25: "smtp", 587: "smtp", 143: "imap", 110: "pop3", 4190: "sieve"}  # every other: tls
INTERVALS: Final = {
    "queue": 15.0, "certificates": 300.0, "dns": 300.0, "mta_sts": 300.0,
    "clamd": 60.0, "freshclam": 60.0, "olefy": 60.0,
}  # fmt: skip
_NAME: Final = re.compile(
    r"\A(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62}){0,30}\Z"
)
OPTIONS: Final = (
    ("listen", "127.0.0.1:9117", "ADDRESS:PORT that serves /metrics"),
    ("queue", "", "Postfix' queue_directory"),
    ("hostname", "", "the mail host's name: in its certificate, among its MX"),
    ("ports", "", "HOST:PORT[/MODE] ...: certificates to look at; MODE: " + ", ".join(MODES)),
    ("ca", "", "file of the authorities to trust instead of the system's"),
    ("domains", "", "mail domains ...: their DNS records and MTA-STS"),
    ("dkim-selectors", "", "DKIM selectors ... that every domain publishes"),
    ("dkim-key-path", "", "where the signing keys' files lie, with $domain and $selector: DNS must publish those"),
    ("resolver", "", "name server ADDRESS[:PORT] instead of the system's"),
    ("clamd", "", "clamd, HOST:PORT or the path of its socket"),
    ("olefy", "", "olefy, HOST:PORT"),
    ("freshclam", "", "freshclam's log (UpdateLogFile), or the folder of its database"),
    ("freshclam-age", "172800", "seconds after which its last check, or in a folder the newest signatures, are too old"),
    ("intervals", "", "LOOK=SECONDS ...; " + " ".join(f"{k}={v:.0f}" for k, v in INTERVALS.items())),
    ("timeout", "10", "seconds for each server"),
)  # fmt: skip
LOOKS: Final = ("queue", "ports", "domains", "clamd", "olefy", "freshclam")
_EXAMPLES: Final = """\
A look is taken only where its option is set.  Each option can be a variable instead: --dkim-selectors is
EXPORTER_DKIM_SELECTORS; or a key of the file: dkim-selectors = ["mail"].  An argument goes first, then the variable.

examples:
  python -m exporters.stack --once --queue /var/spool/postfix
  python -m exporters.stack --hostname mail.example.org --ports "localhost:25 localhost:465 localhost:993"
  python -m exporters.stack --hostname mail.example.org --domains example.org --dkim-selectors mail --resolver 127.0.0.1
  EXPORTER_CLAMD=/run/clamav/clamd.ctl EXPORTER_FRESHCLAM=/var/lib/clamav python -m exporters.stack --intervals "clamd=30"
  python -m exporters.stack --config /etc/mailward/stack.toml

exit status: 2 wrong configuration, 3 the world refused (the address is in use, a file cannot be read)
"""


class Wrong(Exception):  # noqa: N818 - the user's news
    """The configuration is wrong; the text names the key, what was expected and the remedy."""


class _Unexpected(Exception):  # noqa: N818 - as above
    """An option's value is not what was expected."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(name, value, expected)
        self.name, self.text = name, f"is {value!r}; expected: {expected}"


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
    key_path: str
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
    parser.add_argument(
        "--config", default=environment.get("EXPORTER_CONFIG", ""), metavar="FILE", help="TOML file of the keys below"
    )  # fmt: skip
    for name, default, text in OPTIONS:
        parser.add_argument(f"--{name}", metavar="...", help=f"{text} [{default or 'none'}]")
    given = vars(parser.parse_args(arguments))
    file = Path(given["config"]) if given["config"] else None
    kept = _of_file(file) if file else {}
    words: dict[str, str] = {}
    for name, default, _ in OPTIONS:
        said = given[name.replace("-", "_")]
        if said is None:
            said = environment.get(_variable(name)) or None
        if said is None:
            words[name] = kept.get(name, default)
        else:
            words[name] = said
            kept.pop(name, None)
    try:
        settings = _settings(words, once=given["once"])
    except _Unexpected as error:
        where = f"{file}: {error.name}" if error.name in kept else f"--{error.name} ({_variable(error.name)})"
        raise Wrong(f"{where} {error.text}") from None
    if not any(words[look].split() for look in LOOKS):
        options = ", ".join(f"--{look}" for look in LOOKS)
        beside = f"or their keys in {file}" if file else "or --config"
        raise Wrong(f"nothing to look at: set one or more of {options}, {beside}; --help has examples")
    return settings


def _of_file(path: Path) -> dict[str, str]:
    """Return the file's keys, each as its argument would be written.  Raises Wrong."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Wrong(f"{path}: {error}; expected: a file in TOML that can be read") from None
    known = [name for name, _, _ in OPTIONS]
    for name in table:
        if name not in known:
            raise Wrong(f"{path}: {name} is not a key; expected one of: {', '.join(known)}")
    try:
        return {name: _said(name, value) for name, value in table.items()}
    except _Unexpected as error:
        raise Wrong(f"{path}: {error.name} {error.text}") from None


def _said(name: str, value: Any) -> str:
    match value:
        case bool():
            pass
        case str() | int() | float():
            return str(value)
        case dict() if name == "intervals":
            return " ".join(f"{look}={seconds}" for look, seconds in value.items())
        case list() if all(isinstance(word, str) for word in value):
            for word in value:
                if word.split() != [word]:
                    raise _Unexpected(name, word, "a string without a space for each")
            return " ".join(value)
    raise _Unexpected(name, value, "a string, a number or a list of strings")


def _settings(words: Mapping[str, str], *, once: bool) -> Settings:
    hostname = _names("hostname", words["hostname"])
    if len(hostname) > 1:
        raise _Unexpected("hostname", words["hostname"], "one host name")
    ports = tuple(_port(word) for word in words["ports"].split())
    if ports and not hostname:
        expected = "--hostname (EXPORTER_HOSTNAME) beside it: the name that the certificate must hold"
        raise _Unexpected("ports", words["ports"], expected)
    if len({port.number for port in ports}) < len(ports):
        raise _Unexpected("ports", words["ports"], "each port number once: it is the label")
    if words["dkim-key-path"] and not (words["domains"] and words["dkim-selectors"]):
        expected = "--domains and --dkim-selectors beside it: whose keys they are"
        raise _Unexpected("dkim-key-path", words["dkim-key-path"], expected)
    return Settings(
        listen=_address("listen", words["listen"]),
        once=once,
        queue=_path("queue", words["queue"]),
        hostname=hostname[0] if hostname else "",
        ports=ports,
        ca=_path("ca", words["ca"]),
        domains=_names("domains", words["domains"]),
        selectors=_names("dkim-selectors", words["dkim-selectors"]),
        key_path=str(_path("dkim-key-path", words["dkim-key-path"]) or ""),
        resolver=_resolver(words["resolver"]),
        clamd=words["clamd"] if words["clamd"].startswith("/") else _server("clamd", words["clamd"]),
        olefy=_server("olefy", words["olefy"]),
        freshclam=_path("freshclam", words["freshclam"]),
        freshclam_age=_seconds("freshclam-age", words["freshclam-age"]),
        intervals=_intervals(words["intervals"]),
        timeout=_seconds("timeout", words["timeout"]),
    )


def _variable(name: str) -> str:
    return "EXPORTER_" + name.replace("-", "_").upper()


def _address(name: str, value: str) -> tuple[str, int]:
    host, gap, port = value.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not gap or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port[:6]) <= 65535:
        raise _Unexpected(name, value, "HOST:PORT, for IPv6 [ADDRESS]:PORT")
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
        raise _Unexpected("ports", word, f"HOST:PORT[/MODE], with a MODE of {', '.join(MODES)}")
    return Port(host, number, mode)


def _names(name: str, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(word.lower().rstrip(".") for word in value.split()))
    for word in names:
        if not _NAME.match(word):
            raise _Unexpected(name, word, "a name of letters, digits, - and . (IDN in its xn-- form)")
    return names


def _path(name: str, value: str) -> Path | None:
    if value and not value.startswith("/"):
        raise _Unexpected(name, value, "an absolute path")
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
        raise _Unexpected("resolver", value, "an IP address, with :PORT where it is not 53") from None


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise _Unexpected(name, value, "seconds, more than 0")
    return seconds


def _intervals(value: str) -> Mapping[str, float]:
    found = dict(INTERVALS)
    for word in value.split():
        look, gap, seconds = word.partition("=")
        if not gap or look not in INTERVALS:
            raise _Unexpected("intervals", word, f"LOOK=SECONDS, with a LOOK of {', '.join(INTERVALS)}")
        found[look] = _seconds("intervals", seconds)
    return found


def complain(text: str) -> None:
    """Say on stderr why the exporter ends."""
    print(f"stack exporter: {text}", file=sys.stderr)
