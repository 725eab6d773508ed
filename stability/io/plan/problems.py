"""Everything wrong with a plan, gathered into one report."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ...errors import InputError, NotModelledError, PlanError, PlanSyntaxError
from .section import Section
from .source import Key, PlanSource, dotted

_T = TypeVar("_T")
_S = TypeVar("_S", bound=Section)

_NAMED = re.compile(r"(\w+)((?:\[\d+\])*) = ")

_RULES = {
    "greater_than": "> {gt:g}",
    "greater_than_equal": ">= {ge:g}",
    "less_than": "< {lt:g}",
    "less_than_equal": "<= {le:g}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "a text that is not empty",
    "string_type": "a text (put it in quotes)",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
}
"""Rules by pydantic's name of the error that breaks them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    key: Key
    text: str
    syntax: bool


@dataclass(slots=True)
class Problems:
    """Problems of one plan.

    Parameters
    ----------
    source : PlanSource
        The file.
    """

    source: PlanSource
    found: list[Problem] = field(default_factory=list)

    def attempt(self, key: Key, build: Callable[[], _T]) -> _T | None:
        """What `build` returns, or None after noting the error it raised as a problem of the value at `key`."""
        try:
            return build()
        except (InputError, NotModelledError) as error:
            self.note(key, str(error))
            return None

    def note(self, key: Key, text: str) -> None:
        """A value that fits the schema but makes no sense."""
        self.found.append(Problem(key, text, syntax=False))

    def fit(self, model: type[_S], key: Key) -> _S | None:
        """The value at `key` as a section, or None after noting every way in which it does not fit."""
        try:
            return model.model_validate(self.source.at(key))
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                where = (*key, *detail["loc"])
                self.found.append(Problem(where, self._sentence(model, detail, where), syntax=True))
            return None

    def report(self) -> None:
        """Raise all problems at once, if there are any, in the order of the file."""
        if not self.found:
            return
        kind = PlanSyntaxError if any(problem.syntax for problem in self.found) else PlanError
        lines = [(self.source.lines.get(self.source.written(p.key), 0), self._line(p)) for p in self.found]
        raise kind("\n".join(dict.fromkeys(text for _, text in sorted(lines, key=lambda item: item[0]))))

    def _line(self, problem: Problem) -> str:
        """`plan.yaml:14: fleet[2].replicas = 0, must be >= 1. ...`."""
        key, text = self.source.written(problem.key), problem.text
        named = _NAMED.match(text)
        if named and self.source.has((*key, named[1])):  # a message of a model object about one of its fields
            inner = (*key, named[1])
            return f"{self.source.place(inner)}: {dotted(inner)}{text.removeprefix(named[1])}"
        if text.startswith(" = "):  # a message about the value itself
            return f"{self.source.place(key)}: {dotted(key)}{text}"
        return f"{self.source.place(key)}: {dotted(key)}: {text}" if key else f"{self.source.place(key)}: {text}"

    def _sentence(self, model: type[Section], detail: ErrorDetails, where: Key) -> str:
        kind, context = detail["type"], detail.get("ctx", {})
        relative = detail["loc"]
        section = _section_at(model, relative[:-1])
        name = str(relative[-1]) if relative else ""
        if kind == "missing":
            return f"the key {name!r} is missing, must be given. Add it: {_meaning(section, name)}."
        if kind == "extra_forbidden":
            near = difflib.get_close_matches(name, section.keys(), n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(section.keys())}."
            return f"unknown key, must be one of the schema's. {hint}"
        if kind == "value_error":
            return str(context["error"])
        value = self.source.at(where) if self.source.has(where) else detail["input"]
        if kind == "literal_error":
            expected = str(context["expected"])
            near = difflib.get_close_matches(str(value), re.findall(r"'([^']+)'", expected), n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Choose one."
            return f" = {_short(value)}, must be {expected}. {hint}"
        rule = _RULES.get(kind, "").format(**context) or detail["msg"]
        return f" = {_short(value)}, must be {rule}. {section.hints.get(name) or f'Give {_meaning(section, name)}.'}"


def _section_at(model: type[Section], loc: tuple[str | int, ...]) -> type[Section]:
    """The section that the keys `loc` lead to."""
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        model = _inner_section(field.annotation) or model if field else model
    return model


def _inner_section(annotation: Any) -> type[Section] | None:
    """The section inside an annotation such as `list[PoolSection] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _inner_section(part)
        if found is not None:
            return found
    return None


def _meaning(section: type[Section], name: str) -> str:
    """What a key stands for, from its description."""
    for key, field_info in section.model_fields.items():
        if name in (key, field_info.alias) and field_info.description:
            return field_info.description.rstrip(".")
    return "another value"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
