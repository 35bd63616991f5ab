"""docs/json.md and the real output have the same keys, types and nulls, object by object."""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.daemon import ROOT, Daemon, failure, mailward, session, stamp
from tests.geo import database
from tests.redis_server import RedisServer

TEXT: Final = (ROOT / "docs/json.md").read_text(encoding="utf-8")
IP: Final = "198.51.100.7"
HANDMADE: Final = "203.0.113.0/24"
UNREADABLE: Final = "mx dovecot: auth: passwd-file(alice,198.51.100.7,<abc>): some Password mismatch thing"
KEYS: Final = re.compile(r"`([^`]+)`")


class Key(NamedTuple):
    """A row of a table."""

    type: str
    null: str


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def tables() -> dict[str, dict[str, Key | None]]:
    """Return the documented objects; a key without a type stands for all keys of the object of that name."""
    found: dict[str, dict[str, Key | None]] = {}
    for section in re.split(r"^#{2,3} ", TEXT, flags=re.MULTILINE)[1:]:
        name, _, body = section.partition("\n")
        if not name[0].isupper() or " " in name:
            continue
        assert name not in found, f"{name} is documented twice"
        found[name] = {}
        for head, type_, _, null in list(rows(body))[1:]:
            key = KEYS.findall(head)[0]
            assert key not in found[name], f"{name}.{key} is documented twice"
            found[name][key] = None if head.startswith("all of") else Key(type_.partition(",")[0], null)
    return found


TABLES: Final = tables()


def keys_of(name: str) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for key, row in TABLES[name].items():
        keys |= keys_of(key) if row is None else {key: row}
    return keys


def requests() -> dict[str, tuple[set[str], str]]:
    """Return the documented requests: the keys that each takes, and the name of its result."""
    table = TEXT.partition("| `do` | keys | result |\n")[2].partition("\n\n")[0]
    return {KEYS.findall(do)[0]: (set(KEYS.findall(keys)), result) for do, keys, result in rows(table)}


def is_time(value: object) -> bool:
    return isinstance(value, str) and bool(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z", value, re.ASCII)
    )


SCALARS: Final[dict[str, Callable[[Any], bool]]] = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in {int, float},
    "boolean": lambda value: isinstance(value, bool),
    "time": is_time,
    "net": lambda value: str(ipaddress.ip_network(value)) == value,
    "address": lambda value: str(ipaddress.ip_address(value)) == value,
    "any": lambda value: True,
}


class Reader:
    """Compares values with the document, and remembers which keys it has seen."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.wrong: list[str] = []

    def read(self, name: str, value: Any, place: str = "") -> None:
        place = place or name
        if name.startswith("list of "):
            for item in value:
                self.read(name.removeprefix("list of "), item, f"{place}[]")
        elif name.startswith("map of "):
            for item in value.values():
                self.read(name.removeprefix("map of "), item, f"{place}.*")
        elif name in SCALARS:
            if not SCALARS[name](value):
                self.wrong.append(f"{place}: {value!r} is no {name}")
        else:
            self._object(name, value, place)

    def _object(self, name: str, value: dict[str, Any], place: str) -> None:
        keys = keys_of(name)
        self.wrong += [f"{place}.{key}: not in the table {name}" for key in value if key not in keys]
        for key, row in keys.items():
            if key not in value:
                if not row.null.startswith("absent"):
                    self.wrong.append(f"{place}.{key}: in the table {name}, not in the output")
                continue
            self.seen.add((name, key))
            if value[key] is not None:
                self.read(row.type, value[key], f"{place}.{key}")
            elif row.null == "-" or row.null.startswith("absent"):
                self.wrong.append(f"{place}.{key}: null, which the table {name} excludes")


def success(ip: str) -> str:
    return (
        f"{stamp()} mx dovecot: imap-login: Login: user=<alice@example.org>, method=PLAIN, rip={ip}, "
        f"lip=192.0.2.1, mpid=1, TLS, session=<{session(ip)}>"
    )


def attack() -> list[str]:
    """Return a ban, an address on its way to one, a login after failures, and a line that no parser reads."""
    return [
        *(failure(IP) for _ in range(5)),
        *(failure("2001:db8::9") for _ in range(3)),
        success("2001:db8::9"),
        f"{stamp()} {UNREADABLE}",
        f"{stamp()} mx postfix/submission/smtpd[7]: 3D1492D268D: client=x[203.0.113.7], sasl_method=PLAIN, sasl_username=bob",
        f"{stamp()} mx postfix/qmgr[8]: 3D1492D268D: from=<bob@example.org>, size=216, nrcpt=2 (queue active)",
    ]


def raw(path: str, line: bytes) -> Any:
    """Return the whole answer to one line on the control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(line + b"\n")
        with connection.makefile("rb") as answers:
            return json.loads(answers.readline())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def logs(reader: Reader, folder: Path) -> None:
    """Read what the commands print that need no daemon."""
    first, second = folder / "first.log", folder / "second.log"
    first.write_text("\n".join(attack()) + "\n")
    second.write_text(f"{failure(IP)}\n{stamp()} {UNREADABLE}\n")
    for file in (str(first), "/dev/null"):
        reader.read("Replay", json.loads(mailward("replay", "--format", "json", file).stdout))
    for files in ([str(first)], [str(first), str(second)]):
        for name, option in (("Line", []), ("Unparsed", ["--unparsed"])):
            printed = mailward("parse", "--format", "json", *option, *files).stdout.splitlines()
            assert printed
            for line in printed:
                reader.read(name, json.loads(line))
                assert ("file" in json.loads(line)) == (len(files) > 1)
    for line in ("nothing of a login", failure(IP)):
        reader.read("ExplainLine", json.loads(mailward("explain", "--format", "json", line).stdout))
    broken = folder / "broken.toml"
    broken.write_text('[firewall]\nbackend = "a moat"\n')
    done = mailward("check", "--format", "json", "--config", str(broken))
    assert done.returncode == 2
    reader.read("Check", json.loads(done.stdout))


def listings(reader: Reader, daemon: Daemon) -> None:
    """Read what the commands print that ask the daemon."""
    daemon.command("ban", HANDMADE, "--for", "forever", "--reason", "guesses at night")
    daemon.command("allow", "add", "192.0.2.0/24")
    daemon.command("deny", "add", "192.0.3.0/24")
    for name, *words in (
        ("Bans", "bans"),
        ("AllowList", "allow"),
        ("DenyList", "deny"),
        ("Status", "status"),
        ("Origins", "origins"),
        ("Check", "check"),
        ("Doctor", "doctor"),
        ("Top", "top"),
        *(
            ("ExplainAddress", "explain", "--ip", ip)
            for ip in (IP, "2001:db8::9", "203.0.113.1", "192.0.4.1")
        ),
    ):
        reader.read(name, json.loads(daemon.command(*words, "--format", "json").stdout))


def answers(reader: Reader, daemon: Daemon) -> None:
    """Read the control socket's answers to every request that is documented."""
    given = {
        "net": "203.0.113.128/25",
        "ip": IP,
        "seconds": 60,
        "reason": "a test",
        "force": True,
        "by": "networks",
        "limit": 5,
    }
    for do, (keys, result) in requests().items():
        answer = raw(daemon.socket, json.dumps({"do": do} | {key: given[key] for key in keys}).encode())
        reader.read("Answer", answer, do)
        reader.read(result, answer["result"], do)
        for key in keys & {"net", "ip"}:  # what is said to be refused without it
            lacking = {"do": do} | {other: given[other] for other in keys - {key}}
            reader.read("Refusal", raw(daemon.socket, json.dumps(lacking).encode()), do)
    for line in (b"no JSON", b"[]", b'{"do": "dance"}'):
        reader.read("Refusal", raw(daemon.socket, line))


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("daemon"))
    denied = daemon.folder / "deny"
    denied.write_text("203.0.112.0/24\n")
    daemon.configure(
        f'[firewall]\nbackend = "none"\n[http]\nlisten = "127.0.0.1:{port}"\n'
        f'[lists]\nallow = ["localhost", "192.0.5.1"]\ndeny = ["{denied}"]\n'
        f'[geo]\ndatabase = "{database(daemon.folder / "geo.mmdb")}"'
    )
    with daemon:
        daemon.write(*attack())
        daemon.until(lambda: daemon.ask("bans")["bans"] and daemon.ask("status")["firewall"]["dropped"])
        daemon.has_read(len(attack()))
        yield daemon
        daemon.stop()


@pytest.fixture
def member(tmp_path) -> Iterator[Daemon]:
    with RedisServer(tmp_path / "redis") as server:
        folder = tmp_path / "member"
        folder.mkdir()
        member = Daemon(folder, store=server.url)
        port = free_port()
        member.configure(f'[firewall]\nbackend = "none"\n[http]\nlisten = "127.0.0.1:{port}"')
        with member:
            member.until(lambda: member.ask("status")["fleet"]["nodes"])
            yield member


def ready(port: int) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/readyz")
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found


def test_the_document_and_the_output_have_the_same_keys(tmp_path, daemon, port, member):
    reader = Reader()
    logs(reader, tmp_path)
    listings(reader, daemon)
    answers(reader, daemon)
    reader.read("Ready", ready(port))
    reader.read("Status", json.loads(member.command("status", "--format", "json").stdout))
    reader.read("Ready", ready(int(member.config.read_text().partition('"127.0.0.1:')[2].partition('"')[0])))
    assert reader.wrong == []
    unseen = {(name, key) for name in TABLES for key in keys_of(name)} - reader.seen
    assert unseen == set(), "documented, never in the output"


def test_every_request_of_the_control_socket_is_documented(daemon):
    error = raw(daemon.socket, b'{"do": "dance"}')["error"]
    assert set(error.partition("there is ")[2].split(", ")) == set(requests())


def test_every_key_of_a_request_is_documented():
    table = TEXT.partition("| key | type | meaning | null or absent |\n")[2].partition("\n\n")[0]
    named = {KEYS.findall(head)[0] for head, *_ in rows(table)}
    source = (ROOT / "guard/app/_requests.py").read_text(encoding="utf-8")
    taken = set(re.findall(r'request(?:\.get\(|\[)"(\w+)"', source)) - {"do"}
    assert named == taken == set().union(*(keys for keys, _ in requests().values()))


def test_every_listing_is_documented():
    table = TEXT.partition("| listing | prints |\n")[2].partition("\n\n")[0]
    objects = {name for _, printed in rows(table) for name in KEYS.findall(printed) if name in TABLES}
    listed = {KEYS.findall(head)[0].split()[0] for head, _ in rows(table)} - {"GET"}
    commands = {
        path.stem
        for path in (ROOT / "guard/cli").glob("[!_]*.py")
        if '"json"' in path.read_text(encoding="utf-8")
    }
    assert commands - {"lists"} <= listed
    assert {"allow", "deny"} <= listed
    assert len(objects) == len(list(rows(table)))


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(#([^)]*)\)", TEXT))))
def test_every_link_has_its_heading(link):
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    assert link in {heading.lower().replace(" ", "-") for heading in headings}


def test_no_line_is_too_long():
    assert [line for line in TEXT.splitlines() if len(line) > 140] == []
