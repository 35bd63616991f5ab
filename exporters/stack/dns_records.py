"""A mail domain's records as they are published: MX, SPF, DKIM, DMARC, TLSA."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final

import dns.exception
import dns.name
from dns.asyncresolver import Resolver

from exporters.stack import dkim_keys
from exporters.stack.board import Found, Series, joined, words
from exporters.stack.dkim_keys import tags

RECORDS: Final = ("mx", "spf", "dkim", "dmarc", "tlsa")


async def look(
    domains: Sequence[str], host: str, selectors: Sequence[str], resolver: Resolver, patience: float, key_path: str = "",
) -> Found:  # fmt: skip
    """Return whether each domain's records are there.

    `host` is the mail host's name, or empty; `key_path` is where each signing key's file lies, with `$domain` and
    `$selector`, or empty where what is published is compared with nothing.
    """
    checks = [
        _check(domain, record, found, patience)
        for domain in domains
        for record, found in (
            ("mx", _mx(resolver, domain, host)),
            ("spf", _spf(resolver, domain)),
            *((("dkim", _dkim(resolver, domain, selectors, key_path)),) if selectors else ()),
            ("dmarc", _dmarc(resolver, domain)),
            ("tlsa", _tlsa(resolver, domain)),
        )
    ]
    return joined(await asyncio.gather(*checks))


def failed(domains: Sequence[str], selectors: Sequence[str]) -> dict[Series, float]:
    """Return what stands where nothing could be seen."""
    return {
        ("dns_ok", domain, record): 0.0
        for domain in domains
        for record in RECORDS
        if record != "dkim" or selectors
    }


async def _check(domain: str, record: str, found: Awaitable[str], patience: float) -> Found:
    try:
        async with asyncio.timeout(patience):
            trouble = await found
    except (dns.exception.DNSException, OSError, ValueError) as error:
        trouble = words(error)
    said = (f"{domain} {record}: {trouble}",) if trouble else ()
    return Found({("dns_ok", domain, record): float(not trouble)}, said)


async def texts(resolver: Resolver, name: str, start: str) -> list[str]:
    """Return the TXT records of `name` that begin with `start`, whatever their case."""
    answer: Any = await resolver.resolve(name, "TXT", raise_on_no_answer=False)
    found = (b"".join(record.strings).decode("utf-8", "replace") for record in answer.rrset or ())
    return [text for text in found if text.lower().startswith(start.lower())]


async def exchangers(resolver: Resolver, domain: str) -> list[str]:
    """Return the names of a domain's MX, in lower case, without the dot; none where it takes no mail (RFC 7505)."""
    answer: Any = await resolver.resolve(domain, "MX", raise_on_no_answer=False)
    names = (record.exchange for record in answer.rrset or ())
    return sorted(name.to_text(omit_final_dot=True).lower() for name in names if name != dns.name.root)


async def _mx(resolver: Resolver, domain: str, host: str) -> str:
    found = await exchangers(resolver, domain)
    if not found:
        return "there is no MX"
    return "" if not host or host in found else f"the MX does not lead to {host}"


async def _spf(resolver: Resolver, domain: str) -> str:
    found = [text for text in await texts(resolver, domain, "v=spf1") if text[6:7] in {"", " "}]
    return "" if len(found) == 1 else f"{len(found)} records; there must be one (RFC 7208 4.5)"


async def _dkim(resolver: Resolver, domain: str, selectors: Sequence[str], key_path: str) -> str:
    for selector in selectors:
        found = await texts(resolver, f"{selector}._domainkey.{domain}", "")
        keys = [tags(text) for text in found]
        if len(keys) != 1 or keys[0].get("v", "DKIM1") != "DKIM1" or not keys[0].get("p"):
            return f"selector {selector}: no key, or not one (RFC 6376 3.6.2.2)"
        if key_path:
            file = Path(key_path.replace("$domain", domain).replace("$selector", selector))
            if _published(keys[0]) != await asyncio.to_thread(dkim_keys.of_file, file):
                return f"selector {selector}: what is published is not the key in {file}"
    return ""


def _published(record: dict[str, str]) -> dkim_keys.Key | None:
    try:
        return dkim_keys.published(record)
    except ValueError:
        return None


async def _dmarc(resolver: Resolver, domain: str) -> str:
    found = [tags(text) for text in await texts(resolver, f"_dmarc.{domain}", "v=DMARC1")]
    if len(found) != 1:
        return f"{len(found)} records; there must be one (RFC 7489 6.6.3)"
    policy = found[0].get("p", "")
    return "" if policy in {"none", "quarantine", "reject"} else "p= is none of none, quarantine, reject"


async def _tlsa(resolver: Resolver, domain: str) -> str:
    found = await exchangers(resolver, domain)
    if not found:
        return "there is no MX"
    for name in found:
        answer: Any = await resolver.resolve(f"_25._tcp.{name}", "TLSA", raise_on_no_answer=False)
        if not answer.rrset:
            return f"_25._tcp.{name} has none"
    return ""
