"""What all results share: three-valued verdicts, one-line reprs, text and HTML tables, JSON-safe dictionaries."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, ClassVar

import numpy as np

LONGEST_CELL = 160
"""Characters of a field that tables show."""


class Verdict(Enum):
    """Whether a fleet is stable. There is no truth value: UNDETERMINED is neither.

    Examples
    --------
    >>> import stability as st
    >>> st.Verdict.STABLE is st.Verdict("stable")
    True
    >>> bool(st.Verdict.UNDETERMINED)
    Traceback (most recent call last):
    TypeError: UNDETERMINED has no truth value, must be compared. Write `verdict is Verdict.STABLE`.
    """

    STABLE = "stable"
    UNSTABLE = "unstable"
    UNDETERMINED = "undetermined"

    def __bool__(self) -> bool:
        raise TypeError(f"{self} has no truth value, must be compared. Write `verdict is Verdict.STABLE`.")

    def __str__(self) -> str:
        return self.name


def no_truth(name: str) -> TypeError:
    """The error for `if report:`."""
    return TypeError(f"a {name} has no truth value, must be asked for its verdict. Write `report.verdict is ...`.")


class Tabular(ABC):
    """What a result of (quantity, value) rows prints and serialises as."""

    __slots__ = ()

    schema: ClassVar[str]
    """Tag of `to_dict`."""

    @abstractmethod
    def rows(self) -> Sequence[tuple[str, str]]:
        """The main figures by name, for people."""

    def summary(self) -> str:
        """The main figures as a text table."""
        return text_table(self.rows())

    def _repr_html_(self) -> str:
        return html_table(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": self.schema, **json_safe(self)}


class Described:
    """A record that notebooks show as a table of its fields."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return html_table(field_rows(self), caption=type(self).__name__)


def field_rows(value: Any) -> list[tuple[str, str]]:
    """(field, what it holds) of a dataclass, for people."""
    return [(f.name, _cell(getattr(value, f.name))) for f in fields(value) if f.repr and not f.name.startswith("_")]


def _cell(value: Any) -> str:
    """One field for people: long texts and arrays are cut short."""
    if value is None:
        return "-"
    if isinstance(value, bool | Enum):
        return str(value)
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}" if value.size > 8 else ", ".join(f"{x:.4g}" for x in value.ravel())
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_cell(item)}" for key, item in value.items())
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return "; ".join(value) or "-"
    text = str(value)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 3] + "..."


def json_safe(value: Any) -> Any:
    """`value` with only JSON types: dataclasses become mappings, arrays lists, infinities None."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_safe(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return str(value)


def text_table(rows: Iterable[Sequence[str]], header: Sequence[str] | None = None) -> str:
    """Left-aligned columns, two spaces apart."""
    body = [list(row) for row in rows]
    lines = ([list(header)] if header else []) + body
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(max(map(len, lines)))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines]
    if header:
        text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def html_table(rows: Iterable[Sequence[str]], header: Sequence[str] | None = None, caption: str = "") -> str:
    """The same table for notebooks."""
    head = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in header or ())
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    title = f"<caption style='text-align:left'>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}{'<thead><tr>' + head + '</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def seconds(value: float | None) -> str:
    """A duration for people."""
    if value is None or not np.isfinite(value):
        return "-"
    if abs(value) < 1e-12:
        return "0 s"
    if value < 1e-3:
        return f"{value * 1e6:.3g} us"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.4g} s"


def small(value: float) -> str:
    """A count or a chance for people: figures below a millionth mean nothing but "hardly ever"."""
    return f"{value:.3g}" if value == 0 or abs(value) >= 1e-6 else "< 1e-6"


def percent(value: float | None) -> str:
    """A share for people."""
    return "-" if value is None or not np.isfinite(value) else f"{100 * value:.1f} %"


def rate(value: float | None) -> str:
    """A rate for people."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.4g} req/s"
