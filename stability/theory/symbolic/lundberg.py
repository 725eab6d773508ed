r"""Eviction as ruin: the Lundberg equation, its root, and what the Wiener-Hopf factors of the walk give.

Statement. Z rises by S = s + o at completions (Poisson, one per unit of time) and falls by E[o] per unit in between. Then
:math:`E[e^{-\beta Z_t}] = e^{t\psi(\beta)}` with :math:`\psi(\beta) = \beta E[o] - 1 + E[e^{-\beta S}]`; psi is convex with psi(0) = 0 and
psi'(0) = -E[s], so a second root theta > 0 exists iff E[s] > 0, and the depth of Z below its maximum is Exp(theta). From
:math:`\psi(\beta) = (\beta - \theta)\,\chi(\beta)`, chi the exponent of the ascending ladder heights, follow p0, p1 and the slack.

Assumptions: constant number decoding, Poisson completions. **Approximation** of the engine; exact for the walk. What an iteration
in discrete time changes is computed numerically, on a lattice, in `stability.theory.excursions`.
"""

from __future__ import annotations

import sympy as sp

from ...errors import check_choice, check_integer
from .capacities import EVICTIONS, FREE
from .derivation import Derivation, Notebook
from .families import CONSTANT, MEAN, TRANSFORM, length_moment, length_transform
from .symbols import BETA, HEADROOM, MEAN_OUTPUT, MEAN_PROMPT, PER_ITERATION, THETA, label, moment, quantity

TOTAL_TRANSFORM = quantity("E[exp(-beta S)]", "transform of S = s + o", "1", latex=r"E[e^{-\beta S}]")
PSI = quantity("psi", "Laplace exponent of the walk", "1", latex=r"\psi(\beta)", positive=False)
SLOPE = quantity("psi'(theta)", "slope of psi at its root", "tokens", latex=r"\psi'(\theta)")
CURVATURE = quantity("psi''(theta)", "curvature of psi at its root", "tokens²", latex=r"\psi''(\theta)")
FIRST = quantity("p_0", "P(evict) of a request admitted without headroom", "1")
AGAIN = quantity("p_1", "the same for a request that was just evicted", "1")
SLACK_EVICTED = quantity(
    "E[X|evicted]", "mean slack at admission of a victim", "tokens", positive=False, latex=r"E[X\mid\text{evicted}]"
)
LADDER = quantity("E[H]", "mean ladder height", "tokens")
AGE_TRANSFORM = quantity(
    "E[exp(-theta age)]", "transform of the prompts' age", "1", latex=r"E[e^{-\theta\,\mathrm{age}}]"
)
PROMPT_TRANSFORM = quantity("E[exp(-theta s)]", "transform of the prompt at theta", "1", latex=r"E[e^{-\theta s}]")
DEEP = quantity("q", "P(the walk is below the level: victims are out)", "1")
CHANCE = quantity("P_evict", "P(evict | admitted for the first time)", "1", latex=r"P_{\text{first}}")
CHANCE_AGAIN = quantity("P_again", "P(evict | readmitted)", "1", latex=r"P_{\text{again}}")
GENERATED_MEAN = quantity("E[d]", "mean tokens a victim had generated", "tokens")
_ASSUMED = ("constant number of decoding requests", "Poisson completions", "eviction of the youngest")


def laplace_exponent(*, prompt: str | None = None, output: str | None = None) -> Derivation:
    """psi(beta) = beta E[o] - 1 + E[exp(-beta S)]; psi(theta) = 0 is the Lundberg equation.

    Parameters
    ----------
    prompt, output : str, optional
        Families of independent lengths, as for `length_transform`: closed forms in their parameters.

    Returns
    -------
    Derivation
        psi in beta.

    Examples
    --------
    >>> psi = laplace_exponent(prompt="constant", output="constant")
    >>> float(psi.lambdify("beta", "k_s", "k_o")(0.0, 10.0, 50.0))
    0.0
    """
    book = Notebook()
    time, count = sp.Symbol("t", positive=True), sp.Symbol("i", integer=True, nonnegative=True)
    chance = sp.exp(-time) * time**count / sp.factorial(count)
    walk = label("E[exp(-beta Z)]", r"E[e^{-\beta Z_t}]")
    total = sp.Sum(chance * TOTAL_TRANSFORM**count, (count, 0, sp.oo)) * sp.exp(BETA * MEAN_OUTPUT * time)
    book.define("a Poisson number of jumps up by S, a steady fall by E[o]", walk, total)
    series = sp.summation(time**count * TOTAL_TRANSFORM**count / sp.factorial(count), (count, 0, sp.oo))
    found = sp.simplify(sp.exp(-time) * series * sp.exp(BETA * MEAN_OUTPUT * time))
    book.define("exponential series", walk, found)
    result = sp.expand(sp.expand_log(sp.log(found), force=True) / time)
    book.define("its exponent per unit of time", PSI, result)
    slope = sp.diff(BETA * MEAN_OUTPUT - 1 - BETA * moment(total=1), BETA).subs(
        moment(total=1), MEAN_PROMPT + MEAN_OUTPUT
    )
    book.note("slope at 0: Z drifts up by E[s], so psi falls from 0 and, convex, has a second root theta", slope)
    if prompt is not None and output is not None:
        book = Notebook()
        book.define("in general", PSI, result)
        book.define("independent lengths", TOTAL_TRANSFORM, TRANSFORM["s"] * TRANSFORM["o"])
        result = result.subs(TOTAL_TRANSFORM, TRANSFORM["s"] * TRANSFORM["o"])
        for family, of in ((prompt, "s"), (output, "o")):
            transform = length_transform(family, of=of).result
            book.define(f"{family}", TRANSFORM[of], transform)
            result = result.subs(TRANSFORM[of], transform)
        mean = length_moment(output, 1).result if output != "exponential" else MEAN["o"]
        result = result.subs(MEAN_OUTPUT, book.define("its mean", MEAN_OUTPUT, mean))
        book.define("put in", PSI, result)
    return book.conclude(
        f"Lundberg equation psi(theta) = 0{f', {prompt} prompt and {output} output' if prompt else ''}",
        PSI,
        result,
        standing="approximation",
        assumptions=_ASSUMED,
    )


def exponent_expansion(*, order: int = 2) -> Derivation:
    """Theta for small theta E[S]: 2E[s]/E[S^2] + 4E[s]^2 E[S^3]/(3E[S^2]^3) + ...

    Parameters
    ----------
    order : int in 1..3
        Terms, powers of E[s].

    Returns
    -------
    Derivation
        theta, 1/tokens. Its error is of the next power of E[s]; it needs theta E[S] << 1.
    """
    check_integer("order", order, at_least=1, at_most=3)
    book = Notebook()
    small = sp.Symbol("epsilon", positive=True)
    series = sp.Add(*((-THETA) ** k * moment(total=k) / sp.factorial(k) for k in range(1, order + 2)))
    equation = sp.expand((THETA * MEAN_OUTPUT + series.subs(moment(total=1), MEAN_PROMPT + MEAN_OUTPUT)) / THETA)
    book.note("psi(theta)/theta = 0 with the transform in powers of theta", sp.Eq(equation, 0))
    unknown = sp.symbols(f"t_1:{order + 1}")
    guess = sum((unknown[k] * small ** (k + 1) for k in range(order)), start=sp.Integer(0))
    book.define("theta in powers of E[s] = epsilon", THETA, guess)
    expanded = sp.expand(equation.subs(THETA, guess).subs(MEAN_PROMPT, small))
    values: dict[sp.Symbol, sp.Expr] = {}
    for k in range(order):
        (found,) = sp.solve(expanded.coeff(small, k + 1).subs(values), unknown[k])
        values[unknown[k]] = sp.simplify(found)
        book.define(f"power {k + 1}", unknown[k], values[unknown[k]])
    result = guess.subs(values).subs(small, MEAN_PROMPT)
    return book.conclude(
        "Lundberg exponent for short prompts", THETA, result, standing="approximation", assumptions=_ASSUMED
    )


def exponent(*, lengths: str = "constant") -> Derivation:
    """Theta in closed form, where there is one.

    Parameters
    ----------
    lengths : {"constant", "exponential"}
        Constant prompt and output; or exponential ones, the limit of long geometric lengths (which themselves lead to an equation
        in both theta and exp(-theta)).

    Returns
    -------
    Derivation
        theta, 1/tokens.
    """
    check_choice("lengths", lengths, ("constant", "exponential"))
    book = Notebook()
    psi = laplace_exponent(prompt=lengths, output=lengths).result.subs(BETA, THETA)
    book.note("Lundberg equation", sp.Eq(psi, 0))
    if lengths == "constant":
        output, place, total = CONSTANT["o"], sp.Symbol("w", real=True), sp.Symbol("S", positive=True)
        whole = book.define("with S = s + o", total, CONSTANT["s"] + output)
        short = sp.powsimp(sp.expand(psi.subs(CONSTANT["s"], total - output)))
        moved = sp.expand(sp.expand(short.subs(THETA, 1 / output + place / total)) * sp.exp(place) * total / output)
        book.note("put theta = 1/o + w/S, times exp(w) S/o", sp.Eq(moved, 0))
        argument = -total / output * sp.exp(-total / output)
        assert sp.simplify(moved - (place * sp.exp(place) - argument)) == 0
        book.note(
            "w exp(w) is known: of its two real solutions w = -S/o gives theta = 0, the principal branch the root",
            sp.Eq(place, sp.LambertW(argument)),
        )
        result = 1 / output + (sp.LambertW(argument) / total).subs(total, whole)
    else:
        roots = sp.solve(sp.numer(sp.together(psi)), THETA)
        book.note("a cubic with a root 0", sp.Eq(sp.factor(sp.numer(sp.together(psi))), 0))
        at = {MEAN["s"]: 2, MEAN["o"]: 3}
        (result,) = [root for root in roots if sp.N(root.subs(at)) > 1e-12]
        result = sp.simplify(result)
        book.note("its positive root", sp.Eq(THETA, result))
    return book.conclude(
        f"Lundberg exponent, {lengths} lengths", THETA, result, standing="approximation", assumptions=_ASSUMED
    )


def _ladder(book: Notebook) -> sp.Expr:
    """chi(beta) = psi(beta)/(beta - theta) as a function of psi, noted down."""
    psi = sp.Function("psi")(BETA)
    chi = psi / (BETA - THETA)
    book.define(
        "Wiener-Hopf: depths are Exp(theta), so the ascending ladder heights have the exponent",
        sp.Function("chi")(BETA),
        chi,
    )
    return chi


def _near_root(orders: int) -> sp.Expr:
    """Psi about theta."""
    step = BETA - THETA
    return SLOPE * step + (CURVATURE * step**2 / 2 if orders > 1 else 0)


def _overshoot(book: Notebook) -> sp.Expr:
    chi = _ladder(book)
    psi = sp.Function("psi")(BETA)
    start = -MEAN_PROMPT * BETA
    rate = sp.limit(chi.subs(psi, start) / BETA, BETA, 0)
    book.define("its slope at 0, from psi near 0", label("chi'(0)", r"\chi'(0)"), rate)
    transform = chi / (BETA * rate)
    book.define(
        "the overshoot over a far level is the stationary excess of a ladder height",
        label("E[exp(-beta X)]", r"E[e^{-\beta X}]"),
        transform,
    )
    return transform.subs(psi, _near_root(2))


def first_eviction() -> Derivation:
    """p0 = E[exp(-theta X)] = psi'(theta)/E[s]: X the slack at a first admission.

    Returns
    -------
    Derivation
        p0 in psi'(theta) and E[s].
    """
    book = Notebook()
    near = _overshoot(book)
    result = sp.limit(sp.cancel(near), BETA, THETA)
    book.define("at theta, psi about its root", FIRST, result)
    return book.conclude("first eviction", FIRST, result, standing="approximation", assumptions=_ASSUMED)


def next_eviction() -> Derivation:
    """p1 = E[exp(-theta H)] = 1 - psi'(theta)/E[o]: the slack of a victim is one ladder height H.

    Returns
    -------
    Derivation
        p1 in psi'(theta) and E[o].
    """
    book = Notebook()
    chi = _ladder(book)
    psi = sp.Function("psi")(BETA)
    rate = sp.limit(chi.subs(psi, BETA * MEAN_OUTPUT - 1), BETA, sp.oo)
    book.define(
        "new maxima come at the rate chi(infinity), where the transform of S vanishes",
        label("chi(oo)", r"\chi(\infty)"),
        rate,
    )
    height = 1 - chi / rate
    book.define("hence the ladder height has the transform", label("E[exp(-beta H)]", r"E[e^{-\beta H}]"), height)
    result = sp.limit(sp.cancel(height.subs(psi, _near_root(1))), BETA, THETA)
    book.define("at theta", AGAIN, result)
    return book.conclude("next eviction", AGAIN, result, standing="approximation", assumptions=_ASSUMED)


def ladder_height() -> Derivation:
    """Mean ladder height, E[s]/(theta E[o]).

    Returns
    -------
    Derivation
        E[H], tokens.
    """
    book = Notebook()
    chi = _ladder(book)
    psi = sp.Function("psi")(BETA)
    slope = sp.diff(chi.subs(psi, -MEAN_PROMPT * BETA), BETA).subs(BETA, 0)
    result = sp.simplify(slope / MEAN_OUTPUT)
    book.define("slope at 0 over the rate E[o] of new maxima", LADDER, result)
    return book.conclude("mean ladder height", LADDER, result, standing="approximation", assumptions=_ASSUMED)


def slack_when_evicted() -> Derivation:
    """Mean slack of a victim at its admission: 1/theta - psi''(theta)/(2 psi'(theta)).

    Returns
    -------
    Derivation
        E[X | evicted], tokens.
    """
    book = Notebook()
    near = sp.cancel(_overshoot(book))
    book.note("eviction weighs a slack x by exp(-theta x): minus the logarithmic derivative at theta", near)
    result = sp.expand(sp.simplify((-sp.diff(near, BETA) / near).subs(BETA, THETA)))
    return book.conclude("slack of a victim", SLACK_EVICTED, result, standing="approximation", assumptions=_ASSUMED)


def age_transform() -> Derivation:
    """E[exp(-theta age)] = (1 - E[exp(-theta s)])/(theta E[s]): age of the renewal process of prompts.

    Returns
    -------
    Derivation
        The transform; its mean is E[s^2]/(2E[s]).
    """
    book = Notebook()
    z, prompt = sp.Symbol("z", positive=True), sp.Symbol("s", integer=True, positive=True)
    inner = sp.Integral(sp.exp(-THETA * z), (z, 0, prompt))
    book.note(
        "the level's last step covers the point with weight s/E[s]; the age is uniform in it", inner / MEAN_PROMPT
    )
    found = sp.expand(inner.doit() / MEAN_PROMPT)
    book.note("integrate", found)
    result = sp.factor(found.subs(sp.exp(-THETA * prompt), PROMPT_TRANSFORM))
    mean = sp.limit(sp.Integral(z, (z, 0, prompt)).doit() / MEAN_PROMPT, z, 0).subs(prompt**2, moment(s=2))
    book.note("take the mean over prompts; the mean age likewise", mean)
    return book.conclude("age of the prompts", AGE_TRANSFORM, result, standing="approximation")


def free_memory() -> Derivation:
    """Mean KV left unused by a prompt gate: E[(h + age - depth)+] + q E[age], depth Exp(theta).

    Returns
    -------
    Derivation
        E[F], tokens, in h, theta, E[s], E[s^2] and E[exp(-theta age)].
    """
    book = Notebook()
    depth, place = sp.Symbol("z", positive=True), sp.Symbol("x", positive=True)
    part = sp.Integral((place - depth) * THETA * sp.exp(-THETA * depth), (depth, 0, place))
    book.note("at x = h + age above the floor, the depth Exp(theta) leaves", part)
    found = sp.expand(sp.simplify(part.doit()))
    book.note("integrate", found)
    age = moment(s=2) / (2 * MEAN_PROMPT)
    deep = sp.exp(-THETA * HEADROOM) * AGE_TRANSFORM
    book.define("mean over the age; P(depth > h + age)", DEEP, deep)
    mean = found.subs(sp.exp(-THETA * place), DEEP).subs(place, HEADROOM + age)
    book.note("where the walk is deeper the victims are out, and what is free is an age again", mean + DEEP * age)
    result = (mean + DEEP * age).subs(DEEP, deep)
    return book.conclude("KV left unused", FREE, result, standing="approximation", assumptions=_ASSUMED)


def evictions_per_request() -> Derivation:
    """Evictions per completed request: e = P/(1 - P_again).

    Returns
    -------
    Derivation
        e in the chance of a first and of a further eviction.
    """
    book = Notebook()
    count = sp.Symbol("i", integer=True, nonnegative=True)
    ratio = sp.Symbol("z", positive=True)
    book.define(
        "a first eviction, then each time again with the same chance",
        EVICTIONS,
        sp.Sum(CHANCE * CHANCE_AGAIN**count, (count, 0, sp.oo)),
    )
    series = sp.summation(ratio**count, (count, 0, sp.oo)).args[0][0].subs(ratio, CHANCE_AGAIN)
    result = CHANCE * series
    book.define("geometric series", EVICTIONS, result)
    return book.conclude("evictions per request", EVICTIONS, result, standing="approximation", assumptions=_ASSUMED)


def generated_when_evicted() -> Derivation:
    """Mean tokens a victim had generated: (h + E[X | evicted])/(y psi'(theta)).

    Returns
    -------
    Derivation
        E[d], tokens.
    """
    book = Notebook()
    tilted = sp.Function("psi")(BETA + THETA)
    book.define(
        "conditioned on eviction the walk has the exponent psi(beta + theta)",
        label("psi_evicted", r"\psi_{\text{evicted}}(\beta)"),
        tilted,
    )
    fall = sp.diff(SLOPE * BETA, BETA)
    book.note("so that it falls, per completion, by its slope at 0", fall)
    iterations = (HEADROOM + SLACK_EVICTED) / (PER_ITERATION * fall)
    book.define("headroom and slack are used up after so many iterations, one token each", GENERATED_MEAN, iterations)
    return book.conclude(
        "tokens a victim had generated", GENERATED_MEAN, iterations, standing="approximation", assumptions=_ASSUMED
    )
