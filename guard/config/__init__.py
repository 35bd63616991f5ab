"""The configuration: a TOML file and the environment, checked as a whole before anything is begun.

`load` is all-or-nothing: it gives a Config in which every value makes sense, or every mistake at once.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import PrivateAttr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from guard.config._extras import NEEDS, missing
from guard.config._find import DEFAULT_PATH, find_sources
from guard.config._lines import KeyPath, locate
from guard.config._list_file import Key, ListFile, read_list, stamp_of
from guard.config._problems import (
    ENVIRONMENT,
    ConfigError,
    Problem,
    expectation,
    key_text,
    line_of,
    real_path,
)
from guard.config._settings import (
    Control,
    Exporters,
    Firewall,
    Geo,
    Http,
    Limits,
    Lists,
    Log,
    Rules,
    StoreTable,
)
from guard.config._sources import (
    AnySource,
    AuthPolicyTable,
    DockerTable,
    FileTable,
    JournalTable,
    RedisTable,
    Sources,
    StdinTable,
    SyslogTable,
)
from guard.config._values import is_name, is_net, is_path
from guard.model import Policy

__all__ = [
    "LISTS",
    "AnySource",
    "AuthPolicyTable",
    "Config",
    "ConfigError",
    "DockerTable",
    "FileTable",
    "JournalTable",
    "ListFile",
    "ListKey",
    "Problem",
    "RedisTable",
    "StdinTable",
    "SyslogTable",
    "find_sources",
    "load",
    "read_list",
    "stamp_of",
]

ListKey = Key
LISTS: Final[tuple[Key, ...]] = get_args(Key)

PREFIX: Final = "MAILWARD_"
NOT_OURS: Final = re.compile(
    r"MAILWARD_(?:CONFIG|COMPILE|TEST_.*)"
)  # the file's path; the build's; the test suite's


class _Environment(EnvSettingsSource):
    """MAILWARD_RULES__BRUTE_FORCE__FAILURES=7; lists as JSON or separated by commas."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            text = str(value)
            return (
                text
                if text.lstrip()[:1] in ("[", "{") or text == "all"
                else [v.strip() for v in text.split(",")]
            )


class Config(BaseSettings):
    """The whole configuration.  Durations are float seconds, nets canonical CIDR."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", validate_default=True, frozen=True
    )

    source: Sources = []
    rules: Rules = Rules()
    lists: Lists = Lists()
    limits: Limits = Limits()
    firewall: Firewall = Firewall()
    store: StoreTable = StoreTable()
    http: Http = Http()
    control: Control = Control()
    exporters: Exporters = Exporters()
    geo: Geo = Geo()
    log: Log = Log()
    _file: str = PrivateAttr("")
    _lines: dict[KeyPath, int] = PrivateAttr(default_factory=dict)
    _list_files: dict[tuple[Key, str], ListFile] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment go before the file."""
        return _Environment(settings_cls), init_settings

    @property
    def file(self) -> str:
        """The path of the file that was read; "" where there was none."""
        return self._file

    @property
    def list_files(self) -> Mapping[tuple[Key, str], ListFile]:
        """The files that the lists name, as they were read: (`allow` or `deny`, path) -> content."""
        return self._list_files

    def policy(self, own: Sequence[str] = (), secret: bytes = b"") -> Policy:
        """Return what the engine is told.  `own`: this host's addresses; host names of `lists.allow` are left out."""
        rule, around = self.rules.brute_force, self.rules.bad_neighbourhood
        return Policy(
            failures=rule.failures,
            window=rule.window,
            ban=rule.ban,
            ban_max=rule.ban_max,
            forget=rule.forget,
            prefix4=rule.prefix4,
            prefix6=rule.prefix6,
            login_failures=self.rules.login_after_failures.failures,
            neighbourhood_members=around.members,
            neighbourhood_window=around.window,
            neighbourhood_prefix4=tuple(around.prefix4),
            neighbourhood_prefix6=tuple(around.prefix6),
            allow=self._with_files("allow"),
            deny=self._with_files("deny"),
            trusted=tuple(self.lists.trusted),
            own=tuple(own),
            max_addresses=self.limits.addresses,
            max_sessions=self.limits.sessions,
            max_accounts=self.limits.accounts,
            secret=secret,
        )

    def _with_files(self, key: Key) -> tuple[str, ...]:
        files = (file.nets for (of, _), file in self._list_files.items() if of == key)
        return tuple(dict.fromkeys(chain(self.list_nets(key), *files)))

    def list_nets(self, key: Key) -> tuple[str, ...]:
        """Return the nets of `lists.<key>`, without those in its files."""
        return tuple(filter(is_net, getattr(self.lists, key)))

    def allow_names(self) -> tuple[str, ...]:
        """Return the host names of `lists.allow`, without those in its files: whoever runs resolves them."""
        return tuple(filter(is_name, self.lists.allow))

    def sources(self, root: str = "/") -> list[AnySource]:
        """Return the configured sources, or what `find_sources` finds.  Raises `ConfigError` where that is nothing."""
        return list(self.source) or find_sources(root, self._file)

    def unsupported(self) -> list[Problem]:
        """Return what is asked for rightly and needs a package that is not there: `run` refuses, `check` says so."""
        found = [
            self._problem(("source", number, "type"), missing(source.type))
            for number, source in enumerate(self.source)
            if source.type in NEEDS and missing(source.type)
        ]
        if self.geo.files and missing("maxminddb", "geo"):
            found.append(self._problem(("geo", "database"), missing("maxminddb", "geo")))
        return found

    def _problem(self, path: KeyPath, text: str) -> Problem:
        return _place(path, text, self._file, self._lines)


def load(path: str | Path | None = None) -> Config:
    """Read the file at `path` and the environment.  Raises `ConfigError` with every mistake.

    Without a path: the one in MAILWARD_CONFIG, else /etc/mailward/mailward.toml if it is there, else no file.
    """
    given = path or os.environ.get(PREFIX + "CONFIG")
    file = str(given or (DEFAULT_PATH if DEFAULT_PATH.is_file() else ""))
    data, lines = _read(file) if file else ({}, {})
    problems = _strangers()
    try:
        config = Config(**{key: value for key, value in data.items() if not key.startswith("_")})
    except ValidationError as error:
        problems += [_place(real_path(e["loc"]), expectation(e, Config), file, lines) for e in error.errors()]
        problems += _twice(data.get("source"), file, lines)
        problems += _list_files(data.get("lists"), file, lines)[1]
        raise ConfigError(problems) from None
    problems += [_place((key,), "no such key", file, lines) for key in data if key.startswith("_")]
    problems += _twice(data.get("source"), file, lines)
    list_files, wrong = _list_files(config.lists.model_dump(), file, lines)
    problems += wrong
    if problems:
        raise ConfigError(problems)
    config._file, config._lines, config._list_files = file, lines, list_files  # noqa: SLF001 - the only maker of a Config
    return config


def _list_files(
    lists: object, file: str, lines: Mapping[KeyPath, int]
) -> tuple[dict[tuple[Key, str], ListFile], list[Problem]]:
    """Read the files that a table [lists] names; it may be of any form where it has mistakes itself."""
    found: dict[tuple[Key, str], ListFile] = {}
    problems: list[Problem] = []
    for key in LISTS:
        entries = lists.get(key) if isinstance(lists, dict) else None
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            if not (isinstance(entry, str) and is_path(entry)) or (key, entry) in found:
                continue
            try:
                found[key, entry] = read_list(entry, key)
            except ConfigError as error:
                problems += error.problems
            except (OSError, ValueError) as error:  # ValueError: a NUL in the path
                why = (error.strerror if isinstance(error, OSError) else None) or str(error)
                text = f"expected a file that can be read: {entry!r}: {why}"
                problems.append(_place(("lists", key, number), text, file, lines))
    return found, problems


def _read(file: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    text = ""
    try:
        text = Path(file).read_bytes().decode()
        return tomllib.loads(text), locate(text)
    except OSError as error:
        raise ConfigError(
            [Problem(file, 0, "", f"expected a readable file: {error.strerror or error}")]
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", "expected UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)", str(error))
        line = int(place[1]) if place else text.count("\n") + 1  # "at end of document"
        reason = str(error).partition(" (at ")[0]
        raise ConfigError([Problem(file, line, "", f"expected TOML: {reason}")]) from None


def _strangers() -> list[Problem]:
    """Return the variables that look like ours and are not; pydantic-settings passes over them."""
    problems = []
    for name in sorted(os.environ):
        field = name.upper().removeprefix(PREFIX).partition("__")[0].lower()
        if (
            name.upper().startswith(PREFIX)
            and field not in Config.model_fields
            and not NOT_OURS.fullmatch(name.upper())
        ):
            known = ", ".join(f"{PREFIX}{key.upper()}__..." for key in Config.model_fields)
            problems.append(Problem(ENVIRONMENT, 0, name, f"no such key; expected one of {known}"))
    return problems


def _place(path: KeyPath, text: str, file: str, lines: Mapping[KeyPath, int]) -> Problem:
    """Say where it is: the variable that set the key, or its line in the file."""
    names = {name.upper(): name for name in os.environ}
    for length in range(len(path), 0, -1):
        name = PREFIX + "__".join(map(str, path[:length])).upper()
        if name in names:
            return Problem(ENVIRONMENT, 0, names[name], text)
    return Problem(file or ENVIRONMENT, line_of(path, lines), key_text(path), text)


def _twice(sources: object, file: str, lines: Mapping[KeyPath, int]) -> list[Problem]:
    """Return the names, files and addresses that two sources share: the file's lines would count twice."""
    problems = []
    seen: dict[tuple[str, str], int] = {}
    for number, source in enumerate(sources if isinstance(sources, list) else []):
        for key in ("name", "path", "listen"):
            found = source.get(key) if isinstance(source, dict) else None
            for value in found if isinstance(found, list) else [found]:
                if isinstance(value, str) and value and seen.setdefault((key, value), number) != number:
                    text = f"expected another {key} than source[{seen[key, value] + 1}] has; found {value!r}"
                    problems.append(_place(("source", number, key), text, file, lines))
        if isinstance(source, dict) and source.get("type") == "journal":
            journal = ("journal", str(source.get("directory", "")))
            if seen.setdefault(journal, number) != number:
                text = (
                    f"expected one source a journal: put its units and tags into source[{seen[journal] + 1}]"
                )
                problems.append(_place(("source", number, "type"), text, file, lines))
    return problems
