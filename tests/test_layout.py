"""The laws of ARCHITECTURE.md that no linter holds: which files there are, and what the patterns may be."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from hatch_build import core_sources
from tests.quantifiers import anchored, dangers

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted(path for package in ("guard", "exporters") for path in (ROOT / package).rglob("*.py"))
CORE = [ROOT / name for name in core_sources(ROOT)]
PARSERS = [path for path in CORE if path.parent.name == "parsers"]

LONGEST = 330
SAYS_NOTHING = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}
ANCHORED_BY_ITSELF = {"compile", "escape", "Pattern", "Match", "error", *re.RegexFlag.__members__}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def compiled_patterns(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[re.Pattern[str]]:
    """Return every pattern that the module at `path` compiles while it is imported."""
    found = []
    compile_ = re.compile

    def recording(pattern, flags=0):
        found.append(compile_(pattern, flags))
        return found[-1]

    spec = importlib.util.spec_from_file_location(f"layout_{path.stem}", path)
    assert spec
    assert spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))  # what it imports compiles its own now
    with monkeypatch.context() as patch:
        patch.setattr(re, "compile", recording)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return found


def test_every_parser_has_its_fixture_and_every_fixture_its_parser():
    parsers = {path.stem for path in (ROOT / "guard/parsers").glob("[!_]*.py")}
    fixtures = {path.stem for path in (ROOT / "fixtures/parsers").glob("*.txt")}
    assert parsers == fixtures


def test_no_module_is_two_modules():
    long = {name(path): lines for path in MODULES if (lines := len(path.read_bytes().splitlines())) > LONGEST}
    assert not long, f"over {LONGEST} lines"


def test_every_file_is_named_after_what_it_holds():
    folders = [ROOT / folder for folder in ("guard", "exporters", "tests", "benchmarks", "demo")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in {"", ".py"}]
    assert not [name(path) for path in paths if path.stem.strip("_") in SAYS_NOTHING]


@pytest.mark.parametrize("path", PARSERS, ids=name)
def test_every_pattern_of_a_parser_is_anchored_at_both_ends(path, monkeypatch):
    loose = [p.pattern for p in compiled_patterns(path, monkeypatch) if not anchored(p)]
    assert not loose, r"must be \A ... \Z, with alternatives inside a group"


@pytest.mark.parametrize("path", CORE, ids=name)
def test_no_pattern_can_take_more_than_linear_time_at_one_place(path, monkeypatch):
    assert not {p.pattern: found for p in compiled_patterns(path, monkeypatch) if (found := dangers(p))}


@pytest.mark.parametrize("path", CORE, ids=name)
def test_patterns_are_compiled_at_import_where_these_tests_see_them(path):
    tree = ast.parse(path.read_bytes())
    hidden = [
        f"{path.name}:{node.lineno}: re.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "re"
        and node.attr not in ANCHORED_BY_ITSELF
    ]
    late = [
        f"{path.name}:{call.lineno}: re.compile inside {function.name}"
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and not path.name.startswith("_")
        for call in ast.walk(function)
        if isinstance(call, ast.Attribute) and ast.unparse(call) == "re.compile"
    ]
    assert not hidden + late


def test_law_2_holds_for_exactly_what_is_compiled():
    [law] = [
        contract for contract in PROJECT["tool"]["importlinter"]["contracts"] if "Law 2" in contract["name"]
    ]
    core = {"guard/" + path.relative_to(ROOT / "guard").parts[0].removesuffix(".py") for path in CORE}
    assert {module.replace(".", "/") for module in law["source_modules"]} == core


def test_what_builds_the_wheel_is_what_the_lock_pins():
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_pins_by_hash_and_names_no_address(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    known = (r"[a-z][^\s=]*==\S+.* \\\n    --hash=.*", r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", r"    #.*")
    rest = re.sub(rf"^(?:{'|'.join(known)})\n", "", text, flags=re.MULTILINE)
    assert not rest, "a requirement without a hash, or an option"
