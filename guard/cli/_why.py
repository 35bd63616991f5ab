"""Why a line counts or not, in a sentence each: by witness where that says more, else by kind."""

from __future__ import annotations

from typing import Final

from guard.model import (
    ABUSE,
    CANCELLED,
    CONNECT,
    DISCONNECT,
    FAILURE,
    OUTAGE,
    REFUSED,
    SUCCESS,
    SUMMARY,
    UNJUDGED,
    AuthEvent,
)

# yes: it counts by itself; maybe: together with other lines; no: never.
YES: Final = "yes"
MAYBE: Final = "maybe"
NO: Final = "no"

_WITNESSES: Final = {
    "auth": (YES, "one password database said no to one attempt; a chain of databases, or Postfix's own line, makes it no second one"),
    "anonymous": (MAYBE, "somebody failed and the line names no client: it counts for the session whose end line leaves one attempt unexplained"),
    "illegal_chars": (MAYBE, "a user name with characters that Dovecot does not allow; it counts for the session whose end line leaves one attempt unexplained"),
    "authenticate": (NO, "one exchange of the session was cancelled or refused: it explains one of the N attempts of the session's end line"),
    "error": (NO, "the password database is at fault, not the client"),
    "socket": (NO, "Postfix could not reach Dovecot: the 535 that follows from this process is not the client's fault"),
    "sasl": (YES, "Postfix answered one attempt with 535; Dovecot's line about the same attempt makes it no second one"),
    "unavailable": (MAYBE, "it counts unless the same process could not reach Dovecot just before"),
    "unanswered": (MAYBE, "the answer was lost, mostly a guess that came during Dovecot's penalty delay: it counts for a client with a confirmed failure in the last 15 minutes, else it is unjudged"),
    "page": (MAYBE, "SOGo's record of a failed login: it counts when the same worker's access line (403) names the same address"),
    "dav": (MAYBE, "SOGo's record of a failed DAV login: it counts when the same worker's access line (401) names an address"),
    "broken": (MAYBE, "a record of SOGo without its end: what follows is not believed until this worker's access line"),
    "dav_broken": (MAYBE, "a record of SOGo without its end: what follows is not believed until this worker's access line"),
    "access": (MAYBE, "SOGo's access line: it confirms the record of the same worker before it"),
    "access_refused": (MAYBE, "SOGo's access line of a refused request: it counts with the record of the same worker before it"),
    "ui": (YES, "a failed login of mailcow's web interface"),
    "client": (NO, "a message of a client that has logged in"),
    "lost": (NO, "the connection ended without an answer"),
    "postscreen": (NO, "nobody offered credentials: postscreen turned the client away before"),
}  # fmt: skip
_KINDS: Final = {
    FAILURE: (YES, "one attempt was rejected"),
    SUCCESS: (
        NO,
        "a login went through; failures of the same exchange in a chain of databases are taken back",
    ),
    SUMMARY: (MAYBE, "a session's end: of its N attempts those count that no line before has shown"),
    CONNECT: (NO, "a connection begins"),
    DISCONNECT: (NO, "a connection ends, without attempts that were judged"),
    REFUSED: (NO, "nothing was judged: no TLS, an unknown mechanism, or a malformed exchange"),
    CANCELLED: (NO, "the client cancelled the exchange before it was judged"),
    UNJUDGED: (NO, "the answer was lost before anybody judged"),
    OUTAGE: (NO, "the password database is at fault, not the client"),
    ABUSE: (NO, "not an attempt to log in"),
}


def why(event: AuthEvent) -> tuple[str, str]:
    """Return whether such a line counts (yes, maybe, no) and why."""
    if event.kind in {REFUSED, CANCELLED, ABUSE, SUCCESS} and not event.witness.endswith("broken"):
        return _KINDS[event.kind]
    return _WITNESSES.get(event.witness) or _KINDS[event.kind]


def why_not(parser: str, unparsed: bool) -> tuple[str, str]:
    """Return the same for a line that says nothing to us."""
    if unparsed:
        return NO, f"it looks like a failed login, and {parser} could not read it: please report this line"
    if parser:
        return NO, f"{parser} looked at it: it says nothing of a login"
    return NO, "nothing in it speaks of a login, or its program is none that we read"
