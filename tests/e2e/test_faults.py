"""Services fail and come back: no mail is lost, and nobody is banned for it."""

from __future__ import annotations

import contextlib
import imaplib
import smtplib
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.guessers import untrusting
from tests.e2e.mail import ALICE, BOB, message, submit, until
from tests.e2e.stack import HERE4, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RESTARTED = (
    "redis",
    "memcached",
    "unbound",
    "mta-sts",
    "olefy",
    "clamd",
    "rspamd",
    "dovecot",
    "postfix",
    "sogo",
    "nginx",
    "guard",
    "mariadb",
)
USERS = 20


class Flow(threading.Thread):
    """Submits one message after the other, each until it is taken, as a mail program does."""

    def __init__(self, password: str) -> None:
        super().__init__(daemon=True)
        self.sent: list[str] = []
        self._password = password
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            mail = message("under way\n")
            while True:
                try:
                    submit(self._password, mail)
                    break
                except (OSError, smtplib.SMTPException):
                    if self._over.wait(1):
                        return
            self.sent.append(str(mail["Subject"]))
            self._over.wait(0.5)

    def stop(self) -> None:
        self._over.set()
        self.join(180)


@contextlib.contextmanager
def flowing(password: str) -> Iterator[Flow]:
    flow = Flow(password)
    flow.start()
    try:
        yield flow
    finally:
        flow.stop()


def subjects(password: str) -> set[str]:
    with imaplib.IMAP4_SSL(HERE4, 993, ssl_context=untrusting()) as box:
        box.login(BOB, password)
        got: set[str] = set()
        for folder in ("INBOX", "Junk"):
            box.select(folder, readonly=True)
            for part in box.fetch("1:*", "(BODY[HEADER.FIELDS (SUBJECT)])")[1]:
                if isinstance(part, tuple):
                    got.add(part[1].decode().strip().removeprefix("Subject: "))
        return got


def test_every_service_restarts_under_a_mail_flow_and_no_mail_is_lost(
    stack: Stack, passwords: dict[str, str]
):
    before = {ban["net"] for ban in stack.guard("bans")["bans"]}
    with flowing(passwords[ALICE]) as flow:
        for service in RESTARTED:
            stack.compose("restart", "--timeout", "20", service)
            time.sleep(1)
        stack.settle()
        time.sleep(5)
    assert len(flow.sent) > 10
    until(lambda: set(flow.sent) <= subjects(passwords[BOB]), 300)
    assert {ban["net"] for ban in stack.guard("bans")["bans"]} == before


def test_while_the_database_is_away_users_retry_and_nobody_is_banned(stack: Stack, passwords: dict[str, str]):
    before = {ban["net"] for ban in stack.guard("bans")["bans"]}
    addresses = [f"198.51.100.{n}" for n in range(100, 100 + USERS)]
    over = threading.Event()
    answers: list[str] = []

    def retry(client: str) -> None:
        with stack.internet.entered():
            while not over.is_set():
                try:
                    box = imaplib.IMAP4_SSL(HERE4, 993, ssl_context=untrusting(), timeout=30)
                except OSError:
                    over.wait(1)
                    continue
                try:
                    box.login(BOB, passwords[BOB])
                    answers.append("OK")
                    box.logout()
                except (imaplib.IMAP4.error, OSError) as error:
                    answers.append(str(error))
                over.wait(2)

    stack.compose("exec", "-T", "dovecot", "doveadm", "auth", "cache", "flush")
    stack.compose("stop", "mariadb")
    threads = [threading.Thread(target=retry, args=(client,), daemon=True) for client in addresses]
    try:
        for thread in threads:
            thread.start()
        time.sleep(60)
    finally:
        stack.compose("start", "mariadb")
        stack.settle()
        time.sleep(5)
        over.set()
        for thread in threads:
            thread.join(60)
    assert [answer for answer in answers if answer != "OK"], "nobody noticed that the database was away"
    assert {ban["net"] for ban in stack.guard("bans")["bans"]} - before == set()
