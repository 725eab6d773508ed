r"""A Foster-Lyapunov certificate for reservation admission.

Statement. Let V be the sum over queued and resident requests of

.. math:: v = \text{remaining work} + c_0 \sum_r \frac{\text{remaining } a_r}{(1-\delta_r)\,C_r}, \qquad
          \delta = \frac{\text{largest reservation} + h}{M}\ \text{for memory}, 0\ \text{for slots and token budget.}

A step of duration tau that leaves a request waiting lowers V by at least tau; arrivals raise it by lambda tau E[v] on average. So with
:math:`\epsilon = 1 - \lambda E[v] > 0` the drift is at most -epsilon tau wherever somebody waits, and nobody waits only where
V <= V_b, a bound that the resident requests cannot exceed. **Sufficient** for stability: the chain is positive recurrent (Foster),
and from V it reaches the set within V/epsilon seconds on average.

Why a step lowers V by tau: its work falls due exactly, tau - c0 (at least that, where the affine law is a majorant). If the token budget
is used up the token term falls by c0. Otherwise every resident completes its remaining chunk or decodes, so that its remaining
iterations fall by one; then either all N slots do so and the slot term falls by c0, or the head's reservation does not fit, more
than (1-delta)M is reserved, and the memory term falls by more than c0. No term ever rises: chunks cut short leave ceil(rest/B) as it was.

Assumptions: affine law (or majorant) with coefficients >= 0, bounded lengths, Poisson arrivals, blocks rounded up in the
reservation, no eviction. With one resource that can block, the others' terms may be left out (`resources=("kv_memory",)`): then the
budget must never be used up by prompts and slots never run out.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from ...errors import InputError, check_choice
from .capacities import RESOURCES
from .derivation import Derivation, Notebook
from .symbols import (
    BASE,
    BUDGET,
    HEADROOM,
    MEAN_ITERATIONS,
    MEAN_WORK,
    MEMORY,
    RATE,
    RESERVATION,
    SLOTS,
    TAU,
    label,
    quantity,
)

DELTA = quantity("delta", "largest reservation and headroom over M", "1", latex=r"\delta")
LARGEST = quantity("R_max", "largest reservation", "tokens", latex=r"R_{\max}")
MARGIN = quantity(
    "epsilon", "drift margin: V falls by epsilon seconds per second", "1", latex=r"\varepsilon", positive=False
)
POTENTIAL = quantity("V", "remaining work and occupancy of all requests", "s")
VALUE = quantity("E[v]", "mean of V brought by a request", "s")
LEVEL = quantity("V_b", "level above which somebody waits", "s")
STEP_WORK = quantity("w_t", "work done in a step", "s")
RESERVED = quantity("U", "KV reserved during a step", "tokens")
OVER = quantity("U+", "KV reserved beyond (1-delta)M", "tokens", positive=False, latex="U^+")
LONGEST_WORK = quantity("W_max", "largest work of a request", "s", latex=r"W_{\max}")
LONGEST = quantity("n_max", "most iterations of a request", "iterations", latex=r"n_{\max}")
MOST_TOKENS = quantity("t_max", "most tokens of a request, s + o - 1", "tokens", latex=r"t_{\max}")
MEAN_RESERVED = quantity("E[R n]", "mean of reservation times iterations", "token-iterations", latex=r"E[R\,n]")
MEAN_TOKENS = quantity("E[s + o - 1]", "mean tokens computed", "tokens")
RETURN = quantity("E[T]", "mean time to return to the set", "s")
PROVED = quantity("lambda_proved", "rate below which stability is proved", "1/s", latex=r"\lambda_{\text{proved}}")

_ASSUMED = (
    "affine law or majorant, coefficients >= 0",
    "bounded lengths",
    "Poisson arrivals",
    "reservation admission, no eviction",
)


def occupancy(resources: Sequence[str]) -> sp.Expr:
    """Sum of E[a_r]/((1-delta_r)C_r) over resources that can block."""
    if not resources:
        raise InputError("resources is empty, must name what can block. Name at least kv_memory.")
    parts = {
        "kv_memory": MEAN_RESERVED / ((1 - DELTA) * MEMORY),
        "batch_slots": MEAN_ITERATIONS / SLOTS,
        "token_budget": MEAN_TOKENS / BUDGET,
    }
    for name in resources:
        check_choice("resources", name, RESOURCES)
    return sp.Add(*(parts[name] for name in dict.fromkeys(resources)))


def blocked_step(*, resource: str = "kv_memory") -> Derivation:
    """How much more than tau a step lowers V when a resource keeps the head of the queue waiting.

    Parameters
    ----------
    resource : {"kv_memory", "batch_slots", "token_budget"}
        The one that blocks.

    Returns
    -------
    Derivation
        Fall of V less tau, s: never negative. For memory in U+, what is reserved beyond (1-delta)M.
    """
    check_choice("resource", resource, RESOURCES)
    book = Notebook()
    book.define("duration of the step", TAU, BASE + STEP_WORK)
    if resource == "kv_memory":
        blocked = book.note("the head does not fit", RESERVED + RESERVATION + HEADROOM > MEMORY)
        book.define("largest reservation and headroom", DELTA, (LARGEST + HEADROOM) / MEMORY)
        least = blocked.rhs - HEADROOM - LARGEST
        assert sp.expand(least - (1 - (LARGEST + HEADROOM) / MEMORY) * MEMORY) == 0
        book.note("hence, as R <= R_max", RESERVED > (1 - DELTA) * MEMORY)
        term = BASE * ((1 - DELTA) * MEMORY + OVER) / ((1 - DELTA) * MEMORY)
        book.define(
            "every resident's remaining occupancy falls by its reservation",
            label("fall of the term", r"\text{fall of the term}"),
            term,
        )
    elif resource == "batch_slots":
        term = BASE * SLOTS / SLOTS
        book.define(
            "all N residents complete an iteration",
            label("fall of the term", r"\text{fall of the term}"),
            sp.Mul(BASE, SLOTS, 1 / SLOTS, evaluate=False),
        )
    else:
        term = BASE * BUDGET / BUDGET
        book.define(
            "B tokens are computed",
            label("fall of the term", r"\text{fall of the term}"),
            sp.Mul(BASE, BUDGET, 1 / BUDGET, evaluate=False),
        )
    fall = book.define("with the work done", label("fall of V", r"\text{fall of } V"), STEP_WORK + term)
    result = sp.simplify(fall - (BASE + STEP_WORK))
    return book.conclude(
        f"a step blocked by {resource}",
        label("fall - tau", r"\text{fall of } V - \tau"),
        result,
        standing="sufficient",
        assumptions=_ASSUMED,
    )


def drift_margin(*, resources: Sequence[str] = RESOURCES) -> Derivation:
    """Epsilon: outside the set {V <= V_b} the expected drift of V over a step is at most -epsilon tau.

    Parameters
    ----------
    resources : sequence of {"kv_memory", "batch_slots", "token_budget"}
        Those that can block.

    Returns
    -------
    Derivation
        epsilon, without unit.
    """
    book = Notebook()
    value = MEAN_WORK + BASE * occupancy(resources)
    book.define("an arrival brings, on average", VALUE, value)
    up = book.note("arrivals of a step raise V by", RATE * TAU * VALUE)
    for name in resources:
        book.note(f"blocked by {name}, V falls by tau and", blocked_step(resource=name).result)
    drift = book.note("expected change, at most", sp.collect(sp.expand(up - TAU), TAU))
    result = sp.expand(-drift / TAU).subs(VALUE, value)
    book.define("per unit of tau, epsilon with the sign changed", MARGIN, result)
    return book.conclude("drift margin of reservation", MARGIN, result, standing="sufficient", assumptions=_ASSUMED)


def bounded_set(*, resources: Sequence[str] = RESOURCES) -> Derivation:
    """V_b: where V exceeds it, not all requests can be resident, so somebody waits.

    Parameters
    ----------
    resources : sequence of {"kv_memory", "batch_slots", "token_budget"}
        The terms of V.

    Returns
    -------
    Derivation
        V_b, s.
    """
    occupancy(resources)
    book = Notebook()
    work = book.note("at most N residents, each with no more work than a whole request", SLOTS * LONGEST_WORK)
    parts = {
        "kv_memory": BASE * MEMORY * LONGEST / ((1 - DELTA) * MEMORY),
        "batch_slots": BASE * SLOTS * LONGEST / SLOTS,
        "token_budget": BASE * SLOTS * MOST_TOKENS / BUDGET,
    }
    reasons = {
        "kv_memory": "reservations fit in M, each for at most n_max iterations",
        "batch_slots": "N residents for at most n_max iterations",
        "token_budget": "N residents with at most t_max tokens",
    }
    for name in resources:
        book.note(reasons[name], parts[name])
    result = work + sp.Add(*(sp.simplify(parts[name]) for name in dict.fromkeys(resources)))
    book.define("sum", LEVEL, result)
    return book.conclude("bounded set", LEVEL, result, standing="sufficient", assumptions=_ASSUMED)


def return_time() -> Derivation:
    """Mean time to come back to the set from V: at most V/epsilon.

    Returns
    -------
    Derivation
        Seconds.
    """
    book = Notebook()
    time = RETURN
    sums = book.note("drifts summed until the set is reached; V stays >= 0", sp.Eq(POTENTIAL - MARGIN * time, 0))
    (result,) = sp.solve(sums, time)
    return book.conclude("return time, at most", time, result, standing="sufficient", assumptions=_ASSUMED)


def proved_capacity(*, resources: Sequence[str] = RESOURCES) -> Derivation:
    """Rate at which the margin vanishes: 1/(E[W] + c0 sum_r E[a_r]/((1-delta_r)C_r)).

    Parameters
    ----------
    resources : sequence of {"kv_memory", "batch_slots", "token_budget"}
        Those that can block.

    Returns
    -------
    Derivation
        1/s.
    """
    book = Notebook()
    margin = drift_margin(resources=resources).result
    balance = book.note("no margin left", sp.Eq(margin, 0))
    result = 1 / sp.expand((1 - margin) / RATE)
    assert sp.simplify(balance.lhs.subs(RATE, result)) == 0
    return book.conclude("proved capacity of reservation", PROVED, result, standing="sufficient", assumptions=_ASSUMED)
