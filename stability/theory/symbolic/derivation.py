"""A derivation: steps from the definitions to a formula, printable as LaTeX and callable as numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy as sp

from ..._result import text_table
from ...errors import InputError
from .symbols import QUANTITIES, Quantity, printed

STANDINGS = ("exact", "necessary", "sufficient", "approximation")
"""What a derivation proves about the replica, as in docs/theory/theory.md; "exact" where it is algebra on stated assumptions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of a derivation.

    Attributes
    ----------
    why : str
        What is done, in words.
    equation : Basic
        What holds then.
    """

    why: str
    equation: sp.Basic

    def latex(self) -> str:
        """The equation as LaTeX."""
        return printed(self.equation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """A formula with the steps that lead to it.

    Attributes
    ----------
    title : str
        What is derived.
    standing : str
        One of `STANDINGS`.
    assumptions : tuple of str
        What the steps use beyond algebra.
    steps : tuple of Step
        Line by line.
    name : Expr
        Left-hand side of the result.
    result : Expr, Matrix or Relational
        What was derived.
    """

    title: str
    standing: str
    assumptions: tuple[str, ...] = ()
    steps: tuple[Step, ...]
    name: sp.Expr
    result: sp.Basic

    @property
    def equation(self) -> sp.Basic:
        """The result with its name on the left; a condition as it is."""
        return self.result if _is_condition(self.result) else sp.Eq(self.name, self.result, evaluate=False)

    @property
    def symbols(self) -> tuple[sp.Symbol, ...]:
        """Free symbols of the result, by name: the order in which `lambdify()` takes them."""
        return tuple(sorted(self.result.free_symbols, key=str))

    @property
    def quantities(self) -> Mapping[sp.Symbol, Quantity]:
        """Meaning and unit of each of `symbols`."""
        return {symbol: QUANTITIES[symbol] for symbol in self.symbols}

    def latex(self) -> str:
        """All steps and the result as one aligned block of LaTeX, without dollar signs."""
        lines = [rf"& \text{{{_escaped(step.why)}}} \\ & \qquad {step.latex()}" for step in self.steps]
        lines.append(rf"& \text{{Result}} \\ & \qquad \boxed{{{printed(self.equation)}}}")
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"

    def __repr__(self) -> str:
        return f"Derivation({self.name} = {self.result}, {self.standing})".replace("\n", " ")

    def summary(self) -> str:
        """The steps as text, with the meaning and unit of each symbol of the result."""
        lines = [f"{self.title} ({self.standing})", *(f"assumes {text}" for text in self.assumptions)]
        lines += [f"{i}. {step.why}\n     {step.equation}" for i, step in enumerate(self.steps, 1)]
        lines.append(f"=> {self.name} = {self.result}")
        rows = [(str(symbol), entry.meaning, entry.unit) for symbol, entry in self.quantities.items()]
        return "\n".join(lines) + "\n\n" + text_table(rows, ("symbol", "meaning", "unit"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema; equations in LaTeX."""
        return {
            "schema": "stability/derivation/1",
            "title": self.title,
            "standing": self.standing,
            "assumptions": list(self.assumptions),
            "steps": [{"why": step.why, "equation": step.latex()} for step in self.steps],
            "result": printed(self.equation),
            "symbols": {str(symbol): f"{q.meaning} [{q.unit}]" for symbol, q in self.quantities.items()},
        }

    def lambdify(self, *arguments: sp.Symbol | str) -> Callable[..., Any]:
        """The result as a function of numbers: floats in, float out, or arrays that broadcast.

        Parameters
        ----------
        *arguments : Symbol or str
            Symbols, or their names, in the order in which the function takes them; `symbols` if none is given.

        Returns
        -------
        callable
            Compiled once per result and order, common subexpressions computed once.

        Raises
        ------
        InputError
            If a symbol of the result is not among `arguments`, or a name is unknown.

        Examples
        --------
        >>> from stability.theory.symbolic import iteration_time
        >>> tau = iteration_time().lambdify("lambda", "c_0", "E[W]")
        >>> tau(10.0, 0.01, 0.05)  # 0.01/(1 - 0.5)
        0.02
        """
        order = tuple(symbol_of(item) for item in arguments) if arguments else self.symbols
        missing = sorted(str(symbol) for symbol in self.result.free_symbols - set(order))
        if missing:
            raise InputError(f"lambdify lacks {', '.join(missing)}, must take every symbol of the result. Add them.")
        return _compiled(self.result, order)

    def at(self, values: Mapping[sp.Symbol | str, Any]) -> sp.Basic:
        """The result with exact or floating values put in.

        Parameters
        ----------
        values : mapping of Symbol or str to number
            By symbol or its name.
        """
        return self.result.subs({symbol_of(key): sp.sympify(value) for key, value in values.items()})


class Notebook:
    """Collects the steps of a derivation as they are taken."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def note(self, why: str, equation: sp.Basic) -> sp.Basic:
        """Write `equation` down with its reason, `why`, and hand it back."""
        self.steps.append(Step(why=why, equation=_immutable(equation)))
        return equation

    def define(self, why: str, name: sp.Expr, value: sp.Expr) -> sp.Expr:
        """Write down that `name` is `value`, for the reason `why`, and hand the value back."""
        self.note(why, sp.Eq(name, value, evaluate=False))
        return value

    def conclude(
        self, title: str, name: sp.Expr, result: sp.Basic, *, standing: str = "exact", assumptions: tuple[str, ...] = ()
    ) -> Derivation:
        """The derivation: `title`, `name` of the `result`, its `standing` and `assumptions`."""
        return Derivation(
            title=title,
            standing=standing,
            assumptions=assumptions,
            steps=tuple(self.steps),
            name=name,
            result=_immutable(result),
        )


def same(one: sp.Expr, other: sp.Expr) -> bool:
    """Whether two rational expressions are equal; by expansion, so that a wrong step cannot pass for a hard one.

    Parameters
    ----------
    one, other : Expr
    """
    return bool(sp.expand(sp.numer(sp.together(one - other))) == 0)


def _immutable(expression: sp.Basic) -> sp.Basic:
    return sp.ImmutableMatrix(expression) if isinstance(expression, sp.MatrixBase) else expression


def _is_condition(result: sp.Basic) -> bool:
    return isinstance(result, (sp.Rel, sp.logic.boolalg.BooleanFunction))


def _escaped(text: str) -> str:
    r"""Words inside \text{}: sphinx and notebooks read $ and % there."""
    return text.replace("%", r"\%").replace("_", r"\_").replace("&", r"\&").replace("^", r"\^{}")


def symbol_of(item: sp.Symbol | str) -> sp.Symbol:
    """The symbol of that name.

    Parameters
    ----------
    item : Symbol or str

    Raises
    ------
    InputError
        If no derivation uses the name.
    """
    if isinstance(item, sp.Symbol):
        return item
    found = [symbol for symbol in QUANTITIES if str(symbol) == item]
    if not found:
        raise InputError(
            f"{item!r} is no symbol of the theory, must be one of docs/reference/glossary.md. Spell it as there."
        )
    return found[0]


@lru_cache(maxsize=512)
def _compiled(result: sp.Basic, order: tuple[sp.Symbol, ...]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = sp.lambdify(order, result, modules=["numpy", "scipy"], cse=True)
    assert inspect.isfunction(compiled)
    return compiled
