"""Addresses and nets: read, unwrap, widen, look up in lists.

An address is canonical text; `::ffff:a.b.c.d` is a.b.c.d (RFC 4291, 2.5.5.2).  What does not parse is None.
"""

from __future__ import annotations

import ipaddress
import re
from binascii import a2b_base64
from bisect import bisect_left
from typing import Final

_CACHE: Final = 1 << 17
_HEX: Final = re.compile(r"\A[0-9A-Fa-f]{1,4}\Z")
_MAPPED: Final = 0xFFFF

_read: dict[str, str | None] = {}


def read(text: str) -> str | None:
    """Return the canonical address that `text` names, or None when it names none.

    IPv4 is looked through, which takes less than finding it among a hundred thousand; the rest is remembered.
    """
    if _is_ipv4(text):
        return text
    known = _read.get(text, "")
    if known != "":
        return known
    address = _read_slowly(text)
    if len(_read) >= _CACHE:
        _read.clear()
    _read[text] = address
    return address


def _is_ipv4(text: str) -> bool:
    """Whether `text` is four numbers up to 255 without leading zeros, joined by dots."""
    size = len(text)
    if size < 7 or size > 15:
        return False
    value = digits = dots = i = 0
    while i < size:
        c = ord(text[i])
        if c == 46:  # "."
            if digits == 0:
                return False
            dots += 1
            digits = value = 0
        elif c < 48 or c > 57 or (digits > 0 and value == 0):
            return False
        else:
            value = value * 10 + c - 48
            digits += 1
            if value > 255:
                return False
        i += 1
    return dots == 3 and digits > 0


def _read_slowly(text: str) -> str | None:
    value = _number6(text)
    if value >= 0:
        return text6(value) if value >> 32 != _MAPPED else _text4(value & 0xFFFFFFFF)
    if len(text) > 45 or "%" in text or not text.isascii():
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _text4(value: int) -> str:
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def _number6(text: str) -> int:
    """Return the number of an IPv6 address in hexadecimal groups, -1 for anything else (also `::1.2.3.4`)."""
    head, gap, tail = text.partition("::")
    before = head.split(":") if head else []
    after = tail.split(":") if tail else []
    missing = 8 - len(before) - len(after)
    if (missing < 1 if gap else missing != 0) or "::" in tail:
        return -1
    value = 0
    for group in before:
        if not 0 < len(group) <= 4 or not _HEX.match(group):
            return -1
        value = value << 16 | int(group, 16)
    value <<= 16 * missing
    for group in after:
        if not 0 < len(group) <= 4 or not _HEX.match(group):
            return -1
        value = value << 16 | int(group, 16)
    return value


def text6(value: int) -> str:
    """Return a number as canonical IPv6 text (RFC 5952: lower case, the first longest run of zero groups as `::`)."""
    high, low = value >> 64, value & 0xFFFFFFFFFFFFFFFF
    groups = [high >> 48, high >> 32 & 0xFFFF, high >> 16 & 0xFFFF, high & 0xFFFF]
    groups += [low >> 48, low >> 32 & 0xFFFF, low >> 16 & 0xFFFF, low & 0xFFFF]
    best = length = run = 0
    for i in range(8):
        run = run + 1 if groups[i] == 0 else 0
        if run > length:
            best, length = i + 1 - run, run
    if length < 2:
        return ":".join([f"{group:x}" for group in groups])
    before = ":".join([f"{group:x}" for group in groups[:best]])
    after = ":".join([f"{group:x}" for group in groups[best + length :]])
    return f"{before}::{after}"


def widen(address: str, prefix4: int, prefix6: int) -> str:
    """Return the net of the given width that holds the canonical `address`, as canonical CIDR."""
    if ":" not in address:
        if prefix4 == 32:
            return address + "/32"
        return str(ipaddress.ip_network(f"{address}/{prefix4}", strict=False))
    if prefix6 == 128:
        return address + "/128"
    shift = 128 - prefix6
    return f"{text6(number(address) >> shift << shift)}/{prefix6}"


def family(net: str) -> str:
    """Return "ipv4" or "ipv6", the metrics' label."""
    return "ipv6" if ":" in net else "ipv4"


def network(text: str) -> str:
    """Return `text` (an address or a net, host bits allowed) as canonical CIDR; ValueError says what is wrong."""
    net = ipaddress.ip_network(text.strip(), strict=False)
    if isinstance(net, ipaddress.IPv6Network) and net.prefixlen >= 96:
        mapped = net.network_address.ipv4_mapped
        if mapped is not None:
            return f"{mapped}/{net.prefixlen - 96}"
    return str(net)


def number(address: str) -> int:
    """Return the canonical `address` as a number."""
    if ":" in address:
        return _number6(address)
    value = part = i = 0
    size = len(address)
    while i < size:
        c = ord(address[i])
        if c == 46:  # "."
            value = value << 8 | part
            part = 0
        else:
            part = part * 10 + c - 48
        i += 1
    return value << 8 | part


class NetSet:
    """A set of nets with O(widths) membership and O(log n) overlap."""

    __slots__ = ("_starts4", "_starts6", "_widths4", "_widths6", "nets")

    def __init__(self, nets: tuple[str, ...] = ()) -> None:
        self.nets = frozenset(nets)
        # (prefix length, starts of the nets shifted to it), and all starts sorted
        self._widths4: list[tuple[int, set[int]]] = []
        self._widths6: list[tuple[int, set[int]]] = []
        self._starts4: list[int] = []
        self._starts6: list[int] = []
        widths: dict[tuple[int, int], set[int]] = {}
        for text in self.nets:
            net = ipaddress.ip_network(text, strict=False)
            start, width = int(net.network_address), net.prefixlen
            widths.setdefault((net.version, width), set()).add(start >> (net.max_prefixlen - width))
            (self._starts4 if net.version == 4 else self._starts6).append(start)
        for (version, width), starts in sorted(widths.items()):
            (self._widths4 if version == 4 else self._widths6).append((width, starts))
        self._starts4.sort()
        self._starts6.sort()

    def has(self, address: str, value: int) -> bool:
        """Whether one of the nets holds the canonical `address`, whose number is `value`."""
        if ":" in address:
            return self._within(self._widths6, 128, value, 128)
        return self._within(self._widths4, 32, value, 32)

    def holds(self, net: str) -> bool:
        """Whether one of the nets covers the whole of `net` (an address or a net)."""
        if not self.nets:
            return False
        what = ipaddress.ip_network(net, strict=False)
        value, bits = int(what.network_address), what.max_prefixlen
        return self._within(self._widths4 if bits == 32 else self._widths6, bits, value, what.prefixlen)

    def touches(self, net: str) -> bool:
        """Whether `net` and one of the nets have an address in common."""
        if not self.nets:
            return False
        what = ipaddress.ip_network(net, strict=False)
        return self.touches_near(str(what.network_address), int(what.network_address), what.prefixlen)

    def touches_near(self, address: str, value: int, prefix: int) -> bool:
        """Whether the net of width `prefix` around a canonical address has an address in common with one of the nets."""
        if not self.nets:
            return False
        new = ":" in address
        starts = self._starts6 if new else self._starts4
        shift = (128 if new else 32) - prefix
        start = value >> shift << shift
        i = bisect_left(starts, start)
        if i < len(starts) and starts[i] < start + (1 << shift):
            return True
        return self._within(self._widths6 if new else self._widths4, 128 if new else 32, start, prefix)

    @staticmethod
    def _within(widths: list[tuple[int, set[int]]], bits: int, value: int, prefix: int) -> bool:
        return any(width <= prefix and (value >> (bits - width)) in starts for width, starts in widths)


def is_of_session(session: str, address: str) -> bool:
    """Whether the canonical `address` is the one inside a Dovecot session id, or there is none inside."""
    if len(session) == 16 and ":" not in address:
        try:
            raw = a2b_base64(session)
            return (raw[8] << 24 | raw[9] << 16 | raw[10] << 8 | raw[11]) == number(address)
        except (ValueError, IndexError):
            return True
    inside = of_session(session)
    return inside is None or inside == address


def of_session(session: str) -> str | None:
    """Return the client address inside a Dovecot session id, or None where the id holds none.

    lib/connection id of Dovecot (login-common/client-common.c, client_get_session_id): base64 without padding of 6
    bytes of time, 2 bytes of client port (little endian) and 4 or 16 bytes of client address.
    """
    try:
        if len(session) == 16:
            raw = a2b_base64(session)
            return f"{raw[8]}.{raw[9]}.{raw[10]}.{raw[11]}"
        if len(session) == 32:
            raw = a2b_base64(session)
            value = int.from_bytes(raw[8:24], "big")
            return text6(value) if value >> 32 != _MAPPED else _text4(value & 0xFFFFFFFF)
    except (ValueError, IndexError):
        pass
    return None
