"""What the end of a log file says about the guard's chances: its age, its form, its times, what the daemons hide."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from guard.app._diagnosis import OK, PROBLEM, WARNING, Verdict
from guard.app._place import local_zone
from guard.clock import Clock
from guard.envelope import Envelope
from guard.firewall.nets import read_net
from guard.model import AuthEvent
from guard.reader import NAMES, Reader
from guard.stats import Stats

_SAMPLE: Final = 64 << 10
_STALE: Final = 86_400.0
_ZONE: Final = 900.0  # zones differ by quarters of an hour
_FEW: Final = 5  # clients from which "all of them" means something


def sample(name: str, pattern: str, trusted: Sequence[str]) -> Iterator[Verdict]:
    """Judge the files of a source."""
    files = sorted(glob.glob(pattern))  # noqa: PTH207 - an absolute pattern
    if not files:
        yield Verdict(
            PROBLEM, f"{name}: nothing matches {pattern}", "correct source.path, or start the log daemon"
        )
    for file in files:
        try:
            with Path(file).open("rb") as log:
                facts = os.fstat(log.fileno())
                log.seek(max(0, facts.st_size - _SAMPLE))
                data = log.read(_SAMPLE)
        except OSError as error:
            yield Verdict(
                WARNING if isinstance(error, PermissionError) and os.geteuid() else PROBLEM,
                f"{name}: {file}: {error.strerror}",
                "let the user that runs mailward read it (group adm), and look again as that user",
            )
            continue
        lines = data.decode("utf-8", "surrogateescape").splitlines()
        if facts.st_size > _SAMPLE:
            lines = lines[1:]  # its beginning is cut
        yield from _judged(f"{name}: {file}", lines, facts.st_mtime, trusted)


def _judged(place: str, lines: Sequence[str], written: float, trusted: Sequence[str]) -> Iterator[Verdict]:
    now = time.time()
    verdicts: list[Verdict] = []
    if not lines:
        yield Verdict(WARNING, f"{place}: it is empty", "see that the daemons log there")
        return
    if now - written > _STALE:
        days = int((now - written) / 86_400)
        verdicts.append(
            Verdict(WARNING, f"{place}: nothing was written for {days} days", "see that daemons log there")
        )
    clock = Clock(zone=local_zone(), now=now, live=True)
    envelope, reader = Envelope(), Reader(clock, Stats())
    events: list[tuple[str, AuthEvent]] = []
    unparsed, newest = 0, -1.0
    for line in lines:
        envelope.open(line)
        newest = max(newest, clock.read(envelope.stamp) if envelope.stamp else envelope.at)
        event = reader.read(line, -1.0)
        unparsed += reader.unparsed
        if event is not None:
            events.append((NAMES[reader.parser], event))
    if not reader.stamped:
        verdicts.append(
            Verdict(PROBLEM, f"{place}: no line has a form that we read", "see docs/sources.md for the forms")
        )
    elif abs(newest - written) > _ZONE:
        hours = (newest - written) / 3600
        verdicts.append(
            Verdict(
                PROBLEM,
                f"{place}: its newest time is {hours:+.1f} h from when it was written",
                "set TZ for mailward as the log daemon has it, or log with a zone",
            )
        )
    if unparsed:
        verdicts.append(
            Verdict(
                PROBLEM,
                f"{place}: {unparsed} lines look like failed logins and cannot be read",
                "mailward parse --unparsed, and report them",
            )
        )
    verdicts += _hidden(place, events, trusted)
    yield from verdicts or [
        Verdict(OK, f"{place}: {len(events)} of its last {len(lines)} lines speak of logins")
    ]


def _hidden(place: str, events: Sequence[tuple[str, AuthEvent]], trusted: Sequence[str]) -> Iterator[Verdict]:
    """Say which settings hide attempts or clients, as far as the lines show it."""
    ends = [e for name, e in events if name == "dovecot_login" and e.kind == "summary"]
    if ends and not any(name == "dovecot_auth" for name, _ in events):
        yield Verdict(
            WARNING,
            f"{place}: Dovecot tells of failures only when a session ends",
            "set auth_verbose = yes in Dovecot",
        )
    if ends and all(e.session is None for e in ends):
        yield Verdict(
            WARNING,
            f"{place}: Dovecot's lines have no session id",
            "leave session=<%{session}> in login_log_format_elements",
        )
    clients = [e.ip for _, e in events if e.ip]
    if len(clients) < _FEW:
        return
    nets = [read_net(net) for net in trusted]
    inside = all(
        any(net.family == one.family and net.first <= one.first and one.last <= net.last for net in nets)
        for one in map(read_net, set(clients))
    )
    if inside:
        yield Verdict(
            PROBLEM,
            f"{place}: every client has an address of your own: something in front hides the real ones",
            "let the proxy tell clients' addresses (PROXY protocol: haproxy_trusted_networks in Dovecot, postscreen_upstream_proxy_protocol in Postfix)",
        )
