"""PAM's lines beside those of Dovecot and Postfix: each attempt once, whoever tells of it first."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from guard.clock import Clock
from guard.engine import Engine
from guard.model import Ban, Policy
from tests.daemon import session

IP = "198.51.100.7"
SID = session(IP)
PAM = f"auth[40688]: pam_unix(dovecot:auth): authentication failure; logname= uid=0 euid=0 tty=dovecot ruser=bob rhost={IP}  user=bob"
NOBODY = PAM.replace("  user=bob", " ")
LOGIN = f"dovecot: imap-login: Login: user=<bob>, method=PLAIN, rip={IP}, lip=192.0.2.1, mpid=7, TLS, session=<{SID}>"
AUTH = f"dovecot: auth-worker(7): conn unix:auth-worker (pid=1,uid=2): auth-worker<3>: pam(bob,{IP},<{SID}>): unknown user"
CONNECT = f"postfix/smtpd[9]: connect from unknown[{IP}]"
SASL = f"postfix/smtpd[9]: warning: unknown[{IP}]: SASL LOGIN authentication failed: UGFzc3dvcmQ6"


def end(n: int) -> str:
    why = f"(auth failed, {n} attempts in 20 secs)"
    return f"dovecot: imap-login: Disconnected: Connection closed {why}: user=<bob>, method=PLAIN, rip={IP}, lip=192.0.2.1, TLS, session=<{SID}>"


class Host:
    """An engine that is told a line every `pace` seconds."""

    def __init__(self) -> None:
        self.engine = self._new()
        self.restarted = False
        self.bans: list[str] = []
        self.unbans = 0
        self._at = itertools.count(0, 3)

    def told(self, *texts: str, after: int = 0) -> Host:
        for text in texts:
            at = next(self._at) + after
            line = f"Nov 24 {at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d} mx {text}\n"
            for action in self.engine.feed("log", line.encode()):
                if isinstance(action, Ban):
                    self.bans.append(text)
                else:
                    self.unbans += 1
        return self

    def failures(self) -> dict[str, int]:
        """Return what counts, by protocol; what the metrics say is the same."""
        counted: dict[str, int] = json.loads(self.engine.report_text())["failures"]["by_protocol"]
        if not self.restarted:
            stats = self.engine.stats
            metrics: Counter[str] = Counter()
            for (_, protocol, _), n in stats.auth_failures.values.items():
                metrics[protocol] += n
            for (_, protocol), n in stats.auth_revoked.values.items():
                metrics[protocol] -= n
            assert +metrics == counted
        return counted

    def restart(self) -> None:
        """Go on from what was saved."""
        rows = self.engine.changes()
        self.engine = self._new()
        self.engine.restore([(table, key, value) for table, key, value in rows if value is not None])
        self.restarted = True

    @staticmethod
    def _new() -> Engine:
        return Engine(Policy(), clock=Clock(year=2026, now=1_800_000_000.0), keep=True)


def test_where_nobody_else_tells_of_attempts_pam_does_and_the_fifth_bans():
    host = Host().told(*[PAM] * 5)
    assert host.failures() == {"unknown": 5}
    assert host.bans == [PAM]


def test_whom_pam_does_not_know_another_passdb_may_dovecots_lines_tell():
    assert Host().told(*[NOBODY] * 5).bans == [NOBODY]
    host = Host().told(LOGIN.replace(IP, "198.51.100.8").replace(SID, session("198.51.100.8")), *[NOBODY] * 5)
    assert (host.failures(), host.bans) == ({}, [])
    assert host.told(end(5)).failures() == {"imap": 5}


def test_the_end_of_the_session_adds_nothing_and_lifts_no_ban():
    host = Host().told(*[PAM] * 5, end(5))
    assert host.failures() == {"imap": 5}
    assert (host.bans, host.unbans) == ([PAM], 0)


@pytest.mark.parametrize(("told", "said", "counted"), [(2, 3, 3), (3, 3, 3), (0, 2, 2)])
def test_the_end_of_the_session_adds_what_pam_did_not_tell(told, said, counted):
    assert Host().told(*[PAM] * told, end(said)).failures() == {"imap": counted}


def test_a_login_takes_back_what_its_chain_said_and_pam_is_no_witness_there_any_more():
    host = Host().told(PAM, LOGIN)
    assert host.failures() == {}
    assert host.told(*[PAM] * 9).failures() == {}


def test_a_dovecot_that_logs_attempts_speaks_for_itself():
    host = Host().told(PAM, AUTH, PAM, AUTH, PAM, AUTH, end(3))
    assert host.failures() == {"imap": 3}


@pytest.mark.parametrize("lines", [(CONNECT, PAM, SASL), (PAM, CONNECT, SASL), (CONNECT, SASL, PAM)])
def test_an_attempt_at_smtp_is_postfixs(lines):
    assert Host().told(*lines).failures() == {"smtp": 1}


def test_what_was_told_before_a_session_could_have_begun_is_another_attempt():
    host = Host().told(PAM)
    assert host.told(end(1), after=300).failures() == {"unknown": 1, "imap": 1}


def test_a_restart_between_pams_word_and_dovecots_changes_nothing():
    host = Host().told(PAM, PAM)
    host.restart()
    assert host.told(end(2)).failures() == {"imap": 2}
