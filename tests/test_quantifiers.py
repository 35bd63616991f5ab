"""The watchman is watched: quantifiers.py finds what is slow and leaves alone what is not."""

from __future__ import annotations

import re

import pytest

from tests.quantifiers import anchored, dangers

SLOW = [
    r"(?:a+)+",
    r"(?:a+b)*",
    r"(?:a|b*)*",
    r"(?:x(?:y+)?)+",
    r"a*a*",
    r"a+?a+",
    r"\w+[a-f]+",
    r".*x?.*",
    r"(\S+)(?: )?(\S*)",
    r"(?:a*|b)(?:c|a*)",
    r"[^,]*[^:]*",
    r"(?i)a+A+",
    r"(?:\s*x\s*){2}",
    r"a+(?>a+)",
    r"a+a++",
    r"(?=a*a*)b",
    r"\d+(?:ab)*\w+",
    r"[à-ÿ]+é+",
]
SOUND = [
    r"\A[^ ]+ [^ ]+\Z",
    r"\A\d+[a-z]+\Z",
    r"\A(?:a++b)*\Z",
    r"\A(?:a+b)*+\Z",
    r"\A(?>a+)a*\Z",
    r"\Aa++\w+\Z",
    r"\A(?:a{1,9})*\Z",
    r"\A<([^<>]*)>(?:, ([^,]+))?(?:, (\S+))?\Z",
    r"\A\s*\S+\s*\Z",
    r"\A(?:a|b)\Z",
    r"\A\n*.*\Z",
]


@pytest.mark.parametrize("text", SLOW)
def test_a_slow_pattern_is_found(text):
    assert dangers(re.compile(text))


@pytest.mark.parametrize("text", SOUND)
def test_a_sound_pattern_is_left_alone(text):
    assert not dangers(re.compile(text))


@pytest.mark.parametrize("text", [r"\Aab\Z", r"(?i)\A(?:a|b)\Z", "(?x) \\A a \\Z\n"])
def test_a_pattern_closed_at_both_ends_is_seen(text):
    assert anchored(re.compile(text))


@pytest.mark.parametrize("text", ["ab", r"\Aab", r"ab\Z", r"\Aa|b\Z", r"\Aa\Z|b", r"^a$", ""])
def test_a_pattern_open_at_one_end_is_seen(text):
    assert not anchored(re.compile(text))
