"""MTA-STS (RFC 8461): the record, the policy over HTTPS with a verified certificate, and whether MX and policy agree."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from typing import Any, Final

import dns.exception
from dns.asyncresolver import Resolver

from exporters.stack.board import Found, Series, joined, words
from exporters.stack.dkim_keys import tags
from exporters.stack.dns_records import exchangers, texts

CHECKS: Final = ("record", "policy", "mx", "certificate")
LARGEST: Final = 64 * 1024  # bytes of the whole answer (RFC 8461 3.3 advises this for the policy)
_IDENTIFIER: Final = re.compile(r"\A[A-Za-z0-9]{1,32}\Z")


async def look(
    domains: Sequence[str], resolver: Resolver, context: ssl.SSLContext, patience: float, port: int = 443
) -> Found:
    """Return each domain's state.  Only tests ask at another `port`."""
    found = await asyncio.gather(*(_domain(domain, resolver, context, patience, port) for domain in domains))
    return joined(found)


def failed(domains: Sequence[str]) -> dict[Series, float]:
    """Return what stands where nothing could be seen."""
    return {("mta_sts_ok", domain, check): 0.0 for domain in domains for check in CHECKS}


async def _domain(
    domain: str, resolver: Resolver, context: ssl.SSLContext, patience: float, port: int
) -> Found:
    ok = dict.fromkeys(CHECKS, False)
    troubles: list[str] = []
    try:
        async with asyncio.timeout(patience):
            records = [tags(text) for text in await texts(resolver, f"_mta-sts.{domain}", "v=STSv1")]
        ok["record"] = len(records) == 1 and _IDENTIFIER.match(records[0].get("id", "")) is not None
        if not ok["record"]:
            troubles.append("the record is not one with v=STSv1 and an id")
    except (dns.exception.DNSException, OSError) as error:
        troubles.append(f"record: {words(error)}")
    try:
        async with asyncio.timeout(patience):
            reader, writer = await _connected(f"mta-sts.{domain}", resolver, context, port)
            ok["certificate"] = True  # whatever comes then: the handshake verified it
            head, body = await _fetched(f"mta-sts.{domain}", reader, writer)
        mode, patterns = _policy(head, body)
        ok["policy"] = True
        async with asyncio.timeout(patience):
            names = await exchangers(resolver, domain)
        strange = [name for name in names if not any(agrees(name, pattern) for pattern in patterns)]
        ok["mx"] = mode == "none" or (bool(names) and not strange)
        if not ok["mx"]:
            troubles.append(f"MX that the policy does not name: {', '.join(strange) or 'there is no MX'}")
    except (dns.exception.DNSException, OSError, ValueError, EOFError) as error:
        troubles.append(f"policy: {words(error)}")
    values: dict[Series, float] = {("mta_sts_ok", domain, check): float(good) for check, good in ok.items()}
    return Found(values, tuple(f"{domain}: {trouble}" for trouble in troubles))


async def _connected(
    name: str, resolver: Resolver, context: ssl.SSLContext, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection whose handshake has verified chain and name."""
    answer: Any = await resolver.resolve_name(name)
    addresses = list(answer.addresses())
    for at, address in enumerate(addresses):
        try:
            return await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
        except ssl.SSLError:
            raise
        except OSError:
            if at == len(addresses) - 1:
                raise
    raise OSError(f"{name} has no address")


async def _fetched(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, str]:
    """Return the head and the body, and close.  No redirect is followed (RFC 8461 3.3)."""
    try:
        # HTTP/1.0: the answer ends with the connection and comes in no chunks.
        writer.write(
            f"GET /.well-known/mta-sts.txt HTTP/1.0\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
        )
        data = b""
        while piece := await reader.read(LARGEST):
            data += piece
            if len(data) > LARGEST:
                raise ValueError("the policy is too large")
    finally:
        writer.transport.abort()
    head, gap, body = data.partition(b"\r\n\r\n")
    if not gap:
        raise EOFError("no HTTP answer")
    return head.decode("latin-1"), body.decode("utf-8", "replace")


def _policy(head: str, body: str) -> tuple[str, list[str]]:
    """Return the mode and the mx patterns.  Raises ValueError where it is no policy (RFC 8461 3.2)."""
    status, *fields = head.split("\r\n")
    if status.split(" ")[1:2] != ["200"]:
        raise ValueError(f"HTTP {status[:60]}")
    kinds = [value for name, _, value in (field.partition(":") for field in fields) if name.lower() == "content-type"]  # fmt: skip
    if not kinds or kinds[0].partition(";")[0].strip().lower() != "text/plain":
        raise ValueError("the content type is not text/plain")
    pairs = [
        (key.strip(), value.strip())
        for key, gap, value in (line.partition(":") for line in body.splitlines())
        if gap
    ]
    once = dict(reversed(pairs))  # the first of each counts
    patterns = [value.lower().rstrip(".") for key, value in pairs if key == "mx"]
    mode, age = once.get("mode", ""), once.get("max_age", "")
    if once.get("version") != "STSv1" or mode not in {"enforce", "testing", "none"}:
        raise ValueError("version or mode is wrong")
    if not (age.isascii() and age.isdigit()) or int(age[:11]) > 31557600:
        raise ValueError("max_age is wrong")
    if mode != "none" and not patterns:
        raise ValueError("it names no mx")
    return mode, patterns


def agrees(name: str, pattern: str) -> bool:
    """Return whether an MX is what a policy's `mx` allows: the name, or one label before `*.`'s rest."""
    return name == pattern or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])
