"""YAML without its traps, and with the line of every value.

Plain scalars follow the core schema of YAML 1.2: `1e3` is a number, `no`, `on` and `12:30` are texts, only
`true` and `false` are booleans. Repeated keys, tags and values that contain themselves are errors.
"""

from __future__ import annotations

import math
import re

import yaml

from ...errors import PlanSyntaxError
from .source import Key

LARGEST = 1_000_000
"""Values a plan may hold once its aliases are expanded."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}


def parse_yaml(text: str, name: str) -> tuple[object, dict[Key, int]]:
    """The content of a YAML document and the line of each value.

    Raises
    ------
    PlanSyntaxError
        With every repeated key, tag and non-text key, or with the first place at which the text is no YAML.
    """
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        reader = _Reader()
        data = None if node is None else reader.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise PlanSyntaxError(f"{name}{line}: not valid YAML ({what}). Correct the line.") from None
    except yaml.YAMLError as error:
        what = " ".join(str(error).split())
        raise PlanSyntaxError(f"{name}: not valid YAML ({what}). Correct the file.") from None
    except RecursionError:
        raise PlanSyntaxError(f"{name}: nested too deeply, must be a plan. Correct the file.") from None
    if reader.problems:
        raise PlanSyntaxError("\n".join(f"{name}:{line}: {text}" for line, text in sorted(reader.problems)))
    return data, reader.lines


class _Reader:
    """Turns YAML nodes into values; `problems` holds what was wrong, by line."""

    def __init__(self) -> None:
        self.lines: dict[Key, int] = {}
        self.problems: list[tuple[int, str]] = []
        self._open: set[int] = set()

    def value(self, node: yaml.Node, key: Key) -> object:
        line = node.start_mark.line + 1
        self.lines.setdefault(key, line)
        if len(self.lines) > LARGEST:
            raise yaml.YAMLError(f"over {LARGEST} values")
        if node.tag not in _TAGS:
            self.problems.append((line, f"tag {node.tag!r}, plans have no tags. Remove it."))
            return None
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.style is not None else _plain(node.value)
        if id(node) in self._open:
            self.problems.append((line, "a value that contains itself, must not. Replace the alias."))
            return None
        self._open.add(id(node))
        found = self._sequence(node, key) if isinstance(node, yaml.SequenceNode) else self._mapping(node, key)
        self._open.discard(id(node))
        return found

    def _sequence(self, node: yaml.SequenceNode, key: Key) -> list[object]:
        return [self.value(item, (*key, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, key: Key) -> dict[str, object]:
        found: dict[str, object] = {}
        first: dict[str, int] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                self.problems.append((line, "a key that is a list or a mapping, must be a word. Correct the key."))
                continue
            name = name_node.value
            if name in first:
                self.problems.append(
                    (line, f"the key {name!r} stands in line {first[name]} already, must stand once. Remove one.")
                )
                continue
            first[name] = line
            self.lines[*key, name] = line
            found[name] = self.value(value_node, (*key, name))
        return found


_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


def _plain(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
