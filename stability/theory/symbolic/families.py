r"""Moments and transforms of the length families, and any derivation put in their parameters.

Statement. For each family of `stability.lengths`, untruncated: E[X^k] from its mass function or density, and E[exp(-beta X)] where
it has a closed form (not for lognormal and Weibull).

Assumptions: constant, uniform, geometric and discrete lengths are integers and exact. Gamma, lognormal and Weibull are the continuous
laws; the package rounds them to integers, which adds about 1/12 to the second moment. Truncated families have no closed form here.
"""

from __future__ import annotations

from functools import lru_cache

import sympy as sp

from ...errors import InputError, check_choice
from .derivation import Derivation, Notebook
from .symbols import BETA, independent, moment, quantity

FAMILIES = ("constant", "uniform", "geometric", "discrete", "gamma", "lognormal", "weibull")
TRANSFORMED = ("constant", "uniform", "geometric", "discrete", "gamma", "exponential")
"""Families whose transform has a closed form; exponential is gamma with cv = 1, the limit of long geometric lengths."""

VALUE = sp.Symbol("x", integer=True, positive=True)
_NOUN = {"s": "prompt", "o": "output"}


def _quantity(name: str, of: str, meaning: str, unit: str, *, latex: str | None = None) -> sp.Symbol:
    return quantity(f"{name}_{of}", f"{meaning} of the {_NOUN[of]}", unit, latex=f"{latex or name}_{of}")


CONSTANT = {of: _quantity("k", of, "constant length", "tokens") for of in _NOUN}
LOW = {of: _quantity("low", of, "least length", "tokens", latex=r"\ell") for of in _NOUN}
HIGH = {of: _quantity("high", of, "greatest length", "tokens", latex="u") for of in _NOUN}
MEAN = {of: _quantity("mu", of, "mean length", "tokens", latex=r"\mu") for of in _NOUN}
CV = {of: _quantity("cv", of, "coefficient of variation", "1", latex=r"\mathrm{cv}") for of in _NOUN}
SHAPE = {of: _quantity("shape", of, "Weibull exponent", "1", latex=r"\kappa") for of in _NOUN}
ATOM = {
    of: tuple(
        quantity(f"x{i}_{of}", f"possible length {i} of the {noun}", "tokens", latex=f"x_{{{i}{of}}}") for i in (1, 2)
    )
    for of, noun in _NOUN.items()
}
SHARE = {
    of: quantity(f"p1_{of}", f"probability of the first possible length of the {noun}", "1", latex=f"p_{{1{of}}}")
    for of, noun in _NOUN.items()
}
TRANSFORM = {
    of: quantity(f"E[exp(-beta {of})]", f"transform of the {noun}", "1", latex=f"E[e^{{-\\beta {of}}}]")
    for of, noun in _NOUN.items()
}


@lru_cache(maxsize=256)
def length_moment(family: str, order: int, *, of: str = "o") -> Derivation:
    """E[X**order] of a length in its family's parameters.

    Parameters
    ----------
    family : {"constant", "uniform", "geometric", "discrete", "gamma", "lognormal", "weibull"}
        "discrete" has two atoms.
    order : int >= 1
        Power.
    of : {"s", "o"}
        Prompt or output.

    Returns
    -------
    Derivation
        The moment, tokens**order.

    Examples
    --------
    >>> length_moment("uniform", 1).result
    high_o/2 + low_o/2
    """
    check_choice("family", family, FAMILIES)
    check_choice("of", of, tuple(_NOUN))
    book = Notebook()
    name = moment(s=order) if of == "s" else moment(o=order)
    exact = ("integer lengths, untruncated",)
    continuous = ("the continuous law, untruncated: rounding to integers is not included",)
    if family == "constant":
        result = book.define("one length", name, CONSTANT[of] ** order)
    elif family == "uniform":
        low, high = LOW[of], HIGH[of]
        book.define("equally likely integers", name, sp.Sum(VALUE**order, (VALUE, low, high)) / (high - low + 1))
        result = sp.expand(sp.cancel(sp.summation(VALUE**order, (VALUE, low, high)) / (high - low + 1)))
        book.define("sum", name, result)
    elif family == "discrete":
        (one, two), share = ATOM[of], SHARE[of]
        result = book.define("two lengths", name, share * one**order + (1 - share) * two**order)
    elif family == "geometric":
        transform = book.define("transform", TRANSFORM[of], length_transform("geometric", of=of).result)
        derivative = (-1) ** order * sp.diff(transform, BETA, order)
        result = sp.expand(sp.simplify(derivative.subs(BETA, 0)))
        book.define(f"its derivative of order {order} at 0, sign (-1)^{order}", name, result)
    elif family == "gamma":
        result = _gamma(book, name, order, of)
    elif family == "lognormal":
        result = _lognormal(book, name, order, of)
    else:
        result = _weibull(book, name, order, of)
    integers = family in ("constant", "uniform", "geometric", "discrete")
    return book.conclude(
        f"moment of order {order}, {family} {_NOUN[of]}", name, result, assumptions=exact if integers else continuous
    )


def _gamma(book: Notebook, name: sp.Expr, order: int, of: str) -> sp.Expr:
    x, shape, scale = (
        sp.Symbol("x", positive=True),
        sp.Symbol("alpha", positive=True),
        sp.Symbol("vartheta", positive=True),
    )
    density = x ** (shape - 1) * sp.exp(-x / scale) / (sp.gamma(shape) * scale**shape)
    book.define("density of shape alpha and scale", name, sp.Integral(x**order * density, (x, 0, sp.oo)))
    found = sp.gammasimp(sp.integrate(sp.powsimp(x**order * density), (x, 0, sp.oo), conds="none"))
    book.define("integrate", name, sp.factor(found))
    result = sp.expand(found.subs(scale, MEAN[of] / shape).subs(shape, CV[of] ** -2))
    book.define("shape 1/cv^2 and scale mean/shape", name, result)
    return result


def _lognormal(book: Notebook, name: sp.Expr, order: int, of: str) -> sp.Expr:
    z, log_median, sigma = sp.Symbol("z", real=True), sp.Symbol("nu", real=True), sp.Symbol("sigma", positive=True)
    normal = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    power = sp.exp(order * (log_median + sigma * z))
    book.define("X = exp(nu + sigma Z), Z normal", name, sp.Integral(power * normal, (z, -sp.oo, sp.oo)))
    found = sp.exp(order * log_median) * _normal_transform(order * sigma)
    book.define("integrate", name, found)
    book.note("mean and cv", sp.Eq(MEAN[of], sp.exp(log_median + sigma**2 / 2)))
    book.note("so that", sp.Eq(1 + CV[of] ** 2, sp.exp(sigma**2)))
    square = sp.log(1 + CV[of] ** 2)
    exponent = (
        sp.expand(sp.log(found), force=True)
        .subs(log_median, sp.log(MEAN[of]) - square / 2)
        .subs(sigma, sp.sqrt(square))
    )
    result = sp.powsimp(sp.simplify(sp.exp(sp.expand(exponent))))
    book.define("put in", name, result)
    return result


@lru_cache(maxsize=1)
def _normal_integral() -> tuple[sp.Symbol, sp.Expr]:
    z, a = sp.Symbol("z", real=True), sp.Symbol("a", positive=True)
    found = sp.integrate(sp.exp(a * z - z**2 / 2) / sp.sqrt(2 * sp.pi), (z, -sp.oo, sp.oo))
    return a, sp.simplify(found)


def _normal_transform(argument: sp.Expr) -> sp.Expr:
    """E[exp(a Z)] of a standard normal Z."""
    a, found = _normal_integral()
    return found.subs(a, argument)


def _weibull(book: Notebook, name: sp.Expr, order: int, of: str) -> sp.Expr:
    u, scale, shape = sp.Symbol("u", positive=True), sp.Symbol("vartheta", positive=True), SHAPE[of]
    book.define(
        "with u = (X/scale)^shape exponential",
        name,
        sp.Integral((scale * u ** (1 / shape)) ** order * sp.exp(-u), (u, 0, sp.oo)),
    )
    found = scale**order * sp.integrate(u ** (order / shape) * sp.exp(-u), (u, 0, sp.oo), conds="none")
    book.define("integrate", name, found)
    result = found.subs(scale, MEAN[of] / sp.gamma(1 + 1 / shape))
    book.define("scale from the mean", name, result)
    return result


@lru_cache(maxsize=64)
def length_transform(family: str, *, of: str = "o") -> Derivation:
    """E[exp(-beta X)] of a length in its family's parameters.

    Parameters
    ----------
    family : {"constant", "uniform", "geometric", "discrete", "gamma", "exponential"}
        Lognormal and Weibull have none in closed form.
    of : {"s", "o"}
        Prompt or output.

    Returns
    -------
    Derivation
        The transform in beta.
    """
    check_choice("family", family, TRANSFORMED)
    check_choice("of", of, tuple(_NOUN))
    book = Notebook()
    name = TRANSFORM[of]
    ratio = sp.Symbol("z", positive=True)
    term = sp.Symbol("i", integer=True, nonnegative=True)
    if family == "constant":
        result = book.define("one length", name, sp.exp(-BETA * CONSTANT[of]))
    elif family == "uniform":
        low, high = LOW[of], HIGH[of]
        count = high - low + 1
        total = book.define(
            "a finite geometric series", name, sp.Sum(ratio ** (low + term), (term, 0, high - low)) / count
        )
        summed = ratio**low * (1 - ratio**count) / ((1 - ratio) * count)
        # Telescoping: (1 - z) times the series leaves its first and last terms.
        assert sp.simplify((1 - ratio) * sum(ratio**j for j in range(5)) - (1 - ratio**5)) == 0
        assert total.has(sp.Sum)
        result = summed.subs(ratio, sp.exp(-BETA))
        book.define("sum, with z = exp(-beta)", name, result)
    elif family == "discrete":
        (one, two), share = ATOM[of], SHARE[of]
        result = book.define("two lengths", name, share * sp.exp(-BETA * one) + (1 - share) * sp.exp(-BETA * two))
    elif family == "geometric":
        stop = 1 / MEAN[of]
        book.define(
            "each token is the last with chance p = 1/mean",
            name,
            sp.Sum(stop * (1 - stop) ** term * sp.exp(-BETA * (term + 1)), (term, 0, sp.oo)),
        )
        series = sp.summation(ratio**term, (term, 0, sp.oo)).args[0][0]
        result = sp.simplify(stop * sp.exp(-BETA) * series.subs(ratio, (1 - stop) * sp.exp(-BETA)))
        book.define("geometric series", name, result)
    else:
        x = sp.Symbol("x", positive=True)
        shape = sp.Symbol("alpha", positive=True)
        scale = sp.Symbol("vartheta", positive=True)
        density = x ** (shape - 1) / (sp.gamma(shape) * scale**shape)
        book.define("density of shape alpha", name, sp.Integral(density * sp.exp(-x / scale - BETA * x), (x, 0, sp.oo)))
        decay = sp.Symbol("d", positive=True)
        found = sp.integrate(density * sp.exp(-x * decay), (x, 0, sp.oo), conds="none").subs(decay, BETA + 1 / scale)
        variation = CV[of] ** 2 if family == "gamma" else sp.Integer(1)
        result = sp.powsimp(found.subs(scale, MEAN[of] * variation).subs(shape, 1 / variation), force=True)
        result = sp.simplify(result)
        book.define("integrate; scale mean cv^2", name, result)
    return book.conclude(f"transform, {family} {_NOUN[of]}", name, result)


def in_families(derivation: Derivation, *, prompt: str, output: str) -> Derivation:
    """A derivation's result with moments of independent lengths put in the parameters of their families.

    Parameters
    ----------
    derivation : Derivation
        In moments of s and o, such as `mean_volume`, `mean_work`, `capacity` of a resource or `sensitivity`.
    prompt, output : str
        Families as for `length_moment`.

    Returns
    -------
    Derivation
        In the families' parameters; moments of the chunks m stay, no moment of s gives them.

    Examples
    --------
    >>> from stability.theory.symbolic import mean_volume
    >>> plain = mean_volume(chunked=False)
    >>> in_families(plain, prompt="constant", output="geometric").result
    k_s*mu_o + mu_o**2 - mu_o
    """
    book = Notebook()
    result = book.define("in moments", derivation.name, derivation.result)
    result = independent(result)
    if result != derivation.result:
        book.define("prompt and output independent", derivation.name, result)
    for family, of in ((prompt, "s"), (output, "o")):
        for order in (1, 2, 3):
            symbol = moment(s=order) if of == "s" else moment(o=order)
            if symbol in result.free_symbols:
                found = length_moment(family, order, of=of).result
                book.define(f"{family} {_NOUN[of]}", symbol, found)
                result = result.subs(symbol, found)
    if not result.free_symbols - derivation.result.free_symbols:
        raise InputError(
            f"{derivation.title!r} holds no moment of s or o, must be in moments. Derive it for a resource."
        )
    polynomial = result.is_polynomial(*result.free_symbols)
    result = book.define("put in", derivation.name, sp.expand(result) if polynomial else result)
    return book.conclude(
        f"{derivation.title}: {prompt} prompt, {output} output",
        derivation.name,
        result,
        standing=derivation.standing,
        assumptions=(*derivation.assumptions, "independent lengths, untruncated"),
    )
