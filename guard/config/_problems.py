"""What is wrong with a configuration, in words that say where, and what was expected instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from guard.config._lines import KeyPath

ENVIRONMENT = "environment"
SECRET = ("url", "key")  # keys whose value may hold a password


class Problem(NamedTuple):
    """One mistake.  `line` counts from 1; 0 where there is none (the environment, a missing file)."""

    file: str
    line: int
    key: str
    expected: str

    def __str__(self) -> str:
        """Return it as one line of text."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.expected}" if self.key else f"{place}: {self.expected}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are all its mistakes, file by file, in the order of their lines."""

    def __init__(self, problems: list[Problem]) -> None:
        files = list(dict.fromkeys(problem.file for problem in problems))  # as they were read
        self.problems = sorted(problems, key=lambda p: (p.file == ENVIRONMENT, files.index(p.file), p.line))
        super().__init__("\n".join(map(str, self.problems)))


def key_text(path: KeyPath) -> str:
    """Return a path as one writes it: `source[2].path`, counted from 1."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """Return the line of the key, or of what stands nearest above it; 0 where nothing does."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 0


def real_path(location: tuple[str | int, ...]) -> KeyPath:
    """Return pydantic's location without what is no key: the tags of unions."""
    without = [part for part in location if not (isinstance(part, str) and part.startswith("<"))]
    if len(without) > 2 and without[0] == "source":
        del without[2]  # ("source", 0, "file", "path")
    return tuple(without)


def expectation(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return what was expected in the place of an error, and what was found there."""
    context = error.get("ctx", {})
    path = real_path(error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown(str(path[-1]), _keys(error["loc"][:-1], model))
    if kind == "missing":
        return "expected: the key is required here"
    wanted = {
        "greater_than_equal": f"a number of at least {context.get('ge')}",
        "less_than_equal": f"a number of at most {context.get('le')}",
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "string_type": "a text in quotes",
        "string_too_short": "a text that is not empty",
        "list_type": "a list in brackets",
        "too_short": "at least one element",
        "model_type": "a table",
        "model_attributes_type": "a table",
        "dict_type": "a table",
        "literal_error": f"one of {context.get('expected')}",
        "union_tag_invalid": f"one of {context.get('expected_tags')}",
        "union_tag_not_found": "the key `type`",
        "value_error": str(context.get("error")),
    }.get(kind, error["msg"])
    found = error.get("input")
    if kind == "union_tag_invalid":
        found = context.get("tag")
    if isinstance(found, dict | BaseModel) or (path and path[-1] in SECRET):
        return f"expected {wanted}"
    return f"expected {wanted}; found {repr(found)[:80]}"


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"no such key{hint}; expected one of {', '.join(known)}"


def _keys(location: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """Return the keys of the table at a location, in pydantic's form."""
    here = [model]
    for part in location:
        fields = [
            m.model_fields[part].annotation for m in here if isinstance(part, str) and part in m.model_fields
        ]
        if fields:
            here = [m for field in fields for m in _models(field)]
        elif isinstance(part, str):  # the tag of a union: `type` of a source
            here = [
                m for m in here if "type" in m.model_fields and part in str(m.model_fields["type"].annotation)
            ]
    return sorted({field.alias or name for m in here for name, field in m.model_fields.items()})


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models(inner)]
