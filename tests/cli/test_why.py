"""Every witness that a parser can bring has its sentence."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from guard.cli._why import MAYBE, NO, YES, why, why_not
from guard.model import FAILURE, KINDS, REFUSED, AuthEvent, Record

PARSERS = sorted((Path(__file__).parent.parent.parent / "guard/parsers").glob("[a-z]*.py"))


def event(kind: str, witness: str) -> AuthEvent:
    return AuthEvent(Record(0.0, "", "", "", ""), "postfix", kind, witness)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_sentence(kind):
    counts, text = why(event(kind, "a witness of tomorrow"))
    assert counts in {YES, MAYBE, NO}
    assert text


@pytest.mark.parametrize("path", PARSERS, ids=lambda path: path.stem)
def test_what_is_refused_never_counts(path):
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "AuthEvent" and len(node.args) > 3
    ]
    for call in calls:
        kind, witness = call.args[2], call.args[3]
        if ast.unparse(kind) == "REFUSED" and isinstance(witness, ast.Constant):
            counts, _ = why(event(REFUSED, str(witness.value)))
            assert counts == (MAYBE if str(witness.value).endswith("broken") else NO)


def test_a_failure_without_a_client_may_count():
    assert why(event(FAILURE, "anonymous"))[0] == MAYBE


def test_a_line_that_nobody_could_read_is_asked_for():
    assert "report" in why_not("dovecot_auth", unparsed=True)[1]
