r"""Work of a request and the flow balance: what an iteration takes at a given rate.

Statement. Under the affine law an iteration takes :math:`\tau = c_0 + c_p P + c_d D + c_k K + c_a A`. Each request causes W of it
over its life, so a replica that never idles and completes what arrives satisfies :math:`\tau = c_0 + \lambda\tau E[W]`.

Assumptions: affine law; one token per decoding request and iteration; chunks of the whole budget B, the last one ragged.
Not to be confused with the inter-token latency, which weighs iterations by the tokens they give.
"""

from __future__ import annotations

import sympy as sp

from .derivation import Derivation, Notebook
from .symbols import (
    BASE,
    BUDGET,
    CHUNKS,
    CONTEXT,
    DECODES,
    KV_READ,
    MEAN_VOLUME,
    MEAN_WORK,
    PER_CONTEXT,
    PER_DECODE,
    PER_KV,
    PER_PREFILL,
    PREFILL,
    RATE,
    READS,
    TAU,
    WORK,
    O,
    S,
    expect,
    moment,
    quantity,
)

BUSY = quantity("u", "share of time in which the replica iterates", "1")
OWN = quantity("E[r]/E[o - 1]", "mean KV that a decode reads", "tokens", latex=r"\bar k")
INTER_TOKEN = quantity("ITL", "token-weighted inter-token latency", "s", latex=r"\mathrm{ITL}")
LAST_CHUNK = quantity("l", "tokens of the last chunk", "tokens", latex=r"\ell")
KV_IN_USE = quantity("KV", "mean KV held over time", "tokens", latex=r"\overline{KV}")
HELD_PREFILL = quantity("H_P", "sum over a prompt's chunks of chunk * KV held", "tokens²")
HELD_CONTEXT = quantity("H_A", "sum over a prompt's chunks of attention work * KV held", "tokens³")
HELD_READS = quantity("H_K", "sum over a request's decodes of the square of the KV held", "tokens²")
MEAN_READS = quantity("E[r]", "mean KV read by a request's own decodes", "token-iterations")
TOKEN = sp.Symbol("j", integer=True, positive=True)


def reads() -> Derivation:
    """KV tokens that a request's own decodes read: r = (o-1)s + o(o-1)/2.

    Returns
    -------
    Derivation
        r in s and o, token-iterations.

    Examples
    --------
    >>> reads().lambdify("s", "o")(100, 3)  # 101 + 102
    203.0
    """
    book = Notebook()
    total = sp.Sum(S + TOKEN, (TOKEN, 1, O - 1))
    book.define("the j-th decode reads the prompt and j generated tokens, its own new one included", READS, total)
    result = (O - 1) * S + sp.factor(sp.summation(TOKEN, (TOKEN, 1, O - 1)))
    assert sp.expand(result - total.doit()) == 0
    book.define("sum", READS, result)
    return book.conclude("KV read by a request's own decodes", READS, result)


def prefill_context() -> Derivation:
    """Prefill attention work of a prompt: s**2/2, however it is chunked.

    Returns
    -------
    Derivation
        A of one prompt, tokens**2.
    """
    book = Notebook()
    whole = sp.Sum(BUDGET * ((TOKEN - 1) * BUDGET + BUDGET / 2), (TOKEN, 1, CHUNKS - 1))
    last = LAST_CHUNK * ((CHUNKS - 1) * BUDGET + LAST_CHUNK / 2)
    book.define("each chunk costs chunk * (past + chunk/2): m - 1 chunks of B and a last one", CONTEXT, whole + last)
    summed = book.define("sum", CONTEXT, sp.expand(whole.doit() + last))
    book.note("the chunks make up the prompt", sp.Eq(LAST_CHUNK, S - (CHUNKS - 1) * BUDGET))
    result = sp.simplify(summed.subs(LAST_CHUNK, S - (CHUNKS - 1) * BUDGET))
    return book.conclude("prefill attention work of a prompt", CONTEXT, result)


def work() -> Derivation:
    """Work of one request: W = cp s + cd (o-1) + ck r + ca s**2/2.

    Returns
    -------
    Derivation
        W in s, o and the coefficients, s.
    """
    book = Notebook()
    book.define(
        "an iteration takes",
        TAU,
        BASE + PER_PREFILL * PREFILL + PER_DECODE * DECODES + PER_KV * KV_READ + PER_CONTEXT * CONTEXT,
    )
    book.note("over its life a request contributes its prompt to P", sp.Eq(PREFILL, S))
    book.note("one to D in each of its decodes", sp.Eq(DECODES, O - 1))
    book.note("its reads to K", sp.Eq(KV_READ, reads().result))
    book.note("its attention work to A", sp.Eq(CONTEXT, prefill_context().result))
    result = PER_PREFILL * S + PER_DECODE * (O - 1) + PER_KV * reads().result + PER_CONTEXT * prefill_context().result
    return book.conclude("work of a request", WORK, result, assumptions=("affine step-time law",))


def mean_work() -> Derivation:
    """Mean work in moments of the lengths.

    Returns
    -------
    Derivation
        E[W] in E[s], E[o], E[s o], E[o^2], E[s^2] and the coefficients, s.
    """
    book = Notebook()
    one = book.define("work of a request", WORK, work().result)
    parts = (PER_PREFILL, PER_DECODE, PER_KV, PER_CONTEXT)
    result = sp.Add(*(part * expect(sp.diff(one, part)) for part in parts))
    book.define("take the mean of each monomial", MEAN_WORK, result)
    return book.conclude("mean work", MEAN_WORK, result, assumptions=("affine step-time law",))


def iteration_time(*, idling: bool = False) -> Derivation:
    """Mean iteration time at a rate: tau = c0/(1 - lambda E[W]), with idling c0/(1 - lambda E[W]/u).

    Parameters
    ----------
    idling : bool
        Whether the replica iterates only a share u of the time.

    Returns
    -------
    Derivation
        tau, s.

    Examples
    --------
    >>> iteration_time().result
    c_0/(-E[W]*lambda + 1)
    """
    book = Notebook()
    rate = RATE / BUSY if idling else RATE
    if idling:
        book.note("a share u of the time serves all that arrives, at the rate", rate)
    means = {PREFILL: moment(s=1), DECODES: moment(o=1) - 1, KV_READ: expect(reads().result), CONTEXT: moment(s=2) / 2}
    law = BASE + PER_PREFILL * PREFILL + PER_DECODE * DECODES + PER_KV * KV_READ + PER_CONTEXT * CONTEXT
    book.define("an iteration takes", TAU, law)
    for name, mean in means.items():
        book.note("mean content: what the requests served per iteration bring", sp.Eq(name, rate * TAU * mean))
    balance = law.subs({name: rate * TAU * mean for name, mean in means.items()})
    # The bracket is E[W]: the same sum of means, by linearity.
    assert sp.expand(balance - BASE - rate * TAU * mean_work().result) == 0
    balance = book.note("the sum of the means is the mean work", sp.Eq(TAU, BASE + rate * TAU * MEAN_WORK))
    (result,) = sp.solve(balance, TAU)
    result = BASE / sp.expand(sp.denom(sp.together(result)) * BASE / sp.numer(sp.together(result)))
    book.note("solve for tau", sp.Eq(TAU, result))
    return book.conclude(
        "iteration time at a rate",
        TAU,
        result,
        assumptions=(
            "affine step-time law",
            "stationary: completions match arrivals",
            f"lambda E[W] < {BUSY if idling else 1}",
        ),
        standing="approximation" if idling else "exact",
    )


def inter_token_latency() -> Derivation:
    """Inter-token latency, token-weighted: (c0 + cd + ck E[own KV])/(1 - lambda E[W]/u).

    Returns
    -------
    Derivation
        ITL, s.
    """
    book = Notebook()
    own = BASE + PER_DECODE + PER_KV * OWN
    balance = book.note(
        "the iteration of a tagged decode holds its own token besides what arrives during it",
        sp.Eq(INTER_TOKEN, own + RATE / BUSY * INTER_TOKEN * MEAN_WORK),
    )
    (result,) = sp.solve(balance, INTER_TOKEN)
    result = own / sp.expand(sp.simplify(own / result))
    book.note("solve", sp.Eq(INTER_TOKEN, result))
    return book.conclude(
        "inter-token latency",
        INTER_TOKEN,
        result,
        standing="approximation",
        assumptions=("a tagged decode sees the stationary flow of the others and its own token",),
    )


def kv_in_use() -> Derivation:
    """Mean KV held over time, tokens: lambda (tau E[g] + own), own the KV that a request holds times what it adds to iterations.

    Returns
    -------
    Derivation
        KV in use, tokens.
    """
    book = Notebook()
    time = book.note("a request's KV integrated over time, each iteration lasting tau", TAU * MEAN_VOLUME)
    own = PER_PREFILL * HELD_PREFILL + PER_DECODE * MEAN_READS + PER_KV * HELD_READS + PER_CONTEXT * HELD_CONTEXT
    book.note("its own tokens make the iterations longer in which it holds that KV", own)
    stretch = sp.Symbol("x", positive=True)
    (found,) = sp.solve(sp.Eq(stretch, 1 + RATE / BUSY * MEAN_WORK * stretch), stretch)
    book.define("each second added brings arrivals whose work adds more, in all the factor", stretch, found)
    result = RATE * (time + own * found)
    return book.conclude(
        "KV in use (Little's law)",
        KV_IN_USE,
        result,
        standing="approximation",
        assumptions=("as the inter-token latency",),
    )
