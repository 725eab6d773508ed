r"""Excursions of a full KV cache below an admitted request's level: how likely one is, iteration by iteration.

`surplus` describes the walk Z in continuous time. Here it is watched once per iteration, as the engine does, and the
token budget is counted. With W one iteration's step down (y E[o] of growth less a compound Poisson sum of y sizes) the
Wiener-Hopf factors of W give, exactly on a lattice,

- :math:`\bar M(x) = P(\max_n (W_1 + \dots + W_n) > x)`: an excursion deeper than the slack x evicts;
- the ladder heights of Z, the slack of a victim that returns: :math:`g(x) = \sum_k U(k)\,P(-W = x + k)`, U the renewal
  measure of W's own ladder heights.

The free memory F that an iteration finds is a Markov chain: at most `room = B - D` prompt tokens are admitted,

.. math:: F' = (F - \mathrm{room})^+ - W \quad\text{if that is} \ge 0, \qquad
          F' \sim g \quad\text{after a dip below 0,}

and a token admitted at place u of an iteration has the slack F - u. Without a limit that is the overshoot over a far level,
of transform p0 at theta. A prompt of m chunks fills the cache for m - 1 iterations in which it is not full: only excursions
after them evict it. **Approximation** in this: prompts wait for the budget token by token, not prompt by prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray, IntArray, dot
from ..model.lengths import Lengths, ProductPart
from .lattice import SIZE, Walk, compound_poisson, lattice_law
from .steps import PromptLaw, prompt_law
from .surplus import observed_sizes, surplus

POINTS = 32
"""Lattice points per 1/theta."""

STEPS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512])
"""Growths per iteration, in lattice points, at which the laws are tabulated."""

LOADS = np.array([0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97])
"""Prompt tokens per iteration over the room for them at which the chain is solved."""

CELLS = 1024
"""Cells of free memory in the chain."""

TURNS = 400
"""Iterations of the chain until it is taken as stationary; it forgets by its load in each."""

DELAYS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32])
"""Iterations of prefill after the first for which later excursions are tabulated."""

REACH = np.arange(97) / 8
"""Headrooms tabulated, in units of 1/theta; beyond, chances fall exponentially."""

ROOM_STEP = 0.005
"""Relative steps of the room at which prompts are counted in chunks."""

SETTLED = 3e-5
"""Change of the chain's law from which it is taken as stationary."""


@dataclass(frozen=True, slots=True, eq=False)
class Chances:
    """Chances of an eviction at one growth per iteration and one load of the token budget.

    Attributes
    ----------
    first, again : (delays, headrooms) ndarray
        P(evict) of an admitted request, and of a victim that returned, by `DELAYS` and `REACH`.
    spare_tokens : float
        Mean KV left free because the token budget was spent.
    """

    first: FloatArray
    again: FloatArray
    spare_tokens: float


def chances(
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
    headroom: FloatArray,
    per_iteration: FloatArray,
    room: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """P(evict) of an admitted request and of a victim that returned, and the KV that the budget leaves free.

    Parameters
    ----------
    laws, shares
        The mix of length laws.
    headroom : (n,) ndarray, >= 0
        KV kept free at admission (h), tokens.
    per_iteration : (n,) ndarray, > 0
        Completions per iteration (y).
    room : (n,) ndarray, > 0
        Prompt tokens an iteration can take beside its decodes.
    """
    walk, prompts = surplus(laws, shares), prompt_law(laws, shares)
    reach = walk.exponent * headroom
    growth = per_iteration * walk.output_mean * walk.exponent * POINTS
    delays = np.array([_delay_law(prompts, round(math.log(r) / ROOM_STEP)) for r in np.maximum(room, 1.0).tolist()])
    # Iterations shorter than a lattice point: between the closed forms and the first point.
    short = np.maximum(1 - growth / float(STEPS[0]), 0.0)
    first, again = (short * p * np.exp(-reach) for p in (walk.first, walk.again))
    spare = np.zeros(len(reach))
    step, step_part = _between(STEPS, growth)
    grade, grade_part = _between(LOADS, per_iteration * walk.prompt_mean / room)
    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    weights = [
        (1 - short) * (step_part if i else 1 - step_part) * (grade_part if j else 1 - grade_part) for i, j in corners
    ]
    for (i, j), weight in zip(corners, weights, strict=True):
        for s, g in sorted({*zip(step[weight > 0].tolist(), grade[weight > 0].tolist(), strict=True)}):
            rows = np.flatnonzero((step == s) & (grade == g) & (weight > 0))
            node = _chances(laws, shares, s + i, g + j)
            first[rows] += weight[rows] * _along(delays[rows] @ node.first, reach[rows])
            again[rows] += weight[rows] * _along(delays[rows] @ node.again, reach[rows])
            spare[rows] += weight[rows] * node.spare_tokens
    return first, again, spare


def rise(
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
    per_iteration: float,
    iterations: FloatArray,
    tokens: FloatArray,
) -> FloatArray:
    """P(Z rises by `tokens` or more within `iterations`, at their end), at y completions per iteration.

    Parameters
    ----------
    laws, shares
        The mix of length laws.
    per_iteration : float
        Completions per iteration (y).
    iterations, tokens : (n,) ndarray
        How long, and how far; the longest times are cut to that of `DELAYS`.
    """
    walk = surplus(laws, shares)
    ladder = _ladder(laws, shares, 0)
    size = sizes(laws, shares, ladder.cell, 2 * CELLS)
    found = np.zeros(len(tokens))
    times = np.minimum(iterations, DELAYS[-1])
    for time in np.unique(times).tolist():
        grown = time * per_iteration * walk.output_mean / ladder.cell
        released = _released(time * per_iteration, size)
        beyond = 1 - np.cumsum(released)  # P(released > i cells)
        here = times == time
        found[here] = np.interp(tokens[here] / ladder.cell + grown, np.arange(len(beyond)) + 1, beyond, left=1.0)
    return np.maximum(found, 0.0)


def _between(grid: FloatArray | IntArray, value: FloatArray) -> tuple[IntArray, FloatArray]:
    """The point of the grid below each value, and how far it lies to the next: linear, constant outside the grid."""
    place = np.clip(np.searchsorted(grid, value, side="right") - 1, 0, len(grid) - 2)
    part = (value - grid[place]) / (grid[place + 1] - grid[place])
    return place, np.clip(part, 0.0, 1.0)


def _along(chance: FloatArray, reach: FloatArray) -> FloatArray:
    """Row by row, the chance at a headroom of `reach`/theta: log-linear between those tabulated, exponential beyond."""
    known = np.log(np.maximum(chance, 1e-300))
    place, part = _between(REACH, reach)
    rows = np.arange(len(reach))
    inside = (1 - part) * known[rows, place] + part * known[rows, place + 1]
    return np.asarray(np.exp(inside - np.maximum(reach - REACH[-1], 0.0)))


@lru_cache(maxsize=4096)
def _delay_law(prompts: PromptLaw, room_steps: int) -> FloatArray:
    """Probabilities of `DELAYS`, iterations a prompt takes after its first, at a room of exp(`ROOM_STEP` * `room_steps`)."""
    delay = np.minimum(np.ceil(prompts.values / math.exp(ROOM_STEP * room_steps)) - 1, DELAYS[-1])
    place, part = _between(DELAYS, delay)
    mass = prompts.probabilities
    return np.asarray(
        np.bincount(place, mass * (1 - part), len(DELAYS)) + np.bincount(place + 1, mass * part, len(DELAYS))
    )


@lru_cache(maxsize=1024)
def _chances(laws: tuple[Lengths, ...], shares: tuple[float, ...], step: int, grade: int) -> Chances:
    walk, ladder = surplus(laws, shares), _ladder(laws, shares, step)
    room = math.inf if grade == 0 else ladder.per_iteration * walk.prompt_mean / float(LOADS[grade])
    slack, spare = _slack(ladder, room, walk.prompt_mean)
    cells = np.arange(CELLS)
    beyond = REACH[:, None] / (walk.exponent * ladder.cell) + cells  # headroom and slack, in cells
    first, again = np.empty((len(DELAYS), len(REACH))), np.empty((len(DELAYS), len(REACH)))
    for row, tail in enumerate(ladder.tails):
        # A cell of slack lies between two points of the tail; a height is on one.
        first[row] = np.interp(beyond + 0.5, cells, tail, right=0.0) @ slack
        again[row] = np.interp(beyond, cells, tail, right=0.0) @ ladder.heights
    return Chances(first, again, spare)


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """The walk watched once per iteration, in cells of free memory.

    Attributes
    ----------
    per_iteration : float
        Completions per iteration (y).
    cell : float
        Tokens.
    growth : float
        Cells by which memory grows in an iteration.
    release : (CELLS + 1,) ndarray
        Law of the cells that an iteration's completions free; the last holds what is more.
    heights : (CELLS,) ndarray
        Law of the ladder heights of Z.
    tails : (delays, CELLS) ndarray
        P(an excursion later than the delay is deeper), by `DELAYS` and cells.
    """

    per_iteration: float
    cell: float
    growth: float
    release: FloatArray
    heights: FloatArray
    tails: FloatArray


@lru_cache(maxsize=128)
def _ladder(laws: tuple[Lengths, ...], shares: tuple[float, ...], step: int) -> Ladder:
    walk = surplus(laws, shares)
    unit = 1 / (POINTS * walk.exponent)
    grown = int(STEPS[step])
    y = grown * unit / walk.output_mean
    maximum, never = _maximum(laws, shares, unit, grown, y)
    released = _released(y, sizes(laws, shares, unit))
    behind = np.fft.irfft(np.conj(np.fft.rfft(maximum / never, 2 * SIZE)) * np.fft.rfft(released, 2 * SIZE))
    fine = np.zeros(SIZE)
    fine[1 : SIZE - grown] = np.maximum(behind[grown + 1 : SIZE], 0.0)
    heights = fine / fine.sum()
    deeper = np.maximum(1 - np.cumsum(maximum), 0.0)  # P(max > i points)
    known = min(12 * POINTS, SIZE // 2)  # beyond, rounding; the tail is exponential
    deeper[known:] = deeper[known] * np.exp(-(np.arange(SIZE)[known:] - known) / POINTS)

    longest = max((item.max_total_tokens for item in laws), default=0.0)
    cell = max(unit, min(1.5 * longest, SIZE * unit) / CELLS)
    points = np.arange(SIZE, dtype=np.float64) * (unit / cell)
    tail = np.interp(np.arange(CELLS), points, deeper, right=0.0)
    size = sizes(laws, shares, cell, 2 * CELLS)
    return Ladder(
        per_iteration=y,
        cell=cell,
        growth=grown * unit / cell,
        release=_folded(_released(y, size), CELLS + 1),
        heights=_folded(_split(points, heights), CELLS),
        tails=_later(tail, size, y, grown * unit / cell),
    )


def _maximum(
    laws: tuple[Lengths, ...], shares: tuple[float, ...], unit: float, grown: int, y: float
) -> tuple[FloatArray, float]:
    """Law of the greatest sum of steps W, in points, and its mass at 0: the chance that no sum is positive."""
    decay = 1 / POINTS
    angle = decay / 2 + 2j * np.pi * np.arange(SIZE) / SIZE
    damp = np.exp(-decay / 2 * np.arange(SIZE))  # what lies beyond the lattice is damped to nothing
    circle = np.fft.fft(sizes(laws, shares, unit) * damp)
    step = Walk.of(np.exp(grown * angle + y * (circle - 1)), decay / 2)
    return step.maximum(), math.exp(-float(step.ascending().sum()))


@lru_cache(maxsize=128)
def sizes(laws: tuple[Lengths, ...], shares: tuple[float, ...], unit: float, points: int = SIZE) -> FloatArray:
    """Law of the size s + o of a request on `points` multiples of `unit` tokens, the longest on the last."""
    found = np.zeros(points)
    for lengths, share in zip(laws, shares, strict=True):
        for index, part in enumerate(lengths.parts()):
            if isinstance(part, ProductPart):
                prompt = lattice_law(part.prompt.values / unit, part.prompt.probabilities, points)
                output = lattice_law(part.output.values / unit, part.output.probabilities, points)
                both = np.fft.irfft(np.fft.rfft(prompt, 2 * points) * np.fft.rfft(output, 2 * points))
                found += share * part.weight * _folded(np.maximum(both, 0.0), points)
            else:
                values, mass = observed_sizes(lengths, index)
                found += share * part.weight * lattice_law(values / unit, mass, points)
    return found


def _released(y: float, size: FloatArray) -> FloatArray:
    """Law of a compound Poisson sum of y sizes, as long as `size`, the excess on the last point."""
    points = np.arange(len(size))
    most = y * dot(size, points) + 8 * math.sqrt(y * dot(size, points * points)) + len(size)  # or it would wrap around
    length = 1 << math.ceil(math.log2(max(most, 2 * len(size))))
    padded = np.concatenate((size, np.zeros(length - len(size))))
    return _folded(compound_poisson(y, padded), len(size))


def _folded(law: FloatArray, points: int) -> FloatArray:
    """The law on its first points, what lies beyond on the last."""
    kept = law[:points].copy()
    kept[-1] += law[points:].sum()
    return np.asarray(kept / kept.sum())


def _split(places: FloatArray, mass: FloatArray) -> FloatArray:
    """Mass at fractional places, split between neighbouring cells."""
    floor = np.floor(places).astype(np.int64)
    part = places - floor
    length = int(floor[-1]) + 2
    return np.asarray(
        np.bincount(floor, weights=mass * (1 - part), minlength=length)
        + np.bincount(floor + 1, weights=mass * part, minlength=length)
    )


def _later(tail: FloatArray, size: FloatArray, y: float, growth: float) -> FloatArray:
    """P(the walk is deeper at some time after the first d iterations), by `DELAYS`: one law of W_1 + ... + W_d before."""
    place = np.arange(-CELLS, CELLS)
    known = np.concatenate((np.ones(CELLS), tail, np.zeros(2 * CELLS)))  # at -CELLS, ... cells
    rows = [tail]
    for delay in DELAYS[1:].tolist():
        released = _released(delay * y, size)[: 2 * CELLS]
        ahead = np.fft.irfft(np.fft.rfft(known, 8 * CELLS) * np.conj(np.fft.rfft(released, 8 * CELLS)))
        row = np.interp(np.arange(CELLS) - delay * growth, place, ahead[: 2 * CELLS], left=1.0)
        rows.append(np.clip(row, 0.0, rows[-1]))  # later excursions are fewer
    return np.array(rows)


def _slack(ladder: Ladder, room_tokens: float, prompt_mean: float) -> tuple[FloatArray, float]:
    """Law of the slack of admitted tokens, in cells, and the mean KV left free for want of token budget."""
    room = min(room_tokens / ladder.cell, float(CELLS))
    release = np.fft.rfft(ladder.release, 4 * CELLS)
    free = ladder.heights
    whole, part = int(room), room - int(room)
    fell, rest = int(ladder.growth), ladder.growth - int(ladder.growth)
    for _ in range(TURNS):
        left = np.zeros(CELLS)
        left[0] = free[: whole + 1].sum()
        over = free[whole + 1 :]
        left[: len(over)] += part * over
        left[1 : len(over) + 1] += (1 - part) * over[: CELLS - 1]
        freed = np.maximum(np.fft.irfft(np.fft.rfft(left, 4 * CELLS) * release)[: 2 * CELLS + 2], 0.0)
        dip = (1 - rest) * freed[:fell].sum() + rest * freed[: fell + 1].sum()
        new = _folded((1 - rest) * freed[fell:-1] + rest * freed[fell + 1 :], CELLS) * max(1 - dip, 0.0)
        new += dip * ladder.heights
        new /= new.sum()
        moved = float(np.abs(new - free).sum())
        free = new
        if moved < SETTLED:
            break
    beyond = np.append(np.cumsum(free[::-1])[::-1], 0.0)  # P(F >= i cells)
    cells = np.arange(CELLS + 1)
    slack = beyond[1:] - np.interp(cells[1:] + room, cells, beyond, right=0.0)
    admitted = float(free @ np.minimum(cells[:-1], room))
    open_share = min(1.0, ladder.per_iteration * prompt_mean / (ladder.cell * admitted))  # of the iterations, not dips
    spare = open_share * float(free @ np.maximum(cells[:-1] - room, 0.0)) * ladder.cell
    return np.asarray(slack / slack.sum()), spare
