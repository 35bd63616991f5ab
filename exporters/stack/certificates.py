"""The certificates that the ports show: by TLS at once, or after STARTTLS in the protocol's own words.

One handshake that verifies chain and name; where that fails, another that does not, so that the end of an expired or
self-signed certificate is known as well.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from exporters.stack.board import Found, Series, joined, words

# What is said and what the last line of the answer begins with; nothing is said before the greeting.
# SMTP: RFC 3207, IMAP: RFC 9051 6.2.1, POP3: RFC 2595 4, ManageSieve: RFC 5804 2.2.
DIALOGUES: Final = {
    "smtp": ((b"", b"220 "), (b"EHLO localhost\r\n", b"250 "), (b"STARTTLS\r\n", b"220 ")),
    "imap": ((b"", b"* OK"), (b"a STARTTLS\r\n", b"a OK")),
    "pop3": ((b"", b"+OK"), (b"STLS\r\n", b"+OK")),
    "sieve": ((b"", b"OK"), (b"STARTTLS\r\n", b"OK")),
}
MODES: Final = ("tls", *DIALOGUES)
_REFUSALS: Final = (b"4", b"5", b"a NO", b"a BAD", b"* BYE", b"-ERR", b"NO", b"BYE")
_LINES: Final = 100  # of one answer
_LONGEST: Final = 8192  # bytes of a line


class Port(NamedTuple):
    """One port to look at; `mode` is one of MODES."""

    host: str
    number: int
    mode: str


async def look(ports: Sequence[Port], name: str, context: ssl.SSLContext, patience: float) -> Found:
    """Return what each port shows; `context` verifies.  A port has `patience` seconds for each handshake."""
    return joined(await asyncio.gather(*(_port(port, name, context, patience) for port in ports)))


def failed(ports: Sequence[Port]) -> dict[Series, float]:
    """Return what stands where nothing could be seen."""
    return {
        (gauge, str(port.number)): 0.0
        for port in ports
        for gauge in ("certificate_up", "certificate_trusted")
    }


async def _port(port: Port, name: str, context: ssl.SSLContext, patience: float) -> Found:
    label = str(port.number)
    trusted, trouble = True, ""
    try:
        try:
            async with asyncio.timeout(patience):
                shown = await certificate(port, name, context)
        except ssl.SSLCertVerificationError as error:
            trusted, trouble = False, f"{port.host}:{label} {name}: {error.verify_message}"
            async with asyncio.timeout(patience):
                shown = await certificate(port, name, _blind())
        values: dict[Series, float] = {
            ("certificate_up", label): 1.0,
            ("certificate_trusted", label): float(trusted),
            ("certificate_expiry_timestamp_seconds", label): expiry(shown),
        }
    except (OSError, ValueError, EOFError) as error:
        trouble = f"{port.host}:{label} ({port.mode}): {words(error)}"
        return Found(failed([port]), (trouble,))
    return Found(values, (trouble,) if trouble else ())


def _blind() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to read when it ends; nothing is sent
    return context


async def certificate(port: Port, name: str, context: ssl.SSLContext) -> bytes:
    """Return the certificate in DER.  Raises OSError (also for TLS), EOFError and ValueError."""
    at_once: dict[str, Any] = {"ssl": context, "server_hostname": name} if port.mode == "tls" else {}
    reader, writer = await asyncio.open_connection(port.host, port.number, limit=_LONGEST, **at_once)
    try:
        if port.mode != "tls":
            for said, wanted in DIALOGUES[port.mode]:
                writer.write(said)
                await _answer(reader, wanted)
            await writer.start_tls(context, server_hostname=name)
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True)
        if shown is None:
            raise ValueError("the server shows no certificate")
        return shown
    finally:
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, wanted: bytes) -> None:
    for _ in range(_LINES):
        line = await reader.readline()
        if line.startswith(wanted):
            return
        if not line.endswith(b"\n"):
            raise EOFError("the server hung up")
        if line.startswith(_REFUSALS):
            raise ValueError(f"the server refuses: {line[:80]!r}")
    raise ValueError("an answer without an end")


def expiry(der: bytes) -> float:
    """Return notAfter, seconds since the epoch (RFC 5280 4.1).  Raises ValueError for what is no certificate."""
    _, at, _ = element(der, 0)  # Certificate
    _, at, _ = element(der, at)  # TBSCertificate
    tag, _, end = element(der, at)
    if tag == 0xA0:  # the version, which a certificate of version 1 leaves out
        at = end
    for _ in range(3):  # serial number, signature, issuer
        _, _, at = element(der, at)
    _, at, _ = element(der, at)  # Validity
    _, _, at = element(der, at)  # notBefore
    tag, start, end = element(der, at)
    text = der[start:end].decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year
        text = ("20" if text[:2] < "50" else "19") + text
    return dt.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC).timestamp()


def element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return an element's tag, where its content starts and where it ends."""
    try:
        tag, size, start = der[at], der[at + 1], at + 2
    except IndexError:
        raise ValueError("a certificate that is cut off") from None
    if size & 0x80:
        digits = size & 0x7F
        size, start = int.from_bytes(der[start : start + digits], "big"), start + digits
    if start + size > len(der):
        raise ValueError("a certificate that is cut off")
    return tag, start, start + size
