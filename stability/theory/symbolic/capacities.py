r"""Load, capacity and bound of a replica, from flow balance.

Statement. A resource of capacity C_r of which a request occupies a_r, summed over its iterations, has

.. math:: \mathrm{load}_r = \lambda(E[W] + c_0 E[a_r]/C_r) \le 1, \qquad \lambda^* = 1/(E[W] + c_0 E[a_r]/C_r).

**Necessary** for every policy with the least demands (`bound`: idling, pausing and small batches do not help); a policy's capacity
with its own demands (`load`, `capacity`), in the large-system limit. Several resources: the greatest of them.
"""

from __future__ import annotations

from functools import lru_cache

import sympy as sp

from ...errors import check_choice
from .derivation import Derivation, Notebook
from .flow_balance import iteration_time, mean_work
from .symbols import (
    BASE,
    BUDGET,
    CAPACITY,
    HEADROOM,
    MEAN_DEMAND,
    MEAN_VOLUME,
    MEAN_WORK,
    MEMORY,
    PER_CONTEXT,
    PER_DECODE,
    PER_ITERATION,
    PER_KV,
    PER_PREFILL,
    RATE,
    RESERVATION,
    SLOTS,
    TAU,
    O,
    S,
    expect,
    moment,
    quantity,
)
from .volumes import iterations, mean_volume

LOAD = quantity("load", "share of the capacity that a rate uses", "1", latex=r"\mathrm{load}")
CAPACITY_RATE = quantity("lambda*", "capacity", "1/s", latex=r"\lambda^*")
HORIZON = quantity("T", "time", "s")
COUNT = quantity("I", "iterations made by time T", "iterations")
SLACK = quantity("slack", "KV left unused by reservations", "tokens", latex=r"\mathrm{slack}")
EVICTIONS = quantity("e", "evictions per completed request", "1", positive=False)
LOST_WORK = quantity("w", "extra work of one eviction", "s", positive=False)
LOST_VOLUME = quantity("v", "extra KV volume of one eviction", "token-iterations", positive=False)
FREE = quantity("E[F]", "mean KV left unused", "tokens", positive=False)
GENERATED = quantity("d", "tokens a victim had generated", "tokens")

RESOURCES = ("kv_memory", "batch_slots", "token_budget")
"""As `stability.theory.conditions.RESOURCE_NAMES`; `None` is any resource, with E[a_r] and C_r as symbols."""


def demand_of(resource: str | None) -> tuple[sp.Expr, sp.Expr]:
    """Mean demand and capacity of a resource, in moments.

    Parameters
    ----------
    resource : {"kv_memory", "batch_slots", "token_budget"} or None
        None leaves E[a_r] and C_r as symbols.
    """
    if resource is None:
        return MEAN_DEMAND, CAPACITY
    check_choice("resource", resource, RESOURCES)
    if resource == "kv_memory":
        return mean_volume().result, MEMORY
    if resource == "batch_slots":
        return expect(iterations().result), SLOTS
    return expect(S + O - 1), BUDGET


def bound() -> Derivation:
    """The load that no policy can exceed: from time and resource used up to a horizon, whatever happens in between.

    Returns
    -------
    Derivation
        load_r; stability needs load_r <= 1.
    """
    book = Notebook()
    time = book.note(
        "iterations and work take no more than the time there is", COUNT * BASE + RATE * HORIZON * MEAN_WORK <= HORIZON
    )
    use = book.note(
        "requests occupy no more of the resource than iterations offer",
        RATE * HORIZON * MEAN_DEMAND <= CAPACITY * COUNT,
    )
    least = sp.solve(sp.Eq(use.lhs, use.rhs), COUNT)[0]
    book.note("hence at least so many iterations", least <= COUNT)
    together = book.note("put into the first", time.subs(COUNT, least))
    load = sp.expand(together.lhs / HORIZON)
    result = RATE * sp.expand(load / RATE)
    book.note("divide by T", result <= 1)
    return book.conclude(
        "bound on every policy",
        LOAD,
        result,
        standing="necessary",
        assumptions=(
            "affine law with coefficients >= 0",
            "one token per request and iteration",
            "no KV shared",
            "a_r the least demand",
        ),
    )


def load(*, resource: str | None = None) -> Derivation:
    """Load of a resource at a rate: lambda (E[W] + c0 E[a_r]/C_r).

    Parameters
    ----------
    resource : {"kv_memory", "batch_slots", "token_budget"}, optional
        Puts in the resource's demand and the work in moments of the lengths.

    Returns
    -------
    Derivation
        load_r.
    """
    return _load(resource)


@lru_cache(maxsize=4)
def _load(resource: str | None) -> Derivation:
    book = Notebook()
    use = book.note("mean use at the capacity equals what there is", sp.Eq(RATE * TAU * MEAN_DEMAND, CAPACITY))
    balanced = book.note("iteration time from flow balance", use.subs(TAU, iteration_time().result))
    (found,) = sp.solve(balanced, RATE)
    result = sp.expand(sp.simplify(1 / found)) * RATE
    book.note("solve for the rate lambda*; the load is lambda/lambda*", sp.Eq(LOAD, result))
    if resource is not None:
        demand, capacity_ = demand_of(resource)
        result = result.subs({MEAN_WORK: mean_work().result, MEAN_DEMAND: demand, CAPACITY: capacity_})
        book.define(f"demand of {resource} and work in moments", LOAD, result)
    return book.conclude(
        f"load of {resource or 'a resource'}",
        LOAD,
        result,
        standing="approximation",
        assumptions=("many requests running: mean use up to the capacity", "affine step-time law"),
    )


def capacity(*, resource: str | None = None) -> Derivation:
    """Rate at which a resource's load is 1: lambda*.

    Parameters
    ----------
    resource : {"kv_memory", "batch_slots", "token_budget"}, optional
        As `load`.

    Returns
    -------
    Derivation
        lambda*, 1/s.

    Examples
    --------
    c0 = 10 ms, work 20 ms, 5 iterations' worth of the resource: 1/(0.02 + 0.05).

    >>> round(capacity().lambdify("c_0", "E[W]", "E[a_r]", "C_r")(0.01, 0.02, 5.0, 1.0), 3)
    14.286
    """
    book = Notebook()
    loaded = load(resource=resource)
    balance = book.note("load 1", sp.Eq(loaded.result, 1))
    result = 1 / sp.diff(balance.lhs, RATE)
    book.define("the load is proportional to the rate", CAPACITY_RATE, result)
    return book.conclude(
        f"capacity, {resource or 'any resource'}",
        CAPACITY_RATE,
        result,
        standing=loaded.standing,
        assumptions=loaded.assumptions,
    )


def packing_slack() -> Derivation:
    """KV that reservations leave unused while the head of the queue does not fit: E[R^2]/(2 E[R]).

    Returns
    -------
    Derivation
        Slack, tokens.
    """
    book = Notebook()
    place = sp.Symbol("z", positive=True)
    held = book.note(
        "the cache ends at a uniform place z within the reservation R that covers it; unused is z",
        sp.Integral(place / RESERVATION, (place, 0, RESERVATION)),
    )
    inner = book.note("integrate", held.doit())
    weighted = book.note("a reservation covers the end with weight R/E[R]", RESERVATION * inner / moment(reservation=1))
    result = expect(weighted)
    return book.conclude(
        "packing slack of reservations",
        SLACK,
        result,
        standing="approximation",
        assumptions=("reservations side by side form a renewal process that the cache's end inspects",),
    )


def gate_capacity() -> Derivation:
    """Capacity of a prompt gate that evicts: lambda*(h) = 1/(c0/y + E[W] + e w), memory full but for E[F].

    Returns
    -------
    Derivation
        lambda*, in e, w, v and E[F] as symbols; see `eviction_waste` and `free_memory`.
    """
    book = Notebook()
    per_request = MEAN_WORK + EVICTIONS * LOST_WORK
    book.define("a request causes its own work and that of its evictions", TAU, BASE + RATE * TAU * per_request)
    full = book.note(
        "memory: y completions an iteration hold all but E[F]",
        sp.Eq(PER_ITERATION * (MEAN_VOLUME + EVICTIONS * LOST_VOLUME), MEMORY - FREE),
    )
    book.note("completions per second", sp.Eq(RATE, PER_ITERATION / TAU))
    (rate,) = sp.solve(sp.Eq(PER_ITERATION / RATE, BASE + PER_ITERATION * per_request), RATE)
    rate = 1 / sp.expand(sp.simplify(1 / rate))
    book.note("solve for the rate", sp.Eq(CAPACITY_RATE, rate))
    (per_iteration,) = sp.solve(full, PER_ITERATION)
    book.note("and for the completions per iteration", sp.Eq(PER_ITERATION, per_iteration))
    return book.conclude(
        "capacity of a prompt gate",
        CAPACITY_RATE,
        rate.subs(PER_ITERATION, per_iteration),
        standing="approximation",
        assumptions=("memory binds", "completions do not synchronise"),
    )


def eviction_waste() -> tuple[Derivation, Derivation]:
    """What an eviction costs when generated tokens are kept and recomputed as prompt: extra work w and extra KV volume v.

    Returns
    -------
    tuple of Derivation
        w, s, and v, token-iterations, of a victim with prompt s that had generated d tokens; the recomputation in one chunk.

    Notes
    -----
    Decodes done before the eviction count towards the request: they are in E[W] and E[g] already. The recomputation gives a token
    as every last prefill chunk does, in place of a decode.
    """
    found = []
    known = S + GENERATED
    token = sp.Symbol("j", integer=True, positive=True)
    d = sp.Symbol("d", integer=True, positive=True)
    o = sp.Symbol("o", integer=True, positive=True)
    for name, kind in ((LOST_WORK, "work"), (LOST_VOLUME, "volume")):
        book = Notebook()
        decode = PER_DECODE + PER_KV * (S + token) if kind == "work" else S + token
        first = (PER_PREFILL * S + PER_CONTEXT * S**2 / 2) if kind == "work" else S
        again = (PER_PREFILL * (S + d) + PER_CONTEXT * (S + d) ** 2 / 2) if kind == "work" else S + d
        plain = book.note(f"{kind} without eviction: prefill, o - 1 decodes", first + sp.Sum(decode, (token, 1, o - 1)))
        evicted = book.note(
            "with it: prefill, d - 1 decodes, prefill of s + d, the other decodes",
            first + sp.Sum(decode, (token, 1, d - 1)) + again + sp.Sum(decode, (token, d + 1, o - 1)),
        )
        difference = sp.expand(evicted.doit() - plain.doit())
        assert o not in difference.free_symbols
        result = sp.factor(difference.subs(d, GENERATED), deep=False)
        result = sp.collect(sp.expand(result), [PER_PREFILL, PER_DECODE, PER_KV, PER_CONTEXT])
        book.define("the difference", name, result)
        found.append(
            book.conclude(
                f"extra {kind} of an eviction",
                name,
                result,
                assumptions=("recomputation, generated tokens kept (vLLM)", f"{known} <= B"),
            )
        )
    return found[0], found[1]


def watermark_row() -> Derivation:
    """The memory row with h tokens kept free, before eviction waste: M - h in place of M.

    Returns
    -------
    Derivation
        lambda*, 1/s.
    """
    book = Notebook()
    general = book.define("capacity of memory", CAPACITY_RATE, capacity(resource="kv_memory").result)
    result = general.subs(MEMORY, MEMORY - HEADROOM)
    return book.conclude("memory row with headroom", CAPACITY_RATE, result, standing="approximation")
