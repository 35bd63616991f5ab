"""Somebody guesses in one open session: banned at the fifth guess, in every protocol, and nobody else with him."""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.e2e.guessers import (
    COUNTED,
    REFUSALS,
    ActiveSync,
    CalDav,
    Guesser,
    Imap,
    Pop3,
    Sieve,
    Submission,
    Web,
)
from tests.e2e.stack import DOMAIN, HERE4, HERE6, PUBLIC, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first one builds every image

NEEDED = 5
ATTACKERS: dict[str, type[Guesser]] = {
    "198.51.100.71": Imap,
    "198.51.100.72": Pop3,
    "198.51.100.73": Sieve,
    "198.51.100.74": Submission,
    "198.51.100.75": Web,
    "198.51.100.76": CalDav,
    "198.51.100.77": ActiveSync,
    "2001:db8:e2e:1::7": Imap,
    "2001:db8:e2e:2::7": Pop3,
    "2001:db8:e2e:3::7": Sieve,
    "2001:db8:e2e:4::7": Submission,
    "2001:db8:e2e:5::7": Web,
    "2001:db8:e2e:6::7": CalDav,
    "2001:db8:e2e:7::7": ActiveSync,
}
INNOCENT = ("198.51.100.88", "2001:db8:e2e:9::7")


class Seen(NamedTuple):
    """What an attacker got to see."""

    answers: list[bytes]
    banned: float  # seconds from the last answer until the open connection was dead
    sixth: bool  # one guess more was answered
    open_ports: list[int]  # after that
    ssh: bool


def here(client: str) -> str:
    return HERE6 if ":" in client else HERE4


def reaches(client: str, port: int, patience: float = 2.0) -> bool:
    try:
        socket.create_connection((here(client), port), patience, source_address=(client, 0)).close()
    except OSError:
        return False
    return True


def attack(stack: Stack, client: str, kind: type[Guesser]) -> Seen:
    """Guess until the connection is dead; then look what is left."""
    with stack.internet.entered(), contextlib.closing(kind(here(client), client)) as session:
        answers = [session.guess(f"nobody{n}@{DOMAIN}", f"wrong-password-{n}") for n in range(NEEDED)]
        began = time.monotonic()
        while session.answers():
            assert time.monotonic() - began < 30, f"{kind.__name__} from {client}: not banned after {answers}"
        took = time.monotonic() - began
        sixth = not session.unanswered()
        ports = [port for port in PUBLIC if reaches(client, port)]
        return Seen(answers, took, sixth, ports, reaches(client, 22))


def logs_in(stack: Stack, client: str, password: str) -> bool:
    with stack.internet.entered(), contextlib.closing(Imap(here(client), client)) as session:
        return b" OK " in session.guess(f"alice@{DOMAIN}", password)


@pytest.fixture(scope="module")
def ssh():
    """Something listens on port 22 of this host, as sshd would, where nothing does."""
    with contextlib.ExitStack() as open_:
        for address, family in ((HERE4, socket.AF_INET), (HERE6, socket.AF_INET6)):
            with contextlib.suppress(OSError):
                open_.enter_context(socket.create_server((address, 22), family=family))
        yield


def test_the_fifth_guess_bans_while_the_session_is_open_and_the_count_is_the_guesses(stack: Stack, ssh):
    password = stack.setup("password", "first").strip()
    before = {of: stack.failures(*of) for of in COUNTED.values()}

    with ThreadPoolExecutor(len(ATTACKERS)) as pool:
        seen = dict(
            zip(ATTACKERS, pool.map(lambda c: attack(stack, c, ATTACKERS[c]), ATTACKERS), strict=True)
        )

    for client, what in seen.items():
        kind = ATTACKERS[client]
        assert len(what.answers) == NEEDED, client
        assert all(REFUSALS[kind] in answer for answer in what.answers), (client, what.answers)
        assert not what.sixth, f"{client} ({kind.__name__}) was answered after its ban"
        assert what.open_ports == [], f"{client} ({kind.__name__}) still reaches {what.open_ports}"
        assert what.ssh, f"{client} no longer reaches SSH"
    bans = {ban["net"]: ban for ban in stack.guard("bans")["bans"]}
    for client in ATTACKERS:
        net = f"{client}/32" if ":" not in client else client.removesuffix("7") + "/64"
        assert bans[net]["enforced"], net
        assert bans[net]["failures"] == NEEDED
    expected = dict.fromkeys(COUNTED.values(), 0)
    for kind in ATTACKERS.values():
        expected[COUNTED[kind]] += NEEDED
    assert {of: stack.failures(*of) - before[of] for of in COUNTED.values()} == expected
    for client in INNOCENT:
        assert logs_in(stack, client, password), client
    print({client: round(what.banned, 2) for client, what in seen.items()})
