"""Admission by priority: shortest first, earliest deadline, or class by class."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._types import FloatArray
from ..errors import InputError, check_choice, check_number
from ..model.engine import Scheduler
from .predictors import Oracle, Predictor

PRIORITIES = ("shortest", "deadline", "class")
"""What `Priority` orders by."""


@dataclass(frozen=True, slots=True)
class Priority(Scheduler):
    """The prompt gate with the waiting requests in order of priority; those that never come first may starve.

    As in `Fcfs("prompt_gate")`, running requests go on, the newest is evicted on overflow, and the first waiting request
    that does not fit ends the admission. Ties go to the earlier arrival.

    Parameters
    ----------
    order : {"shortest", "deadline", "class"}
        Least predicted output first; least arrival plus deadline first; lowest class index first.
    deadlines_s : sequence of float > 0, one a request class
        Time a request may take, s; for "deadline" only.
    predictor : Predictor
        Gives every request's predicted output length at its arrival; for "shortest" only.
    watermark : float in [0, 1)
        Share of the KV blocks kept free at admission, waived while nothing runs.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.Priority("shortest"))
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.05, 0.02, 0.01]
    """

    order: str = "shortest"
    deadlines_s: tuple[float, ...] = ()
    predictor: Predictor = field(default_factory=Oracle)
    watermark: float = 0.0

    code = 14

    def __post_init__(self) -> None:
        check_choice("order", self.order, PRIORITIES)
        check_number("watermark", self.watermark, at_least=0, below=1)
        deadlines = tuple(
            check_number(f"deadlines_s[{k}]", value, above=0) for k, value in enumerate(tuple(self.deadlines_s))
        )
        object.__setattr__(self, "deadlines_s", deadlines)
        if (self.order == "deadline") != bool(deadlines):
            raise InputError(
                f"order = {self.order!r} with deadlines_s = {deadlines}, must have deadlines exactly if ordered by them. "
                "Give one a class, or none."
            )

    def parameters(self) -> FloatArray:
        return np.array([float(PRIORITIES.index(self.order)), self.watermark, *self.deadlines_s])
