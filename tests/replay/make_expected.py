"""Captures with their truth -> fixtures/replay/<capture>/{*.log.xz, expected.json}.  Run by hand, never by a test.

    python tests/replay/make_expected.py [--one-form] CAPTURE_DIR...       # --one-form: mail.log as RFC 3164 only

A capture holds logs and truth.jsonl: one client session a line, with every attempt that its client made and what the
server answered.  For each address the truth is an interval, as tight as the logs' information allows:

lower   credentials answered with "authentication failed" that left a trace with an address
upper   lower, plus wrong credentials that reached the server and were answered otherwise, plus what the logs cannot
        tell from a failure: cancelled or unfinished exchanges in N of Dovecot 2.3 without complete auth lines and, all
        but the last, of a quiet 2.4; a 454 after real failures of that session
"""

from __future__ import annotations

import ipaddress
import json
import lzma
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

REPLAY = Path(__file__).parent.parent.parent / "fixtures/replay"
LOGIN = {"imap", "imaps", "pop3", "pop3s", "sieve"}
MAIL = {"smtp", "smtps", "submission"}
WRONG = {"wrong-password", "unknown-user", "odd", "injection", "empty"}
UNTRUSTED_PROXY = 83  # the port whose nginx sets no address: SOGo logs what the client says
VICTIMS = ["192.0.2.254", "203.0.113.254"]  # named in forged text, never clients
FAILURES = 5  # of the default rule, within 600 s
Session = dict[str, Any]


class Capture:
    """One capture and what its configuration lets its logs tell."""

    def __init__(self, folder: Path, *, one_form: bool) -> None:
        self.folder = folder
        self.name = folder.resolve().name
        stack, _, variant = self.name.partition("-")
        self.old = stack == "bookworm"
        self.quiet = variant in {"default", "injectdef"}
        self.anonymous = self.old and variant in {"mailcow", "cacheworker"}
        # Auth lines come late or name nobody: a ban's moment is not given by the fifth guess.
        self.late = self.quiet or variant == "mailcow" or self.anonymous
        self.silent: set[str] = set()  # kinds of attempt without an auth line that has an address
        if self.anonymous:
            self.silent = {"wrong-password"}
        elif (stack, variant) == ("trixie", "mailcow"):
            self.silent = {"unknown-user", "odd", "injection"}
        self.sessions: list[Session] = [
            json.loads(line) for line in (folder / "truth.jsonl").open(encoding="utf-8")
        ]
        self.broken = self._broken_backend()
        if variant == "filelog":
            self.logs = ["dovecot.log", "postfix.log"]
        else:
            self.logs = ["mail.log", *(["sogo.log"] if variant == "sogo" else [])]
        variants = ["mail.iso.log", "mail.rfc5424.log"]
        self.also = (
            []
            if variant == "sogo"
            else [name for name in variants if not one_form and (folder / name).exists()]
        )

    def _broken_backend(self) -> set[str]:
        """Return the addresses in Dovecot's own errors about its password database."""
        pattern = re.compile(r"auth-worker\(.*Error: .*\(tempfail@example\.org,([0-9a-f.:]+)[,)]")
        pattern_24 = re.compile(r"auth-worker\(tempfail@example\.org,([0-9a-f.:]+)\).*Error: ")
        found = set()
        for log in ("mail.log", "dovecot.log"):
            if (self.folder / log).exists():
                for line in (self.folder / log).open(encoding="utf-8", errors="replace"):
                    match = pattern.search(line) or pattern_24.search(line)
                    if match:
                        found.add(str(ipaddress.ip_address(match[1])))
        return found

    def interval(self, session: Session) -> tuple[int, int]:
        """Return the least and the most failures that one session may count for."""
        attempts, failed = session["attempts"], session["failed"]
        outcomes = [a["outcome"] for a in attempts]
        mail = session["service"] in MAIL
        if session["scenario"] == "tempfail":
            judged = failed if mail and str(ipaddress.ip_address(session["ip"])) not in self.broken else 0
            return judged, judged
        if session["scenario"] == "authlost":
            return 0, len(attempts)
        if session["service"] in LOGIN:
            return self._login(session, failed, outcomes)
        if mail:
            upper = failed
            before = False
            for a in attempts:
                if a["outcome"] == "fail":
                    before = True
                elif (wrong(a, session) and a["outcome"] in {"temp", "unanswered"}) or (
                    before and (a["reply"] or "").startswith("454")
                ):
                    upper += 1
            return failed, upper
        return (0 if session["port"] == UNTRUSTED_PROXY else failed), failed

    def _login(self, session: Session, failed: int, outcomes: list[str]) -> tuple[int, int]:
        attempts = session["attempts"]
        sent = [a["outcome"] for a in attempts if wrong(a, session)]
        upper = (
            failed + sent.count("unanswered") + sent.count("temp") + bool({"closed", "badreq"} & set(sent))
        )
        unfinished = outcomes.count("cancelled") + outcomes.count("notsent")
        if self.old and (self.quiet or self.anonymous):
            upper += unfinished if failed + unfinished > 1 else 0
        elif self.quiet and "cancelled" in outcomes:
            upper += outcomes.count("cancelled") - (outcomes[-1] == "cancelled")
        if not session["ok"]:
            return failed, upper
        told = sum(a["outcome"] == "fail" and a.get("kind") not in self.silent for a in attempts)
        return (0 if self.quiet else told), upper

    def due(self) -> dict[str, list[float]]:
        """Return, for each address that the default rule must ban, the earliest and the latest moment."""
        if self.late:
            return {}
        by_address: dict[str, list[Session]] = defaultdict(list)
        for session in self.sessions:
            by_address[session["ip"]].append(session)
        found = {}
        for ip, sessions in by_address.items():
            own = sessions[0]
            odd = own["scenario"] in {"tempfail", "authlost"} or own["port"] == UNTRUSTED_PROXY
            if len(sessions) != 1 or ":" in ip or odd:
                continue
            answers = {"fail", "temp", "unanswered"}
            tried = [a for a in own["attempts"] if wrong(a, own) and a["outcome"] in answers]
            refused = [a for a in tried if a["outcome"] == "fail"]
            if len(refused) < FAILURES or refused[4]["t_reply"] - refused[0]["t"] > 590:
                continue
            found[ip] = [round(tried[4]["t"] - 1.5, 3), round(refused[4]["t_reply"] + 2, 3)]
        return found

    def expected(self) -> dict[str, Any]:
        """Return the content of expected.json."""
        sources: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        spoofed: dict[str, int] = defaultdict(int)
        for session in self.sessions:
            ip = str(ipaddress.ip_address(session["ip"]))
            low, high = self.interval(session)
            sources[ip][0] += low
            sources[ip][1] += high
            if session["port"] == UNTRUSTED_PROXY and session.get("xff_sent"):
                try:
                    spoofed[str(ipaddress.ip_address(session["xff_sent"]))] += session["failed"]
                except ValueError:
                    continue
        return {
            "year": 2026,
            "logs": self.logs,
            "also": self.also,
            "never": [victim for victim in VICTIMS if victim not in sources and victim not in spoofed],
            "made_up": spoofed,  # addresses that clients of the untrusted proxy honestly get logged under
            "due": self.due(),
            "sources": {ip: (n[0] if n[0] == n[1] else n) for ip, n in sorted(sources.items())},
        }


def wrong(attempt: dict[str, Any], session: Session) -> bool:
    """Whether credentials were sent and wrong (the driver gave the pipelined ones no kind)."""
    return attempt.get("kind") in WRONG or session["scenario"] == "pipelined"


def write(capture: Capture) -> None:
    """Write one case."""
    case = REPLAY / capture.name
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir(parents=True)
    for log in [*capture.logs, *capture.also]:
        packed = lzma.compress((capture.folder / log).read_bytes(), preset=9 | lzma.PRESET_EXTREME)
        (case / f"{log}.xz").write_bytes(packed)
    text = json.dumps(capture.expected(), indent=1)
    text = re.sub(r"\[\s+([^\[\]{}]{0,60}?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    (case / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    paths = [path for path in sys.argv[1:] if path != "--one-form"]
    for path in paths:
        write(Capture(Path(path), one_form=len(paths) < len(sys.argv) - 1))
