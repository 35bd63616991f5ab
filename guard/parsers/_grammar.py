"""Pieces of the daemons' grammars that several parsers share."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

ADDRESS: Final = r"[0-9A-Fa-f:.]{2,45}"
# Postfix writes name[address], smtpd_client_port_logging adds the port; a name is what forward-confirmed DNS allows.
CLIENT: Final = rf"([A-Za-z0-9._-]{{1,255}})\[({ADDRESS}|unknown)\](?::(?:[0-9]{{1,5}}|unknown))?"
# Dovecot makes base64 of 16 or 32 characters; logs that people have passed on hold other text there.
SESSION: Final = r"[A-Za-z0-9+/=_-]{1,64}"

_MILLION: Final = 1_000_000


def queue_id(text: str, start: i64, end: i64) -> i64:
    """Return where the queue id that text[start:end] begins with ends, at `: `; -1 where it begins with none."""
    if (
        end >= start + 18
    ):  # most are that long, and no word of Postfix's own that begins a line ends there with ": "
        if ord(text[start + 11]) == 58 and ord(text[start + 12]) == 32:
            return start + 11
        if ord(text[start + 10]) == 58 and ord(text[start + 11]) == 32:
            return start + 10
        if ord(text[start + 15]) == 58 and ord(text[start + 16]) == 32 and ord(text[start + 8]) > 47:
            return start + 15
    last = min(end - 2, start + 24)
    at = start
    while at < last:
        c = ord(text[at])
        if c < 59:
            if c == 58:  # ":"
                return at if at >= start + 5 and ord(text[at + 1]) == 32 else -1
            if c < 48:  # a blank, mostly
                return -1
        elif c > 122:
            return -1
        at += 1
    return -1


def stands(word: str, text: str, at: i64, end: i64) -> bool:
    """Whether `word` stands at `at`, before `end`."""
    size: i64 = len(word)
    if at < 0 or at + size > end:
        return False
    i: i64 = 0
    while i < size:  # compiled, this takes less than a call of str.find: mostly the first character tells
        if ord(text[at + i]) != ord(word[i]):
            return False
        i += 1
    return True


def after_address(text: str, at: i64, end: i64) -> i64:
    """Return what follows the `>` of the address that begins at `at`, behind the `<`; -1 where there is none.

    Postfix (info_log_address_format = external, since 3.5) writes a local part with odd characters as a quoted
    string: whatever a stranger puts into it, a bracket ends the address only outside of the quotes.
    """
    if at < end and ord(text[at]) == 34:  # '"'
        at += 1
        while at < end:
            c = ord(text[at])
            if c == 34:
                break
            at += 2 if c == 92 else 1  # a backslash and what it quotes
    return text.find(">", at, end) + 1 or -1


def micros(text: str, at: i64, end: i64) -> tuple[i64, i64]:
    """Return the seconds written at `at`, in microseconds, and what follows them; (-1, at) where there are none."""
    begin = at
    value: i64 = 0
    while at < end and at < begin + 10:
        c = ord(text[at])
        if c < 48 or c > 57:
            break
        value = value * 10 + (c - 48)
        at += 1
    if at == begin:
        return -1, begin
    if at >= end or ord(text[at]) != 46:  # "."
        return value * _MILLION, at
    at += 1
    missing: i64 = 6  # digits of a microsecond
    while at < end:
        c = ord(text[at])
        if c < 48 or c > 57:
            break
        if missing > 0:
            value = value * 10 + (c - 48)
            missing -= 1
        at += 1
    while missing > 0:
        value *= 10
        missing -= 1
    return value, at
