"""What a step-time law is fitted to: compositions of engine steps and the times they took."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from .._types import ArrayLike, BoolArray, FloatArray, read_only
from ..errors import InputError

COLUMNS = ("prefill_tokens", "decode_tokens", "kv_tokens", "prefill_context")
"""P, D, K and A of a step."""

MOST = 1e18
"""Largest value of a column: beyond any step, and its square is a number still."""


@dataclass(frozen=True, init=False, eq=False)
class StepObservations:
    """Engine steps, or averages over steps, as columns: what they computed and how long they took.

    A row may be the mean of many steps (a point of a benchmark, the steps between two scrapes of a metrics endpoint):
    then every column is the mean, and `mixed_share` says which share of those steps carried prompt tokens.

    Parameters
    ----------
    prefill_tokens : (n,) array_like, >= 0
        Prompt tokens computed (P).
    decode_tokens : (n,) array_like, >= 0
        Requests that decoded one token (D).
    kv_tokens : (n,) array_like, >= 0
        KV tokens read by the decoding requests, the new ones included (K).
    time_s : (n,) array_like, > 0
        Time of the step, s; between 1e-12 and 1e12.
    prefill_context : (n,) array_like, >= 0, optional
        Prefill attention work (A), tokens**2: the sum over prompt chunks of chunk * (past + chunk/2). Without it one
        chunk from an empty past is assumed, P**2/2.
    mixed_share : (n,) array_like in [0, 1], optional
        Share of the averaged steps that carried prompt tokens; without it 1 where P > 0, and 0 elsewhere.
    weights : (n,) array_like, >= 0, not all 0, optional
        How many steps a row stands for, up to a factor; equal without.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> steps = StepObservations(prefill_tokens=[0, 100], decode_tokens=[8, 8], kv_tokens=[4000, 4008], time_s=[0.01, 0.02])
    >>> len(steps), steps.prefill_context.tolist()
    (2, [0.0, 5000.0])
    """

    prefill_tokens: FloatArray
    decode_tokens: FloatArray
    kv_tokens: FloatArray
    time_s: FloatArray
    prefill_context: FloatArray
    mixed_share: FloatArray
    weights: FloatArray = field(repr=False)

    def __init__(
        self,
        *,
        prefill_tokens: ArrayLike,
        decode_tokens: ArrayLike,
        kv_tokens: ArrayLike,
        time_s: ArrayLike,
        prefill_context: ArrayLike | None = None,
        mixed_share: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> None:
        p = np.asarray(prefill_tokens, dtype=np.float64)
        columns: dict[str, ArrayLike] = {
            "prefill_tokens": p,
            "decode_tokens": decode_tokens,
            "kv_tokens": kv_tokens,
            "time_s": time_s,
            "prefill_context": p * p / 2 if prefill_context is None else prefill_context,
            "mixed_share": (p > 0).astype(np.float64) if mixed_share is None else mixed_share,
            "weights": np.ones(p.shape) if weights is None else weights,
        }
        for name, values in columns.items():
            column = np.array(values, dtype=np.float64)
            if column.ndim != 1 or column.shape != p.shape:
                raise InputError(
                    f"{name} has shape {column.shape}, must be {p.shape} as prefill_tokens. Give one value a step."
                )
            _check(name, column)
            object.__setattr__(self, name, read_only(column))
        inconsistent = (self.mixed_share == 0) & (self.prefill_tokens > 0)
        if inconsistent.any():
            raise InputError(
                f"mixed_share[{int(np.argmax(inconsistent))}] = 0 with prompt tokens, must be > 0 there. Correct the share."
            )

    def __len__(self) -> int:
        return len(self.time_s)

    def __repr__(self) -> str:
        mixed = float(self.mixed_share.mean()) if len(self) else 0.0
        return f"StepObservations({len(self)} rows, {100 * mixed:.0f} % of steps with prompt tokens)"

    @property
    def is_single_steps(self) -> bool:
        """Whether every row is of one kind of step, decode-only or mixed: laws that bend can only be fitted to those."""
        return bool(np.isin(self.mixed_share, (0.0, 1.0)).all())

    def only(self, rows: BoolArray) -> StepObservations:
        """The observations at `rows`, a mask."""
        picked = {item.name: getattr(self, item.name)[rows] for item in fields(self)}
        return StepObservations(**picked)

    def with_times(self, time_s: ArrayLike) -> StepObservations:
        """The same steps with other times, `time_s`, s."""
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        return StepObservations(**{**columns, "time_s": time_s})


def _check(name: str, column: FloatArray) -> None:
    rule, bad = f">= 0, at most {MOST:g}", ~((column >= 0) & (column <= MOST))
    if name == "time_s":
        rule, bad = "> 0, from 1e-12 to 1e12 s", ~((column >= 1e-12) & (column <= 1e12))
    elif name == "mixed_share":
        rule, bad = "between 0 and 1", ~((column >= 0) & (column <= 1))
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(f"{name}[{at}] = {column[at]:.10g}, must be finite and {rule}. Correct or drop the row.")
    if name == "weights" and len(column) and not column.any():
        raise InputError("weights are all 0, must be > 0 somewhere. Leave them out to weigh all rows alike.")
