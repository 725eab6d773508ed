"""Which replica a request joins, from its number, its random numbers and the replicas' states."""

from __future__ import annotations

import numpy as np

from ..._types import FloatArray, IntArray
from ...policies.routers import JoinShortestKv, JoinShortestQueue, PowerOfTwo, PrefixAffinity, Random, RoundRobin
from ._jit import kernel
from .state import NONE

ROUND_ROBIN = RoundRobin.code
RANDOM = Random.code
SHORTEST_QUEUE = JoinShortestQueue.code
SHORTEST_KV = JoinShortestKv.code
POWER_OF_TWO = PowerOfTwo.code
PREFIX_AFFINITY = PrefixAffinity.code
"""Requests without sessions share no prefix, so that it is `SHORTEST_KV` here; sessions are simulated by the reference."""


@kernel
def static_choice(code: int, replicas: int, index: int, uniforms: FloatArray, shares: FloatArray) -> int:
    """The replica chosen without looking at any state, or `NONE` if the policy looks."""
    if code == ROUND_ROBIN:
        return index % replicas
    if code == RANDOM:
        return int(uniforms[0] * replicas)
    if code in (SHORTEST_QUEUE, SHORTEST_KV, POWER_OF_TWO, PREFIX_AFFINITY):
        return NONE
    return int(np.searchsorted(shares, uniforms[0], side="right"))


@kernel
def two_candidates(replicas: int, uniforms: FloatArray) -> tuple[int, int]:
    """Two distinct replicas, the lower index first (the same one twice in a fleet of one)."""
    if replicas == 1:
        return 0, 0
    first = int(uniforms[0] * replicas)
    second = int(uniforms[1] * (replicas - 1))
    if second >= first:
        second += 1
    return min(first, second), max(first, second)


@kernel
def least(values: IntArray | FloatArray) -> int:
    """Index of the smallest value, the first of several."""
    best = 0
    for i in range(1, len(values)):
        if values[i] < values[best]:
            best = i
    return best
