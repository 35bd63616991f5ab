"""The tables of the configuration, one class each.  mailward.example.toml explains the keys."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator

from guard.config._store_url import StoreUrl
from guard.config._table import Table
from guard.config._values import (
    Around4,
    Around6,
    Count,
    Duration,
    FilePath,
    Interface,
    Listen,
    Members,
    Net,
    NodeName,
    Port,
    Ports,
    Prefix4,
    Prefix6,
    Text,
    ToAllow,
    ToDeny,
    Token,
)
from guard.model import TRUSTED, Policy

DEFAULTS = Policy()


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
    file: FilePath = "/var/lib/mailward/state.db"
    node: NodeName = ""

    @property
    def shared(self) -> bool:
        """Whether `url` names what a fleet shares."""
        return self.url.startswith("redis")

    @property
    def own(self) -> str:
        """The address of this node's own state."""
        return f"sqlite://{self.file}" if self.shared else self.url


class Http(Table):
    """[http]."""

    listen: Listen = "127.0.0.1:9780"
    interface: Interface = ""
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
