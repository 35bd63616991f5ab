"""The configuration: every mistake at once, each with its line; every default as the example says."""

import datetime as dt
import json
import os
import shutil
import socket
import string
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from guard.config import (
    AuthPolicyTable,
    Config,
    ConfigError,
    DockerTable,
    FileTable,
    JournalTable,
    Problem,
    find_sources,
    load,
)
from guard.config._lines import locate
from guard.config._list_file import _quickly
from guard.config._store_url import store_url
from guard.config._values import NARROWEST, duration, net_to_deny
from guard.fleet import FleetError
from guard.fleet._address import parse
from guard.model import Policy
from tests.sources.journald import missing

EXAMPLE = Path(__file__).parent.parent / "mailward.example.toml"


@pytest.fixture(autouse=True)
def only_our_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MAILWARD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path):
    def write_it(text: str) -> Path:
        path: Path = tmp_path / "mailward.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_it


@pytest.fixture
def problems(write):
    def find(text: str) -> list[tuple[int, str, str]]:
        path = write(text)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert {problem.file for problem in caught.value.problems} == {str(path)}
        return [(problem.line, problem.key, problem.expected) for problem in caught.value.problems]

    return find


# ------------------------------------------------------------------------------------------------ what is right


def test_the_example_says_the_defaults_and_all_of_them(write):
    assert load(EXAMPLE).model_dump() == load(write("")).model_dump()
    said = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))

    def keys(model: BaseModel) -> dict[str, object]:
        values = ((name, getattr(model, name)) for name in type(model).model_fields)
        return {name: keys(value) if isinstance(value, BaseModel) else None for name, value in values}

    def shape(table: dict[str, object]) -> dict[str, object]:
        return {name: shape(value) if isinstance(value, dict) else None for name, value in table.items()}

    assert shape(said) | {"source": None} == keys(load(EXAMPLE))


def test_the_defaults_are_the_engines_own():
    assert load(EXAMPLE).policy() == Policy()


def test_what_is_set_reaches_the_policy(write):
    config = load(
        write("""
        [rules.brute_force]
        failures = 7
        window = "1h30m"
        ban = 60
        ban_max = "2.5d"
        forget = "2w"
        prefix4 = 24
        prefix6 = 48
        [rules]
        login_after_failures.failures = 9
        bad_neighbourhood = { members = 8, window = "2h", prefix4 = [24, 20], prefix6 = [] }
        [lists]
        allow = ["192.0.2.7", "Office.Example.ORG.", "2001:DB8::/32", "::ffff:198.51.100.0/120", "192.0.2.99/24"]
        deny = ["203.0.113.0/24"]
        trusted = ["10.1.2.3"]
        [limits]
        addresses = 10
        sessions = 20
        accounts = 30
        """)
    )
    assert config.policy(own=("192.0.2.1",), secret=b"k") == Policy(
        failures=7,
        window=5400.0,
        ban=60.0,
        ban_max=216000.0,
        forget=1209600.0,
        prefix4=24,
        prefix6=48,
        login_failures=9,
        neighbourhood_members=8,
        neighbourhood_window=7200.0,
        neighbourhood_prefix4=(24, 20),
        neighbourhood_prefix6=(),
        allow=("192.0.2.7/32", "2001:db8::/32", "198.51.100.0/24", "192.0.2.0/24"),
        deny=("203.0.113.0/24",),
        trusted=("10.1.2.3/32",),
        own=("192.0.2.1",),
        max_addresses=10,
        max_sessions=20,
        max_accounts=30,
        secret=b"k",
    )
    assert config.allow_names() == ("office.example.org",)


def test_sources_are_numbered_where_they_have_no_name(write):
    config = load(
        write("""
        source = [{ type = "file", path = "/a", from = "start" }, { type = "stdin" }, { type = "file", path = "/b*" },
                  { type = "file", path = "/c", name = "mine" }]
        """)
    )
    assert [source.name for source in config.sources()] == ["file1", "stdin1", "file2", "mine"]
    assert [source.start for source in config.source if isinstance(source, FileTable)] == [
        "start",
        "resume",
        "resume",
    ]


def test_source_docker_says_which_engine_and_which_containers(write, monkeypatch):
    given = (
        'url = "tcp://proxy:2375/", project = "mail", services = ["mta"], labels = ["a=b"], from = "start"'
    )
    table = f'source = [{{ type = "docker" }}, {{ type = "docker", {given}, name = "stack" }}]'
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    first, second = load(write(table)).source
    assert isinstance(first, DockerTable)
    assert isinstance(second, DockerTable)
    assert (first.name, first.url, first.services) == ("docker1", "unix:///var/run/docker.sock", [])
    assert (second.url, second.project, second.services) == ("tcp://proxy:2375", "mail", ["mta"])
    assert (second.labels, second.start, second.name) == (["a=b"], "start", "stack")
    monkeypatch.setenv("DOCKER_HOST", "tcp://[::1]:2375")
    first, second = load(write(table)).source
    assert isinstance(first, DockerTable)
    assert first.url == "tcp://[::1]:2375"
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@host")
    with pytest.raises(
        ConfigError, match=r"source\[1\].url: expected unix:///PATH or tcp://HOST:PORT in DOCKER_HOST"
    ):
        load(write(table))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", '"tcp://user:secret@proxy:2375"'),
        ("url", '"https://proxy:2375"'),
        ("url", '"unix://"'),
        ("url", '"tcp://proxy:99999"'),
        ("project", '"Mail/x"'),
        ("services", '["a/b"]'),
        ("labels", '["nothing"]'),
        ("labels", '["a=b\\nc"]'),
    ],
)
def test_source_docker_refuses_what_names_no_engine_or_container(write, key, value):
    with pytest.raises(ConfigError, match=rf"source\[1\]\.{key}") as caught:
        load(write(f'source = [{{ type = "docker", {key} = {value} }}]'))
    assert "secret" not in str(caught.value)


def test_source_docker_needs_its_package(write, monkeypatch):
    config = load(write('source = [{ type = "docker" }]'))
    assert config.unsupported() == []
    monkeypatch.setattr("guard.config._extras.find_spec", lambda _: None)
    (found,) = config.unsupported()
    assert found.key == "source[1].type"
    assert "pip install mailward[docker]" in found.expected


def test_docker_is_found_where_no_log_is(tmp_path, monkeypatch):
    there = tmp_path / "var/run/docker.sock"
    there.parent.mkdir(parents=True)
    monkeypatch.chdir(there.parent)  # a path longer than a socket's may be
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(there.name)
        (found,) = find_sources(str(tmp_path))
        assert isinstance(found, DockerTable)
        assert (found.url, found.name) == (f"unix://{there}", "docker1")
        monkeypatch.setattr("guard.config._extras.find_spec", lambda _: None)
        with pytest.raises(ConfigError, match=r"docker.sock is there.*pip install mailward\[docker\]"):
            find_sources(str(tmp_path))
        (tmp_path / "var/log").mkdir()
        (tmp_path / "var/log/mail.log").touch()
        assert [source.type for source in find_sources(str(tmp_path))] == ["file"]


def test_dovecots_policy_server(write):
    [source] = load(write("[[source]]\ntype = 'auth_policy'")).sources()
    assert isinstance(source, AuthPolicyTable)
    assert (source.listen, source.key, source.delay) == ("127.0.0.1:4001", "", 0)
    text = "[[source]]\ntype = 'auth_policy'\nlisten = '0.0.0.0:4001'\nkey = 'X-API-Key: hunter2'\ndelay = 5"
    config = load(write(text))
    [source] = config.sources()
    assert isinstance(source, AuthPolicyTable)
    assert (source.listen, source.key, source.delay) == ("0.0.0.0:4001", "X-API-Key: hunter2", 5)
    assert "hunter2" not in repr(config)
    assert config.unsupported() == []
    for local in ("[::1]:4001", "localhost:4001", "127.0.0.9:4001", "unix:///run/mailward/p.sock"):
        load(write(f"[[source]]\ntype = 'auth_policy'\nlisten = '{local}'"))


def test_a_key_that_is_wrong_is_not_repeated(problems):
    [(_, key, expected)] = problems('[[source]]\ntype = "auth_policy"\nkey = "hunter2\\u0001"')
    assert key == "source[1].key"
    assert "hunter2" not in expected


def test_all_ports(write):
    assert load(write('firewall.ports = "all"')).firewall.ports == "all"


def test_sources_are_found_where_mail_servers_write(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"there is no journal, and none of .*/var/log/mail.log, .*maillog, .*sogo.log, .*docker.sock is there",
    ):
        find_sources(str(tmp_path))
    log = tmp_path / "var/log"
    (log / "sogo").mkdir(parents=True)
    for name in ("mail.log", "sogo/sogo.log"):
        (log / name).touch()
    found = Config().sources(str(tmp_path))
    assert [(s.name, s.path) for s in found if isinstance(s, FileTable)] == [
        ("file1", f"{log}/mail.log"),
        ("file2", f"{log}/sogo/sogo.log"),
    ]


def journal(path: Path, unit: str, age: float) -> None:
    """Write one entry of a unit, `age` seconds old, into a journal's file."""
    remote = "/lib/systemd/systemd-journal-remote"
    if shutil.which("journalctl") is None or not Path(remote).exists():
        missing(
            "NOT RUN: no journalctl or systemd-journal-remote here; apt-get install systemd systemd-journal-remote"
        )
    path.parent.mkdir(parents=True)
    slice_ = "system-postfix.slice" if unit.startswith("postfix@") else "system.slice"
    entry = (
        f"__REALTIME_TIMESTAMP={int((time.time() - age) * 1e6)}\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID={'1' * 32}\n"
        f"_SYSTEMD_UNIT={unit}\n_SYSTEMD_SLICE={slice_}\nMESSAGE=text\n\n"
    )
    subprocess.run([remote, "-o", str(path), "-"], input=entry.encode(), check=True, capture_output=True)


@pytest.mark.parametrize("place", ["var/log/journal", "run/log/journal"])
@pytest.mark.parametrize(
    ("unit", "days", "found"),
    [
        ("dovecot.service", 1, True),
        ("postfix@-.service", 6, True),
        ("postfix.service", 8, False),
        ("cron.service", 0, False),
    ],
)
def test_the_journal_goes_before_syslogs_files_where_mail_servers_wrote_there_lately(
    tmp_path, place, unit, days, found
):
    journal(tmp_path / place / ("a" * 32) / "system.journal", unit, days * 86400)
    log = tmp_path / "var/log"
    (log / "sogo").mkdir(parents=True)
    if not found:
        with pytest.raises(
            ConfigError, match=r"the journal has nothing of postfix\.service, .* of the last 7 days"
        ):
            find_sources(str(tmp_path))
    for name in ("mail.log", "sogo/sogo.log"):
        (log / name).touch()
    first = JournalTable(type="journal", name="journal1", directory=str(tmp_path / place)) if found else None
    mail, sogo = (FileTable(type="file", path=str(log / name)) for name in ("mail.log", "sogo/sogo.log"))
    expected = [(first or mail).model_copy(update={"name": ""}), sogo]
    assert [s.model_copy(update={"name": ""}) for s in find_sources(str(tmp_path))] == expected


def test_without_journalctl_there_is_no_journal(tmp_path, monkeypatch):
    (tmp_path / "var/log/journal/x").mkdir(parents=True)
    (tmp_path / "var/log/journal/x/system.journal").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no journalctl to read the journal with, and none of"):
        find_sources(str(tmp_path))


def test_the_keys_of_a_journal(write):
    [table] = load(
        write("""
        [[source]]
        type = "journal"
        units = ["postfix@mx*.service", "a-b.scope"]
        tags = ["postfix/smtpd"]
        any_user = true
        directory = "/host/journal"
        since = "2h"
        """)
    ).source
    assert isinstance(table, JournalTable)
    assert table.model_dump() == {
        "name": "journal1", "type": "journal", "units": ["postfix@mx*.service", "a-b.scope"], "tags": ["postfix/smtpd"],
        "any_user": True, "directory": "/host/journal", "start": "resume", "since": 7200.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('units = ["dovecot"]', "source[1].units[1]", 'a unit, such as "dovecot.service", or a template'),
        ('units = ["post*.service"]', "source[1].units[1]", "a unit, such as"),
        ('units = ["a.service + _UID=0"]', "source[1].units[1]", "a unit, such as"),
        ('tags = ["a b"]', "source[1].tags[1]", "a syslog tag"),
        ("units = []", "source[1].tags", "a tag where `units` is empty"),
        ('directory = "journal"', "source[1].directory", "an absolute path"),
        ('from = "now"\nsince = "2h"', "source[1].since", 'no `since` unless from = "resume"'),
        ('since = "soon"', "source[1].since", "a duration"),
        ('[[source]]\ntype = "journal"\nname = "b"', "source[2].type", "one source a journal"),
    ],
)
def test_mistakes_in_a_journal(write, text, key, expected):
    with pytest.raises(ConfigError) as caught:
        load(write(f'[[source]]\ntype = "journal"\nname = "a"\n{text}\n'))
    [problem] = caught.value.problems
    assert problem.key == key
    assert expected in problem.expected


# ------------------------------------------------------------------------------------------------ what is wrong


def test_four_mistakes_are_all_listed_with_line_key_and_expectation(problems):
    assert problems("""# a comment
[rules.brute_force]
failures = 0
window = "ten minutes"
ban = "8d"

[[source]]
type = "file"
path = "/var/log/mail.log"

[[source]]
type = "file"
pth = "/var/log/other.log"

[lists]
allow = [
    "192.0.2.0/24",
    # the next one is wrong
    "192.0.2.0/33",
    "300.1.2.3",
]
[firewal]
ports = []
""") == [
        (
            2,
            "rules.brute_force.ban_max",
            "expected a duration of at least rules.brute_force.ban (691200 s); found 604800.0",
        ),
        (3, "rules.brute_force.failures", "expected a number of at least 1; found 0"),
        (
            4,
            "rules.brute_force.window",
            'expected a duration, such as "90s", "10m", "1h", "7d", or a number of seconds; found \'ten minutes\'',
        ),
        (11, "source[2].path", "expected: the key is required here"),
        (13, "source[2].pth", "no such key (did you mean path?); expected one of from, name, path, type"),
        (
            19,
            "lists.allow[2]",
            (
                'expected an address or a net, such as "192.0.2.7", "192.0.2.0/24" or "2001:db8::/32", '
                "or a host name, such as \"office.example.org\"; found '192.0.2.0/33'"
            ),
        ),
        (
            20,
            "lists.allow[3]",
            (
                'expected an address or a net, such as "192.0.2.7", "192.0.2.0/24" or "2001:db8::/32", '
                "or a host name, such as \"office.example.org\"; found '300.1.2.3'"
            ),
        ),
        (
            22,
            "firewal",
            (
                "no such key (did you mean firewall?); expected one of control, exporters, firewall, geo, http, limits, "
                "lists, log, rules, source, store"
            ),
        ),
    ]


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("firewall.ports = [25, 0]", "firewall.ports[2]", "at least 1; found 0"),
        ("firewall.ports = [70000]", "firewall.ports[1]", "at most 65535; found 70000"),
        ("firewall.ports = []", "firewall.ports", "at least one element"),
        ('firewall.ports = "some"', "firewall.ports", "one of 'all'; found 'some'"),
        ("firewall.ssh_ports = [0]", "firewall.ssh_ports[1]", "at least 1; found 0"),
        ('firewall.close_sockets = "yes please"', "firewall.close_sockets", "found 'yes please'"),
        ("rules.brute_force.prefix4 = 15", "rules.brute_force.prefix4", "at least 16; found 15"),
        ("rules.brute_force.prefix6 = 32", "rules.brute_force.prefix6", "at least 33; found 32"),
        ("firewall.ports = 25", "firewall.ports", "a list in brackets; found 25"),
        (
            'firewall.backend = "pf"',
            "firewall.backend",
            "one of 'nftables', 'iptables' or 'none'; found 'pf'",
        ),
        ("rules.brute_force.failures = true", "rules.brute_force.failures", "a whole number; found True"),
        ('rules.brute_force.failures = "five"', "rules.brute_force.failures", "a whole number; found 'five'"),
        ("rules.brute_force.failures = 2.5", "rules.brute_force.failures", "a whole number; found 2.5"),
        ("rules.brute_force.prefix4 = 33", "rules.brute_force.prefix4", "at most 32; found 33"),
        ("rules.brute_force.prefix6 = 0", "rules.brute_force.prefix6", "at least 33; found 0"),
        ("rules.brute_force = 3", "rules.brute_force", "a table; found 3"),
        ("rules.brute_force.ban = -1", "rules.brute_force.ban", "a duration"),
        ("rules.brute_force.ban = inf", "rules.brute_force.ban", "a duration"),
        (
            "rules.spray.failures = 3",
            "rules.spray",
            "expected one of bad_neighbourhood, brute_force, login_after_failures",
        ),
        (
            "rules.bad_neighbourhood.members = 1",
            "rules.bad_neighbourhood.members",
            "0 (off), or a whole number of 2 to 1000; found 1",
        ),
        ("rules.bad_neighbourhood.members = true", "rules.bad_neighbourhood.members", "0 (off)"),
        ("rules.bad_neighbourhood.prefix4 = [8]", "rules.bad_neighbourhood.prefix4[1]", "at least 16"),
        ("rules.bad_neighbourhood.prefix6 = [56, 32]", "rules.bad_neighbourhood.prefix6[2]", "at least 33"),
        ("rules.bad_neighbourhood.prefix6 = 56", "rules.bad_neighbourhood.prefix6", "a list in brackets"),
        ('lists.deny = ["0.0.0.0/0"]', "lists.deny[1]", "a net of at least /8"),
        ('lists.deny = ["example.org"]', "lists.deny[1]", "an address or a net"),
        ('lists.trusted = ["::1%eth0/64"]', "lists.trusted[1]", "an address or a net"),
        ('lists.allow = "192.0.2.1"', "lists.allow", "a list in brackets"),
        ("lists.allow = [5]", "lists.allow[1]", "a host name"),
        ('http.listen = "9780"', "http.listen", "an address and a port"),
        ('http.token = "secret"', "http.token", "16 or more letters"),
        ('http.listen = "127.0.0.1:99999"', "http.listen", "an address and a port"),
        ('http.listen = "127.0.0.1%:9780"', "http.listen", "an address and a port"),
        ('http.listen = "127.0.0.1%a/b:9780"', "http.listen", "an address and a port"),
        ('http.listen = "127.0.0.1%sixteen-letters-:9780"', "http.listen", "an address and a port"),
        ('http.listen = "localhost%lo:9780"', "http.listen", "an address where an interface is named"),
        ('exporters.mail = "perhaps"', "exporters.mail", "true or false"),
        ('log.level = "loud"', "log.level", "one of 'debug', 'info', 'warning' or 'error'"),
        ('source = [{ type = "pigeon" }]', "source[1]", "one of 'file', 'stdin'"),
        ("source = [{ path = '/x' }]", "source[1]", "the key `type`"),
        (
            "source = [{ type = 'redis', mode = 'pop' }]",
            "source[1].mode",
            "one of 'channel', 'list' or 'stream'",
        ),
        (
            "source = [{ type = 'redis', keys = [] }]",
            "source[1].keys",
            "the names of 1 to 64 lists, each once",
        ),
        ("source = [{ type = 'redis', keys = ['a', 'a'] }]", "source[1].keys", "each once"),
        (
            "source = [{ type = 'redis', mode = 'stream', stream = 'a b' }]",
            "source[1].stream",
            "a name of at most",
        ),
        (
            "source = [{ type = 'redis', mode = 'channel', stream = 'X' }]",
            "source[1].stream",
            'nothing: it has no meaning with mode = "channel", only with stream',
        ),
        (
            "source = [{ type = 'redis', mode = 'channel', from = 'start' }]",
            "source[1].from",
            "only with list and stream",
        ),
        ("source = [{ type = 'redis', mode = 'stream', pop = true }]", "source[1].pop", "only with list"),
        ("source = [{ type = 'redis', group = 'x' }]", "source[1].group", "only with stream"),
        ("source = [{ type = 'file' }]", "source[1].path", "required"),
        ("source = [{ type = 'syslog' }]", "source[1].listen", "required"),
        ("source = [{ type = 'file', path = '' }]", "source[1].path", "not empty"),
        ("source = [{ type = 'auth_policy', listen = '4001' }]", "source[1].listen", "127.0.0.1:4001"),
        ("source = [{ type = 'auth_policy', listen = 'unix://x' }]", "source[1].listen", "unix:///"),
        ("source = [{ type = 'auth_policy', listen = '' }]", "source[1].listen", "127.0.0.1:4001"),
        (
            "source = [{ type = 'auth_policy', listen = '0.0.0.0:4001' }]",
            "source[1].key",
            "a key, since others",
        ),
        ("source = [{ type = 'auth_policy', listen = '[::]:4001' }]", "source[1].key", "a key, since others"),
        ("source = [{ type = 'auth_policy', listen = '192.0.2.1:4001' }]", "source[1].key", "a key, since"),
        ("source = [{ type = 'auth_policy', listen = '[::]%br0:4001' }]", "source[1].key", "a key, since"),
        (
            "source = [{ type = 'auth_policy', key = 'ü' }]",
            "source[1].key",
            "auth_policy_server_api_header",
        ),
        ("source = [{ type = 'auth_policy', delay = 61 }]", "source[1].delay", "0 (off)"),
        ("source = [{ type = 'auth_policy', delay = true }]", "source[1].delay", "0 (off)"),
        (
            "source = [{ type = 'auth_policy' , name = 'a' }, { type = 'auth_policy', listen = '[::1]:1', name = 'a' }]",
            "source[2].name",
            "another name",
        ),
        (
            "source = [{ type = 'file', path = '/x', from = 'end' }]",
            "source[1].from",
            "'now', 'start' or 'resume'",
        ),
        (
            "source = [{ type = 'file', path = '/x', start = 'now', listen = 'x' }]",
            "source[1].listen",
            "no such key",
        ),
        ("source = [{ type = 'stdin', name = 'a b' }]", "source[1].name", "a name of at most 64"),
        (
            "source = [{ type = 'file', path = '/x' }, { type = 'file', path = '/x' }]",
            "source[2].path",
            "another path",
        ),
        (
            "source = [{ type = 'stdin', name = 'x' }, { type = 'stdin', name = 'x' }]",
            "source[2].name",
            "another name",
        ),
        ("_private = 1", "_private", "no such key"),
    ],
)
def test_each_mistake_says_what_was_expected(problems, text, key, expected):
    found = problems(f"# first line\n{text}\n")
    assert [(line, where) for line, where, _ in found if where == key] == [(2, key)]
    assert any(expected in what for _, where, what in found if where == key), found


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@192.0.2.1:6379/0",
        "rediss://user:secret@redis.example.org/1?ca=/etc/ca.pem",
        "redis+sentinel://:secret@192.0.2.1:26379,192.0.2.2:26379/mymaster/0",
        "redis+cluster://192.0.2.1:6379,192.0.2.2:6379",
        "redis+unix:///run/redis/redis.sock",
    ],
)
def test_a_shared_store_leaves_this_hosts_own_state_in_a_file(write, url):
    config = load(write(f'[store]\nurl = "{url}"\nnode = "mx1"\nfile = "/srv/own.db"\n'))
    assert (config.store.shared, config.store.own, config.store.node) == (True, "sqlite:///srv/own.db", "mx1")
    assert config.unsupported() == []
    alone = load(write('[store]\nurl = "sqlite:///srv/state.db"\n'))
    assert (alone.store.shared, alone.store.own) == (False, "sqlite:///srv/state.db")


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis://:secret@redis", True),
        ("redis://user:secret@[::1]:6379/15", True),
        ("rediss://redis.example.org?ca=/etc/ssl/redis.pem", True),
        ("unix:///run/redis/redis.sock?db=2", True),
        ("unix://user:secret@/run/redis/redis.sock", True),
        ("http://secret", False),
        ("redis://", False),
        ("redis://secret:99999", False),
        ("redis://secret:0", False),
        ("redis://secret/db", False),
        ("redis://secret?ca=/x", False),
        ("redis://secret?db=1&db=2", False),
        ("rediss://secret?ca=x", False),
        ("rediss://secret?ssl_cert_reqs=none", False),
        ("unix://secret", False),
        ("redis+sentinel://secret", False),
        ("redis://a secret", False),
    ],
)
def test_the_address_of_a_redis_is_checked_and_never_repeated(write, problems, url, good):
    text = f"source = [{{ type = 'redis', url = '{url}' }}]"
    if good:
        load(write(text))
        return
    [(line, key, expected)] = problems(text)
    assert (line, key) == (1, "source[1].url")
    assert expected.startswith("expected redis://")
    assert "secret" not in expected


def test_a_package_that_is_missing_is_told_with_its_remedy(write, monkeypatch):
    config = load(write("source = [{ type = 'redis' }]"))
    assert config.unsupported() == []
    monkeypatch.setattr("guard.config._extras.find_spec", lambda _: None)
    [problem] = config.unsupported()
    assert (problem.key, problem.expected) == (
        "source[1].type",
        "needs the Python package redis, which is not installed: pip install mailward[redis]",
    )


def test_a_password_in_an_address_is_not_repeated(problems):
    for url in (
        "postgres://:hunter2@x",
        "redis://:hunter2@",
        "redis+sentinel://:hunter2@x:1",
        "redis://hunter2@x",
    ):
        [(line, key, text)] = problems(f'store.url = "{url}"')
        assert (line, key) == (1, "store.url")
        assert text.startswith("expected sqlite:///PATH, memory:, redis://")
        assert "hunter2" not in text


STORES = """
sqlite:///var/lib/mailward/state.db
memory:
redis://localhost
redis://mx:se%40cret@10.0.0.1:6380/3
redis://:hunter2@[2001:db8::1]:6379/
rediss://:hunter2@redis.example.org?ca=/etc/ssl/own.pem
rediss://redis.example.org/1?insecure=yes
redis+unix:///run/redis/redis.sock
redis+unix://mailward:hunter2@/run/redis/redis.sock?db=2
redis+sentinel://s1,s2:26380,[2001:db8::2]:26379/mymaster/1
redis+sentinel://u:hunter2@s1/mymaster?sentinel_password=other
rediss+sentinel://s1/mymaster?ca=/x.pem&sentinel_password=other
redis+cluster://:hunter2@c1:7000,c2:7001,c3
rediss+cluster://c1/?ca=/x.pem
""".split()
NO_STORES = """
redis: redis:// redis:/// redis://h:0 redis://h:65536 redis://h:x redis://h/x redis://h/1/2 redis://h,i redis://u@h redis://:p@s@h
redis://h?ca=/x redis://h?db=1 redis://h#x rediss://h?ca=x.pem rediss://h?insecure=maybe rediss://h?verify=no redis+unix://
redis+unix://host/x redis+unix:///s?db=x redis+sentinel://h redis+sentinel://h/ redis+sentinel://h,,i/m redis+sentinel:///m
redis+cluster:// redis+cluster://h/1 redis+cluster://h,i:70000 redis+tls://h http://h sqlite:// redis://[::1 redis://[x]:1
rediss+unix:///s rediss+sentinel://h/m?sentinel_password= redis+sentinel://h/m?ca=/x
""".split()


@pytest.mark.parametrize("url", STORES)
def test_a_store(url):
    assert store_url(url) == url
    if url.startswith("redis"):
        address = parse(url)  # what is accepted here, the fleet can use
        assert "hunter2" not in str(address)
        assert "cret" not in str(address)


@pytest.mark.parametrize("url", [*NO_STORES, "redis://h /1", "redis://h\n", "", 7])
def test_no_store(url):
    with pytest.raises(ValueError, match="sqlite:///PATH"):
        store_url(url)
    if isinstance(url, str):
        with pytest.raises(FleetError, match="expected redis://"):
            parse(url)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[http\n", 1),
        ("a = 1\na = 2\n", 2),
        ("[log]\nlevel = info\n", 2),
        ("x = [1,\n2\n", 3),
        ('x = "a\n', 1),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(problems, text, line):
    ((found, key, expected),) = problems(text)
    assert (found, key) == (line, "")
    assert expected.startswith("expected TOML: ")


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.toml: expected a readable file: No such file or directory$"):
        load(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_bytes(b"# one\n# \xff\n")
    with pytest.raises(ConfigError, match=r"bad\.toml:2: expected UTF-8 text$"):
        load(tmp_path / "bad.toml")


def test_a_problem_is_one_line_of_text():
    assert str(Problem("/etc/x.toml", 3, "a.b", "expected c")) == "/etc/x.toml:3: a.b: expected c"
    assert str(Problem("/etc/x.toml", 0, "", "expected c")) == "/etc/x.toml: expected c"


@pytest.mark.parametrize(("keys", "key"), [
    ('listen = "udp://127.0.0.1:5514"', None),
    ('listen = ["tcp://[::1]:514", "udp://127.0.0.53:1", "unix:///run/mailward/log", "unix-stream:///run/a"]', None),
    ('listen = "tcp://192.0.2.1:5514"\nfrom_nets = ["192.0.2.0/24", "2001:db8::7"]\nconnections = 9\nmode = "666"', None),
    ('listen = "tls://0.0.0.0:6514"\ncertificate = "/c"\nkey = "/k"\nclient_ca = "/a"', None),
    ('listen = "tls://[::]:6514"\ncertificate = "/c"\nkey = "/k"\nfrom_nets = ["192.0.2.7"]', None),
    *((f"listen = {listen}", "listen") for listen in (
        '"udp://127.0.0.1"', '"udp://127.0.0.1:0"', '"udp://127.0.0.1:65536"', '"udp://localhost:5514"', '"udp://::1:5514"',
        '"udp://[127.0.0.1]:5514"', '"udp://127.0.0.256:5514"', '"udp://[fe80::1%eth0]:5514"', '"http://127.0.0.1:5514"', '"127.0.0.1:5514"',
        '"unix://run/log"', '"unix:///run/a b"', f'"unix:///{"x" * 107}"', '""', "[]", "7", '["udp://127.0.0.1:1", 7]',
        '["udp://127.0.0.1:1", "udp://127.0.0.1:1"]',
    )),
    # whoever can send lines can have anybody banned: who may is said
    ('listen = "udp://0.0.0.0:5514"', "from_nets"),
    ('listen = "tcp://[::]:5514"', "from_nets"),
    ('listen = "tcp://192.0.2.1:5514"', "from_nets"),
    ('listen = ["udp://127.0.0.1:5514", "udp://[2001:db8::1]:5514"]', "from_nets"),
    ('listen = "udp://0.0.0.0:5514"\nfrom_nets = ["192.0.2.7", "0.0.0.0/0"]', "from_nets"),
    ('listen = "tls://0.0.0.0:6514"\ncertificate = "/c"\nkey = "/k"', "from_nets"),
    ('listen = ["tls://0.0.0.0:6514", "tcp://0.0.0.0:5514"]\ncertificate = "/c"\nkey = "/k"\nclient_ca = "/a"', "from_nets"),
    ('listen = "tls://127.0.0.1:6514"\nkey = "/k"', "certificate"),
    ('listen = "tls://127.0.0.1:6514"\ncertificate = "/c"', "key"),
    ('listen = "tcp://127.0.0.1:6514"\ncertificate = "/c"', "certificate"),
    ('listen = "tcp://127.0.0.1:6514"\nclient_ca = "/c"', "client_ca"),
    ('listen = "unix:///run/log"\nmode = "0999"', "mode"),
    ('listen = "unix:///run/log"\nmode = 432', "mode"),
    ('listen = "unix:///run/log"\nconnections = 0', "connections"),
])  # fmt: skip
def test_who_may_send_to_a_syslog_listener_is_said(write, problems, keys, key):
    text = f'[[source]]\ntype = "syslog"\n{keys}\n'
    if key is None:
        assert not load(write(text)).unsupported()
    else:
        assert [found[1] for found in problems(text)] == [f"source[1].{key}"]


def test_two_syslog_sources_share_no_address(problems):
    both = '[[source]]\ntype = "syslog"\nlisten = ["unix:///run/a", "udp://127.0.0.1:1"]\n[[source]]\ntype = "syslog"\n'
    [(line, key, expected)] = problems(both + 'listen = "udp://127.0.0.1:1"\n')
    assert (line, key) == (6, "source[2].listen")
    assert "another listen than source[1] has" in expected


def test_a_geo_database_is_a_file_or_a_list_and_needs_a_package(write, monkeypatch):
    path = write('[geo]\ndatabase = "/srv/geo.mmdb"\n')
    assert load(path).unsupported() == []
    assert load(path).geo.files == ["/srv/geo.mmdb"]
    assert load(write('[geo]\ndatabase = ["/srv/a", "/srv/b"]\n')).geo.files == ["/srv/a", "/srv/b"]
    path = write('[geo]\ndatabase = "/srv/geo.mmdb"\n')
    monkeypatch.setattr("guard.config._extras.find_spec", lambda _: None)
    [found] = load(path).unsupported()
    assert (found.file, found.line, found.key) == (str(path), 2, "geo.database")
    assert "pip install mailward[geo]" in found.expected
    assert load(EXAMPLE).unsupported() == []


# ------------------------------------------------------------------------------------------------ files of the lists


def wrong(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(problem) for problem in caught.value.problems]


def test_a_list_takes_what_its_files_hold(write, tmp_path):
    (tmp_path / "allow").write_bytes(
        b"\xef\xbb\xbf# ours\r\n192.0.2.7\r\n\r\n  192.0.2.99/24 # the net\n2001:DB8:0::/32;x\n"
        b"::ffff:198.51.100.0/120\nOffice.Example.ORG.\noffice.example.org\n192.0.2.7\n::1.2.3.4\n0.0.0.0/0"
    )
    (tmp_path / "deny").write_text("203.0.113.0/024\n10.0.0.0/8\n2001:db8:1::/48\n")
    config = load(
        write(
            f'lists.allow = ["192.0.2.1", "{tmp_path}/allow"]\nlists.deny = ["{tmp_path}/deny", "203.0.113.0/24"]'
        )
    )
    assert config.policy().allow == (
        "192.0.2.1/32",
        "192.0.2.7/32",
        "192.0.2.0/24",
        "2001:db8::/32",
        "198.51.100.0/24",
        "::102:304/128",
        "0.0.0.0/0",
    )
    assert config.policy().deny == ("203.0.113.0/24", "10.0.0.0/8", "2001:db8:1::/48")
    assert config.list_files["allow", f"{tmp_path}/allow"].names == ("office.example.org",)
    assert (config.allow_names(), config.list_nets("allow")) == ((), ("192.0.2.1/32",))


@given(
    st.one_of(
        st.ip_addresses().map(str),
        st.tuples(st.ip_addresses(v=4).map(str), st.integers(-1, 34)).map(lambda t: f"{t[0]}/{t[1]}"),
        st.tuples(st.ip_addresses(v=6).map(str), st.integers(-1, 130)).map(
            lambda t: f"{t[0].upper()}/{t[1]}"
        ),
        st.from_regex(r"[0-9a-fA-F:./]{1,20}", fullmatch=True),
    )
)
def test_the_quick_way_reads_as_the_slow_one(entry):
    quick = _quickly(entry, NARROWEST)
    if quick is not None:
        assert quick == net_to_deny(entry)


def test_mistakes_in_files_are_listed_with_those_of_the_configuration(write, tmp_path):
    (tmp_path / "allow").write_text("192.0.2.7\n300.1.1.1\n# fine\n/etc/passwd\n")
    (tmp_path / "deny").write_text("0.0.0.0/0\noffice.example.org\n")
    path = write(
        f'lists.deny = ["{tmp_path}/deny"]\nlists.allow = [\n"{tmp_path}/allow",\n"{tmp_path}/none"]\nlog.level = "loud"\n'
    )
    net = 'expected an address or a net, such as "192.0.2.7", "192.0.2.0/24" or "2001:db8::/32"'
    host = 'or a host name, such as "office.example.org"'
    never = "never a host name: its owner would decide who is shut out"
    assert wrong(path) == [
        f"{path}:4: lists.allow[2]: expected a file that can be read: '{tmp_path}/none': No such file or directory",
        f"{path}:5: log.level: expected one of 'debug', 'info', 'warning' or 'error'; found 'loud'",
        f"{tmp_path}/allow:2: {net}, {host}; found '300.1.1.1'",
        f"{tmp_path}/allow:4: {net}, {host}; found '/etc/passwd'",
        f"{tmp_path}/deny:1: expected a net of at least /8: a wider one shuts out the internet; found '0.0.0.0/0'",
        f"{tmp_path}/deny:2: {net}; {never}; found 'office.example.org'",
    ]
    path.write_text(path.read_text().replace('log.level = "loud"\n', ""))
    assert len(wrong(path)) == 5


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"192.0.2.1\n\xff\n", ":2: expected UTF-8 text"),
        (b"x" * (16 << 20) + b"\n", "it is larger than 16 MiB"),
        (None, "it is no regular file"),
        (b"\n".join(b"h%d.example.org" % n for n in range(1001)), ":1001: expected at most 1000 host names"),
    ],
)
def test_a_file_that_is_no_list_is_told(write, tmp_path, data, expected):
    if data is None:
        os.mkfifo(tmp_path / "allow")
    else:
        (tmp_path / "allow").write_bytes(data)
    [problem] = wrong(write(f'lists.allow = ["{tmp_path}/allow"]'))
    assert expected in problem


def test_of_very_many_mistakes_the_rest_is_counted(write, tmp_path):
    (tmp_path / "deny").write_text("a mistake\n" * 5000)
    found = wrong(write(f'lists.deny = ["{tmp_path}/deny"]'))
    assert len(found) == 101
    assert found[0] == f"{tmp_path}/deny: 4900 more mistakes: is this a list of nets?"


def test_a_hundred_thousand_nets_are_read_in_a_moment(write, tmp_path):
    (tmp_path / "deny").write_text(
        "".join(f"198.{n >> 8 & 255}.{n & 255}.{n >> 16} # {n}\n2001:db8:{n:x}::/48\n" for n in range(50_000))
    )
    path = write(f'lists.deny = ["{tmp_path}/deny"]')
    began = time.monotonic()
    assert len(load(path).policy().deny) == 100_000
    assert time.monotonic() - began < 20.0


# ------------------------------------------------------------------------------------------------ the environment


def test_the_environment_goes_before_the_file(write, monkeypatch):
    monkeypatch.setenv("MAILWARD_RULES__BRUTE_FORCE__FAILURES", "7")
    monkeypatch.setenv("MAILWARD_RULES__BRUTE_FORCE__WINDOW", "1h")
    monkeypatch.setenv("MAILWARD_LISTS__ALLOW", "192.0.2.1, 2001:db8::/32")
    monkeypatch.setenv("MAILWARD_LISTS__DENY", '["203.0.113.1"]')
    monkeypatch.setenv("MAILWARD_FIREWALL__PORTS", "all")
    monkeypatch.setenv("MAILWARD_SOURCE", '[{"type": "stdin"}]')
    monkeypatch.setenv("mailward_log__level", "debug")
    config = load(write('rules.brute_force = { failures = 3, ban = "2h" }\nlog.level = "error"\n'))
    rule = config.rules.brute_force
    assert (rule.failures, rule.window, rule.ban) == (7, 3600.0, 7200.0)
    assert config.lists.allow == ["192.0.2.1/32", "2001:db8::/32"]
    assert config.lists.deny == ["203.0.113.1/32"]
    assert config.firewall.ports == "all"
    assert [source.type for source in config.source] == ["stdin"]
    assert config.log.level == "debug"


def test_a_list_file_may_be_named_by_the_environment(write, tmp_path, monkeypatch):
    (tmp_path / "allow").write_text("192.0.2.7")
    monkeypatch.setenv("MAILWARD_LISTS__ALLOW", f"192.0.2.1,{tmp_path}/allow")
    assert load(write("")).policy().allow == ("192.0.2.1/32", "192.0.2.7/32")
    (tmp_path / "allow").unlink()
    [problem] = wrong(write(""))
    assert problem.startswith("environment: MAILWARD_LISTS__ALLOW: expected a file that can be read")


def test_mistakes_in_the_environment_name_the_variable(write, monkeypatch):
    path = write("rules.brute_force.failures = 3\nhttp.port = 1\n")
    monkeypatch.setenv("MAILWARD_RULES__BRUTE_FORCE__FAILURES", "many")
    monkeypatch.setenv("MAILWARD_LOG__COLOUR", "red")
    monkeypatch.setenv("MAILWARD_LISTS__ALLOW", "[oops")
    monkeypatch.setenv("MAILWARD_FIREWALL", "pf")
    monkeypatch.setenv("MAILWARD_FAILURES", "3")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [(p.file, p.line, p.key) for p in caught.value.problems] == [
        (str(path), 2, "http.port"),
        ("environment", 0, "MAILWARD_FAILURES"),
        ("environment", 0, "MAILWARD_RULES__BRUTE_FORCE__FAILURES"),
        ("environment", 0, "MAILWARD_LISTS__ALLOW"),
        ("environment", 0, "MAILWARD_FIREWALL"),
        ("environment", 0, "MAILWARD_LOG__COLOUR"),
    ]


def test_the_environment_names_the_file(write, monkeypatch):
    path = write("log.level = 'debug'")
    monkeypatch.setenv("MAILWARD_CONFIG", str(path))
    config = load()
    assert (config.log.level, config.file) == ("debug", str(path))


# ------------------------------------------------------------------------------------------------ lines and durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h", 3600),
        ("7d", 604800),
        ("1w", 604800),
        ("1h 30m", 5400),
        (5, 5),
        (0.5, 0.5),
        ("12", 12),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "m", "-5m", "5 minutes", "1h30", 0, -1, "0s", None, True, "1e9d", "9" * 12 + "d", float("nan")],
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="a duration"):
        duration(text)


def test_lines_of_every_way_to_write_a_key():
    text = '''# comment with [brackets] = and "quotes"
a = """
[not.a.table]
"" \\""" b = 1"""""
b.c . "d.e" = 'x # no comment' # comment
list = [ # 6
  1, [2,
  3], { k = ']', "l" = [
    4 ] }, # 9
]
date = 1979-05-27T07:32:00Z
[table."quoted ] name"]
x = \'\'\'
# no comment
\'\'\'
y = true
[[source]]
x = 1
[source.sub]
y = 2
[[source]]
x = { y.z = 1, w = 2 }
[[source.deep]]
v = 1
[[source.deep]]
v = 1
'''
    lines = locate(text)
    tomllib.loads(text)
    assert lines["a",] == 2
    assert lines["b", "c", "d.e"] == 5
    assert [lines[path] for path in (("list",), ("list", 0), ("list", 1), ("list", 1, 1), ("list", 2))] == [
        6,
        7,
        7,
        8,
        8,
    ]
    assert lines["list", 2, "l", 0] == 9
    assert lines["date",] == 11
    assert lines["table", "quoted ] name"] == 12
    assert lines["table", "quoted ] name", "y"] == 16
    assert (lines["source", 0], lines["source", 0, "x"], lines["source", 0, "sub", "y"]) == (17, 18, 20)
    assert (lines["source", 1, "x", "y", "z"], lines["source", 1, "deep", 1, "v"]) == (22, 26)


def paths(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    else:
        inner = []
    return {path} | {found for key, item in inner for found in paths(item, (*path, key))}


@given(
    st.recursive(
        st.text(string.printable) | st.integers() | st.booleans() | st.dates(dt.date(1000, 1, 1)),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\"'=.[#", max_size=3), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_every_key_of_any_toml_has_a_line(value):
    def inline(item: object) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in item.items()) + "}"
        if isinstance(item, list):
            return "[\n" + ",\n".join(map(inline, item)) + " # ]\n]"
        return json.dumps(item) if isinstance(item, str | bool | int) else str(item)

    text = f"top = {inline(value)}\nlast = 1\n"
    parsed = tomllib.loads(text)
    lines = locate(text)
    assert set(lines) == paths(parsed) - {()}
    assert lines["last",] == text.count("\n")
