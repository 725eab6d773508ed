"""Which theory an evicting gate is judged by, and what is certain of it where that is an estimate only.

The eviction theory (`gate`) is validated for many requests running whose completions do not synchronise. Outside, the capacity
is still estimated, but the verdict is certain only below what is left in the worst case.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from .._types import BoolArray, FloatArray
from ..errors import InputError
from ..model.iteration import IterationTime
from ..model.lengths import Lengths
from ..model.replica import Replica
from ..policies import Fcfs, scheduler_of
from .cycle import can_overflow, cycle_capacity
from .eviction import few_running
from .gate import GateCapacity, Gates, gate_capacity
from .moments import Demand
from .steps import PromptLaw, prompt_law, tangent_laws
from .synchrony import roots_outside

DOUBT, CYCLE_DOUBT = 0.10, 0.25
"""Share of an estimated capacity by which it may be too high: few running and chunk gates, and where completions synchronise.

Measured: 8 % (docs/theory/eviction.md), and 16 %.
"""

SYNCHRONISED = "the lengths are so few that completions synchronise ({} roots outside the unit circle)"
UNFOLLOWED = ", and their cycle is not followed where prompt tokens are found in the prefix cache"
SHORT_PROMPTS = "prompts are so short against outputs that older requests leave before an eviction is decided"
CHUNKED = "chunk_gate admits prompts that do not fit as a whole, and its capacity is an estimate"
HALF_WAY = (
    "chunk_gate admits prompts of up to {:g} tokens in chunks of {}: long prompts evict each other half-way, and what "
    "is left is an estimate"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gated:
    """Evicting gates among the replicas of a fleet; arrays over all replicas, neutral for the others.

    Attributes
    ----------
    coefficients : (n, 5) ndarray
        Step-time laws, tangents taken where the gates operate.
    capacity : (n,) ndarray
        Estimate, 1/s; 0 for replicas without an evicting gate.
    spared : (n,) ndarray
        The same if eviction cost nothing.
    floor : (n,) ndarray
        Rate that a gate in doubt reaches in any case, as far as its estimate goes, 1/s; infinite where `doubts` is empty.
    evictions_per_request : (n,) ndarray
    evicting : (n,) ndarray of bool
        Whether memory binds.
    doubts : list of str
        Why the capacity is an estimate only; empty where it is validated.
    """

    coefficients: FloatArray
    capacity: FloatArray
    spared: FloatArray
    floor: FloatArray
    evictions_per_request: FloatArray
    evicting: BoolArray
    doubts: list[str]


def evicts(replica: Replica) -> bool:
    """Whether the replica's scheduler evicts running requests."""
    policy = scheduler_of(replica.engine)
    return isinstance(policy, Fcfs) and policy.evicts


def gated(
    replicas: Sequence[Replica],
    coefficients: FloatArray,
    demand: FloatArray,
    limits: FloatArray,
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
    *,
    exact: bool = True,
    prompts: PromptLaw | None = None,
) -> Gated:
    """Capacity of the evicting gates among `replicas`, and the doubts about it.

    Parameters
    ----------
    replicas : sequence of Replica
    coefficients : (n, 5) ndarray
        Step-time laws, or tangents.
    demand : (n, 15) ndarray
        Mean demand of a request at each.
    limits : (n, 3) ndarray
        KV tokens, slots, token budget.
    laws, shares
        The mix of length laws.
    prompts : PromptLaw, optional
        Prompt tokens computed, where some are found in the prefix cache; those of `laws` without it.
    exact : bool
        Whether to take tangents of laws that are not affine where the gates operate, and to follow limit cycles; else
        `coefficients` are used as they are, and cycles left out.
    """
    count = len(replicas)
    capacity, spared, per_request, floor = np.zeros(count), np.zeros(count), np.zeros(count), np.full(count, np.inf)
    evicting, doubts = np.zeros(count, dtype=np.bool_), [""] * count
    rows = np.flatnonzero([evicts(replica) for replica in replicas])
    if len(rows):
        chosen = [replicas[row] for row in rows.tolist()]
        coefficients = coefficients.copy()
        found, coefficients[rows] = _at_operating_point(
            chosen, coefficients[rows], demand[rows], limits[rows], laws, shares, exact, prompts
        )
        capacity[rows], spared[rows], per_request[rows], evicting[rows] = (
            found.capacity_per_s,
            found.spared_per_s,
            found.evictions_per_request,
            found.evicting,
        )
        few = few_running(laws, shares, found.per_iteration * demand[rows, Demand.ITERATIONS])
        overflowing = [can_overflow(replica, demand[row]) for replica, row in zip(chosen, rows.tolist(), strict=True)]
        cycle = roots_outside(laws, shares) if exact and any(overflowing) else 0
        # The recursion computes whole prompts: behind cached prefixes the capacity of flow balance stays, with a doubt.
        finds = demand[rows, Demand.PREFILL] < (1 - 1e-9) * demand[rows, Demand.PROMPT]
        for place, row in enumerate(rows.tolist()):
            if cycle and overflowing[place] and not finds[place]:
                with suppress(InputError):  # longer lives than the recursion follows: the walk's capacity stays
                    at = cycle_capacity(replicas[row], coefficients[row], demand[row], laws, shares)
                    capacity[row] = min(at.capacity_per_s, capacity[row] if _chunked(replicas[row]) else np.inf)
                    per_request[row] = at.evictions_per_request
                    evicting[row] = evicting[row] or at.evictions_per_request > 0
            if not evicting[row]:
                continue
            reasons = []
            if cycle and overflowing[place]:
                reasons.append(SYNCHRONISED.format(cycle) + (UNFOLLOWED if finds[place] else ""))
                floor[row] = (1 - CYCLE_DOUBT) * capacity[row]
            elif few[place]:
                reasons.append(SHORT_PROMPTS)
            if _chunked(replicas[row]):
                reasons.append(_chunk_doubt(replicas[row], laws))
                floor[row] = min(floor[row], float(found.floor_per_s[place]))
            if reasons:
                doubts[row] = "; ".join(reasons)
                floor[row] = min(floor[row], (1 - DOUBT) * capacity[row])
    return Gated(
        coefficients=coefficients,
        capacity=capacity,
        spared=spared,
        floor=floor,
        evictions_per_request=per_request,
        evicting=evicting,
        doubts=doubts,
    )


def _at_operating_point(
    replicas: Sequence[Replica],
    coefficients: FloatArray,
    demand: FloatArray,
    limits: FloatArray,
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
    tangent: bool,
    prompts: PromptLaw | None = None,
) -> tuple[GateCapacity, FloatArray]:
    """Capacity of the gates, with the tangents of laws that are not affine taken where they operate."""
    gates = Gates(
        limits=limits,
        headroom=np.array([float(replica.watermark_tokens) for replica in replicas]),
        chunked=np.array([_chunked(replica) for replica in replicas]),
        prefix_caching=np.array([replica.engine.prefix_caching for replica in replicas]),
    )
    found = gate_capacity(gates, coefficients, demand, laws, shares)
    if tangent and not all(isinstance(replica.iteration, IterationTime) for replica in replicas):
        coefficients = tangent_laws(
            [replica.iteration for replica in replicas],
            prompt_law(laws, shares) if prompts is None else prompts,
            demand,
            found.per_iteration,
            limits,
        )
        found = gate_capacity(gates, coefficients, demand, laws, shares)
    return found, coefficients


def _chunked(replica: Replica) -> bool:
    policy = scheduler_of(replica.engine)
    return isinstance(policy, Fcfs) and policy.admission == "chunk_gate"


def _chunk_doubt(replica: Replica, laws: tuple[Lengths, ...]) -> str:
    longest, budget = max(law.max_prompt_tokens for law in laws), replica.engine.max_num_batched_tokens
    return HALF_WAY.format(longest, budget) if longest > budget else CHUNKED
