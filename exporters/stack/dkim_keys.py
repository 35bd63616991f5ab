"""The public key that a domain's signing key has, from its file: what DNS must publish as `p=` (RFC 6376 3.6.1).

A file holds the public key (PEM, or the record's text as rspamadm and opendkim-genkey write it) or an RSA private
key, of which only modulus and exponent are looked at: the public part needs no arithmetic.  The exporter needs no more
than the public key, and should be given no more.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Final

from exporters.stack.certificates import element

Key = tuple[str, bytes]  # as in k=, and what p= holds
LARGEST: Final = 64 * 1024  # bytes that are read of a file
_PEM: Final = re.compile(
    r"-----BEGIN (PUBLIC KEY|PRIVATE KEY|RSA PRIVATE KEY)-----\s+([A-Za-z0-9+/=\s]+)-----END \1-----"
)
_RSA: Final = bytes.fromhex("06092a864886f70d010101")  # rsaEncryption (RFC 8017 A.1)
_ED25519: Final = bytes.fromhex("06032b6570")  # id-Ed25519 (RFC 8410 3)


def tags(text: str) -> dict[str, str]:
    """Return `a=b; c=d` as a table (RFC 6376 3.2, RFC 7489 6.4, RFC 8461 3.1)."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {key.strip().lower(): value.strip() for key, gap, value in pairs if gap}


def published(record: dict[str, str]) -> Key:
    """Return the key of a record's tags.  Raises ValueError where p= is no base64."""
    return record.get("k", "rsa"), base64.b64decode("".join(record.get("p", "").split()), validate=True)


def of_file(path: Path) -> Key:
    """Return the public key.  Raises OSError, and ValueError for what is no key; neither tells of the content."""
    with path.open("rb") as file:
        text = file.read(LARGEST).decode("latin-1")
    try:
        if found := _PEM.search(text):
            return _of_pem(found[1], base64.b64decode("".join(found[2].split()), validate=True))
        quoted = re.findall(r'"([^"]*)"', text)
        key = published(tags("".join(quoted) if quoted else text))
    except _NoPublicPartError:
        raise ValueError(f"{path}: a private key that is not RSA; give the public key's file") from None
    except ValueError:
        key = ("", b"")
    if not key[1]:
        raise ValueError(
            f"{path}: no key; expected: a public key or an RSA private key in PEM, or v=DKIM1; p=..."
        )
    return key


class _NoPublicPartError(Exception):
    """The private key does not hold the public one."""


def _of_pem(kind: str, der: bytes) -> Key:
    if kind == "RSA PRIVATE KEY":
        return "rsa", _rsa(der)
    _, at, _ = element(der, 0)
    if kind == "PUBLIC KEY":  # SubjectPublicKeyInfo (RFC 5280 4.1): algorithm, BIT STRING
        _, start, end = element(der, at)
        if der[start:].startswith(_RSA):
            return "rsa", der
        if not der[start:].startswith(_ED25519):
            raise ValueError("an algorithm that DKIM has not")
        _, start, end = element(der, end)
        return "ed25519", der[start + 1 : end]  # RFC 8463 4: without the wrapping
    _, _, at = element(der, at)  # PrivateKeyInfo (RFC 5208 5): version, algorithm, the key in its own form
    _, start, at = element(der, at)
    if not der[start:].startswith(_RSA):
        raise _NoPublicPartError
    _, start, end = element(der, at)
    return "rsa", _rsa(der[start:end])


def _rsa(der: bytes) -> bytes:
    """Return SubjectPublicKeyInfo of an RSAPrivateKey (RFC 8017 A.1.2): version, modulus, publicExponent, secrets."""
    _, at, _ = element(der, 0)
    _, _, numbers = element(der, at)
    _, _, at = element(der, numbers)
    _, _, end = element(der, at)
    key = _packed(0x30, der[numbers:end])
    return _packed(0x30, _packed(0x30, _RSA + b"\x05\x00") + _packed(0x03, b"\x00" + key))


def _packed(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content
