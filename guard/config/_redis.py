"""What the values of a source `redis` may be.  A ValueError's text is what was expected."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import BeforeValidator

MAILCOW: Final = ["POSTFIX_MAILLOG", "DOVECOT_MAILLOG", "SOGO_LOG"]
CHANNEL: Final = "F2B_CHANNEL"
STREAM: Final = "MAILWARD"
GROUP: Final = "mailward"
_QUERY: Final = {"redis": ("db",), "rediss": ("db", "ca"), "unix": ("db",)}
_KEYS: Final = 64


def redis_url(value: object) -> str:
    """Return the address of a server as it is."""
    if isinstance(value, str) and _is_url(value):
        return value
    raise ValueError(
        "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://... (TLS; ?ca=/PATH/ca.pem for a CA of one's own)"
        " or unix://[[USER]:PASSWORD@]/PATH[?db=DB]"
    )


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _QUERY or parts.fragment or re.search(r"\s", value):
        return False
    names = [name for name, _ in query]
    if len(set(names)) != len(names) or not set(names) <= set(_QUERY[parts.scheme]):
        return False
    if any(
        not (re.fullmatch(r"\d{1,5}", text, re.ASCII) if name == "db" else text[:1] == "/")
        for name, text in query
    ):
        return False
    if parts.scheme == "unix":
        return not parts.hostname and len(parts.path) > 1
    return bool(parts.hostname) and port != 0 and bool(re.fullmatch(r"(?:/\d{0,5})?", parts.path, re.ASCII))


def redis_key(value: object) -> str:
    """Return the name of a channel, a list or a stream."""
    if isinstance(value, str) and re.fullmatch(r"[!-~]{1,256}", value):
        return value
    raise ValueError("a name of at most 256 printable ASCII characters without spaces")


def redis_keys(value: object) -> list[str]:
    """Return the names of lists."""
    given = [value] if isinstance(value, str) else value
    if isinstance(given, list) and 0 < len(given) <= _KEYS and len(set(map(str, given))) == len(given):
        try:
            return [redis_key(key) for key in given]
        except ValueError:
            pass
    raise ValueError(f"the names of 1 to {_KEYS} lists, each once")


def redis_group(value: object) -> str:
    """Return the name of a consumer group; "" for none."""
    return "" if value == "" else redis_key(value)


RedisUrl = Annotated[str, BeforeValidator(redis_url)]
RedisKey = Annotated[str, BeforeValidator(redis_key)]
RedisKeys = Annotated[list[str], BeforeValidator(redis_keys)]
RedisGroup = Annotated[str, BeforeValidator(redis_group)]
