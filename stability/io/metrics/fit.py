"""What a recording of metrics says for a plan: the step-time law, the lengths, the arrival rate and the KV cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..._result import html_table, rate, text_table
from ...calibration.fit import fit_law
from ...calibration.law_fit import LawFit
from ...calibration.length_fit import LengthFit, LengthsFit
from ...calibration.lengths import fit_length
from ...calibration.observations import StepObservations
from ...errors import InputError
from .series import MetricsSeries
from .steps import StepMeans, step_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEANS = (
    "the rows are means between scrapes: KV in use is known at their ends only, prefill attention not at all, and the intervals "
    "hold neither error: they are too short"
)
"""Warning of every fit to mean steps."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricsFit:
    """What was fitted to a recording of metrics, for a plan.

    Attributes
    ----------
    source : str
        The recording.
    law : LawFit
        The step-time law of a replica.
    lengths : LengthsFit or None
        Lengths of the requests that ended within the recording; None where no histograms are exposed.
    rate_per_s : float
        Mean arrival rate over the recording, all replicas together, 1/s; NaN if unknown.
    kv_capacity_tokens : float
        KV cache of a replica, tokens.
    replicas : int
        Engines behind the metrics.
    notes : tuple of str
        What was chosen or left out.
    warnings : tuple of str
        Grounds for doubt beyond those of `law` and `lengths`.

    Examples
    --------
    See :func:`stability.fit_metrics`.
    """

    schema: ClassVar[str] = "stability/metrics-fit/1"

    source: str
    law: LawFit
    lengths: LengthsFit | None
    rate_per_s: float
    kv_capacity_tokens: float
    replicas: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        lengths = "no lengths" if self.lengths is None else "lengths"
        return f"MetricsFit({self.law.form}, {self.law.observations} intervals, {lengths}, {rate(self.rate_per_s)})"

    def rows(self) -> list[tuple[str, str]]:
        """What is not in the law or the lengths, as (quantity, value) pairs for people."""
        return [
            ("arrivals", rate(self.rate_per_s)),
            ("replicas", str(self.replicas)),
            ("KV capacity", f"{self.kv_capacity_tokens:.0f} tokens a replica"),
        ]

    def summary(self) -> str:
        """Rate, law and lengths as text tables, with notes and warnings."""
        parts = [text_table(self.rows()), self.law.summary()]
        parts += [] if self.lengths is None else [self.lengths.summary()]
        said = [f"! {text}" for text in (*self.warnings, *self.notes)]
        return "\n\n".join([*parts, *(["\n".join(said)] if said else [])])

    def _repr_html_(self) -> str:
        parts = [html_table(self.rows()), self.law._repr_html_()]
        parts += [] if self.lengths is None else [self.lengths._repr_html_()]
        said = html_table([(text,) for text in (*self.warnings, *self.notes)], caption="warnings and notes")
        return "".join([*parts, said])

    def workload_snippet(self) -> str:
        """Rate and lengths as the `workload` of a plan; empty where one of them is unknown."""
        if self.lengths is None or not (math.isfinite(self.rate_per_s) and self.rate_per_s > 0):
            return ""
        lines = [f"rate_per_s: {self.rate_per_s:.6g}", *self.lengths.plan_snippet().rstrip().splitlines()]
        return "workload:\n" + "".join(f"  {line}\n" for line in lines)

    def pool_snippet(self) -> str:
        """Replicas, KV cache and law as the `fleet` of a plan; the engine's settings are not in its metrics."""
        lines = [
            "- pool: measured",
            f"  replicas: {self.replicas}",
            f"  kv_capacity_tokens: {self.kv_capacity_tokens:.0f}",
            *(f"  {line}" for line in self.law.plan_snippet().rstrip().splitlines()),
        ]
        return "fleet:\n" + "".join(f"  {line}\n" for line in lines)

    def plan_snippet(self) -> str:
        """All that is known as a plan: complete where the workload is known, but for the engine's settings."""
        return f"schema: stability/plan/1\n{self.workload_snippet()}{self.pool_snippet()}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {
            "schema": self.schema,
            "source": self.source,
            "law": self.law.to_dict(),
            "lengths": None if self.lengths is None else self.lengths.to_dict(),
            "rate_per_s": self.rate_per_s if math.isfinite(self.rate_per_s) else None,
            "kv_capacity_tokens": self.kv_capacity_tokens,
            "replicas": self.replicas,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "plan": self.plan_snippet(),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Residuals of the law, on `ax` (a new figure without it)."""
        return self.law.plot(ax)


def fit_metrics(
    series: MetricsSeries,
    *,
    form: str = "auto",
    robust: bool = True,
    level: float = 0.95,
    limit_tokens: int | None = None,
    replicas: int | None = None,
) -> MetricsFit:
    """Step-time law, lengths and arrival rate from a recording of vLLM's or SGLang's metrics.

    Parameters
    ----------
    series : MetricsSeries
        The recording, under load that varies: at one load alone the terms of the law move together.
    form : str
        Form of the law, as in `fit_law`; a hinge or a staircase cannot be fitted to means.
    robust : bool
        Huber's loss in place of least squares.
    level : float in (0, 1)
        Confidence level of the law's intervals.
    limit_tokens : int, optional
        Longest length the engine accepts.
    replicas : int >= 1, optional
        Engines behind the metrics; those seen in the labels if omitted.

    Returns
    -------
    MetricsFit

    Raises
    ------
    InputError
        If there are too few scrapes under load, if the metrics do not tell steps (see `step_means`), or if the terms of the
        law cannot be told apart.

    Notes
    -----
    The law is fitted to `step_means`, one row an interval, with as many steps as weight. A step carries prompt tokens with
    probability min(1, P), an **approximation**; prefill attention is not known and taken as zero: its time goes to the
    prompt tokens. The lengths are those of requests that ended within the recording, so long ones are missed if it is short.

    Examples
    --------
    Steps of 10 ms + 0.1 ms a prompt token + 1 ms a decoding request, 100 in each of twelve intervals:

    >>> import tempfile, pathlib, stability as st
    >>> page = '''# scrape {}
    ... vllm:num_requests_running 8
    ... vllm:num_requests_waiting 0
    ... vllm:kv_cache_usage_perc 0
    ... vllm:cache_config_info{{block_size="16",num_gpu_blocks="100"}} 1
    ... vllm:prompt_tokens_total {}
    ... vllm:generation_tokens_total {}
    ... vllm:iteration_tokens_total_bucket{{le="+Inf"}} {}
    ... '''
    >>> time_s, prompt, output, pages = 0.0, 0, 0, [page.format(0, 0, 0, 0)]
    >>> for k in range(12):
    ...     p, d = 10 * (k % 4), 1 + k % 3
    ...     time_s, prompt, output = time_s + 100 * (0.01 + 1e-4 * p + 1e-3 * d), prompt + 100 * p, output + 100 * d
    ...     pages.append(page.format(time_s, prompt, output, 100 * (k + 1)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "recording.prom")
    ...     _ = file.write_text("".join(pages))
    ...     fit = st.fit_metrics(st.read_metrics(file), form="affine")
    >>> law = fit.law.law
    >>> round(law.base_s, 6), round(law.per_prefill_token_s, 8), round(law.per_decode_token_s, 7)
    (0.01, 0.0001, 0.001)
    """
    if len(series) < 2:
        raise InputError(f"{series.source} holds {len(series)} scrapes, must hold at least 2. Record longer.")
    means = step_means(series, replicas=replicas)
    if not len(means):
        raise InputError(
            f"{series.source} has no interval with steps and requests running at both ends, must have some. Record under load."
        )
    engines = max(len(series.replicas), 1) if replicas is None else replicas
    notes = [*series.notes, *means.notes]
    if not means.counted:
        notes.append("steps follow from the inter-token latency, not from a count")
    lengths = _lengths(series, limit_tokens)
    if lengths is None:
        notes.append("no length histograms are exposed (SGLang: --collect-tokens-histogram), so no lengths are fitted")
    return MetricsFit(
        source=series.source,
        law=fit_law(_observations(means), form=form, robust=robust, level=level),
        lengths=lengths,
        rate_per_s=series.rate_of("arrivals"),
        kv_capacity_tokens=series.kv_capacity_tokens / engines,
        replicas=engines,
        notes=tuple(notes),
        warnings=(MEANS,),
    )


def _observations(means: StepMeans) -> StepObservations:
    """Rows for `fit_law`: a step carries prompt tokens with probability min(1, P); prefill attention is not known."""
    return StepObservations(
        prefill_tokens=means.prefill_tokens,
        decode_tokens=means.decode_tokens,
        kv_tokens=means.kv_tokens,
        time_s=means.time_s,
        prefill_context=np.zeros(len(means)),
        mixed_share=np.clip(means.prefill_tokens, 0.0, 1.0),
        weights=means.weights,
    )


def _lengths(series: MetricsSeries, limit_tokens: int | None) -> LengthsFit | None:
    """Of the requests that ended within the recording; None where not exposed."""
    fits: dict[str, LengthFit] = {}
    for name in ("prompt", "output"):
        found = series.histograms.get(f"{name}_lengths")
        if found is None:
            return None
        counts = found.between(0, -1)
        if not counts.sum() > 0:
            raise InputError(f"{series.source}: no request ended within the recording, must be some. Record longer.")
        total = float(found.sums[-1] - found.sums[0])
        keep = (counts > 0) | np.isfinite(found.bounds)  # an empty last bucket says nothing
        fits[name] = fit_length(
            found.bounds[keep],
            counts[keep],
            limit_tokens=limit_tokens,
            total_tokens=total if total > 0 else None,
        )
    return LengthsFit(prompt=fits["prompt"], output=fits["output"], spearman=None)
