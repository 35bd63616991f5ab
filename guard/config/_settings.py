"""The tables of the configuration, one class each.  mailward.example.toml explains the keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from guard.config._values import (
    Around4,
    Around6,
    Count,
    DockerUrl,
    Duration,
    Label,
    Listen,
    Members,
    Net,
    Port,
    Ports,
    Prefix4,
    Prefix6,
    ProjectName,
    ServiceName,
    SourceName,
    StoreUrl,
    Text,
    ToAllow,
    ToDeny,
    Token,
)
from guard.model import TRUSTED, Policy

DEFAULTS = Policy()


class Table(BaseModel):
    """Refuses unknown keys and never changes."""

    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True, populate_by_name=True)


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


class JournalTable(_Source):
    """The systemd journal (not in this release)."""

    type: Literal["journal"]
    start: Literal["now", "start", "resume"] = Field("resume", alias="from")


class SyslogTable(_Source):
    """A syslog listener (not in this release)."""

    type: Literal["syslog"]
    listen: Text


class DockerTable(_Source):
    """Containers' logs."""

    type: Literal["docker"]
    url: DockerUrl = ""
    project: ProjectName = ""
    services: list[ServiceName] = []
    labels: list[Label] = []
    start: Literal["now", "start", "resume"] = Field("resume", alias="from")


class RedisTable(_Source):
    """A Redis channel (not in this release)."""

    type: Literal["redis"]
    url: Text = "redis://127.0.0.1:6379/0"


class AuthPolicyTable(_Source):
    """Dovecot's auth policy requests (not in this release)."""

    type: Literal["auth_policy"]
    listen: Text


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


class BruteForce(Table):
    """[rules.brute_force]."""

    failures: Count = DEFAULTS.failures
    window: Duration = DEFAULTS.window
    ban: Duration = DEFAULTS.ban
    ban_max: Duration = DEFAULTS.ban_max
    forget: Duration = DEFAULTS.forget
    prefix4: Prefix4 = DEFAULTS.prefix4
    prefix6: Prefix6 = DEFAULTS.prefix6

    @field_validator("ban_max")
    @classmethod
    def _not_below_ban(cls, value: float, info: ValidationInfo) -> float:
        ban = info.data.get("ban", value)  # absent where it is itself at fault
        if value < ban:
            raise ValueError(f"a duration of at least rules.brute_force.ban ({ban:g} s)")
        return value


class LoginAfterFailures(Table):
    """[rules.login_after_failures]."""

    failures: Count = DEFAULTS.login_failures


class BadNeighbourhood(Table):
    """[rules.bad_neighbourhood]."""

    members: Members = DEFAULTS.neighbourhood_members
    window: Duration = DEFAULTS.neighbourhood_window
    prefix4: list[Around4] = list(DEFAULTS.neighbourhood_prefix4)
    prefix6: list[Around6] = list(DEFAULTS.neighbourhood_prefix6)


class Rules(Table):
    """[rules]."""

    bad_neighbourhood: BadNeighbourhood = BadNeighbourhood()
    brute_force: BruteForce = BruteForce()
    login_after_failures: LoginAfterFailures = LoginAfterFailures()


class Lists(Table):
    """[lists].  An entry of `allow` and `deny` that begins with a slash is a file of more of them."""

    allow: list[ToAllow] = []
    deny: list[ToDeny] = []
    trusted: list[Net] = list(TRUSTED)


class Limits(Table):
    """[limits]."""

    addresses: Count = DEFAULTS.max_addresses
    sessions: Count = DEFAULTS.max_sessions
    accounts: Count = DEFAULTS.max_accounts


class Firewall(Table):
    """[firewall]."""

    backend: Literal["nftables", "iptables", "none"] = "nftables"
    ports: Ports = [25, 80, 110, 143, 443, 465, 587, 993, 995, 4190]
    ssh_ports: list[Port] = [22]
    close_sockets: bool = True
    foreign: Literal["keep", "remove"] = "keep"


class StoreTable(Table):
    """[store]."""

    url: StoreUrl = "sqlite:///var/lib/mailward/state.db"
    node: str = ""


class Http(Table):
    """[http]."""

    listen: Listen = "127.0.0.1:9780"
    token: Token = ""


class Control(Table):
    """[control]."""

    socket: Text = "/run/mailward/control.sock"


class Exporters(Table):
    """[exporters]."""

    mail: bool = True


class Geo(Table):
    """[geo]."""

    database: str = ""


class Log(Table):
    """[log]."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
