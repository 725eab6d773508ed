"""Means of everything a request takes, over a class's length law: one vector per class, from which all else follows.

Product laws are summed over the two marginals, with block rounding through the residues modulo the block size, so the
means are exact without visiting every pair; observed pairs are summed one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np

from .._types import FloatArray, IntArray, dot, read_only
from ..model.lengths import AtomPart, Discrete, Lengths, ProductPart
from . import footprint
from .cached import behind, found_tokens


class Demand(IntEnum):
    """Entries of a demand vector, per request. The first four carry the step-time law's coefficients."""

    PREFILL = 0
    """s: prompt tokens computed, those found in the prefix cache left out."""
    DECODE = 1
    """o - 1: decode tokens."""
    READ = 2
    """r: KV tokens read by its decodes, token-iterations."""
    CONTEXT = 3
    """s**2/2: prefill attention work, tokens**2."""
    ITERATIONS = 4
    """n: iterations resident."""
    VOLUME = 5
    """g: KV held with the greedy chunking, in blocks, token-iterations."""
    LEAST_VOLUME = 6
    """g with the ragged chunk first: what no policy gets below, token-iterations."""
    RESERVED = 7
    """R(s + o_max) n: KV set aside by reservation admission, token-iterations."""
    TOKENS = 8
    """s + o - 1: tokens computed."""
    LIMIT = 9
    """R(s + o_max): KV set aside by reservation admission, tokens."""
    LIMIT_SQUARE = 10
    """Its square, tokens**2."""
    PREFILL_HELD = 11
    """Sum over its prefill chunks of chunk * KV held, tokens**2."""
    CONTEXT_HELD = 12
    """Sum over its prefill chunks of attention work * KV held, tokens**3."""
    READ_HELD = 13
    """Sum over its decodes of the square of the KV held, tokens**2."""
    PROMPT = 14
    """s: prompt tokens, found in the prefix cache or not."""


N_DEMANDS = len(Demand)

ROWS = 1 << 14
"""Observed requests taken at a time: few enough for their demands to stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Mean demand of one request class, and its spread when lengths come from a finite trace.

    Attributes
    ----------
    mean : (15,) ndarray
        E of each `Demand`.
    covariance : (15, 15) ndarray or None
        Covariance of a request's demands, for observed lengths.
    samples : int
        Observed requests behind the means; 0 for an exact law.
    """

    mean: FloatArray
    covariance: FloatArray | None
    samples: int


@lru_cache(maxsize=512)
def moments(
    lengths: Lengths,
    budget: int,
    block_size: int = 1,
    max_output_tokens: int | None = None,
    cached_prefix_tokens: int = 0,
) -> Moments:
    """Mean demands of requests drawn from `lengths`.

    Parameters
    ----------
    lengths : Lengths
        Joint law of prompt and output.
    budget : int >= 1
        Token budget B of an iteration.
    block_size : int >= 1
        KV block, tokens.
    max_output_tokens : int, optional
        Output limit that reservation sets aside; without it each request's own output.
    cached_prefix_tokens : int >= 0
        Leading prompt tokens of every request that are found in the prefix cache, besides those of observed requests.
    """
    mean = np.zeros(N_DEMANDS)
    second = np.zeros((N_DEMANDS, N_DEMANDS))
    samples = 0
    for part in lengths.parts():
        if isinstance(part, ProductPart):
            mean += part.weight * _behind_prefix(part, budget, block_size, max_output_tokens, cached_prefix_tokens)
            samples = -1
        else:
            first, square = _atom_sums(part, budget, block_size, max_output_tokens, cached_prefix_tokens)
            mean += part.weight * first
            second += part.weight * square
            samples = len(part.prompt_tokens) if samples == 0 and part.probabilities is None else -1
    observed = samples > 0 and hasattr(lengths, "__len__")
    covariance = read_only(second - np.outer(mean, mean)) if observed else None
    return Moments(mean=read_only(mean), covariance=covariance, samples=samples if observed else 0)


def demands(
    prompt_tokens: IntArray,
    output_tokens: IntArray,
    budget: int,
    block_size: int,
    max_output_tokens: int | None = None,
    cached_prefix_tokens: IntArray | None = None,
) -> FloatArray:
    """The demand of each given request. Shape (15, n)."""
    if cached_prefix_tokens is not None:
        c = found_tokens(prompt_tokens, cached_prefix_tokens, block_size)
        table = demands(prompt_tokens - c, output_tokens, budget, block_size, max_output_tokens)
        return behind(table, c, c.astype(np.float64) ** 2)
    s, o = prompt_tokens, output_tokens
    table = np.empty((N_DEMANDS, len(s)))
    table[Demand.PREFILL] = table[Demand.PROMPT] = s
    table[Demand.DECODE] = o - 1
    table[Demand.READ] = footprint.reads(s, o)
    table[Demand.CONTEXT] = table[Demand.PREFILL] ** 2 / 2
    table[Demand.ITERATIONS] = footprint.iterations(s, o, budget)
    decode = footprint.growth_volume(s + o - 1, block_size) - footprint.growth_volume(s, block_size)
    table[Demand.VOLUME] = decode + footprint.prefill_volume(s, budget, block_size)
    table[Demand.LEAST_VOLUME] = decode + footprint.prefill_volume(s, budget, block_size, least=True)
    table[Demand.RESERVED] = footprint.reservation(
        s, o, o if max_output_tokens is None else max_output_tokens, budget, block_size
    )
    table[Demand.TOKENS] = table[Demand.PREFILL] + table[Demand.DECODE]
    table[Demand.LIMIT] = table[Demand.RESERVED] / table[Demand.ITERATIONS]
    table[Demand.LIMIT_SQUARE] = table[Demand.LIMIT] ** 2
    table[Demand.PREFILL_HELD], table[Demand.CONTEXT_HELD] = footprint.prefill_held(s, budget)
    d = table[Demand.DECODE]
    table[Demand.READ_HELD] = d * table[Demand.PREFILL] ** 2 + table[Demand.PREFILL] * d * (d + 1)
    table[Demand.READ_HELD] += d * (d + 1) * (2 * d + 1) / 6
    return table


def mean_over(parts: Iterable[Moments], shares: FloatArray) -> FloatArray:
    """Mean demand of a mix of classes with the given shares. Shape (15,)."""
    return np.asarray(sum(share * item.mean for share, item in zip(shares, parts, strict=True)))


def tail_probability(lengths: Lengths, tokens: int) -> float:
    """P(s + o - 1 > tokens): the share of requests whose KV can never fit in `tokens`."""
    total = 0.0
    for part in lengths.parts():
        if isinstance(part, ProductPart):
            survival = 1.0 - np.cumsum(part.output.probabilities)
            room = tokens + 1 - part.prompt.values
            place = np.searchsorted(part.output.values, room, side="right") - 1
            beyond = np.where(place >= 0, survival[np.maximum(place, 0)], 1.0)
            total += part.weight * max(0.0, dot(part.prompt.probabilities, beyond))
        else:
            total += part.weight * part.mean(lambda s, o: (s + o - 1 > tokens).astype(np.float64))
    return total


def _atom_sums(
    part: AtomPart, budget: int, block_size: int, max_output_tokens: int | None, cached_prefix_tokens: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Mean of the demands and of their products."""
    first, square = np.zeros(N_DEMANDS), np.zeros((N_DEMANDS, N_DEMANDS))
    count = len(part.prompt_tokens)
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        s, o, cached = part.prompt_tokens[rows], part.output_tokens[rows], None
        if part.cached_prefix_tokens is not None:
            cached = np.maximum(part.cached_prefix_tokens[rows], cached_prefix_tokens)
        elif cached_prefix_tokens:
            cached = np.full(len(s), cached_prefix_tokens)
        table = demands(s, o, budget, block_size, max_output_tokens, cached)
        weights = np.full(table.shape[1], 1.0 / count) if part.probabilities is None else part.probabilities[rows]
        first += table @ weights
        square += (table * weights) @ table.T
    return first, square


def _behind_prefix(
    part: ProductPart, budget: int, block_size: int, max_output_tokens: int | None, cached_prefix_tokens: int
) -> FloatArray:
    """Mean demand with a constant prefix found: prompts with equally many blocks found are a product law each."""
    if not cached_prefix_tokens:
        return _product_mean(part, budget, block_size, max_output_tokens)
    s, ps = part.prompt.values, part.prompt.probabilities
    found = found_tokens(s, cached_prefix_tokens, block_size)
    mean = np.zeros(N_DEMANDS)
    for c in np.unique(found).tolist():
        rows = found == c
        rest = Discrete((s[rows] - c).tolist(), ps[rows].tolist())
        of = _product_mean(ProductPart(1.0, rest, part.output), budget, block_size, max_output_tokens)
        mean += float(ps[rows].sum()) * behind(of, c, c * c)
    return mean


def _product_mean(part: ProductPart, budget: int, block_size: int, max_output_tokens: int | None) -> FloatArray:
    s, ps = part.prompt.values, part.prompt.probabilities
    o, po = part.output.values, part.output.probabilities
    count = footprint.chunks(s, budget)
    s1, s2 = dot(ps, s), dot(ps, s.astype(np.float64) ** 2)
    d1, d2 = dot(po, o - 1), dot(po, (o - 1).astype(np.float64) ** 2)  # of the o - 1 decodes
    n1 = dot(ps, count)
    at_s, at_d = _residues(s, ps, block_size), _residues(o - 1, po, block_size)

    grown = _growth_mean(s1 + d1, s2 + 2 * s1 * d1 + d2, _circular(at_s, at_d), block_size)
    decode = grown - _growth_mean(s1, s2, at_s, block_size)
    if max_output_tokens is None:
        # R(x) = x + p(x), p(x) = -x mod b, at x = s + o = s + d + 1; n = chunks + d.
        rest = np.arange(block_size) + 1  # of s + d + 1
        pad = footprint.blocks(rest, block_size) - rest
        count_at_s = _residues(s, ps * count, block_size)
        s_at_s, d_at_d = _residues(s, ps * s, block_size), _residues(o - 1, po * (o - 1), block_size)
        at_x = _circular(at_s, at_d)
        x_at_x = _circular(s_at_s, at_d) + _circular(at_s, d_at_d) + at_x
        spare = float(pad @ (_circular(count_at_s, at_d) + _circular(at_s, d_at_d)))
        reserved = dot(ps, s * count) + s1 * d1 + n1 * (d1 + 1) + d2 + d1 + spare
        limit1 = s1 + d1 + 1 + float(pad @ at_x)
        x2 = s2 + d2 + 1 + 2 * (s1 * d1 + s1 + d1)
        limit2 = x2 + 2 * float(pad @ x_at_x) + float((pad * pad) @ at_x)
    else:
        limit = footprint.blocks(s + max_output_tokens, block_size).astype(np.float64)
        limit1, limit2 = dot(ps, limit), dot(ps, limit**2)
        reserved = dot(ps, limit * count) + limit1 * d1

    mean = np.empty(N_DEMANDS)
    mean[Demand.PREFILL] = mean[Demand.PROMPT] = s1
    mean[Demand.DECODE] = d1
    mean[Demand.READ] = d1 * s1 + (d2 + d1) / 2
    mean[Demand.CONTEXT] = s2 / 2
    mean[Demand.ITERATIONS] = n1 + d1
    mean[Demand.VOLUME] = decode + dot(ps, footprint.prefill_volume(s, budget, block_size))
    mean[Demand.LEAST_VOLUME] = decode + dot(ps, footprint.prefill_volume(s, budget, block_size, least=True))
    mean[Demand.RESERVED] = reserved
    mean[Demand.TOKENS] = s1 + d1
    mean[Demand.LIMIT] = limit1
    mean[Demand.LIMIT_SQUARE] = limit2
    by_token, by_context = footprint.prefill_held(s, budget)
    mean[Demand.PREFILL_HELD], mean[Demand.CONTEXT_HELD] = dot(ps, by_token), dot(ps, by_context)
    d3 = dot(po, (o - 1).astype(np.float64) ** 3)
    mean[Demand.READ_HELD] = d1 * s2 + s1 * (d2 + d1) + (2 * d3 + 3 * d2 + d1) / 6
    return mean


def _residues(values: IntArray, weights: FloatArray, modulus: int) -> FloatArray:
    """Weight on each residue class."""
    return np.bincount(values % modulus, weights=weights, minlength=modulus).astype(np.float64)


def _circular(a: FloatArray, b: FloatArray) -> FloatArray:
    """Law of the residue of a sum from those of its independent terms."""
    if len(a) == 1:
        return a * b
    return np.asarray(np.fft.irfft(np.fft.rfft(a) * np.fft.rfft(b), len(a)))


def _growth_mean(first: float, second: float, residues: FloatArray, block_size: int) -> float:
    """E of `footprint.growth_volume` from two moments and the residues."""
    rest = np.arange(block_size)
    return (second + block_size * first) / 2 + float(residues @ (rest * (block_size - rest))) / 2


def standard_error(gradient: FloatArray, parts: Iterable[Moments], shares: FloatArray) -> float:
    """Standard error of gradient . (mean demand of the mix), from the finite traces behind it (delta method)."""
    variance = 0.0
    for share, item in zip(shares, parts, strict=True):
        if item.covariance is not None:
            if item.samples == 1:
                return math.inf  # of one request nothing is known but itself
            variance += share * share * float(gradient @ item.covariance @ gradient) / (item.samples - 1)
    return math.sqrt(max(variance, 0.0))
