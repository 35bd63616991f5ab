"""Every parser does to its samples what fixtures/parsers says; nothing of a parser is without a sample."""

from __future__ import annotations

import pytest

from tests.parsers.samples import (
    EVERY,
    FIXTURES,
    MAIL_PARSERS,
    MAIL_SAMPLES,
    MODULES,
    PARSERS,
    REPORTS,
    SAMPLES,
    Sample,
    mail_meaning,
    meaning,
    read,
    reader,
    record_of,
    without_sample,
)

BYSTANDERS = ("192.0.2.254", "203.0.113.254")  # named in what attackers send, never clients of the captures


def place(sample: Sample) -> str:
    return f"{sample.parser}:{sample.number}"


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.means is not None], ids=place)
def test_a_line_means_what_its_fixture_says(sample):
    assert sample.means is not None
    found = meaning(sample.line, sample.parser)
    assert found is not None, sample.line
    assert {key: found[key] for key in sample.means} == sample.means


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.means is None], ids=place)
def test_a_foreign_line_is_left_alone(sample):
    assert meaning(sample.line, sample.parser) is None, sample.line


@pytest.mark.parametrize("sample", SAMPLES, ids=place)
def test_no_line_is_answered_by_two_parsers(sample):
    answers = [name for name in PARSERS if MODULES[name].parse(record_of(sample.line, name)) is not None]
    assert len(answers) <= 1, f"{answers} read {sample.line}"


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.parser == REPORTS], ids=place)
def test_a_line_of_a_log_is_no_report(sample):
    opened = reader()
    for line in (sample.line, sample.line.partition(" ")[2], f"Nov 25 18:18:33 mx dovecot: {sample.line}"):
        event = opened.read(line, -1.0)
        assert event is None or event.witness == "auth", line


@pytest.mark.parametrize("parser", PARSERS)
def test_every_pattern_has_a_sample(parser, monkeypatch):
    lines = [sample.line for sample in SAMPLES if sample.parser == parser and sample.means is not None]
    lines += [
        sample.line for sample in SAMPLES if sample.parser == parser and "trying the next" in sample.line
    ]
    assert without_sample(parser, lines, monkeypatch) == []


@pytest.mark.parametrize("parser", PARSERS)
def test_a_pattern_without_a_sample_is_found(parser, monkeypatch):
    assert without_sample(parser, [], monkeypatch)


@pytest.mark.parametrize("parser", PARSERS)
def test_every_parser_has_foreign_lines_and_forged_addresses(parser):
    own = [sample for sample in SAMPLES if sample.parser == parser]
    assert [s for s in own if s.means is None], "no line that is not its own"
    assert [s for s in own if s.means and any(name in s.line for name in BYSTANDERS)], "no forged address"


def test_a_bystander_is_named_only_by_the_line_that_lives_in_sogos_quarantine():
    blamed = [s for s in SAMPLES if s.means and s.means.get("ip") in BYSTANDERS]
    assert [(s.parser, s.line[:26]) for s in blamed] == [("sogo", "Nov 23 12:00:00 sogod [99]")]


@pytest.mark.parametrize(
    "text",
    ["=> null\n", "a line\nanother line\n=> null\n", "a line\n\n=> null\n", "a line\n=> nothing\n"],
)
def test_a_fixture_that_is_not_in_its_own_form_is_refused(text, tmp_path):
    path = tmp_path / "dovecot_auth.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r".+"):
        read(path)


def test_fixtures_are_found_by_their_folder():
    found = {sample.parser for sample in EVERY}
    assert {path.stem for path in FIXTURES} == found == set(MODULES) == set(PARSERS) | set(MAIL_PARSERS)


@pytest.mark.parametrize("sample", MAIL_SAMPLES, ids=place)
def test_a_line_of_mail_means_what_its_fixture_says(sample):
    found = mail_meaning(sample.line, sample.parser)
    if sample.means is None:
        assert found is None, sample.line
    else:
        assert found is not None, sample.line
        assert {key: found[key] for key in sample.means} == sample.means


@pytest.mark.parametrize("sample", EVERY, ids=place)
def test_no_line_of_mail_is_answered_by_two_parsers(sample):
    answers = [name for name in MAIL_PARSERS if mail_meaning(sample.line, name) is not None]
    assert answers == ([sample.parser] if sample in MAIL_SAMPLES and sample.means else answers[:1]), (
        sample.line
    )


@pytest.mark.parametrize("sample", EVERY, ids=place)
def test_a_line_cut_anywhere_raises_nothing(sample):
    for end in range(0, len(sample.line), 3):
        for name in MAIL_PARSERS:
            mail_meaning(sample.line[:end], name)


@pytest.mark.parametrize("parser", MAIL_PARSERS)
def test_every_parser_of_mail_has_foreign_and_forged_lines(parser):
    own = [sample for sample in MAIL_SAMPLES if sample.parser == parser]
    assert [s for s in own if s.means is None], "no line that is not its own"
    assert [s for s in own if "evil.example" in s.line], "no forged line"
