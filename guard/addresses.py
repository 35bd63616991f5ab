"""Addresses and nets: read, unwrap, widen.

An address is canonical text; `::ffff:a.b.c.d` is a.b.c.d (RFC 4291, 2.5.5.2).  What does not parse is None.
"""

from __future__ import annotations

import ipaddress
from binascii import a2b_base64
from typing import Final

from mypy_extensions import i64

_CACHE: Final = 1 << 17
_MAPPED: Final = 0xFFFF

_read: dict[str, str | None] = {}
_packed: dict[bytes, str] = {}


def read(text: str) -> str | None:
    """Return the canonical address that `text` names, or None when it names none.

    What is canonical mostly is seen by looking through it, which takes less than finding it among a hundred thousand;
    the rest is remembered.
    """
    if _is_ipv4(text) or _is_ipv6(text):
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
    size: i64 = len(text)
    if size < 7 or size > 15:
        return False
    value: i64 = 0
    digits: i64 = 0
    dots: i64 = 0
    i: i64 = 0
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


def _is_ipv6(text: str) -> bool:
    """Whether `text` is canonical IPv6 without two written zeros side by side: all but a few are."""
    size: i64 = len(text)
    if size < 3 or size > 39 or ord(text[0]) == 58 or (ord(text[size - 1]) == 58 != ord(text[size - 2])):
        return False
    groups: i64 = 0
    digits: i64 = 0
    gap = zero = beside = False  # beside: the group before was a zero, or the gap
    i: i64 = 0
    while i < size:
        c = ord(text[i])
        if c == 58:  # ":"
            if digits > 0:
                if zero and beside:
                    return False
                groups += 1
                beside = zero
            elif gap or beside:
                return False
            else:
                gap = beside = True
            digits = 0
        elif digits == 4 or (zero and digits > 0) or not (48 <= c <= 57 or 97 <= c <= 102):
            return False
        else:
            zero = c == 48 and digits == 0
            digits += 1
        i += 1
    if digits > 0:
        if zero and beside:
            return False
        groups += 1
    return groups <= 6 if gap else groups == 8


def _read_slowly(text: str) -> str | None:
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
        return text_of(number(address), prefix4, 32)
    if prefix6 == 128:
        return address + "/128"
    if prefix6 in (64, 48, 32):
        start = _begin6(address, prefix6 >> 4)
        if start:
            return f"{start}/{prefix6}"
    return text_of(number(address), prefix6, 128)


def _begin6(address: str, groups: i64) -> str:
    """Return a canonical address with all but its first `groups` (at most 4) made zero, "" where that takes arithmetic.

    The zeros behind are the longest run there is: they are the `::`.
    """
    size: i64 = len(address)
    at: i64 = 0
    n: i64 = 0
    while n < groups:
        at = address.find(":", at) + 1
        n += 1
        if n < groups and at < size and ord(address[at]) == 58:  # the gap: does it reach as far?
            behind: i64 = 0 if at + 1 == size else address.count(":", at + 1) + 1
            if behind > 8 - groups:
                return ""
            break
    at -= 1
    while at > 1 and ord(address[at - 1]) == 48 and ord(address[at - 2]) == 58:  # ":0"
        at -= 2
    if at < 1 or (at == 1 and ord(address[0]) == 48):
        return ""
    return address[:at] + "::"


def vicinity(address: str) -> str:
    """Return a text for the /24 or /48 that holds the canonical `address`, found without arithmetic where that is possible.

    It is what all addresses of the net begin with, up to the last dot or with the third colon, else the net.
    """
    dot = address.rfind(".")
    if dot > 0 and ":" not in address:
        return address[:dot]
    end = address.find(":", address.find(":", address.find(":") + 1) + 1)
    head = address[: end + 1]
    if end < 0 or "::" in head or ":0:" in head:  # a zero may be written in two ways
        return widen(address, 24, 48)
    return head


def first_of(found: str) -> str:
    """Return the first address of the net for which `vicinity` found a text."""
    if "/" in found:
        return found.partition("/")[0]
    return f"{found}:" if ":" in found else f"{found}.0"


def text_of(value: int, width: int, bits: int) -> str:
    """Return the net of a width around the address `value` as canonical CIDR; `bits` is 32 for IPv4, 128 for IPv6."""
    start = value >> (bits - width) << (bits - width)
    return f"{_text4(start) if bits == 32 else text6(start)}/{width}"


def family(net: str) -> str:
    """Return "ipv4" or "ipv6", the metrics' label."""
    return "ipv6" if ":" in net else "ipv4"


def network(text: str) -> str:
    """Return `text` (an address or a net, host bits allowed) as canonical CIDR; ValueError says what is wrong."""
    text = text.strip()
    head, slash, tail = text.partition("/")
    width = int(tail) if len(tail) < 4 and tail.isascii() and tail.isdigit() else -1 if slash else 128
    if _is_ipv4(head):
        width = 32 if not slash else width
        if 0 <= width <= 32:
            return text_of(number(head), width, 32)
    elif 0 <= width <= 128 and _is_ipv6(head):
        return text_of(_sum6(head), width, 128)
    net = ipaddress.ip_network(text, strict=False)  # rare forms; and it says what is wrong
    if isinstance(net, ipaddress.IPv6Network) and net.prefixlen >= 96:
        mapped = net.network_address.ipv4_mapped
        if mapped is not None:
            return f"{mapped}/{net.prefixlen - 96}"
    return str(net)


def parts(net: str) -> tuple[int, int]:
    """Return the first address of a net and its width; a canonical address is the net of its full width."""
    address, slash, tail = net.partition("/")
    if ":" in address:
        bits = 128
        value = _sum6(address) if _is_ipv6(address) else int(ipaddress.IPv6Address(address))
    else:
        bits = 32
        a, b, c, d = address.split(".")
        value = (int(a) << 24) | (int(b) << 16) | (int(c) << 8) | int(d)
    width = int(tail) if slash else bits
    if not 0 <= width <= bits:
        raise ValueError(f"{net}: a width of 0 to {bits} is expected")
    return value >> (bits - width) << (bits - width), width


def number(address: str) -> int:
    """Return the canonical `address` as a number."""
    if ":" in address:
        return _sum6(address)
    value: i64 = 0
    part: i64 = 0
    i: i64 = 0
    size: i64 = len(address)
    while i < size:
        c = ord(address[i])
        if c == 46:  # "."
            value = value << 8 | part
            part = 0
        else:
            part = part * 10 + c - 48
        i += 1
    return value << 8 | part


def _sum6(address: str) -> int:
    """Return the number of an IPv6 address without a dot."""
    first: i64 = 0
    second: i64 = 0
    third: i64 = 0
    fourth: i64 = 0  # 32 bits each
    group: i64 = 0
    part: i64 = 0
    size: i64 = len(address)
    i: i64 = 0
    while i <= size:
        c = 58 if i == size else ord(address[i])
        if c == 58:  # ":"
            if i > 0 and i < size and ord(address[i - 1]) == 58:  # the gap
                group = 8 - (0 if i + 1 == size else address.count(":", i + 1) + 1)
            elif group < 8:
                part <<= (1 - (group & 1)) << 4
                if group < 2:
                    first |= part
                elif group < 4:
                    second |= part
                elif group < 6:
                    third |= part
                else:
                    fourth |= part
                group += 1
            part = 0
        else:
            part = part << 4 | (c - 48 if c < 58 else c - 87)
        i += 1
    return int(first) << 96 | int(second) << 64 | int(third) << 32 | int(fourth)


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
            packed = a2b_base64(session)[8:24]
            known = _packed.get(packed)
            if known is not None:
                return known
            value = int.from_bytes(packed, "big")
            address = text6(value) if value >> 32 != _MAPPED else _text4(value & 0xFFFFFFFF)
            if len(_packed) >= _CACHE:
                _packed.clear()
            _packed[packed] = address
            return address
    except (ValueError, IndexError):
        pass
    return None
