"""What `analyze` returns: verdict, capacities and their standing, operating point, pool by pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._extras import needs
from .._result import Described, Verdict, html_table, json_safe, no_truth, percent, rate, seconds, small, text_table
from .prefix_report import PrefixReport

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

SCHEMA = "stability/report/1"

REFERENCES = (
    "Nie, Si, Zhou (2026), arXiv 2605.04595: stability of LLM serving with KV limits",
    "Ao, Luo, Simchi-Levi, Wang (2025), arXiv 2504.11320: fluid model of continuous batching",
    "Li, Dai, Deng, Li, Peng (2025), arXiv 2504.07347: throughput-optimal batching",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport(Described):
    """One pool at its share of the arrivals. Rates are of the whole pool, times of one replica.

    Attributes
    ----------
    name : str
    replicas : int
    rate_per_s : float
        Arrivals sent to the pool.
    verdict : Verdict
    reason : str
    capacity_per_s : float
        Predicted capacity under the pool's own scheduler.
    capacity_interval : (float, float)
        Confidence interval of it from the finite trace behind the lengths; equal ends for exact laws.
    proved_capacity_per_s : float or None
        Rate below which stability is proved.
    stable_below_per_s, unstable_above_per_s : float
        Between them the verdict is UNDETERMINED.
    upper_bound_per_s : float
        Rate no policy exceeds (at the upper end of its confidence interval).
    load : float
        Rate over capacity.
    loads : dict of str to float
        Load of each resource; "compute" is the load when no resource limits.
    bottleneck : str
        "kv_memory", "batch_slots", "token_budget" or "compute"; "scheduler" where a published one holds back.
    iteration_s, itl_s : float
        Mean iteration time and token-weighted inter-token latency, at the rate or (overloaded) at capacity.
    kv_occupancy : float
        Mean KV in use over capacity.
    running_mean : float
        Mean requests resident per replica.
    evictions_per_request : float
        Evictions per request at capacity; fewer below it.

    Examples
    --------
    See :func:`stability.analyze`.
    """

    name: str
    replicas: int
    rate_per_s: float
    verdict: Verdict
    reason: str
    capacity_per_s: float
    capacity_interval: tuple[float, float]
    proved_capacity_per_s: float | None
    stable_below_per_s: float
    unstable_above_per_s: float
    upper_bound_per_s: float
    load: float
    loads: Mapping[str, float]
    bottleneck: str
    iteration_s: float
    itl_s: float
    kv_occupancy: float
    running_mean: float
    evictions_per_request: float

    def __repr__(self) -> str:
        return f"PoolReport({self.name!r}, {self.verdict}, load {self.load:.3f}, bottleneck {self.bottleneck})"

    def why_compute(self) -> str:
        """Why the bottleneck is compute, with the resource that is full before it if there is one."""
        fullest = max(self.loads, key=lambda name: self.loads[name])
        first = f"{fullest} is full first, but " if self.loads[fullest] > self.loads["compute"] * (1 + 1e-9) else ""
        return f"{first}lifting every limit gains less than 10 %"


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityReport:
    """Whether a fleet is stable under a workload, by how much and what binds.

    Attributes
    ----------
    verdict : Verdict
        STABLE, UNSTABLE or UNDETERMINED.
    reason : str
        Why, in one sentence.
    rate_per_s : float
        Arrival rate, 1/s (time average of a schedule).
    capacity_per_s : float
        Rate at this mix that the fleet can serve under its schedulers and its split of arrivals.
    capacity_interval : (float, float)
        95 % confidence interval from the finite trace behind the lengths; equal ends for exact laws.
    proved_capacity_per_s : float or None
        Rate below which stability is proved (reservation admission only).
    stable_below_per_s, unstable_above_per_s : float
        Rates between which the verdict is UNDETERMINED.
    upper_bound_per_s : float
        Necessary: no scheduling policy exceeds it under this split.
    load : float
        Rate over capacity.
    bottleneck : str
        What binds in the binding pool.
    iteration_s, itl_s, kv_occupancy, running_mean, evictions_per_request
        Operating point of the binding pool, see `PoolReport`.
    pools : tuple of PoolReport
    binding_pool : str
        The pool with the greatest load.
    assumptions : tuple of str
        What the figures rest on.
    references : tuple of str
    peak : StabilityReport or None
        The same at the peak window of a rate schedule.
    prefixes : PrefixReport or None
        The prefix caches, for workloads with sessions; capacity is then that with a cold cache, the operating point that of
        the equilibrium with the most hits.

    Examples
    --------
    See :func:`stability.analyze`.
    """

    verdict: Verdict
    reason: str
    rate_per_s: float
    capacity_per_s: float
    capacity_interval: tuple[float, float]
    proved_capacity_per_s: float | None
    stable_below_per_s: float
    unstable_above_per_s: float
    upper_bound_per_s: float
    load: float
    bottleneck: str
    iteration_s: float
    itl_s: float
    kv_occupancy: float
    running_mean: float
    evictions_per_request: float
    pools: tuple[PoolReport, ...]
    binding_pool: str
    assumptions: tuple[str, ...]
    references: tuple[str, ...] = REFERENCES
    peak: StabilityReport | None = field(default=None)
    prefixes: PrefixReport | None = field(default=None)

    def __bool__(self) -> bool:
        raise no_truth("StabilityReport")

    def __repr__(self) -> str:
        return (
            f"StabilityReport({self.verdict}, load {self.load:.3f}, capacity {self.capacity_per_s:.4g}/s, "
            f"bottleneck {self.bottleneck})"
        )

    def rows(self) -> list[tuple[str, str]]:
        """The report as (quantity, value) pairs for people."""
        low, high = self.capacity_interval
        sampled = high > low * (1 + 1e-9)
        interval = f" (95 %: {low:.4g} .. {high:.4g})" if sampled else ""
        warm = self.prefixes is not None and any(
            p.at is not None for p in self.prefixes.pools if p.name == self.binding_pool
        )
        where = " at capacity" if self.load >= 1 and not warm else ""
        of = f" (pool {self.binding_pool})" if len(self.pools) > 1 else ""
        where += of
        found = [
            ("verdict", str(self.verdict)),
            ("because", self.reason),
            ("rate", rate(self.rate_per_s)),
            ("capacity", rate(self.capacity_per_s) + interval),
            ("  stable below", rate(self.stable_below_per_s)),
            ("  unstable above", rate(self.unstable_above_per_s)),
            (
                "  proved",
                "- (reservation only)" if self.proved_capacity_per_s is None else rate(self.proved_capacity_per_s),
            ),
            ("  bound, any policy", rate(self.upper_bound_per_s)),
            ("load", percent(self.load)),
            ("bottleneck", self._bottleneck()),
            ("iteration", seconds(self.iteration_s) + where),
            ("inter-token latency", seconds(self.itl_s) + where),
            ("KV occupancy", percent(self.kv_occupancy) + where),
            ("running per replica", f"{self.running_mean:.4g}" + where),
            ("evictions per request", f"{small(self.evictions_per_request)} when memory is full{of}"),
        ]
        found += self._prefix_rows()
        if self.peak is not None:
            found.append(
                ("at the peak", f"{self.peak.verdict}, {rate(self.peak.rate_per_s)}, load {percent(self.peak.load)}")
            )
        return found

    def _prefix_rows(self) -> list[tuple[str, str]]:
        """What the prefix caches of the binding pool find, for people."""
        binding = [] if self.prefixes is None else [p for p in self.prefixes.pools if p.name == self.binding_pool]
        if not binding:
            return []
        (pool,) = binding
        point = pool.at
        state = (
            "none in a backlog: no equilibrium at this rate"
            if point is None
            else (
                f"{percent(point.hit_rate)} of the prompt tokens, {percent(point.conversation_hits)} of the conversations"
            )
        )
        rows = [
            ("  with a warm cache", rate(pool.warm_capacity_per_s) + "; the capacity above is that with a cold one")
        ]
        rows.append(("found in the prefix cache", state))
        if point is not None and point.residence_s < float("inf"):
            rows.append(("unused prefixes stay", seconds(point.residence_s)))
        return rows

    def summary(self) -> str:
        """The report as a text table, with a line per pool when there are several."""
        text = text_table(self.rows())
        return f"{text}\n\n{self.pool_table()}" if len(self.pools) > 1 else text

    def pool_table(self) -> str:
        """The pools as a text table."""
        return text_table(self.pool_rows(), self.pool_header())

    def _repr_html_(self) -> str:
        text = html_table(self.rows())
        if len(self.pools) > 1:
            text += html_table(self.pool_rows(), self.pool_header())
        return text

    def _bottleneck(self) -> str:
        pool = next(item for item in self.pools if item.name == self.binding_pool)
        why = f" ({pool.why_compute()})" if self.bottleneck == "compute" else ""
        return self.bottleneck + why + (f" (pool {self.binding_pool})" if len(self.pools) > 1 else "")

    @staticmethod
    def pool_header() -> tuple[str, ...]:
        """Titles of the columns of `pool_rows`."""
        return ("pool", "replicas", "rate", "capacity", "load", "bottleneck", "ITL", "verdict")

    def pool_rows(self) -> list[tuple[str, ...]]:
        """The pools, one row each, for people."""
        return [
            (
                pool.name,
                str(pool.replicas),
                rate(pool.rate_per_s),
                rate(pool.capacity_per_s),
                percent(pool.load),
                pool.bottleneck,
                seconds(pool.itl_s),
                str(pool.verdict),
            )
            for pool in self.pools
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": SCHEMA, **json_safe(self)}

    def to_frame(self) -> pandas.DataFrame:
        """One row per pool, units in column names."""
        needs("pandas")
        import pandas

        columns = [name for name in PoolReport.__slots__ if name not in ("loads", "capacity_interval")]
        rows = []
        for pool in self.pools:
            row = {name: json_safe(getattr(pool, name)) for name in columns}
            row["capacity_low_per_s"], row["capacity_high_per_s"] = pool.capacity_interval
            row.update({f"load_{name}": value for name, value in pool.loads.items()})
            rows.append(row)
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Load of each resource in each pool, as bars on `ax` (a new figure without it) against the limit 1."""
        from ..plots.report import load_bars

        return load_bars([(pool.name, pool.loads) for pool in self.pools], ax)
