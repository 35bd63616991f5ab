"""Which addresses a store has.  A ValueError's text is what was expected, and repeats no password."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator

WHO: Final = r"(?:[^\s:@/?#,]*:[^\s:@/?#,]+@)?"
WHERE: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?"
TLS: Final = r"(?:ca=/[^\s&#]*|insecure=(?:yes|no))"
SECOND: Final = r"sentinel_password=[^\s&#]+"
HOSTS: Final = rf"{WHO}{WHERE}(?:,{WHERE})*"
SERVICE: Final = r"/[A-Za-z0-9._-]+(?:/\d{1,4})?"
STORE: Final = re.compile(
    "|".join(
        [
            r"sqlite:///.+",
            r"memory:",
            rf"redis://{WHO}{WHERE}(?:/\d{{0,4}})?",
            rf"rediss://{WHO}{WHERE}(?:/\d{{0,4}})?(?:\?{TLS}(?:&{TLS})*)?",
            rf"redis\+unix://{WHO}/[^\s?#]+(?:\?db=\d{{1,4}})?",
            rf"redis\+sentinel://{HOSTS}{SERVICE}(?:\?{SECOND})?",
            rf"rediss\+sentinel://{HOSTS}{SERVICE}(?:\?(?:{TLS}|{SECOND})(?:&(?:{TLS}|{SECOND}))*)?",
            rf"redis\+cluster://{HOSTS}/?",
            rf"rediss\+cluster://{HOSTS}/?(?:\?{TLS}(?:&{TLS})*)?",
        ]
    ),
    re.ASCII,
)


def store_url(value: object) -> str:
    """Return a store's address as it is; what `guard.fleet` takes, of Redis.  An error never repeats it: passwords."""
    if isinstance(value, str) and STORE.fullmatch(value) and _ports_fit(value):
        return value
    raise ValueError(
        "sqlite:///PATH, memory:, redis://[[user]:password@]host[:port][/db], rediss:// (TLS), "
        "redis+unix:///socket[?db=N], redis+sentinel://host:port,host:port/service[/db] or "
        "redis+cluster://host:port,host:port; a password with percent signs for what is not a letter or a digit"
    )


def _ports_fit(url: str) -> bool:
    hosts = url.partition("://")[2].rpartition("@")[2].partition("/")[0]
    return all(0 < int(port) < 65536 for port in re.findall(r":(\d{1,5})(?=,|\Z|\?)", hosts, re.ASCII))


StoreUrl = Annotated[str, BeforeValidator(store_url)]
