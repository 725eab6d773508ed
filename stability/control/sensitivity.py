r"""Capacity of a prompt gate against the KV it keeps free: what headroom costs and what it saves.

Time that a replica spends per request, at capacity, is the sum of three parts:

.. math:: \frac1{\lambda^*(h)} = \frac1{\lambda_{mem}(0)}
          + \Big(\frac1{\lambda_{mem}(h)} - \frac1{\lambda_{mem}(0)}\Big)
          + \Big(\frac1{\lambda^*(h)} - \frac1{\lambda_{mem}(h)}\Big),

the ideal, what headroom takes from the batch, and what eviction wastes (recomputed work and the KV of victims), where
:math:`\lambda_{mem}(h)` is the capacity if eviction cost nothing: with the mean free memory E[F] of the eviction theory, which
is less than h where decodes grow into the headroom. The **memory branch** is the first two parts, falling in h (flat while h is short against a prompt); the **eviction branch** the first and the third, rising in h; the
optimum is where they balance. **Approximation**, as the eviction theory is.

With :math:`P = p_0 C^2 e^{-\theta h}` and w the time that an eviction costs (its work, and its KV at c0/M a token-iteration), setting
the derivative of :math:`c_0 g/(M - h) + P w` to 0 gives, for h much smaller than M,

.. math:: h^* \approx \frac1\theta \ln\frac{\theta\, w\, p_0 C^2 M^2}{c_0\, g} ,

and w = cp s' where only the recomputed prompt counts. A cross-check of the search, not a substitute: it takes e = P.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .._types import FloatArray, read_only
from ..model.engine import Engine
from ..theory.conditions import GATE_ROWS, affine_capacity, capacities
from ..theory.eviction import discretisation, evictions, gate_capacity, surplus
from ..theory.moments import Demand
from .settings import PoolModel, solved_columns

if TYPE_CHECKING:
    import pandas

POINTS = 97
"""Headrooms on a curve."""

LONGEST = 8.0
"""Headrooms are searched up to this many times 1/theta: beyond it P is below 0.03 %."""

MOST = 0.5
"""Largest watermark searched."""

ROUNDS = 8
"""Fixed-point rounds of the closed form for the tokens that a victim has generated."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sensitivity:
    """Capacity of a pool against the KV kept free at admission, under a prompt gate. Read-only arrays of one shape.

    Attributes
    ----------
    watermark : ndarray
        Share of the KV blocks kept free.
    headroom_tokens : ndarray
        The same in tokens (h).
    capacity_per_s : ndarray
        Predicted capacity, 1/s.
    memory_branch_per_s : ndarray
        Capacity if eviction cost nothing: falls as headroom takes memory.
    eviction_branch_per_s : ndarray
        Capacity if headroom took no memory: rises as evictions become rare.
    evictions_per_request : ndarray
    closed_form_watermark : float
        The optimum by the closed form; 0 where memory does not bind.
    """

    watermark: FloatArray
    headroom_tokens: FloatArray
    capacity_per_s: FloatArray
    memory_branch_per_s: FloatArray
    eviction_branch_per_s: FloatArray
    evictions_per_request: FloatArray
    closed_form_watermark: float

    def __repr__(self) -> str:
        return f"Sensitivity({len(self.watermark)} headrooms, best watermark {self.best_watermark:.3g})"

    @property
    def best_watermark(self) -> float:
        """The smallest watermark of the curve's maximum."""
        return float(self.watermark[int(self.capacity_per_s.argmax())])

    def to_frame(self) -> pandas.DataFrame:
        """One row per headroom, units in column names."""
        import pandas

        names = [name for name in self.__slots__ if name != "closed_form_watermark"]
        return pandas.DataFrame({name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Curve:
    """Rates of one replica at given watermarks, the first of them 0."""

    headroom: FloatArray
    capacity: FloatArray
    memory: FloatArray
    eviction: FloatArray
    evictions: FloatArray


def longest_watermark(model: PoolModel, engine: Engine) -> float:
    """Largest watermark worth looking at."""
    usable = model.pool_with(engine).replica.usable_kv_tokens
    scale = 1 / (surplus(model.laws, model.shares).exponent * usable)
    return min(MOST, max(LONGEST * scale, 2 * engine.watermark, 0.02))


def best_watermark(model: PoolModel, engine: Engine, nodes: Sequence[Engine]) -> float:
    """The watermark of the greatest capacity under the tangent laws at `nodes`: a grid, then a finer one about its best."""
    watermarks = np.linspace(0.0, longest_watermark(model, engine), POINTS)
    step = watermarks[1]
    for _ in range(2):
        best = float(watermarks[int(_curve(model, engine, nodes, watermarks).capacity.argmax())])
        watermarks = np.linspace(max(best - step, 0.0), best + step, 33)
    return best


def sensitivity(model: PoolModel, engine: Engine, nodes: Sequence[Engine]) -> Sensitivity:
    """The curve of a prompt gate with the other settings of `engine`; step-time laws are tangent at `nodes`.

    Parameters
    ----------
    model : PoolModel
    engine : Engine
        Its watermark does not matter.
    nodes : sequence of Engine
        The same with different watermarks, which are solved exactly; tangents are interpolated between them.
    """
    grid = np.linspace(0.0, longest_watermark(model, engine), POINTS)
    watermarks = np.unique(np.append(grid, [node.watermark for node in nodes]))
    found = _curve(model, engine, nodes, watermarks)
    count = model.pool.replicas
    return Sensitivity(
        watermark=read_only(watermarks),
        headroom_tokens=read_only(found.headroom),
        capacity_per_s=read_only(count * found.capacity),
        memory_branch_per_s=read_only(count * found.memory),
        eviction_branch_per_s=read_only(count * found.eviction),
        evictions_per_request=read_only(found.evictions),
        closed_form_watermark=closed_form_watermark(model, engine),
    )


def _curve(model: PoolModel, engine: Engine, nodes: Sequence[Engine], watermarks: FloatArray) -> _Curve:
    gates = sorted({replace(node, admission="prompt_gate") for node in nodes}, key=lambda node: node.watermark)
    columns = [solved_columns(*model.solved(gate)) for gate in gates]
    at = np.array([gate.watermark for gate in gates])
    tangents = np.array([law for law, _ in columns])
    laws = np.stack([np.interp(watermarks, at, tangents[:, j]) for j in range(5)], axis=-1)
    demand = columns[0][1]
    replica = model.pool_with(engine).replica
    limits = capacities(replica)
    blocks = np.floor(watermarks * (replica.capacity_blocks + 1))
    headroom = blocks * engine.block_size
    many = len(watermarks)
    gate = gate_capacity(
        laws, np.tile(demand, (many, 1)), np.tile(limits, (many, 1)), headroom, model.laws, model.shares
    )
    free = np.tile(limits, (many, 1))
    free[:, 0] -= headroom
    walked = evictions(
        model.laws, model.shares, headroom=headroom, per_iteration=gate.per_iteration, running=np.ones(many)
    )
    unused = np.where(gate.evicting, np.minimum(walked.free_tokens, 0.9 * limits[0]), headroom)
    free = np.tile(limits, (many, 1))
    free[:, 0] -= unused
    memory = affine_capacity(laws, demand, demand[list(GATE_ROWS)] / free)
    wasted = np.maximum(1 / gate.capacity_per_s - 1 / memory, 0.0)
    return _Curve(
        headroom=headroom,
        capacity=gate.capacity_per_s,
        memory=memory,
        eviction=1 / (1 / memory[0] + wasted),
        evictions=gate.evictions_per_request,
    )


def closed_form_watermark(model: PoolModel, engine: Engine) -> float:
    """The optimal watermark by the closed form, clipped at 0; 0 where memory does not bind without headroom."""
    gate = replace(engine, admission="prompt_gate", watermark=0.0)
    law, demand = solved_columns(*model.solved(gate))
    memory, slots, budget = capacities(model.pool_with(gate).replica).tolist()
    base, prefill, decode, read, context = law.tolist()
    volume, iterations = float(demand[Demand.VOLUME]), float(demand[Demand.ITERATIONS])
    y = memory / volume
    if base <= 0 or y >= min(slots / iterations, budget / float(demand[Demand.TOKENS])):
        return 0.0
    walk = surplus(model.laws, model.shares)
    constant = float(discretisation(model.laws, model.shares).at(np.array([y]))[0])
    headroom = 2 / walk.exponent  # from above: a victim's work grows with h, and 0 can be a fixed point, too
    for _ in range(ROUNDS):
        at = evictions(
            model.laws,
            model.shares,
            headroom=np.array([headroom]),
            per_iteration=np.array([y]),
            running=np.array([y * iterations]),
        )
        prompt, lost = walk.prompt_mean, float(at.generated_tokens[0])
        work = prefill * (prompt + lost) + decode * lost + read * lost * (prompt + lost / 2)
        work += context * (float(demand[Demand.CONTEXT]) + prompt * lost + lost * lost / 2)
        held = base / memory * (lost * prompt + lost * lost / 2)
        gain = walk.exponent * (work + held) * walk.first * constant**2 * memory**2 / (base * volume)
        headroom = max(math.log(gain), 0.0) / walk.exponent if gain > 0 else 0.0
    return float(min(headroom / memory, MOST))
