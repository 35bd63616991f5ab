"""Dovecot's auth lines: every passdb and mechanism, version, transport, password suffix, with and without session."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.parsers.samples import meaning

PASSDBS = "passwd-file sql ldap pam lua passwd shadow bsdauth imap oauth2 static checkpassword".split()
MECHANISMS = "plain login cram-md5 digest-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer".split()
CLIENTS = {
    "198.51.100.28": "zk4L4/RgiaHGM2Qc",
    "2001:db8:0:7:f816:3eff:fe07:31": "xmIe6vRgHYUgAQ24AAAAB/gWPv/+BwAx",
}
PASSWORDS = [
    "",
    " ",  # auth_verbose_passwords with an empty password
    " (SHA1 of given password: 155b8295998fb5d13ea24146880e68249d84ae02)",
    " (SHA1 of given password: c9cc51)",
    " (given password: hunter2)",
    " (given password: )",
    " (given password: x) (given password: y)",
]
SAID = {
    "Password mismatch": "password_mismatch",
    "password mismatch": "password_mismatch",
    "unknown user": "unknown_user",
    "invalid credentials": "password_mismatch",
}
HEADS_23 = ["auth: ", "auth-worker(405): conn unix:auth-worker (pid=397,uid=101): auth-worker<1>: "]
TRANSPORTS = [
    ("Nov 23 17:31:14 mx dovecot: ", ""),
    ("2026-11-23T17:31:14.084075+00:00 mx dovecot: ", ""),
    ("<22>1 2026-11-23T17:31:14.084075+00:00 mx dovecot - - -  ", ""),
    ("Nov 23 17:31:14 ", "Info: "),  # log_path
    ("", ""),
]


def lines(version: str, name: str, said: str, password: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield (line, address, session or None) for each transport, head, client, with and without session."""
    for (before, level), (ip, session) in itertools.product(TRANSPORTS, CLIENTS.items()):
        for id_ in (session, None):
            if version == "2.3":
                inside = f",<{id_}>" if id_ else ""
                for head in HEADS_23:
                    daemon, rest = head.split(": ", 1)
                    yield (
                        f"{before}{daemon}: {level}{rest}{name}(alice@example.org,{ip}{inside}): {said}{password}",
                        ip,
                        id_,
                    )
            else:
                tail = f"<{id_}>" if id_ else ""
                yield (
                    f"{before}auth(alice@example.org,{ip},sasl:plain){tail}: {level}{name}: {said}{password}",
                    ip,
                    id_,
                )
                yield (
                    f"{before}auth-worker(alice@example.org,{ip})<310>{tail}: request [5]: {level}{name}: {said}{password}",
                    ip,
                    id_,
                )


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("name", PASSDBS + MECHANISMS)
@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_every_shape_of_the_line_gives_the_same_event(version, name, said):
    for password in PASSWORDS:
        for line, ip, session in lines(version, name, said, password):
            found = meaning(line, "dovecot_auth")
            assert found is not None, line
            want = {
                "kind": "failure",
                "witness": "auth",
                "ip": ip,
                "user": "alice@example.org",
                "session": session,
                "reason": SAID[said],
                "source": name,
                "password": "*" if password.strip() else None,
            }
            assert {key: found[key] for key in want} == want, line
