"""Which lines can matter, and to which parser: decided by the first characters of the text, before anything is built."""

from __future__ import annotations

import re
from typing import Final

from guard import model

NONE: Final = 0
DOVECOT_AUTH: Final = 1
DOVECOT_LOGIN: Final = 2
POSTFIX_SMTPD: Final = 3
POSTFIX_POSTSCREEN: Final = 4
SOGO: Final = 5
MAILCOW_UI: Final = 6
DOVECOT_PAM: Final = 8  # 7 are the reports of Dovecot's auth policy, which are no lines

_LOGIN: Final = re.compile(r"[a-z0-9]{1,20}-login[:(]", re.ASCII)
_WORKER: Final = re.compile(r"\[[0-9]{1,10}\]: ", re.ASCII)
_POSTFIX: Final = (
    "warning: ",
    "connect from ",
    "disconnect from ",
    "NOQUEUE: ",
    "lost connection after ",
    "timeout after ",
    "too many errors after ",
    "improper command pipelining ",
)
_POSTSCREEN: Final = (
    "CONNECT from [",
    "DISCONNECT [",
    "PREGREET ",
    "NON-SMTP COMMAND ",
    "COMMAND ",
    "HANGUP ",
    "PASS ",
    "BARE ",
    "DNSBL ",
)
_UI: Final = ("mailcow UI: ", "Rspamd UI: ", "Autodiscover: ")


def route(family: int, line: str, start: int, end: int) -> int:
    """Return the parser for the text line[start:end], NONE when it cannot matter."""
    if family == model.SMTPD:
        return POSTFIX_SMTPD if _smtpd(line, start, end) else NONE
    if family == model.DOVECOT:
        return _dovecot(line, start, end)
    if family == model.SOGO:
        return SOGO
    if family == model.POSTSCREEN:
        return POSTFIX_POSTSCREEN
    if family == model.POSTFIX:
        if line.startswith(_POSTSCREEN, start):
            return POSTFIX_POSTSCREEN
        return POSTFIX_SMTPD if _smtpd(line, start, end) else NONE
    return _bare(line, start, end)


def _smtpd(line: str, start: int, end: int) -> bool:
    if line.startswith(_POSTFIX, start):
        return True
    near = min(end, start + 50)
    if line.find(": client=", start, near) > 0:
        return line.find(", sasl_", start, end) > 0
    return line.find(": lost connection after ", start, near) > 0


def _dovecot(line: str, start: int, end: int) -> int:
    if line.startswith(("auth", "dovecot: auth"), start):
        return DOVECOT_PAM if line.startswith("auth: pam_unix(", start) else DOVECOT_AUTH
    if line.find("-login", start, min(end, start + 30)) > 0 and _LOGIN.match(line, start):
        return DOVECOT_LOGIN
    return DOVECOT_PAM if line.startswith("pam_unix(dovecot:", start) else NONE


def _bare(line: str, start: int, end: int) -> int:
    """No head at all: mailcow's channel, or a file that holds messages only."""
    if line.startswith(("auth: ", "auth(", "auth-worker("), start):
        return DOVECOT_AUTH
    if _LOGIN.match(line, start):
        return DOVECOT_LOGIN
    if line.startswith(_UI, start):
        return MAILCOW_UI
    if _WORKER.match(line, start):
        return SOGO
    if line.startswith(_POSTSCREEN, start) and "]" in line[:80]:
        return POSTFIX_POSTSCREEN
    return POSTFIX_SMTPD if _smtpd(line, start, end) else NONE
