"""First come, first served: the engines' own schedulers, by their admission rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray
from ..errors import check_choice, check_number
from ..model.engine import ADMISSIONS, Engine, Scheduler


@dataclass(frozen=True, slots=True)
class Fcfs(Scheduler):
    """Admit the head of the queue when its admission rule allows; evict the most recently admitted on overflow.

    Parameters
    ----------
    admission : {"reserve", "prompt_gate", "chunk_gate"}
        `reserve`: prompt and longest output can be set aside (TensorRT-LLM `GUARANTEED_NO_EVICT`).
        `prompt_gate`: the whole known prompt fits (vLLM `scheduler_reserve_full_isl`).
        `chunk_gate`: the next chunk fits (older vLLM; TensorRT-LLM `MAX_UTILIZATION`).
    watermark : float in [0, 1)
        Share of the KV blocks kept free at admission, waived while nothing runs.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> from stability import policies
    >>> policies.Fcfs("reserve").evicts, policies.Fcfs("prompt_gate", watermark=0.02).evicts
    (False, True)
    """

    admission: str = "prompt_gate"
    watermark: float = 0.0

    code = 0

    def __post_init__(self) -> None:
        check_choice("admission", self.admission, ADMISSIONS)
        check_number("watermark", self.watermark, at_least=0, below=1)

    def parameters(self) -> FloatArray:
        return np.array([float(ADMISSIONS.index(self.admission)), self.watermark])

    @property
    def evicts(self) -> bool:
        """Whether a running request can lose its KV."""
        return self.admission != "reserve"


def scheduler_of(engine: Engine) -> Scheduler:
    """The policy an engine runs.

    Parameters
    ----------
    engine : Engine
        The engine's settings.

    Returns
    -------
    Scheduler
        Its `scheduler`, or first-come-first-served under its `admission` and `watermark`.

    Examples
    --------
    >>> import stability as st
    >>> st.policies.scheduler_of(st.Engine(admission="reserve"))
    Fcfs(admission='reserve', watermark=0.0)
    """
    return engine.scheduler if engine.scheduler is not None else _fcfs(engine.admission, engine.watermark)


_fcfs = lru_cache(maxsize=256)(Fcfs)
