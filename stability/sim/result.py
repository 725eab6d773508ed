"""What a simulation returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import needs
from .._result import Described, html_table, json_safe, text_table
from .._types import AnyArray, FloatArray, IntArray
from ..errors import InputError, check_number
from ..evidence.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SCHEMA = "stability/simulation/1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestRecords(Described):
    """Every request that arrived, in order of arrival. Columns of shape (n,); times are NaN where it has not come so far.

    Attributes
    ----------
    arrival_s, admitted_s, first_token_s, finish_s : float
        Arrival, first admission, end of the steps that gave the first and the last token, s.
    prompt_tokens, output_tokens, request_class, preemptions : int
    cached_prefix_tokens : int
        Prompt tokens found in the prefix cache at the first admission; for known prefixes before rounding to blocks.
    replica : int
        Index over all pools in order; -1 for requests turned away.

    Examples
    --------
    See :func:`stability.simulate`.
    """

    arrival_s: FloatArray
    prompt_tokens: AnyArray
    output_tokens: AnyArray
    request_class: AnyArray
    cached_prefix_tokens: AnyArray
    admitted_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray
    preemptions: AnyArray
    replica: AnyArray

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplicaRecords(Described):
    """Every replica over the measured window. Columns of shape (n_replicas,).

    Attributes
    ----------
    pool : int
        Index of its pool.
    running_mean, waiting_mean : float
        Time-average requests running and waiting.
    kv_tokens_mean, kv_occupancy : float
        Time-average KV in whole blocks, in tokens and as a share of the capacity.
    iteration_mean_s : float
        Mean step time, s (NaN without steps).
    busy_share : float
        Share of the time spent in steps.
    completed, preemptions, steps : int

    Examples
    --------
    See :func:`stability.simulate`.
    """

    pool: IntArray
    running_mean: FloatArray
    waiting_mean: FloatArray
    kv_tokens_mean: FloatArray
    kv_occupancy: FloatArray
    iteration_mean_s: FloatArray
    busy_share: FloatArray
    completed: IntArray
    preemptions: IntArray
    steps: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SimulationResult:
    """Outcome of one simulated run.

    Means and rates are over the measured window: from the end of the warm-up to the last arrival; in a saturated run
    from the first refused admission to the moment the queue empties.

    Attributes
    ----------
    throughput_per_s : float
        Completed requests per second in the window.
    makespan_throughput_per_s : float
        All completed requests over the time from the first arrival to the last token.
    itl_mean_s : float
        Mean gap between a request's tokens, weighted by tokens, s: stalls by preemption included.
    iteration_mean_s : float
        Mean step time, s.
    ttft_mean_s : float
        Mean time to first token, s.
    running_mean, waiting_mean : float
        Time-average requests running and waiting, over the fleet.
    kv_occupancy : float
        Time-average share of the fleet's KV blocks in use.
    preemptions : int
        Evictions over the whole run.
    arrived, completed, rejected : int
        Requests over the whole run; those turned away have arrived.
    generated_tokens, computed_prompt_tokens : int
        Output tokens given, and tokens computed as prompts (those computed again after an eviction included), over the whole run.
    window_s : tuple of float
        Begin and end of the measured window, s.
    saturated_s : tuple of float
        Begin and end of saturation in a saturated run, s: the last replica's first refused admission and the first
        replica's empty queue. NaN otherwise.
    end_s : float
        When the last step ended, s.
    complete : bool
        False if the run was interrupted: then it holds what was done by then.
    overloaded : bool
        Whether the queue grew, while requests arrived, as none does at load <= 1 but with probability 0.005 (see
        `stability_test`; 256 requests at least). Means little where the rate changes over the run.
    reason : str
        What overloaded or incomplete means here; empty otherwise.
    intervals : mapping of str to Interval
        95 % batch-means intervals of throughput_per_s, itl_mean_s, iteration_mean_s and ttft_mean_s.
    requests : RequestRecords or None
        None when only a summary was kept.
    replicas : ReplicaRecords
    steps : mapping of str to array
        One entry a step, by replica and time: start_s, end_s, scheduled_tokens, scheduled_requests, running, preempted,
        waiting, used_blocks, replica. Empty unless recorded.
    series : mapping of str to array
        State of the fleet at multiples of the resolution: time_s, running, waiting, kv_tokens, iteration_s. Empty unless asked for.
    seed, spawn_key : int, tuple of int
        The seed sequence from which the run can be repeated.
    mode, router : str
        "open loop", "closed loop" or "saturated"; class name of the router.
    class_names : tuple of str
        Names of the request classes, by index.
    ttft_counts : (n_bins,) array of int
        Histogram of the time to first token behind `ttft_quantile_s`, 128 bins an octave from 2**-40 s; empty when requests
        were kept.

    Examples
    --------
    See :func:`stability.simulate`.
    """

    throughput_per_s: float
    makespan_throughput_per_s: float
    itl_mean_s: float
    iteration_mean_s: float
    ttft_mean_s: float
    running_mean: float
    waiting_mean: float
    kv_occupancy: float
    preemptions: int
    arrived: int
    completed: int
    rejected: int
    generated_tokens: int
    computed_prompt_tokens: int
    window_s: tuple[float, float]
    saturated_s: tuple[float, float]
    end_s: float
    complete: bool
    overloaded: bool
    reason: str
    intervals: Mapping[str, Interval]
    requests: RequestRecords | None
    replicas: ReplicaRecords
    steps: Mapping[str, AnyArray]
    series: Mapping[str, AnyArray]
    seed: int
    spawn_key: tuple[int, ...]
    mode: str
    router: str
    class_names: tuple[str, ...]
    ttft_counts: IntArray

    def __repr__(self) -> str:
        state = "" if self.complete else ", incomplete"
        state += ", overloaded" if self.overloaded else ""
        return (
            f"SimulationResult({self.completed} of {self.arrived} requests, {self.throughput_per_s:.4g}/s, "
            f"ITL {1e3 * self.itl_mean_s:.4g} ms, {self.preemptions} preemptions{state})"
        )

    @property
    def prefix_hit_rate(self) -> float:
        """Share of the prompt tokens of requests admitted in the window that their first admission found in the prefix cache."""
        records = self._records("prefix_hit_rate")
        inside = (records.admitted_s >= self.window_s[0]) & (records.admitted_s <= self.window_s[1])
        tokens = int(records.prompt_tokens[inside].sum())
        return float(records.cached_prefix_tokens[inside].sum() / tokens) if tokens else math.nan

    @property
    def itl_s(self) -> FloatArray:
        """Mean gap between its tokens of every finished request with two tokens or more, s. Shape (m,)."""
        records = self._records("itl_s")
        done = np.isfinite(records.finish_s) & (records.output_tokens > 1)
        gaps = records.finish_s[done] - records.first_token_s[done]
        return np.asarray(gaps / (records.output_tokens[done] - 1))

    @property
    def ttft_s(self) -> FloatArray:
        """Time to first token of every request that arrived in the window and has one, s. Shape (m,)."""
        records = self._records("ttft_s")
        taken = (records.arrival_s >= self.window_s[0]) & np.isfinite(records.first_token_s)
        if not taken.any():
            taken = np.isfinite(records.first_token_s)
        return np.asarray(records.first_token_s[taken] - records.arrival_s[taken])

    def ttft_quantile_s(self, probability: float) -> float:
        """Quantile of the time to first token after the warm-up, s.

        Exact when requests are kept; else from a histogram whose bins are 0.8 % wide.

        Parameters
        ----------
        probability : float in [0, 1]
            0.99 for the time that 99 % of the requests stay below.
        """
        p = check_number("probability", probability, at_least=0, at_most=1)
        if self.requests is not None:
            times = self.ttft_s
            return float(np.quantile(times, p)) if len(times) else math.nan
        total = int(self.ttft_counts.sum())
        if total == 0:
            return math.nan
        row = int(np.searchsorted(np.cumsum(self.ttft_counts), max(1, math.ceil(p * total))))
        exponent, slot = divmod(row, 128)
        return math.ldexp(0.5 + (slot + 0.5) / 256, exponent - 40)

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        rows = [
            ("requests", f"{self.completed} completed of {self.arrived} arrived ({self.mode}, {self.router})"),
            ("window", f"{self.window_s[0]:.6g} to {self.window_s[1]:.6g} s of {self.end_s:.6g} s"),
            ("throughput", f"{self.throughput_per_s:.5g} requests/s{self._margin('throughput_per_s', 1)}"),
            ("ITL mean", f"{1e3 * self.itl_mean_s:.5g} ms{self._margin('itl_mean_s', 1e3)}"),
            ("iteration mean", f"{1e3 * self.iteration_mean_s:.5g} ms{self._margin('iteration_mean_s', 1e3)}"),
            ("TTFT mean", f"{self.ttft_mean_s:.5g} s{self._margin('ttft_mean_s', 1)}"),
            ("TTFT p50 / p99", f"{self.ttft_quantile_s(0.5):.5g} / {self.ttft_quantile_s(0.99):.5g} s"),
            ("running / waiting", f"{self.running_mean:.5g} / {self.waiting_mean:.5g} requests"),
            ("KV occupancy", f"{100 * self.kv_occupancy:.4g} %"),
            ("preemptions", f"{self.preemptions}"),
            ("seed", f"{self.seed}"),
        ]
        if self.rejected:
            rows.insert(1, ("turned away", f"{self.rejected} of {self.arrived}"))
        return rows + ([("note", self.reason)] if self.reason else [])

    def summary(self) -> str:
        """A table of the main figures, one a line."""
        return text_table(self.rows())

    def _repr_html_(self) -> str:
        return html_table(self.rows())

    def _margin(self, name: str, scale: float) -> str:
        interval = self.intervals[name]
        if interval.half_width <= 1e-9 * abs(interval.low + interval.high):  # equal samples: what is left is round-off
            return ""
        return f" +- {scale * interval.half_width:.2g}" if math.isfinite(interval.half_width) else ""

    def to_dict(self) -> dict[str, Any]:
        """Scalars, intervals and per-replica means, safe for JSON; no per-request columns."""
        left_out = {"requests", "steps", "series", "ttft_counts"}
        kept = {name: json_safe(getattr(self, name)) for name in self.__dataclass_fields__ if name not in left_out}
        quantiles = {"ttft_p50_s": self.ttft_quantile_s(0.5), "ttft_p99_s": self.ttft_quantile_s(0.99)}
        return {"schema": SCHEMA, **kept, **json_safe(quantiles)}

    def to_frame(self) -> pd.DataFrame:
        """One row a request (units in the column names); without kept requests one row a replica."""
        needs("pandas")
        import pandas as pd

        if self.requests is None:
            return pd.DataFrame({name: getattr(self.replicas, name) for name in ReplicaRecords.__slots__})
        frame = pd.DataFrame({name: getattr(self.requests, name) for name in RequestRecords.__slots__})
        frame["request_class"] = pd.Categorical.from_codes(
            self.requests.request_class.astype(np.int64), categories=pd.Index(self.class_names)
        )
        return frame

    def plot(self, ax: Axes | None = None) -> Axes:
        """Requests over time on `ax`; without it also KV and step time. See `stability.plots.simulation.plot_simulation`."""
        from ..plots.simulation import plot_simulation

        return plot_simulation(self, ax)

    def _records(self, what: str) -> RequestRecords:
        if self.requests is None:
            raise InputError(f"{what} needs every request, but keep = 'summary'. Simulate with keep='requests'.")
        return self.requests
