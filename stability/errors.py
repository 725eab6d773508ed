"""Every exception the package raises on purpose, and the checks that raise them.

A message has three parts: what is wrong, with its value and where it came from; the rule; the way out.
Conditions of the modelled system (an unstable fleet, say) are results, never exceptions.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real


class StabilityError(Exception):
    """Base of every exception this package raises on purpose.

    Examples
    --------
    >>> import stability as st
    >>> issubclass(st.InputError, st.StabilityError)
    True
    """


class InputError(StabilityError, ValueError):
    """An argument or a file holds a value that makes no sense.

    Examples
    --------
    >>> import stability as st
    >>> st.Engine(max_num_seqs=0)
    Traceback (most recent call last):
    stability.errors.InputError: max_num_seqs = 0, must be an integer >= 1.
    """


class PlanSyntaxError(InputError):
    """A plan file does not parse or does not fit the schema.

    Examples
    --------
    >>> import stability as st
    >>> issubclass(st.PlanSyntaxError, st.InputError)
    True
    """


class PlanError(InputError):
    """A plan fits the schema but makes no sense as a whole.

    Examples
    --------
    >>> import stability as st
    >>> issubclass(st.PlanError, st.InputError)
    True
    """


class TraceError(InputError):
    """A request trace cannot be read."""


class UnknownNameError(InputError, KeyError):
    """A name is in no catalog; the message gives the nearest known ones."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


class UnservableError(InputError):
    """Some requests can never be served: longer than the KV cache, or than the admission rule allows."""


class NotModelledError(StabilityError, NotImplementedError):
    """The public contract has a place for this, but nothing behind it yet."""


class MissingLibraryError(StabilityError, ModuleNotFoundError):
    """An optional library is not installed; the message has the command that installs it.

    Examples
    --------
    >>> import stability as st
    >>> issubclass(st.MissingLibraryError, ImportError)
    True
    """


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is in no catalog, with the nearest known names."""
    names = sorted(known)
    text = str(name)
    by_fold = {known_name.casefold(): known_name for known_name in names}
    near = [by_fold[n] for n in difflib.get_close_matches(text.casefold(), by_fold, n=3, cutoff=0.5)]
    near += [n for n in names if text and n not in near and text.casefold() in n.casefold()][: 3 - len(near)]
    hint = f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(names)}."
    return UnknownNameError(f"unknown {kind} {text!r}. {hint}")


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> float:
    """`value` as a finite float within the bounds, or an `InputError` that names the rule."""
    rules = [
        f"{word} {bound:g}"
        for word, bound in ((">", above), (">=", at_least), ("<=", at_most), ("<", below))
        if bound is not None
    ]
    rule = " and ".join(["a finite number", *rules])
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(_sentence(name, value, rule, hint))
    number = float(value)
    if (
        (above is not None and not number > above)
        or (at_least is not None and not number >= at_least)
        or (at_most is not None and not number <= at_most)
        or (below is not None and not number < below)
    ):
        raise InputError(_sentence(name, value, rule, hint))
    return number


def check_integer(name: str, value: object, *, at_least: int, at_most: int | None = None, hint: str = "") -> int:
    """`value` as an int within the bounds, or an `InputError` that names the rule."""
    rule = f"an integer >= {at_least}" + (f" and <= {at_most}" if at_most is not None else "")
    whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise InputError(_sentence(name, value, rule, hint))
    number: int = int(value)  # type: ignore[call-overload]
    if number < at_least or (at_most is not None and number > at_most):
        raise InputError(_sentence(name, value, rule, hint))
    return number


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """`value` if it is one of `choices`, or an `InputError` that lists them."""
    options = tuple(choices)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else ""
    raise InputError(_sentence(name, value, "one of " + ", ".join(options), hint))


def _sentence(name: str, value: object, rule: str, hint: str) -> str:
    return f"{name} = {value!r}, must be {rule}.{' ' + hint if hint else ''}"
