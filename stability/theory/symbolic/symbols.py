"""The symbols of the theory, with meaning and unit, and the expectation that turns lengths into moments.

Names are those of docs/reference/glossary.md. All symbols are positive unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What a symbol stands for.

    Attributes
    ----------
    latex : str
        How it is printed.
    meaning : str
    unit : str
    """

    latex: str
    meaning: str
    unit: str


QUANTITIES: dict[sp.Symbol, Quantity] = {}
"""Every symbol that a derivation may use."""


def quantity(
    name: str, meaning: str, unit: str, *, latex: str | None = None, integer: bool = False, positive: bool = True
) -> sp.Symbol:
    """A new symbol, entered in `QUANTITIES`.

    Parameters
    ----------
    name, meaning, unit : str
        As in the glossary.
    latex : str, optional
        How it is printed; the name itself if omitted.
    integer : bool
        Whether sums may run up to it.
    positive : bool
        False for quantities that may vanish or be negative, which are then taken as real.
    """
    assumptions = {"positive": True} if positive else {"real": True}
    if integer:
        assumptions["integer"] = True
    symbol = sp.Symbol(name, **assumptions)
    clash = next((other for other in QUANTITIES if str(other) == name and other != symbol), None)
    assert clash is None, f"{name} has two readings"
    QUANTITIES[symbol] = Quantity(latex=latex or name, meaning=meaning, unit=unit)
    return symbol


S = quantity("s", "prompt tokens of a request", "tokens", integer=True)
O = quantity("o", "output tokens of a request", "tokens", integer=True)  # noqa: E741 - the theory's name
MEMORY = quantity("M", "KV cache of a replica", "tokens")
SLOTS = quantity("N", "batch slots", "requests")
BUDGET = quantity("B", "token budget of an iteration", "tokens", integer=True)
HEADROOM = quantity("h", "KV kept free at admission", "tokens")
RATE = quantity("lambda", "arrivals per second", "1/s", latex=r"\lambda")

BASE = quantity("c_0", "time of an empty iteration", "s")
PER_PREFILL = quantity("c_p", "time per prompt token", "s/token")
PER_DECODE = quantity("c_d", "time per decoding request", "s/token")
PER_KV = quantity("c_k", "time per KV token read", "s/token")
PER_CONTEXT = quantity("c_a", "time per unit of prefill attention work", "s/token²")
COEFFICIENTS = (BASE, PER_PREFILL, PER_DECODE, PER_KV, PER_CONTEXT)

PREFILL = quantity("P", "prompt tokens computed in an iteration", "tokens")
DECODES = quantity("D", "requests that decode one token each in an iteration", "tokens")
KV_READ = quantity("K", "KV tokens read by the decoding requests", "tokens")
CONTEXT = quantity("A", "prefill attention work of an iteration", "tokens²")
TAU = quantity("tau", "iteration time", "s", latex=r"\tau")

CHUNKS = quantity("m", "chunks of a prompt, ceil(s/B)", "iterations", integer=True)
BLOCK = quantity("b", "tokens per KV block", "tokens", integer=True)
ITERATIONS = quantity("n", "iterations resident", "iterations")
VOLUME = quantity("g", "resident KV volume", "token-iterations")
READS = quantity("r", "KV read by a request's own decodes", "token-iterations")
WORK = quantity("W", "work: iteration time the request itself causes", "s")
PER_ITERATION = quantity("y", "completions per iteration", "1/iteration")

DEMAND = quantity("a_r", "demand of a request on resource r, summed over its iterations", "tokens or requests")
CAPACITY = quantity("C_r", "capacity of resource r", "tokens or requests")
RESERVATION = quantity("R", "KV set aside by reservation admission", "tokens")

MEAN_WORK = quantity("E[W]", "mean work of a request", "s")
MEAN_DEMAND = quantity("E[a_r]", "mean demand of a request on resource r", "tokens or requests")
MEAN_VOLUME = quantity("E[g]", "mean resident KV volume", "token-iterations")
MEAN_ITERATIONS = quantity("E[n]", "mean iterations resident", "iterations")

THETA = quantity("theta", "Lundberg exponent", "1/tokens", latex=r"\theta")
BETA = quantity("beta", "argument of transforms", "1/tokens", latex=r"\beta")
MEAN_PROMPT = quantity("E[s]", "mean prompt", "tokens")
MEAN_OUTPUT = quantity("E[o]", "mean output", "tokens")


def moment(*, s: int = 0, o: int = 0, m: int = 0, reservation: int = 0, total: int = 0) -> sp.Expr:
    """The symbol of a joint moment, such as E[s o] for ``moment(s=1, o=1)``; entered in `QUANTITIES` when first asked for.

    Parameters
    ----------
    s, o, m, reservation, total : int
        Powers of prompt, output, chunks ceil(s/B), reservation R and S = s + o.
    """
    powers = {"s": s, "o": o, "m": m, "R": reservation, "S": total}
    used = {name: power for name, power in powers.items() if power}
    if not used:
        return sp.Integer(1)
    plain = " ".join(name if power == 1 else f"{name}^{power}" for name, power in used.items())
    printed = r"\,".join(name if power == 1 else f"{name}^{{{power}}}" for name, power in used.items())
    symbol = sp.Symbol(f"E[{plain}]", positive=True)
    if symbol not in QUANTITIES:
        QUANTITIES[symbol] = Quantity(
            latex=f"E[{printed}]", meaning="mean of " + plain.replace(" ", "·"), unit=_unit(used)
        )
    return symbol


def _unit(powers: dict[str, int]) -> str:
    """Unit of a product of tokens and, for m, iterations."""
    tokens = sum(power for name, power in powers.items() if name != "m")
    parts = ["tokens" + {1: "", 2: "²", 3: "³"}.get(tokens, f"^{tokens}")] if tokens else []
    if powers.get("m"):
        parts.append("iterations" + {1: "", 2: "²"}[powers["m"]])
    return "-".join(parts)


VARIABLES = {"s": S, "o": O, "m": CHUNKS, "reservation": RESERVATION}
"""Random variables of one request that `expect` averages over."""


def expect(expression: sp.Expr) -> sp.Expr:
    """The mean of a polynomial in the lengths of a request, term by term: s*o becomes E[s o].

    Parameters
    ----------
    expression : Expr
        Polynomial in s, o, m and R; its coefficients may hold any other symbol.
    """
    names, variables = list(VARIABLES), list(VARIABLES.values())
    terms = sp.Poly(sp.expand(expression), *variables).terms()
    return sp.Add(*(factor * moment(**dict(zip(names, powers, strict=True))) for powers, factor in terms))


def independent(expression: sp.Expr) -> sp.Expr:
    """The same where prompt and output are independent: E[s o] becomes E[s] E[o], and likewise with chunks.

    Parameters
    ----------
    expression : Expr
        From `expect`.
    """
    changes = {}
    for i in range(4):
        for j in range(1, 4):
            for k in range(3):
                if i or k:
                    joint = moment(s=i, o=j, m=k)
                    changes[joint] = moment(s=i, m=k) * moment(o=j)
    return expression.subs(changes)


LABELS: dict[sp.Symbol, str] = {}
"""LaTeX of names that only head a line, such as tau J."""


def label(name: str, latex: str) -> sp.Symbol:
    """A name for the left of an equation, which no result is made of.

    Parameters
    ----------
    name, latex : str
        In text, and printed.
    """
    symbol = sp.Symbol(name)
    LABELS[symbol] = latex
    return symbol


def printed(expression: sp.Basic) -> str:
    """LaTeX of an expression in the symbols of the theory.

    Parameters
    ----------
    expression : Basic
    """
    names = LABELS | {symbol: entry.latex for symbol, entry in QUANTITIES.items()}
    return str(sp.latex(expression, symbol_names=names))
