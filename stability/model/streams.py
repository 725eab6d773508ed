"""Named random streams: one per purpose, so that policies compared on one seed see the same requests."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

RandomState = int | np.random.SeedSequence | np.random.Generator | None


class Stream(IntEnum):
    """Purposes that draw random numbers."""

    ARRIVALS = 0
    CLASSES = 1
    LENGTHS = 2
    ROUTING = 3
    SCHEDULING = 4
    BOOTSTRAP = 5
    PREDICTIONS = 6
    THINKING = 7


def seed_sequence(rng: RandomState) -> np.random.SeedSequence:
    """The root seed behind `rng`; a Generator contributes one draw, None fresh entropy."""
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, np.random.Generator):
        return np.random.SeedSequence(int(rng.integers(1 << 62)))
    return np.random.SeedSequence(rng)


def generator(
    root: np.random.SeedSequence, stream: Stream, index: int = 0, replication: int = 0
) -> np.random.Generator:
    """The generator of one purpose (and of class or replica `index` within it) in one replication."""
    key = (*root.spawn_key, replication, int(stream), index)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(root.entropy, spawn_key=key)))
