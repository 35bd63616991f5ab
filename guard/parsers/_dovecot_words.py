"""What Dovecot's auth process says behind its prefix: why an attempt was refused, or by whom it could not be judged."""

from __future__ import annotations

import re
from typing import Final

# What a refusal says, and its reason.  The password comes last: a hash, or what the client typed.
_GIVEN: Final = r"(?: \((?:SHA1 of given password: ([0-9a-f]{1,40})|given password: (.*))\))?"
REFUSALS: Final = (
    (
        "password_mismatch",
        re.compile(rf"\A[Pp]assword mismatch(?: \(for LDAP bind\))?{_GIVEN} ?\Z", re.ASCII | re.DOTALL),
    ),
    ("unknown_user", re.compile(rf"\A[Uu]nknown user{_GIVEN} ?\Z", re.ASCII | re.DOTALL)),
    ("password_mismatch", re.compile(rf"\A[Ii]nvalid credentials{_GIVEN} ?\Z", re.ASCII | re.DOTALL)),
    (
        "password_mismatch",
        re.compile(
            rf"\Apam_authenticate\(\) failed: Authentication failure \([Pp]assword mismatch\?\){_GIVEN} ?\Z",
            re.ASCII | re.DOTALL,
        ),
    ),
    (
        "unknown_user",
        re.compile(
            # A log that logwatch has gone over says how often.
            rf"\Apam_authenticate\(\) failed: [Uu]ser (?:not known|unknown)[^()]{{0,80}}(?:: [0-9]{{1,4}} Time\(s\))?{_GIVEN} ?\Z",
            re.ASCII | re.DOTALL,
        ),
    ),
    (
        "unspecified",
        re.compile(rf"\Apam_authenticate\(\) failed: [^()]{{0,200}}{_GIVEN} ?\Z", re.ASCII | re.DOTALL),
    ),
    (
        "policy",
        re.compile(
            rf"\A(?:pam_acct_mgmt\(\) failed: [^()]{{0,200}}|Permission denied|[Ll]ogin not allowed[^()]{{0,100}}){_GIVEN} ?\Z",
            re.ASCII | re.DOTALL,
        ),
    ),
    (
        "expired",
        re.compile(
            rf"\A(?:Password|Account|User account) (?:has )?expired{_GIVEN} ?\Z", re.ASCII | re.DOTALL
        ),
    ),
    ("disabled", re.compile(rf"\A[Uu]ser (?:is )?disabled{_GIVEN} ?\Z", re.ASCII | re.DOTALL)),
    (
        "password_mismatch",
        re.compile(
            r"\A(?:oauth2 failed|OAuth2 (?:token )?(?:validation )?failed): [^\n]{0,500}(?:[Ii]ntrospection failed|invalid_token|not active|expired)[^\n]{0,500}\Z",
            re.ASCII,
        ),
    ),
)
# Only of a user "?": the mechanism refuses before any passdb sees the name.
ODD: Final = re.compile(
    rf"\A(?:Username character disallowed by auth_username_chars: 0x[0-9a-f]{{2}} \(username: (.*)\)"
    rf"|(?:Empty username|[Ii]nvalid input|[Mm]issing (?:digest|token|[a-z-]{{1,20}} parameter)|[Uu]sername or token missing|[Mm]alformed [^()]{{0,80}}|[Ii]nvalid (?:response|initial|gs2-header)[^()]{{0,80}}){_GIVEN}) ?\Z",
    re.ASCII | re.DOTALL,
)
# Nobody judged: no base64, or a policy server said no (ours does of the banned) and why.
UNJUDGED: Final = re.compile(
    r"\A(?:Invalid base64 data in [^()]{0,60} ?|Authentication failure due to policy server refusal(?:: .{1,500})?)\Z",
    re.DOTALL,
)
# mailcow's passwd-verify.lua before it answers "mismatch" for want of an answer.
# The last: a worker that dies over its database, or says that it failed (auth-worker-connection.c).
BACKEND: Final = re.compile(
    r"\A(?:(?:[a-z-]{1,20}: )?(?:HTTP request failed with [^ ]{1,60}|Invalid JSON received[^\n]{0,200}) for user (.{1,200})"
    r"|auth-worker: Aborted [A-Z]{1,10} request for (.{1,200}): (?:Internal auth worker failure|Worker process died [^\n]{1,200}))\Z",
    re.ASCII,
)
