"""Requests that advance or pause together, each cohort by a clock of its own: disciplines that restart what they evict.

The running requests of all cohorts share one list in order of admission, of which the newest is the victim of an eviction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..scheduling import MOST_IN_VAIN, MOST_IN_VAIN_A_REQUEST
from ._jit import kernel
from .residency import evict, stop_newest
from .state import IN_CIRCLES, STEPS_LEFT, Machine


@kernel
def idle(machine: Machine, r: int) -> None:
    """No step until a request arrives."""
    machine.due_s[r] = np.inf


@kernel
def drop(machine: Machine, r: int, place: int, tokens: int) -> None:
    """Evict a request that holds `tokens` and decodes no more; it loses what it generated."""
    request = machine.pool[place]
    evict(machine, machine.replicas[r], place, tokens)
    machine.tokens[r] -= request.generated
    request.generated = 0


@kernel
def drop_newest(machine: Machine, r: int, place: int, clock: Any) -> None:
    """Evict the newest of the requests that decode by `clock`."""
    drop(machine, r, place, stop_newest(machine, clock, place))


@kernel
def count_evictions(machine: Machine, r: int, preempted: int) -> None:
    """Leave the kernel if evictions lead nowhere."""
    s = machine.replicas[r]
    s.in_vain += preempted
    if s.in_vain > MOST_IN_VAIN + MOST_IN_VAIN_A_REQUEST * machine.requests[r]:
        machine.registers[IN_CIRCLES] = s.in_vain
        machine.registers[STEPS_LEFT] = 0
