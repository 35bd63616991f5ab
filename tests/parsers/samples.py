"""The lines of fixtures/parsers: what each one means to its parser."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from guard import model
from guard.clock import Clock
from guard.envelope import Envelope
from guard.model import AuthEvent, Record
from guard.reader import NAMES, Reader, describe
from guard.stats import Stats

ROOT = Path(__file__).parent.parent.parent
FIXTURES = sorted((ROOT / "fixtures/parsers").glob("*.txt"))
# Parsers of mail have `read`, which fills a MailEvent; those of logins have `parse`.
MODULES = {
    path.stem: importlib.import_module(f"guard.parsers.{path.stem}")
    for path in sorted((ROOT / "guard/parsers").glob("[!_]*.py"))
}
PARSERS = [name for name, module in MODULES.items() if hasattr(module, "parse")]
MAIL_PARSERS = [name for name, module in MODULES.items() if hasattr(module, "read")]
REPORTS = "auth_policy"  # the parser that no line of a log leads to
NOW = 1_800_000_000.0  # 2027: the fixtures' stamps have no year


class Sample(NamedTuple):
    """One line of a fixture; `means` is None where the file says null."""

    parser: str
    number: int
    line: str
    means: dict[str, Any] | None


def read(path: Path) -> list[Sample]:
    """Return the samples of one fixture; ValueError where the file is not in its own form."""
    found = []
    line = ""
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if text.startswith("=> "):
            if not line:
                raise ValueError(f"{path.name}:{number}: an answer without a line")
            found.append(Sample(path.stem, number - 1, line, json.loads(text[3:])))
            line = ""
        elif line:
            raise ValueError(f"{path.name}:{number}: a line without an answer")
        elif text and not text.startswith("#"):
            line = text
    return found


EVERY = [sample for path in FIXTURES for sample in read(path)]
SAMPLES = [sample for sample in EVERY if sample.parser in PARSERS]
MAIL_SAMPLES = [sample for sample in EVERY if sample.parser in MAIL_PARSERS]


def reader() -> Reader:
    """Return a reader that takes the fixtures' stamps as of 2026."""
    return Reader(Clock(year=2026, now=NOW), Stats())


def record_of(line: str, parser: str = "") -> Record:
    """Return a line without its transport, whatever program wrote it; a report has a time alone before it."""
    if parser == REPORTS:
        return Record(0.0, "", "", "", line.partition(" ")[2])
    envelope = Envelope()
    envelope.open(line)
    return envelope.record(0.0)


def meaning(line: str, parser: str) -> dict[str, Any] | None:
    """Return what the reader takes from a line if it gave it to `parser`, with all that a fixture may ask for."""
    opened = reader()
    event = opened.report(line, -1.0) if parser == REPORTS else opened.read(line, -1.0)
    if event is None or NAMES[opened.parser] != parser:
        return None
    return values_of(event)


def values_of(event: AuthEvent) -> dict[str, Any]:
    """Return an event as `mailward parse` shows it, with its witness; any password is `*`."""
    values = {**describe(event, b"key"), "witness": event.witness, "source": event.source}
    if values["password"] is not None:
        values["password"] = "*"
    return values


def mail_meaning(line: str, parser: str) -> dict[str, Any] | None:
    """Return what a parser of mail takes from the text of a line, in words."""
    envelope = Envelope()
    envelope.open(line)
    text, event = envelope.text, model.MailEvent()
    for padding in ("", "x\n"):  # the line stands in a chunk of many
        start = envelope.start + len(padding)
        if not MODULES[parser].read(
            padding + text + padding, start, start + len(text) - envelope.start, event
        ):
            return None
    whole = padding + text + padding
    values: dict[str, Any] = {"kind": _KINDS[event.kind]}
    if event.kind in {model.TAKEN, model.QUEUED, model.DELIVERY, model.REMOVED}:
        values["id"] = whole[event.id_at : event.id_end]
    if event.kind in _LABELS:
        name, labels = _LABELS[event.kind]
        values[name] = labels[event.label]
    if event.kind == model.DELIVERY:
        values["whom"] = whole[event.name_at : event.name_end]
        values["stages"] = [int(micros) / 1e6 for micros in event.stages]
    if event.kind in {model.DELIVERY, model.REQUEST}:
        values["seconds"] = int(event.micros) / 1e6
    if event.kind == model.QUEUED:
        values["count"] = event.count
    if event.kind == model.TLS:
        values["direction"] = ("in", "out")[event.count]
    if event.kind == model.REQUEST:
        values["status"] = event.count
    return values


_KINDS = "taken queued delivery removed rejected tls verdict stored request error".split()
_LABELS = {
    model.TAKEN: ("protocol", model.MAIL_PROTOCOLS),
    model.DELIVERY: ("result", model.RESULTS),
    model.REJECTED: ("class", model.REJECTS),
    model.TLS: ("version", model.TLS_VERSIONS),
    model.VERDICT: ("verdict", model.VERDICTS),
    model.STORED: ("result", model.STORES),
    model.REQUEST: ("protocol", model.WEB),
}


class Watched:
    """A pattern that notes whether it has matched."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.matched = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pattern, name)

    def match(self, text: str, *rest: int) -> re.Match[str] | None:
        """Match as the pattern does."""
        found = self._pattern.match(text, *rest)
        self.matched = self.matched or found is not None
        return found

    search = fullmatch = match  # the parsers' patterns are anchored


def watched(parser: str, monkeypatch: Any) -> tuple[ModuleType, list[Watched]]:
    """Return a copy of a parser's module, made from its source, and all the patterns that it has compiled."""
    patterns: list[Watched] = []
    compile_ = re.compile

    def watching(pattern: str, flags: int = 0) -> Watched:
        patterns.append(Watched(compile_(pattern, flags)))
        return patterns[-1]

    path = ROOT / "guard/parsers" / f"{parser}.py"
    spec = importlib.util.spec_from_file_location(f"watched_{parser}", path)
    assert spec
    assert spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))  # what it imports compiles its own now
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr(re, "compile", watching)
        spec.loader.exec_module(module)
    return module, patterns


def without_sample(parser: str, lines: Iterable[str], monkeypatch: Any) -> list[str]:
    """Return the patterns of a parser that none of the lines matches while the parser reads them."""
    module, patterns = watched(parser, monkeypatch)
    for line in lines:
        module.parse(record_of(line, parser))
    assert patterns
    return [pattern.pattern for pattern in patterns if not pattern.matched]
