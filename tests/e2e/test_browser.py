"""A person with a browser reads mail in the webmail; what was seen stays as pictures."""

from __future__ import annotations

import pytest

from tests.e2e.mail import ALICE, BOB, found, message, submit
from tests.e2e.stack import HOST, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_browser_logs_in_and_reads_the_message(stack: Stack, passwords: dict[str, str]):
    sent = message("Seen through a browser.\n")
    submit(passwords[ALICE], sent)
    found(passwords[BOB], "INBOX", "SUBJECT", sent["Subject"])

    shown = stack.compose(
        "run", "--rm", "-T", "--no-deps", "browser", f"https://{HOST}/SOGo/", BOB, sent["Subject"], "/seen",
        given=passwords[BOB] + "\n",
    )  # fmt: skip

    assert "Seen through a browser." in shown
    for name in ("login", "inbox", "message"):
        assert (stack.folder / f"sogo-{name}.png").stat().st_size > 5000
