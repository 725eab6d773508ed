r"""Residence, KV volume and their means in moments of the lengths.

Statement. With m = ceil(s/B) whole-budget chunks a request is resident n = m + o - 1 iterations and holds, summed over them,
:math:`g = B\,m(m-1)/2 + s + (o-1)s + o(o-1)/2` token-iterations, exactly, for blocks of one token. m stays a variable of its own
(E[m], E[m^2]): no moment of s gives it. Where every prompt fits in one chunk, m = 1 and g = s o + o(o-1)/2.

Assumptions: chunks of exactly B tokens (decodes take none of the budget), the ragged one last, or first for the least volume that
any chunking can have. Block rounding is `grown`, exact, in the residue of a length modulo the block size.
"""

from __future__ import annotations

import sympy as sp

from ...errors import check_choice
from .derivation import Derivation, Notebook
from .flow_balance import HELD_CONTEXT, HELD_PREFILL, HELD_READS, reads
from .symbols import BLOCK, BUDGET, CHUNKS, ITERATIONS, MEAN_VOLUME, READS, VOLUME, O, S, expect, independent, quantity

ITERATION = sp.Symbol("j", integer=True, positive=True)
BLOCKS = sp.Symbol("k", integer=True, nonnegative=True)
REST = sp.Symbol("q", integer=True, nonnegative=True)
LENGTH = quantity("x", "a length", "tokens", integer=True)
GROWN = quantity("G(x)", "sum of the block-rounded lengths 1..x", "token-iterations", latex="G(x)")
PAGED = quantity("c", "chunk of the smoothed volume", "tokens")

CONVENTIONS = ("engine", "least", "blocks", "slots", "wait", "continuous")


def iterations() -> Derivation:
    """Iterations a request is resident: n = m + o - 1.

    Returns
    -------
    Derivation
        n in m = ceil(s/B) and o.
    """
    book = Notebook()
    book.note("m iterations prefill the prompt, and the last of them gives the first token", CHUNKS)
    book.note("each further token takes one iteration", O - 1)
    return book.conclude("iterations resident", ITERATIONS, CHUNKS + O - 1)


def volume(*, convention: str = "engine") -> Derivation:
    """KV tokens held, summed over a request's iterations: g.

    Parameters
    ----------
    convention : {"engine", "least", "blocks", "slots", "wait", "continuous"}
        Greedy chunks of B, the ragged one last; ragged one first (the least volume); greedy in whole blocks of b, B a multiple of b;
        one slot per output token (arXiv 2604.11001);
        one prefill iteration (arXiv 2504.11320); the smoothed volume of arXiv 2605.04595 with chunks c.

    Returns
    -------
    Derivation
        g in s, o, m and B (or c), token-iterations.

    Examples
    --------
    >>> volume().lambdify("s", "o", "m", "B")(100, 3, 1, 512)  # 100 + 101 + 102
    303.0
    """
    check_choice("convention", convention, CONVENTIONS)
    book = Notebook()
    decodes = sp.Sum(S + ITERATION, (ITERATION, 1, O - 1))
    if convention == "slots":
        held = sp.Sum(S + ITERATION, (ITERATION, 1, O))
        book.define("one slot per output token, footprint s + j after the j-th", VOLUME, held)
    elif convention == "wait":
        held = S + decodes
        book.define("one prefill iteration, then o - 1 decodes", VOLUME, held)
    elif convention == "least":
        held = sp.Sum(S - ITERATION * BUDGET, (ITERATION, 0, CHUNKS - 1)) + decodes
        book.define("backwards from the whole prompt, each chunk of B held one iteration less", VOLUME, held)
    elif convention == "continuous":
        held = sp.Integral(LENGTH / PAGED, (LENGTH, 0, S)) + S / 2 + sp.Sum(S + ITERATION, (ITERATION, 1, O))
        book.define("prefill at c tokens an iteration, half a prompt for its ragged end, o decodes", VOLUME, held)
    elif convention == "blocks":
        return _blocks(book)
    else:
        held = sp.Sum(ITERATION * BUDGET, (ITERATION, 1, CHUNKS - 1)) + S + decodes
        book.define("chunks of B, then the whole prompt, then one more token with each decode", VOLUME, held)
    result = sp.expand(held.doit())
    book.define("sum", VOLUME, result)
    kinds = {"engine": "greedy chunks", "least": "ragged chunk first"}
    return book.conclude(f"KV volume, {kinds.get(convention, convention)}", VOLUME, result)


def _blocks(book: Notebook) -> Derivation:
    chunked = book.note("whole chunks of B are whole blocks", sp.Sum(ITERATION * BUDGET, (ITERATION, 1, CHUNKS - 1)))
    prompt = book.note("the prompt rounded up", BLOCK * sp.ceiling(S / BLOCK))
    growth = grown().result
    decodes = book.note(
        "then o - 1 growing lengths, G(s + o - 1) - G(s)", growth.subs(LENGTH, S + O - 1) - growth.subs(LENGTH, S)
    )
    result = sp.expand(chunked.doit()) + prompt + decodes
    book.define("sum", VOLUME, result)
    return book.conclude("KV volume in whole blocks", VOLUME, result, assumptions=("B a multiple of b",))


def mean_volume(*, chunked: bool = True, independent_lengths: bool = False) -> Derivation:
    """E[g] in moments of the lengths.

    Parameters
    ----------
    chunked : bool
        Keep m = ceil(s/B) with its own moments E[m], E[m^2]; False: every prompt fits in one chunk, m = 1.
    independent_lengths : bool
        Whether prompt and output are independent, E[s o] = E[s] E[o].

    Returns
    -------
    Derivation
        E[g], token-iterations.
    """
    book = Notebook()
    one = book.define("volume of a request", VOLUME, volume().result)
    if not chunked:
        one = book.define("one chunk", VOLUME, sp.expand(one.subs(CHUNKS, 1)))
    result = book.define("take the mean of each monomial", MEAN_VOLUME, expect(one))
    if independent_lengths:
        result = book.define("independent lengths", MEAN_VOLUME, independent(result))
    assumed = ("s <= B",) if not chunked else ("chunks of exactly B tokens",)
    return book.conclude("mean KV volume", MEAN_VOLUME, result, assumptions=assumed)


def grown() -> Derivation:
    """Sum of the block-rounded lengths 1..x: x(x+b)/2 + q(b-q)/2 with q = x mod b.

    Returns
    -------
    Derivation
        G(x), token-iterations; a decode phase holds G(s+o-1) - G(s).
    """
    book = Notebook()
    book.note("x tokens fill k blocks and q tokens of another", sp.Eq(LENGTH, BLOCK * BLOCKS + REST))
    inner = sp.Sum(BLOCK * BLOCK * ITERATION, (ITERATION, 1, BLOCKS)) + REST * (BLOCKS + 1) * BLOCK
    book.define("the b lengths of the j-th block round up to j b, the last q to (k + 1) b", GROWN, inner)
    summed = book.define("sum", GROWN, sp.factor(inner.doit()))
    put = sp.expand(summed.subs(BLOCKS, (LENGTH - REST) / BLOCK))
    result = LENGTH * (LENGTH + BLOCK) / 2 + REST * (BLOCK - REST) / 2
    assert sp.expand(put - result) == 0
    book.define("put k = (x - q)/b", GROWN, put)
    q = sp.Mod(LENGTH, BLOCK)
    return book.conclude("growth in whole blocks", GROWN, result.subs(REST, q))


def held_products() -> tuple[Derivation, Derivation, Derivation]:
    """What a request adds to iterations, times the KV it holds there, summed: chunks, their attention work, and decodes.

    Returns
    -------
    tuple of Derivation
        H_P (tokens**2), H_A (tokens**3) in s, m, B, and H_K (tokens**2) in s, o.
    """
    past = (CHUNKS - 1) * BUDGET
    found = []
    whole = sp.Sum(BUDGET * ITERATION * BUDGET, (ITERATION, 1, CHUNKS - 1))
    context = sp.Sum(BUDGET * (ITERATION * BUDGET - BUDGET / 2) * ITERATION * BUDGET, (ITERATION, 1, CHUNKS - 1))
    last, middle = S - past, past + (S - past) / 2
    for name, sums, rest, why in (
        (HELD_PREFILL, whole, last * S, "tokens of each chunk times KV held with it"),
        (HELD_CONTEXT, context, last * middle * S, "attention work of each chunk times KV held with it"),
        (HELD_READS, sp.Sum((S + ITERATION) ** 2, (ITERATION, 1, O - 1)), sp.Integer(0), "a decode reads what is held"),
    ):
        book = Notebook()
        book.define(why, name, sums + rest)
        result = sp.expand(sums.doit() + rest)
        book.define("sum", name, result)
        found.append(book.conclude(f"{why}, summed", name, result))
    return found[0], found[1], found[2]


def read_volume() -> Derivation:
    """How much of the volume is not read by decodes: g - r is held during prefill.

    Returns
    -------
    Derivation
        g - r in s, m, B, token-iterations.
    """
    book = Notebook()
    difference = book.note("volume less reads", sp.expand(volume().result - reads().result))
    return book.conclude("KV held during prefill", VOLUME - READS, difference)
