"""What the values of a syslog listener may be.  A ValueError's text is what was expected.

Whoever can send it lines can have anybody banned: who may is said, or it is this host alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BeforeValidator

_URL: Final = re.compile(
    r"(udp|tcp|tls)://(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<four>[0-9.]{7,15})):(?P<port>\d{1,5})|unix(?:-stream)?://(?P<path>/[^\s?#]+)",
    re.ASCII,
)
_PATH_BYTES: Final = 107  # unix(7)


def addresses(value: object) -> list[str]:
    """Return where to listen, one address or several, as they are."""
    given = value if isinstance(value, list) else [value]
    urls = [url for url in given if isinstance(url, str) and _is_address(url)]
    if urls and len(set(urls)) == len(given):
        return urls
    raise ValueError(
        'an address, such as "udp://127.0.0.1:5514", "tcp://[::1]:5514", "tls://192.0.2.1:6514",'
        ' "unix:///run/mailward/log" (datagrams) or "unix-stream:///run/mailward/log.stream", or a list of such'
    )


def _is_address(url: str) -> bool:
    match = _URL.fullmatch(url)
    if match is None:
        return False
    if match["path"]:
        return len(match["path"].encode("utf-8", "surrogateescape")) <= _PATH_BYTES
    try:
        (ipaddress.IPv4Address if match["four"] else ipaddress.IPv6Address)(match["four"] or match["six"])
    except ValueError:
        return False
    return 0 < int(match["port"]) <= 65535


def encrypted(urls: Sequence[str]) -> bool:
    """Is one of the addresses TLS?"""
    return any(url.startswith("tls://") for url in urls)


def exposed(urls: Sequence[str], *, certified: bool) -> list[str]:
    """Return those that the network reaches; `certified`: without TLS, which asks its senders for a certificate."""
    found = []
    for url in urls:
        match = _URL.fullmatch(url)
        host = (match["four"] or match["six"]) if match else None
        if (
            host
            and not ipaddress.ip_address(host).is_loopback
            and not (certified and url.startswith("tls://"))
        ):
            found.append(url)
    return found


def octal(value: object) -> str:
    """Return a file's mode as it is."""
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return value
    raise ValueError('an octal mode in quotes, such as "0660"')


SyslogAddresses = Annotated[list[str], BeforeValidator(addresses)]
Octal = Annotated[str, BeforeValidator(octal)]
