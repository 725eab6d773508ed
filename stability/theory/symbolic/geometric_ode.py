r"""Geometric outputs: requests, KV and queue as a closed system, its equilibria, Jacobians and Routh-Hurwitz conditions.

Statement. Outputs geometric with mean 1/p, prompts in one chunk. In each iteration a resident request grows by a token, after which
it is the last with chance p, whatever its age: so the number X resident, their KV Z and the queue Q close,

.. math:: \tau\,\dot X = \varphi - p X, \qquad \tau\,\dot Z = E[s]\,\varphi + (1-p)X - p Z, \qquad \dot Q = \lambda - \varphi/\tau,

phi the requests admitted per iteration. Regimes: below saturation Q = 0 and phi = lambda tau; with memory full Z = M, so phi is
what releases leave beyond growth, :math:`E[s]\,\varphi = p M - (1-p)X`; paced, phi = kappa Q. Equilibria hold the exact E[n], E[g]
and E[W] of the law, so that they exist below lambda E[W] = 1, and with memory full the queue changes at lambda - lambda*.

**Approximation** (large system). What the closure cannot show: ages are lost, so it always settles, also where lengths of few values
synchronise (`stability.theory.synchrony`). Claim nothing from it for other length laws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import sympy as sp

from ...errors import check_choice
from .capacities import CAPACITY_RATE, LOAD, load
from .derivation import Derivation, Notebook, same
from .families import MEAN, length_moment
from .flow_balance import mean_work
from .symbols import (
    BASE,
    CAPACITY,
    CONTEXT,
    DECODES,
    KV_READ,
    MEAN_DEMAND,
    MEAN_PROMPT,
    MEAN_WORK,
    MEMORY,
    PER_CONTEXT,
    PER_DECODE,
    PER_KV,
    PER_PREFILL,
    PREFILL,
    RATE,
    TAU,
    independent,
    label,
    moment,
    quantity,
)
from .volumes import mean_volume

STOP = quantity("p", "chance that a token is the last, 1/E[o]", "1")
RUNNING = quantity("X", "requests resident", "requests")
HELD = quantity("Z", "KV resident", "tokens")
QUEUE = quantity("Q", "requests queued", "requests")
ADMITTED = quantity("phi", "requests admitted per iteration", "requests", latex=r"\varphi")
PACE = quantity("kappa", "share of the queue admitted per iteration", "1", latex=r"\kappa")
EXCESS = quantity("G", "what a request in prefill adds to an iteration, over one that decodes", "s", positive=False)
SQUARE = moment(s=2)

REGIMES = ("below", "memory", "paced")
_ASSUMED = ("geometric outputs", "s <= B", "large system: means for counts")
_EXCESS = PER_PREFILL * MEAN_PROMPT + PER_CONTEXT * SQUARE / 2 - PER_DECODE - PER_KV * MEAN_PROMPT


@dataclass(frozen=True, slots=True)
class _System:
    """Rates of change of `state`: constants + flows/tau, with tau affine in the state."""

    state: tuple[sp.Symbol, ...]
    constants: tuple[sp.Expr, ...]
    flows: tuple[sp.Expr, ...]
    tau: sp.Expr

    @property
    def rates(self) -> sp.Matrix:
        return sp.Matrix([c + flow / self.tau for c, flow in zip(self.constants, self.flows, strict=True)])


def step_time() -> Derivation:
    """Iteration time in the state: X - phi requests decode, and read the KV held less the prompts admitted.

    Returns
    -------
    Derivation
        tau in X, Z and phi, s.
    """
    book = Notebook()
    prompts = book.define("prompt tokens: those admitted", PREFILL, ADMITTED * MEAN_PROMPT)
    decodes = book.define("decodes: residents but those in prefill", DECODES, RUNNING - ADMITTED)
    read = book.define("their KV", KV_READ, HELD - ADMITTED * MEAN_PROMPT)
    context = book.define("attention of the prompts", CONTEXT, ADMITTED * SQUARE / 2)
    law = BASE + PER_PREFILL * prompts + PER_DECODE * decodes + PER_KV * read + PER_CONTEXT * context
    book.define("affine law", TAU, law)
    book.define("with", EXCESS, _EXCESS)
    result = BASE + PER_DECODE * RUNNING + PER_KV * HELD + ADMITTED * EXCESS
    assert sp.expand(law - result.subs(EXCESS, _EXCESS)) == 0
    book.define("collect", TAU, result)
    return book.conclude("iteration time, geometric outputs", TAU, law, assumptions=("s <= B", "geometric outputs"))


def equations(*, regime: str = "below") -> Derivation:
    """The right-hand sides of the differential equations, per second.

    Parameters
    ----------
    regime : {"below", "memory", "paced"}
        Queue empty, states (X, Z); memory full, states (X, Q); admission of a share of the queue, states (X, Z, Q).

    Returns
    -------
    Derivation
        Column of time derivatives.
    """
    book = Notebook()
    system = _system(book, regime)
    dots = sp.Matrix([label(f"d{name}/dt", rf"\dot {name}") for name in system.state])
    book.note("rates of change", sp.Eq(dots, system.rates, evaluate=False))
    return _conclude(book, f"equations, {regime}", "rates", system.rates.subs(EXCESS, _EXCESS))


def equilibrium(*, regime: str = "below") -> Derivation:
    """The state at rest: with memory full, of the residents, and the queue then changes at lambda - lambda*.

    Parameters
    ----------
    regime : {"below", "memory", "paced"}
        As `equations`.

    Returns
    -------
    Derivation
        Column: (X, Z) below, (X, dQ/dt) with memory full, (X, Z, Q) paced.
    """
    book = Notebook()
    system = _system(book, regime)
    if regime == "memory":
        (running,) = sp.solve(system.flows[0], RUNNING)
        book.define("residents at rest", RUNNING, running)
        admitted = book.define("admitted then, M/E[g]", ADMITTED, sp.factor(-system.flows[1].subs(RUNNING, running)))
        assert same(admitted, MEMORY / geometric_volume().result)
        time = book.define("iteration time then", TAU, system.tau.subs(RUNNING, running))
        capacity = geometric_capacity().result
        assert same(time.subs(EXCESS, _EXCESS) / admitted, 1 / capacity)
        book.note("so that phi/tau is the capacity of the memory row, and the queue changes at", RATE - CAPACITY_RATE)
        return _conclude(book, f"equilibrium, {regime}", "equilibrium", sp.Matrix([running, RATE - capacity]))
    flows = [flow + c * TAU for flow, c in zip(system.flows, system.constants, strict=True)]
    rest = sp.solve(flows, system.state, dict=True)[0]
    for name in system.state:
        book.define("at rest", name, sp.factor(rest[name]))
    # Multiplied out, the law at rest is linear in tau.
    law = sp.numer(sp.together(TAU - system.tau.subs(rest) if regime == "paced" else TAU - _below(rest)))
    (time,) = sp.solve(law, TAU)
    work = geometric_work().result
    assert same(BASE / time.subs(EXCESS, _EXCESS), 1 - RATE * work)
    book.define("iteration time at rest, the flow balance with the exact E[W]", TAU, BASE / (1 - RATE * MEAN_WORK))
    result = sp.Matrix([sp.factor(rest[name]) for name in system.state]).subs(TAU, BASE / (1 - RATE * work))
    return _conclude(book, f"equilibrium, {regime}", "equilibrium", result)


def jacobian(*, regime: str = "below") -> Derivation:
    """Jacobian at the equilibrium.

    Parameters
    ----------
    regime : {"below", "memory", "paced"}
        As `equations`.

    Returns
    -------
    Derivation
        Matrix, 1/s.
    """
    book = Notebook()
    scaled = _scaled_jacobian(book, regime)
    if regime == "memory":
        time = MEMORY / geometric_volume().result / geometric_capacity().result
    else:
        time = BASE / (1 - RATE * geometric_work().result)
    result = scaled.subs({EXCESS: _EXCESS, CAPACITY_RATE: geometric_capacity().result}) / time
    return _conclude(book, f"Jacobian, {regime}", "J", result)


def routh_hurwitz(matrix: sp.Matrix) -> tuple[sp.Expr, ...]:
    """The Hurwitz minors of a matrix: all its eigenvalues have negative real part iff all are positive.

    Parameters
    ----------
    matrix : (n, n) Matrix

    Returns
    -------
    tuple of Expr
        Leading minors 1..n of the Hurwitz matrix of det(x - matrix), whose leading coefficient is 1.

    Examples
    --------
    >>> import sympy as sp
    >>> routh_hurwitz(sp.Matrix([[-1, 0], [0, -2]]))  # x^2 + 3x + 2: 3, and 3*2
    (3, 6)
    """
    size = matrix.rows
    coefficients = matrix.charpoly(sp.Symbol("x_")).all_coeffs()

    def entry(i: int, j: int) -> sp.Expr:
        k = 2 * (j + 1) - (i + 1)
        return coefficients[k] if 0 <= k <= size else sp.Integer(0)

    hurwitz = sp.Matrix(size, size, entry)
    return tuple(hurwitz[:k, :k].det(method="berkowitz") for k in range(1, size + 1))


def stability_conditions(*, regime: str = "below") -> Derivation:
    """Routh-Hurwitz conditions at the equilibrium: without a queue it is stable iff lambda E[W] < 1, given lambda G < 1.

    Parameters
    ----------
    regime : {"below", "memory", "paced"}
        As `equations`; with memory full, of the residents alone (the queue is an integrator: see `equilibrium`).

    Returns
    -------
    Derivation
        Column of Hurwitz minors of tau J, all positive iff the equilibrium is locally stable.
    """
    book = Notebook()
    scaled = _scaled_jacobian(book, regime)
    if regime == "memory":
        scaled = book.define("residents alone", label("tau J", r"\tau J"), scaled[:1, :1])
    minors = [sp.factor(minor) for minor in routh_hurwitz(scaled)]
    for order, minor in enumerate(minors, 1):
        book.note(f"Hurwitz minor {order} of tau J, must be positive", minor)
    if regime != "memory":
        determinant = sp.factor((-1) ** scaled.rows * scaled.det())
        found = STOP**2 * (1 - RATE * geometric_work().result)
        found = found / (1 - RATE * EXCESS) if regime == "below" else found * PACE
        assert same(determinant.subs(EXCESS, _EXCESS), found.subs(EXCESS, _EXCESS))
        shown = STOP**2 * (1 - RATE * MEAN_WORK) * (PACE if regime == "paced" else 1 / (1 - RATE * EXCESS))
        book.note(
            "the determinant: where lambda G < 1, without which no iteration would end, positive iff lambda E[W] < 1",
            sp.Eq(label("det(-tau J)", r"\det(-\tau J)"), shown, evaluate=False),
        )
    if regime == "below":
        # -trace is 2p less a bracket that is below p wherever the determinant is positive, so the first minor follows.
        bracket = RATE * (PER_DECODE + MEAN_PROMPT * PER_KV) / (1 - RATE * EXCESS)
        assert same(-scaled.trace(), 2 * STOP - bracket)
        less = RATE * PER_KV * (1 - STOP) / STOP / (1 - RATE * EXCESS)
        assert same(scaled.det() / STOP, STOP - bracket - less)
        book.note(
            "then the trace is negative too: det/p is p less the same bracket, and less still",
            sp.Eq(label("-tr(tau J)", r"-\mathrm{tr}(\tau J)"), 2 * STOP - bracket, evaluate=False),
        )
    return _conclude(book, f"Routh-Hurwitz conditions, {regime}", "minors", sp.Matrix(minors).subs(EXCESS, _EXCESS))


def slowest_mode() -> Derivation:
    """Memory full, iteration by iteration: the one mode (1-p)(1 - 1/E[s]) lies in [0, 1), so no cycle can show.

    Returns
    -------
    Derivation
        The mode of the map, which is also the one root of the large-system polynomial sum of E[(s+a) 1{o>a}] z**-a.
    """
    book = Notebook()
    age = sp.Symbol("a", integer=True, nonnegative=True)
    root, ratio = sp.Symbol("z", real=True), sp.Symbol("w", positive=True)
    admitted = book.define("memory stays full", ADMITTED, (STOP * MEMORY - (1 - STOP) * RUNNING) / MEAN_PROMPT)
    step = book.note("residents after an iteration", sp.expand((1 - STOP) * RUNNING + admitted))
    result = sp.factor(sp.diff(step, RUNNING))
    book.note("slope of the map", result)
    tail = sp.Sum((MEAN_PROMPT + age) * (1 - STOP) ** age * root**-age, (age, 0, sp.oo))
    book.note("the same from ages: KV of those that live to age a", sp.Eq(tail, 0, evaluate=False))
    plain = sp.summation(ratio**age, (age, 0, sp.oo)).args[0][0]
    summed = sp.together(MEAN_PROMPT * plain + ratio * sp.diff(plain, ratio))
    book.note("sum, with w = (1-p)/z", sp.Eq(summed, 0, evaluate=False))
    (found,) = sp.solve(sp.numer(summed), ratio)
    assert same((1 - STOP) / found, result)
    book.define("its root", root, sp.factor((1 - STOP) / found))
    return book.conclude("mode with memory full", root, result, assumptions=_ASSUMED)


def geometric_work() -> Derivation:
    """E[W] of geometric outputs, in p.

    Returns
    -------
    Derivation
        E[W], s.
    """
    return _geometric("work")


def geometric_volume() -> Derivation:
    """E[g] of geometric outputs and one chunk, in p.

    Returns
    -------
    Derivation
        E[g], token-iterations.
    """
    return _geometric("volume")


def geometric_capacity() -> Derivation:
    """lambda* of the memory row for geometric outputs.

    Returns
    -------
    Derivation
        lambda*, 1/s.
    """
    book = Notebook()
    row = book.define("load of memory", LOAD, load().result)
    put = row.subs({MEAN_WORK: geometric_work().result, MEAN_DEMAND: geometric_volume().result, CAPACITY: MEMORY})
    return book.conclude(
        "capacity of memory, geometric outputs", CAPACITY_RATE, 1 / (put / RATE), standing="approximation"
    )


@lru_cache(maxsize=2)
def _geometric(what: str) -> Derivation:
    derivation = mean_work() if what == "work" else mean_volume(chunked=False)
    book = Notebook()
    result = independent(book.define("in moments", derivation.name, derivation.result))
    for order in (1, 2):
        value = length_moment("geometric", order).result.subs(MEAN["o"], 1 / STOP)
        result = result.subs(moment(o=order), book.define("geometric output, p = 1/E[o]", moment(o=order), value))
    return book.conclude(
        f"{derivation.title}, geometric outputs", derivation.name, sp.expand(result), assumptions=derivation.assumptions
    )


def _conclude(book: Notebook, title: str, name: str, result: sp.Basic) -> Derivation:
    names = {"rates": r"\text{rates}", "equilibrium": r"\text{at rest}", "J": "J", "minors": r"\text{minors}"}
    return book.conclude(title, label(name, names[name]), result, standing="approximation", assumptions=_ASSUMED)


def _below(rest: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    """The law below saturation with admissions lambda tau and the states at rest."""
    return (BASE + PER_DECODE * RUNNING + PER_KV * HELD + RATE * TAU * EXCESS).subs(rest)


def _system(book: Notebook, regime: str) -> _System:
    check_choice("regime", regime, REGIMES)
    tau = BASE + PER_DECODE * RUNNING + PER_KV * HELD + ADMITTED * EXCESS
    book.define("iteration time", TAU, tau)
    running, held = ADMITTED - STOP * RUNNING, ADMITTED * MEAN_PROMPT + (1 - STOP) * RUNNING - STOP * HELD
    book.define("residents, per iteration: admitted less ended", TAU * label("dX/dt", r"\dot X"), running)
    book.define("KV: prompts, growth of those that go on, less releases", TAU * label("dZ/dt", r"\dot Z"), held)
    if regime == "below":
        book.note("no queue: what arrives is admitted", sp.Eq(ADMITTED, RATE * TAU))
        time = book.define(
            "iteration time then", TAU, (BASE + PER_DECODE * RUNNING + PER_KV * HELD) / (1 - RATE * EXCESS)
        )
        assert same(time, tau.subs(ADMITTED, RATE * time))
        rest = {ADMITTED: 0}
        return _System((RUNNING, HELD), (RATE, RATE * MEAN_PROMPT), (running.subs(rest), held.subs(rest)), time)
    if regime == "memory":
        (flux,) = sp.solve(held.subs(HELD, MEMORY), ADMITTED)
        book.define(
            "memory stays full: releases less growth, over the prompt; negative means evictions", ADMITTED, flux
        )
        time = tau.subs(HELD, MEMORY).subs(ADMITTED, flux)
        return _System((RUNNING, QUEUE), (sp.Integer(0), RATE), (running.subs(ADMITTED, flux), -flux), time)
    flux = book.define("a share of the queue", ADMITTED, PACE * QUEUE)
    put = [expression.subs(ADMITTED, flux) for expression in (running, held)]
    return _System(
        (RUNNING, HELD, QUEUE), (sp.Integer(0), sp.Integer(0), RATE), (*put, -flux), tau.subs(ADMITTED, flux)
    )


def _scaled_jacobian(book: Notebook, regime: str) -> sp.Matrix:
    """Tau times the Jacobian at rest: rates c + N/tau have derivatives N'/tau - (N/tau) tau'/tau, and N/tau = -c at rest."""
    system = _system(book, regime)
    at_rest = [-c for c in system.constants]
    if regime == "memory":
        at_rest[1] = -CAPACITY_RATE  # the queue need not rest: phi/tau is the capacity whatever the rate
    gradient = [sp.diff(system.tau, name) for name in system.state]
    rows = [
        [sp.diff(flow, name) - rest * slope for name, slope in zip(system.state, gradient, strict=True)]
        for flow, rest in zip(system.flows, at_rest, strict=True)
    ]
    scaled = sp.Matrix(rows).applyfunc(sp.factor)
    book.note(
        "derivatives of c + N/tau, with N/tau = -c at rest", sp.Eq(label("tau J", r"\tau J"), scaled, evaluate=False)
    )
    return scaled
