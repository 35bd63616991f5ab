"""One stack for all tests: bringing it up takes a minute, building its images some more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mail import ALICE, BOB
from tests.e2e.stack import Stack, running
from tests.system.netns import requires_namespaces


@pytest.fixture(scope="session")
def passwords(stack: Stack) -> dict[str, str]:
    """Return the passwords of two users by address."""
    kept = stack.folder / "bob"  # where the stack is an earlier run's, so is Bob
    if not kept.exists():
        kept.write_text(stack.setup("mailbox", "add", BOB, "--name", "Bob").split()[-1])
    return {ALICE: stack.setup("password", "first").strip(), BOB: kept.read_text()}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    requires_namespaces()
    folder = Path(os.environ.get("MAILWARD_TEST_ARTIFACTS") or tmp_path_factory.mktemp("stack"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # pytest makes it root's alone; services that are nobody read what lies in it
    with running(folder) as up:
        yield up
