"""`fit_benchmark`: the step-time law behind points of a closed-loop benchmark.

A point is the mean time per output token of equal requests at a fixed number in flight. It is the time of the mean step in which a
request decodes (`stability.theory.closed_loop`, an approximation: random phases), so each point is one row of `fit_law`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import ArrayLike, FloatArray, read_only
from ..errors import InputError, check_integer, check_number
from ..theory.closed_loop import loop_steps
from .fit import fit_law
from .law_fit import LawFit
from .observations import StepObservations


@dataclass(frozen=True, init=False, eq=False)
class BenchmarkPoints:
    """Points of a benchmark that keeps a number of equal requests in flight, as columns.

    Parameters
    ----------
    in_flight : (n,) array_like, >= 1
        Requests in flight on one replica (the benchmark's concurrency).
    prompt_tokens : (n,) array_like, >= 1
        Mean prompt length, tokens; rounded.
    output_tokens : (n,) array_like, >= 2
        Mean output length, tokens; rounded.
    tpot_s : (n,) array_like, > 0
        Mean time per output token after the first, s.
    ttft_s : (n,) array_like, > 0, optional
        Mean time to first token, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> points = BenchmarkPoints(in_flight=[1, 8], prompt_tokens=[100, 100], output_tokens=[50, 50], tpot_s=[0.01, 0.012])
    >>> len(points)
    2
    """

    in_flight: FloatArray
    prompt_tokens: FloatArray
    output_tokens: FloatArray
    tpot_s: FloatArray
    ttft_s: FloatArray | None

    def __init__(
        self,
        *,
        in_flight: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        tpot_s: ArrayLike,
        ttft_s: ArrayLike | None = None,
    ) -> None:
        rules = {"in_flight": 1.0, "prompt_tokens": 1.0, "output_tokens": 2.0, "tpot_s": 1e-9, "ttft_s": 1e-9}
        given = dict(zip(rules, (in_flight, prompt_tokens, output_tokens, tpot_s, ttft_s), strict=True))
        count = np.shape(np.asarray(in_flight))
        for name, values in given.items():
            if values is None:
                object.__setattr__(self, name, None)
                continue
            column = np.array(values, dtype=np.float64)
            if column.ndim != 1 or column.shape != count:
                raise InputError(
                    f"{name} has shape {column.shape}, must be {count} as in_flight. Give one value a point."
                )
            bad = ~(np.isfinite(column) & (column >= rules[name]))
            if bad.any():
                at = int(np.argmax(bad))
                raise InputError(
                    f"{name}[{at}] = {column[at]:.10g}, must be finite and >= {rules[name]:g}. Correct or drop the point."
                )
            object.__setattr__(self, name, read_only(column))

    def __len__(self) -> int:
        return len(self.tpot_s)

    def __repr__(self) -> str:
        return f"BenchmarkPoints({len(self)} points, {self.in_flight.min():g} to {self.in_flight.max():g} in flight)"

    def only(self, rows: ArrayLike) -> BenchmarkPoints:
        """The points at `rows`, a mask or indices."""
        index = np.arange(len(self))[np.asarray(rows)]
        return BenchmarkPoints(
            in_flight=self.in_flight[index],
            prompt_tokens=self.prompt_tokens[index],
            output_tokens=self.output_tokens[index],
            tpot_s=self.tpot_s[index],
            ttft_s=None if self.ttft_s is None else self.ttft_s[index],
        )


def loop_observations(
    points: BenchmarkPoints, *, max_num_batched_tokens: int = 8192, kv_capacity_tokens: float | None = None
) -> StepObservations:
    """The mean step of each point, as a row to fit a law to.

    Parameters
    ----------
    points : BenchmarkPoints
        What was measured.
    max_num_batched_tokens : int >= 1
        Token budget of the engine.
    kv_capacity_tokens : float > 0, optional
        KV cache, tokens, where points without a time to first token may have filled it.

    Returns
    -------
    StepObservations
        One row a point; with times to first token, the requests served per step follow from Little's law.
    """
    check_integer("max_num_batched_tokens", max_num_batched_tokens, at_least=1)
    if kv_capacity_tokens is not None:
        check_number("kv_capacity_tokens", kv_capacity_tokens, above=0)
    steps = loop_steps(
        points.prompt_tokens.round(),
        points.output_tokens.round(),
        points.in_flight,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_capacity_tokens=kv_capacity_tokens,
        first_token_steps=None if points.ttft_s is None else points.ttft_s / points.tpot_s,
    )
    return StepObservations(
        prefill_tokens=steps.prefill_tokens,
        decode_tokens=steps.decode_tokens,
        kv_tokens=steps.kv_tokens,
        prefill_context=steps.prefill_context,
        mixed_share=steps.mixed_share,
        time_s=points.tpot_s,
    )


def fit_benchmark(
    points: BenchmarkPoints,
    *,
    max_num_batched_tokens: int = 8192,
    kv_capacity_tokens: float | None = None,
    form: str = "auto",
    robust: bool = True,
    level: float = 0.95,
) -> LawFit:
    """The step-time law behind times per output token at several numbers in flight.

    Valid where the number in flight is kept up (a closed loop) and requests are about equal. Points of one prompt and
    output length cannot tell prompt from decode tokens: then one coefficient per batched token is fitted.

    Parameters
    ----------
    points : BenchmarkPoints
        What was measured.
    max_num_batched_tokens : int >= 1
        Token budget of the engine.
    kv_capacity_tokens : float > 0, optional
        KV cache, tokens, where points without a time to first token may have filled it.
    form, robust, level
        As for `fit_law`.

    Returns
    -------
    LawFit
        The law, coefficients with intervals, errors, warnings; `plan_snippet()` for a plan.

    Raises
    ------
    InputError
        If there are too few points, or terms that the points cannot tell apart.

    Notes
    -----
    Time per output token = (1 - pi) tau(0, D, K, 0) + pi tau(P/pi, D, K, A/pi), with the mean step of
    `stability.theory.closed_loop`.

    Examples
    --------
    >>> import stability as st
    >>> n, s, o = np.tile([1, 4, 16, 64], 3), np.repeat([100, 1000, 4000], 4), np.repeat([500, 100, 400], 4)
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=1e-7)
    >>> tpot = loop_steps(s, o, n, max_num_batched_tokens=8192).time_s(law)
    >>> points = BenchmarkPoints(in_flight=n, prompt_tokens=s, output_tokens=o, tpot_s=tpot)
    >>> fit = fit_benchmark(points)
    >>> round(fit.law.base_s, 6), round(fit.law.per_prefill_token_s, 8)
    (0.01, 0.0001)
    """
    observations = loop_observations(
        points, max_num_batched_tokens=max_num_batched_tokens, kv_capacity_tokens=kv_capacity_tokens
    )
    return fit_law(observations, form=form, robust=robust, level=level)
