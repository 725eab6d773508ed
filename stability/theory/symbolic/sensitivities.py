r"""Sensitivities and elasticities of the capacity.

Statement. At capacity load_r(lambda*, x) = 1; by the implicit function theorem
:math:`d\lambda^*/dx = -(\partial load/\partial x)/(\partial load/\partial\lambda)`, and the elasticity is :math:`(x/\lambda^*)\,d\lambda^*/dx`.

Valid while the binding resource stays the same (elsewhere a one-sided derivative). Moments are independent coordinates: with
respect to E[s], the others (E[s o], E[m], ...) stay fixed. To move a length law as a whole, substitute its moments first
(`stability.theory.symbolic.families`) and differentiate by its parameter.
"""

from __future__ import annotations

import sympy as sp

from ...errors import InputError
from .capacities import CAPACITY_RATE, load
from .derivation import Derivation, Notebook, symbol_of
from .symbols import COEFFICIENTS, MEMORY, RATE, label, printed


def sensitivity(parameter: sp.Symbol | str, *, resource: str | None = None) -> Derivation:
    """dlambda*/dx: change of the capacity with a parameter.

    Parameters
    ----------
    parameter : Symbol or str
        Such as "M", "c_0" or "E[s]"; any symbol of the load but lambda.
    resource : {"kv_memory", "batch_slots", "token_budget"}, optional
        The resource that binds.

    Returns
    -------
    Derivation
        The derivative in the parameters, 1/s per unit of the parameter.

    Raises
    ------
    InputError
        If the load does not depend on the parameter.

    Examples
    --------
    At E[W] = 0 the capacity C/(c0 E[a]) grows by 1/(c0 E[a]) with C:

    >>> round(sensitivity("C_r").lambdify("c_0", "E[W]", "E[a_r]", "C_r")(0.01, 0.0, 5.0, 10.0), 9)
    20.0
    """
    book = Notebook()
    result, _, name = _derivative(book, parameter, resource)
    return book.conclude(
        f"sensitivity of the capacity to {symbol_of(parameter)}",
        name,
        result,
        standing="approximation",
        assumptions=("the same resource binds on both sides", "other moments stay fixed"),
    )


def elasticity(parameter: sp.Symbol | str, *, resource: str | None = None) -> Derivation:
    """(x/lambda*) dlambda*/dx: percent of capacity per percent of a parameter.

    Parameters
    ----------
    parameter, resource
        As `sensitivity`.

    Returns
    -------
    Derivation
        The elasticity, without unit.
    """
    book = Notebook()
    slope, compact, name = _derivative(book, parameter, resource)
    capacity = 1 / (load(resource=resource).result / RATE)
    name = label(f"elasticity in {parameter}", rf"\varepsilon_{{{printed(symbol_of(parameter))}}}")
    book.define("times the parameter over the capacity", name, symbol_of(parameter) * compact / CAPACITY_RATE)
    result = symbol_of(parameter) * (slope / capacity**2) * capacity
    return book.conclude(
        f"elasticity of the capacity in {symbol_of(parameter)}",
        name,
        result,
        standing="approximation",
        assumptions=("the same resource binds on both sides", "other moments stay fixed"),
    )


def time_balance() -> Derivation:
    """The elasticities in c0, cp, cd, ck and ca sum to -1, and that in M is the negative of that in c0.

    Returns
    -------
    Derivation
        The sum, -1: all coefficients twice as large halve the capacity.
    """
    book = Notebook()
    parts = []
    for coefficient in COEFFICIENTS:
        found = elasticity(coefficient, resource="kv_memory").result
        book.note(f"elasticity in {coefficient}", found)
        parts.append(found)
    memory = elasticity(MEMORY, resource="kv_memory").result
    inverse = load(resource="kv_memory").result / RATE  # common denominator
    assert sp.expand((memory + parts[0]) * inverse) == 0
    book.note("elasticity in M, the negative of the first", memory)
    total = label("sum", r"\text{sum}")
    numerator = sp.expand(sp.Add(*(part * inverse for part in parts)))
    book.note("sum, over the common denominator 1/lambda*", numerator)
    result = sp.Integer(-1)
    assert sp.expand(numerator - result * inverse) == 0
    return book.conclude("elasticities in the times sum to -1", total, result)


def _derivative(book: Notebook, parameter: sp.Symbol | str, resource: str | None) -> tuple[sp.Expr, sp.Expr, sp.Symbol]:
    symbol = symbol_of(parameter)
    loaded = load(resource=resource).result
    if symbol == RATE or symbol not in loaded.free_symbols:
        known = ", ".join(sorted(str(item) for item in loaded.free_symbols - {RATE}))
        raise InputError(f"parameter = {symbol}, must be one of {known}. The capacity does not depend on it.")
    book.note("at the capacity", sp.Eq(loaded, 1, evaluate=False))
    by_parameter = book.note(f"derivative of the load by {symbol}", sp.diff(loaded, symbol))
    by_rate = book.note("derivative of the load by lambda", sp.diff(loaded, RATE))
    capacity = 1 / (loaded / RATE)
    name = label(f"dlambda*/d{symbol}", rf"\frac{{\partial\lambda^*}}{{\partial {printed(symbol)}}}")
    slope = book.define("implicit function", name, -by_parameter / by_rate)
    capacity = 1 / (loaded / RATE)
    compact = CAPACITY_RATE**2 * slope.subs(RATE, capacity) / capacity**2
    book.define("at the capacity lambda*", name, compact)
    return slope.subs(RATE, capacity), compact, name
