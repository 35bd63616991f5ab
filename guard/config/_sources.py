"""The tables [[source]], one class a type.  mailward.example.toml explains the keys."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from guard.config._redis import CHANNEL, GROUP, MAILCOW, STREAM, RedisGroup, RedisKey, RedisKeys, RedisUrl
from guard.config._syslog import Octal, SyslogAddresses, encrypted, exposed
from guard.config._table import Table
from guard.config._values import (
    Count,
    Delay,
    DockerUrl,
    Duration,
    Folder,
    Interface,
    Label,
    Net,
    PolicyKey,
    PolicyListen,
    ProjectName,
    ServiceName,
    SourceName,
    SyslogTag,
    Text,
    Unit,
    is_local,
)


class _Source(Table):
    name: SourceName = ""


class FileTable(_Source):
    """A file or a glob."""

    type: Literal["file"]
    path: Text
    start: Literal["now", "start", "resume"] = Field("resume", alias="from")


class StdinTable(_Source):
    """Standard input."""

    type: Literal["stdin"]


# Debian names them so, 12 and 13; `sogod` is that of SOGo's own packages.
UNITS: Final = ("postfix.service", "postfix@*.service", "dovecot.service", "sogo.service", "sogod.service")


class JournalTable(_Source):
    """The systemd journal, by unit or by tag."""

    type: Literal["journal"]
    units: list[Unit] = list(UNITS)
    tags: list[SyslogTag] = []
    any_user: bool = False
    directory: Folder = ""
    start: Literal["now", "start", "resume"] = Field("resume", alias="from")
    since: Duration | None = None

    @field_validator("since")
    @classmethod
    def _only_at_a_first_start(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("start", "resume") != "resume":
            raise ValueError('no `since` unless from = "resume": now and start say where to begin')
        return value

    @field_validator("tags")
    @classmethod
    def _something(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if not value and info.data.get("units") == []:
            raise ValueError("a tag where `units` is empty: nothing would be read")
        return value


class SyslogTable(_Source):
    """A syslog listener."""

    type: Literal["syslog"]
    listen: SyslogAddresses
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    from_nets: list[Net] = []
    mode: Octal = "0660"
    connections: Annotated[Count, Field(le=1000)] = 64

    @field_validator("certificate", "key")
    @classmethod
    def _with_tls_alone(cls, value: str, info: ValidationInfo) -> str:
        asked = encrypted(info.data.get("listen", []))
        if "listen" in info.data and asked != bool(value):
            raise ValueError(
                "a PEM file, which tls:// needs"
                if asked
                else "nothing: only tls:// takes a certificate and a key"
            )
        return value

    @field_validator("client_ca")
    @classmethod
    def _for_tls(cls, value: str, info: ValidationInfo) -> str:
        if value and "listen" in info.data and not encrypted(info.data["listen"]):
            raise ValueError("nothing: only tls:// can ask for a certificate")
        return value

    @field_validator("from_nets")
    @classmethod
    def _said(cls, value: list[str], info: ValidationInfo) -> list[str]:
        """Refuse what everybody could send to: whoever can send lines can have anybody banned."""
        open_to_all = exposed(info.data.get("listen", []), certified=bool(info.data.get("client_ca")))
        if open_to_all and (not value or any(net.endswith("/0") for net in value)):
            raise ValueError(
                f'who may send to {open_to_all[0]}, such as ["192.0.2.7"]: whoever can send lines can have anybody banned'
            )
        return value


class DockerTable(_Source):
    """Containers' logs."""

    type: Literal["docker"]
    url: DockerUrl = ""
    project: ProjectName = ""
    services: list[ServiceName] = []
    labels: list[Label] = []
    start: Literal["now", "start", "resume"] = Field("resume", alias="from")


class RedisTable(_Source):
    """A channel, lists or a stream of a Redis server.  Which of the keys mean something, `mode` says."""

    type: Literal["redis"]
    url: RedisUrl = "redis://127.0.0.1:6379/0"
    mode: Literal["channel", "list", "stream"] = "list"
    channel: RedisKey = CHANNEL
    heads: bool = False
    only: list[Text] = []
    keys: RedisKeys = MAILCOW
    pop: bool = False
    stream: RedisKey = STREAM
    group: RedisGroup = GROUP
    start: Literal["now", "start", "resume"] = Field("resume", alias="from")

    @field_validator("channel", "heads", "only", "keys", "pop", "stream", "group", "start")
    @classmethod
    def _of_its_mode(cls, value: object, info: ValidationInfo) -> object:
        mode = info.data.get("mode", "")  # absent where it is itself at fault
        of = _REDIS_MODES[info.field_name or ""]
        if mode and mode not in of and value != cls.model_fields[info.field_name or ""].default:
            raise ValueError(f'nothing: it has no meaning with mode = "{mode}", only with {" and ".join(of)}')
        return value


class AuthPolicyTable(_Source):
    """Dovecot's auth policy requests."""

    type: Literal["auth_policy"]
    listen: PolicyListen = "127.0.0.1:4001"
    interface: Interface = ""
    key: Annotated[PolicyKey, Field(repr=False)] = ""
    delay: Delay = 0

    @field_validator("key")
    @classmethod
    def _key_where_others_reach_it(cls, value: str, info: ValidationInfo) -> str:
        listen = info.data.get("listen", "")  # absent where it is itself at fault
        if listen and not value and not is_local(listen):
            raise ValueError(
                f"a key, since others than this host reach {listen}: whoever does may ban whom he likes; "
                "the same text as Dovecot's auth_policy_server_api_header"
            )
        return value


_REDIS_MODES: Final = {
    "channel": ("channel",),
    "heads": ("channel",),
    "only": ("channel",),
    "keys": ("list",),
    "pop": ("list",),
    "stream": ("stream",),
    "group": ("stream",),
    "start": ("list", "stream"),
}

AnySource = FileTable | StdinTable | JournalTable | SyslogTable | DockerTable | RedisTable | AuthPolicyTable


def named(sources: list[AnySource]) -> list[AnySource]:
    """Give the nameless their type and number as a name."""
    counts: dict[str, int] = {}
    result = []
    for source in sources:
        number = counts[source.type] = counts.get(source.type, 0) + 1
        result.append(source if source.name else source.model_copy(update={"name": f"{source.type}{number}"}))
    return result


Sources = Annotated[
    list[Annotated[AnySource, Field(discriminator="type")]],
    AfterValidator(named),
]
