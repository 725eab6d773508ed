r"""Capacity of a prompt gate against the KV it keeps free: what headroom costs and what it saves.

Time that a replica spends per request, at capacity, is the sum of three parts:

.. math:: \frac1{\lambda^*(h)} = \frac1{\lambda_{mem}(0)}
          + \Big(\frac1{\lambda_{mem}(h)} - \frac1{\lambda_{mem}(0)}\Big)
          + \Big(\frac1{\lambda^*(h)} - \frac1{\lambda_{mem}(h)}\Big),

the ideal, what headroom takes from the batch, and what eviction wastes (recomputed work and the KV of victims), where
:math:`\lambda_{mem}(h)` is the capacity if eviction cost nothing, with the mean free memory of the eviction theory, which is less
than h where decodes grow into the headroom. The **memory branch** is the first two parts, falling in h (flat while h is short against a prompt); the **eviction branch** the first and the third, rising in h; the
optimum is where they balance. **Approximation**, as the eviction theory is.
`headroom.closed_form_headroom` is a cross-check of the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .._extras import needs
from .._types import FloatArray, read_only
from ..model.engine import Engine
from ..theory.conditions import capacities
from ..theory.headroom import closed_form_headroom
from ..theory.regimes import gated
from ..theory.surplus import surplus
from ..theory.synchrony import roots_outside
from .settings import PoolModel, solved_columns

if TYPE_CHECKING:
    import pandas

POINTS = 97
"""Headrooms on a curve."""

LONGEST = 8.0
"""Headrooms are searched up to this many times 1/theta: beyond it P is below 0.03 %."""

MOST = 0.5
"""Largest watermark searched."""


CYCLE_NODES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, MOST)
"""Watermarks at which limit cycles are followed."""


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
        needs("pandas")
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
    replica = model.pool_with(replace(engine, watermark=0.0)).replica
    scale = 1 / (surplus(model.laws, model.shares).exponent * replica.usable_kv_tokens)
    possible = (replica.capacity_blocks - 1) / (replica.capacity_blocks + 1)  # one block has to be left
    return min(MOST, possible, max(LONGEST * scale, 2 * engine.watermark, 0.02))


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
    bare = replace(engine, admission="prompt_gate")
    replicas = [model.pool_with(replace(bare, watermark=float(w))).replica for w in watermarks]
    demand = np.tile(columns[0][1], (len(replicas), 1))
    limits = np.tile(capacities(replicas[0]), (len(replicas), 1))
    found = gated(replicas, laws, demand, limits, model.laws, model.shares, exact=False)
    capacity, evictions = found.capacity, found.evictions_per_request
    if roots_outside(model.laws, model.shares):
        capacity, evictions = _cycle(model, bare, watermarks)
    wasted = np.maximum(1 / capacity - 1 / found.spared, 0.0)
    return _Curve(
        headroom=np.array([float(replica.watermark_tokens) for replica in replicas]),
        capacity=capacity,
        memory=found.spared,
        eviction=1 / (1 / found.spared[0] + wasted),
        evictions=evictions,
    )


def _cycle(model: PoolModel, bare: Engine, watermarks: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Capacity and evictions where completions synchronise: followed at a few watermarks, linear between them."""
    most = min(float(watermarks[-1]), MOST)
    nodes = [w for w in CYCLE_NODES if w < most] + [min(w for w in CYCLE_NODES if w >= most)]
    columns = [model.solved(replace(bare, watermark=w)) for w in nodes]
    capacity = [float(solution.capacity[row]) for solution, row in columns]
    evictions = [float(solution.evictions_per_request[row]) for solution, row in columns]
    return np.interp(watermarks, nodes, capacity), np.interp(watermarks, nodes, evictions)


def closed_form_watermark(model: PoolModel, engine: Engine) -> float:
    """The optimal watermark by the closed form, at most `MOST`; 0 where memory does not bind without headroom."""
    gate = replace(engine, admission="prompt_gate", watermark=0.0)
    law, demand = solved_columns(*model.solved(gate))
    limits = capacities(model.pool_with(gate).replica)
    headroom = closed_form_headroom(law, demand, limits, model.laws, model.shares)
    return float(min(headroom / limits[0], MOST))
