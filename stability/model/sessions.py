"""Multi-turn sessions: conversations whose every turn repeats all that was said before.

A session has a system prompt and a number of turns. The prompt of turn k is the system prompt, the whole conversation so far (user
tokens and outputs of turns 1..k-1) and new user tokens. The next turn comes a think time after the last one completed, so
arrivals depend on the service: the sub-loop is closed, and a session never has two turns in the fleet. Sessions themselves start
as the arrivals of the workload say.

Independent of each other: numbers of turns, user tokens, outputs, think times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from .._types import FloatArray, IntArray, read_only
from ..errors import InputError, check_integer, check_number
from .lengths import Independent, Length

LEAST_MASS = 1e-12
"""Probability of a turn below which later ones are left out of a law."""

MOST_TOKENS = 1 << 20
"""Longest prompt whose law is tabulated."""


@dataclass(frozen=True, init=False, eq=False)
class Sessions:
    """Sessions of several turns over shared system prompts.

    Parameters
    ----------
    turns : Length
        Law of the number of turns of a session (its "tokens" are turns).
    new_tokens : Length
        User tokens of one turn.
    output : Length
        Output tokens of one turn.
    think_s : float >= 0
        Mean time from the completion of a turn to the arrival of the next, s.
    think_cv : float >= 0
        Coefficient of variation of that time, which is gamma distributed: 1 is exponential, 0 constant.
    system_prompt_tokens : int or sequence of int, >= 0
        Length of each system prompt, tokens. Sessions with the same one share its KV.
    popularity : sequence of float, or float, optional
        Shares of the sessions that use each system prompt, up to a factor; or the exponent a of a Zipf law, shares
        proportional to i**-a. Equal shares without it.
    limit_tokens : int, optional
        A session ends before the turn whose prompt and longest output would exceed it (a model's longest context).

    Raises
    ------
    InputError
        If a number breaks its rule, or prompts have no bound.

    Notes
    -----
    Prompt of turn k: S + sum_{j<k} (u_j + o_j) + u_k, with S the system prompt, u_j user tokens and o_j outputs.

    Examples
    --------
    Two turns of 100 tokens and answers of 50 after a system prompt of 1000: prompts of 1100 and 1100 + 50 + 100 tokens.

    >>> import stability as st
    >>> fixed = st.lengths.Constant
    >>> chat = st.Sessions(fixed(2), fixed(100), fixed(50), think_s=30.0, system_prompt_tokens=1000)
    >>> workload = st.Workload.sessions(4.0, chat)
    >>> workload.classes[0].lengths.prompt_mean_tokens
    1175.0
    """

    turns: Length
    new_tokens: Length
    output: Length
    think_s: float
    think_cv: float
    system_prompt_tokens: tuple[int, ...]
    popularity: tuple[float, ...]
    limit_tokens: int | None

    def __init__(
        self,
        turns: Length,
        new_tokens: Length,
        output: Length,
        *,
        think_s: float,
        think_cv: float = 1.0,
        system_prompt_tokens: int | Sequence[int] = 0,
        popularity: Sequence[float] | float | None = None,
        limit_tokens: int | None = None,
    ) -> None:
        for name, law in (("turns", turns), ("new_tokens", new_tokens), ("output", output)):
            if not isinstance(law, Length):
                raise InputError(f"{name} = {law!r}, must be a law of integers. Use lengths.Constant({law!r}).")
        for name, value in (("turns", turns), ("new_tokens", new_tokens), ("output", output)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "think_s", check_number("think_s", think_s, at_least=0))
        object.__setattr__(self, "think_cv", check_number("think_cv", think_cv, at_least=0, at_most=100))
        tokens, shares = _system_prompts(system_prompt_tokens, popularity)
        object.__setattr__(self, "system_prompt_tokens", tokens)
        object.__setattr__(self, "popularity", shares)
        if limit_tokens is not None:
            limit_tokens = check_integer("limit_tokens", limit_tokens, at_least=1)
        object.__setattr__(self, "limit_tokens", limit_tokens)
        self._check_bounds()

    def _check_bounds(self) -> None:
        first = max(self.system_prompt_tokens) + self.new_tokens.max_tokens + self.output.max_tokens
        if not math.isfinite(first):
            raise InputError(
                "new_tokens or output is unbounded, must be bounded in a session. Truncate the law with limit=..."
            )
        if self.limit_tokens is None:
            if not math.isfinite(self.turns.max_tokens):
                raise InputError(
                    "turns is unbounded and limit_tokens is missing, prompts must have a bound. "
                    "Give limit_tokens, the model's longest context, or truncate turns with limit=..."
                )
        elif first > self.limit_tokens:
            raise InputError(
                f"limit_tokens = {self.limit_tokens}, must be >= {first:g}, what a first turn may take. Raise the limit."
            )
        if self.longest_prompt_tokens > MOST_TOKENS:
            raise InputError(
                f"prompts reach {self.longest_prompt_tokens} tokens, must stay within {MOST_TOKENS}. "
                "Give limit_tokens or fewer turns."
            )

    def __repr__(self) -> str:
        return (
            f"Sessions({self.turns_mean:.3g} turns, think time {self.think_s:g} s, "
            f"{len(self.system_prompt_tokens)} system prompts)"
        )

    @property
    def longest_prompt_tokens(self) -> int:
        """Longest prompt of any turn, tokens."""
        system, each = max(self.system_prompt_tokens), self.new_tokens.max_tokens + self.output.max_tokens
        whole = system + self.turns.max_tokens * each - self.output.max_tokens
        return int(whole if self.limit_tokens is None else min(whole, self.limit_tokens - self.output.max_tokens))

    @cached_property
    def turns_mean(self) -> float:
        """Mean number of turns of a session, those cut off by the limit left out."""
        if self.limit_tokens is None:
            return self.turns.mean
        return math.fsum(share * sum(float(m.sum()) for m in turn_laws(self, s)) for s, share in self.system_groups)

    @cached_property
    def system_groups(self) -> tuple[tuple[int, float], ...]:
        """Distinct lengths of system prompts, and the share of the sessions with each."""
        groups: dict[int, float] = {}
        for tokens, share in zip(self.system_prompt_tokens, self.popularity, strict=True):
            groups[tokens] = groups.get(tokens, 0.0) + share
        return tuple(groups.items())

    @cached_property
    def lengths(self) -> Independent:
        """Joint law of the prompt and output of an arriving turn: the two are independent."""
        table = np.zeros(self.longest_prompt_tokens + 1)
        for system, share in self.system_groups:
            for law in turn_laws(self, system):
                table[system : system + len(law)] += share * law
        return Independent(Tabulated(table), self.output)

    def think_times_s(self, size: int, rng: np.random.Generator) -> FloatArray:
        """`size` think times drawn with `rng`, s."""
        if self.think_cv == 0 or self.think_s == 0:
            return np.full(size, self.think_s)
        shape = self.think_cv**-2
        return np.asarray(rng.standard_gamma(shape, size) * (self.think_s / shape))


@dataclass(frozen=True, eq=False)
class Tabulated(Length):
    """Any law of one length, by the probability of each of 0, 1, 2, ... tokens.

    Parameters
    ----------
    weights : (n,) array, >= 0
        Up to a factor; tokens 0 must have none.
    """

    weights: FloatArray

    def __repr__(self) -> str:
        return f"Tabulated(mean {self.mean:.4g}, max {self.max_tokens:g})"

    @property
    def max_tokens(self) -> float:
        return float(self.values[-1])

    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        values = np.flatnonzero(self.weights > LEAST_MASS * self.weights.sum())
        return values, self.weights[values] / self.weights[values].sum()


@lru_cache(maxsize=8)
def turn_laws(sessions: Sessions, system_tokens: int) -> tuple[FloatArray, ...]:
    """For k = 1, 2, ...: P(turn k happens and its prompt is S + d) for d = 0, 1, ..., for sessions with S = `system_tokens`.

    A session goes on after turn k with the hazard of the law of turns, if the next prompt stays within the limit.
    """
    room = private_room(sessions, system_tokens)
    law = dense(sessions.new_tokens)
    step = convolve(law, dense(sessions.output))
    laws = [read_only(law)]
    for goes_on in hazards(sessions.turns):
        law = goes_on * convolve(law, step)[: room + 1]
        if law.sum() < LEAST_MASS:
            break
        laws.append(read_only(law))
    return tuple(laws)


def dense(law: Length) -> FloatArray:
    """P(X = x) for x = 0, 1, ... up to the longest."""
    table = np.zeros(int(law.values[-1]) + 1)
    table[law.values] = law.probabilities
    return table


def convolve(a: FloatArray, b: FloatArray) -> FloatArray:
    """Law of a sum, or its part on an event: by FFT, rounding below zero removed."""
    size = len(a) + len(b) - 1
    if min(len(a), len(b)) <= 32:
        return np.convolve(a, b)
    padded = 1 << (size - 1).bit_length()
    return np.maximum(np.fft.irfft(np.fft.rfft(a, padded) * np.fft.rfft(b, padded), padded)[:size], 0.0)


def private_room(sessions: Sessions, system_tokens: int) -> int:
    """Longest prompt of a session with that system prompt, without it, tokens."""
    room = sessions.longest_prompt_tokens - system_tokens
    if sessions.limit_tokens is None:
        return room
    return min(room, sessions.limit_tokens - int(sessions.output.max_tokens) - system_tokens)


def hazards(turns: Length) -> Iterator[float]:
    """P(N > k | N >= k) for k = 1, 2, ..."""
    mass = dense(turns)[1:]
    reached = mass[::-1].cumsum()[::-1]
    for k in range(len(mass) - 1):
        yield float(reached[k + 1] / reached[k])


def _system_prompts(
    tokens: int | Sequence[int], popularity: Sequence[float] | float | None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Length and share of each system prompt."""
    exponent, weights = None, None
    if isinstance(popularity, (Sequence, np.ndarray)):
        weights = list(popularity)
    elif popularity is not None:
        exponent = popularity
    if isinstance(tokens, (Sequence, np.ndarray)):
        sizes = [check_integer(f"system_prompt_tokens[{i}]", t, at_least=0) for i, t in enumerate(tokens)]
    else:
        size = check_integer("system_prompt_tokens", tokens, at_least=0)
        sizes = [size] * (1 if weights is None else len(weights))
    if not sizes:
        raise InputError("system_prompt_tokens is empty, must hold a length. Use 0 for no system prompt.")
    if exponent is not None:
        by = check_number("popularity", exponent, at_least=0)
        weights = [(i + 1.0) ** -by for i in range(len(sizes))]
    shares = [1.0] * len(sizes) if weights is None else weights
    if len(shares) != len(sizes):
        raise InputError(
            f"{len(sizes)} system prompts but {len(shares)} shares of popularity, must be as many. Give one share a prompt."
        )
    shares = [check_number(f"popularity[{i}]", w, at_least=0) for i, w in enumerate(shares)]
    total = math.fsum(shares)
    if not total > 0:
        raise InputError("popularity sums to 0, must be positive. Give a prompt a share.")
    return tuple(sizes), tuple(w / total for w in shares)
