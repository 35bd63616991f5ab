"""Mail as its users send and read it."""

from __future__ import annotations

import imaplib
import smtplib
import time
import uuid
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Final

from tests.e2e.guessers import untrusting
from tests.e2e.stack import DOMAIN, HERE4

ALICE: Final = f"alice@{DOMAIN}"
BOB: Final = f"bob@{DOMAIN}"


def message(text: str, *, subject: str = "", attached: tuple[str, bytes] | None = None) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = ALICE, BOB, subject or f"e2e {uuid.uuid4().hex}"
    made["Date"], made["Message-ID"] = formatdate(), f"<{uuid.uuid4()}@{DOMAIN}>"
    made.set_content(text)
    if attached:
        made.add_attachment(attached[1], maintype="application", subtype="octet-stream", filename=attached[0])
    return made


def submit(password: str, mail: EmailMessage) -> None:
    with smtplib.SMTP(HERE4, 587, timeout=120) as server:
        server.starttls(context=untrusting())
        server.login(ALICE, password)
        server.send_message(mail)


def found(password: str, folder: str, *criteria: str, patience: float = 90.0) -> bytes:
    """Return the one message in Bob's folder that meets the criteria, waiting until it is there."""
    deadline = time.monotonic() + patience
    while True:
        with imaplib.IMAP4_SSL(HERE4, 993, ssl_context=untrusting()) as box:
            box.login(BOB, password)
            if box.select(folder)[0] == "OK":
                numbers = box.search(None, *criteria[:-1], f'"{criteria[-1]}"')[1][0].split()
                if numbers:
                    assert len(numbers) == 1
                    return box.fetch(numbers[0].decode(), "(RFC822)")[1][0][1]  # type: ignore[index,return-value]
        assert time.monotonic() < deadline, f"nothing in {folder} meets {criteria}"
        time.sleep(0.5)


def until(what: Callable[[], Any], patience: float = 120.0) -> Any:
    deadline = time.monotonic() + patience
    while not (got := what()):
        assert time.monotonic() < deadline, what
        time.sleep(1)
    return got
