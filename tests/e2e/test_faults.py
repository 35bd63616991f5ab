"""Services fail and come back: no mail is lost, and nobody is banned for it."""

from __future__ import annotations

import contextlib
import imaplib
import smtplib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.guessers import ActiveSync, CalDav, Guesser, Imap, Pop3, Submission, Web, untrusting
from tests.e2e.mail import ALICE, BOB, message, submit, until
from tests.e2e.stack import DOMAIN, HERE4, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

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
WELCOME: dict[type[Guesser], bytes] = {
    Imap: b" OK ",
    Pop3: b"+OK",
    Submission: b"235",
    Web: b"200",
    CalDav: b"207",
    ActiveSync: b"500",  # past the password: there is nothing in the request to synchronize
}
KINDS = tuple(WELCOME)


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
            if box.select(folder, readonly=True)[1] == [b"0"]:
                continue
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
    stack.compose(
        "exec", "-T", "postfix", "postqueue", "-f"
    )  # what waits for its next try, up to five minutes
    until(lambda: set(flow.sent) <= subjects(passwords[BOB]), 300)
    assert {ban["net"] for ban in stack.guard("bans")["bans"]} == before


def test_while_the_database_is_away_users_retry_and_nobody_is_banned(stack: Stack):
    """Twenty people, each with an account and an address, in every protocol, their passwords right."""
    before = {ban["net"] for ban in stack.guard("bans")["bans"]}
    users = [(f"user{n}@{DOMAIN}", f"198.51.100.{100 + n}", KINDS[n % len(KINDS)]) for n in range(USERS)]
    with ThreadPoolExecutor(5) as pool:
        made = pool.map(lambda user: stack.setup("mailbox", "add", user[0]).split()[-1], users)
        passwords = dict(zip([user[0] for user in users], made, strict=True))
    over = threading.Event()
    answers: list[tuple[type[Guesser], bytes]] = []

    def retry(user: str, client: str, kind: type[Guesser]) -> None:
        with stack.internet.entered():
            while not over.is_set():
                try:
                    with contextlib.closing(kind(HERE4, client)) as session:
                        answers.append((kind, session.guess(user, passwords[user])))
                except OSError as error:
                    answers.append((kind, repr(error).encode()))
                over.wait(2)

    def served() -> set[type[Guesser]]:
        return {kind for kind, answer in answers[-3 * USERS :] if WELCOME[kind] in answer}

    stack.compose("exec", "-T", "dovecot", "doveadm", "auth", "cache", "flush")
    stack.compose("stop", "mariadb")
    threads = [threading.Thread(target=retry, args=user, daemon=True) for user in users]
    try:
        for thread in threads:
            thread.start()
        time.sleep(60)
    finally:
        stack.compose("start", "mariadb")
        stack.settle()
        with contextlib.suppress(AssertionError):
            until(lambda: served() == set(KINDS), 120)
        over.set()
        for thread in threads:
            thread.join(60)
    (stack.folder / "database-away.txt").write_text("\n".join(f"{k.__name__} {a!r}" for k, a in answers))
    assert {ban["net"] for ban in stack.guard("bans")["bans"]} - before == set()
    refused = {kind for kind, answer in answers if WELCOME[kind] not in answer}
    assert refused >= {Imap, Pop3, Submission}, "hardly anybody noticed that the database was away"
    assert served() == set(KINDS), "not everybody is served again"
