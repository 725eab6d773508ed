"""What `optimal_split` returns: the split, its standing, and how each pool fares under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._extras import needs
from .._result import Tabular, Verdict, html_table, json_safe, no_truth, percent, rate, seconds, text_table
from .._types import FloatArray
from ..policies.routers import WeightedSplit
from .linear import Certificate, gap_text
from .membership import split_policy
from .rows import FleetRows

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSplit:
    """What one pool gets and how it fares, judged by `analyze` and `latency` at its own mix.

    Attributes
    ----------
    name : str
    rate_per_s : float
    load : float
    verdict : Verdict or None
        None for a pool that gets nothing.
    bottleneck : str
    itl_s : float
    ttft_mean_s, ttft_p99_s : float or None
        Where a target asks for them.
    replicas_used : float
        Replicas that the objective "cost" keeps; all otherwise.
    """

    name: str
    rate_per_s: float
    load: float
    verdict: Verdict | None
    bottleneck: str
    itl_s: float
    ttft_mean_s: float | None
    ttft_p99_s: float | None
    replicas_used: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OptimalSplit(Tabular):
    """A static split of the arrivals over pools.

    Attributes
    ----------
    objective : str
    value : float
        Of the objective: load, s, congestion, requests waiting, or price per hour.
    lower_bound : float
        No split does better in the program solved.
    gap : float
        value/lower_bound - 1.
    feasible : bool
        Whether the rows hold and every target is met.
    reason : str
        If not: which constraint binds, and the least change that would do.
    rows_kind : str
        "policy", "bound" or "proved".
    classes : tuple of str
    rates_per_s : (K,) ndarray
    shares : (n_pools, K) ndarray
        Share of each class that each pool gets; columns sum to 1.
    pools : tuple of PoolSplit
    load : float
        Greatest load of a row, relative to what the targets allow.
    certificate : Certificate or None
        Residuals of the linear program, where the objective is one.
    solver : str
    system : FleetRows
        The rows.

    Examples
    --------
    See :func:`stability.optimal_split`.
    """

    schema = "stability/split/1"

    objective: str
    value: float
    lower_bound: float
    gap: float
    feasible: bool
    reason: str
    rows_kind: str
    classes: tuple[str, ...]
    rates_per_s: FloatArray
    shares: FloatArray
    pools: tuple[PoolSplit, ...]
    load: float
    certificate: Certificate | None
    solver: str
    system: FleetRows = field(repr=False)

    def __bool__(self) -> bool:
        raise no_truth("OptimalSplit")

    def __repr__(self) -> str:
        state = "feasible" if self.feasible else "infeasible"
        return f"OptimalSplit({self.objective} {self.value:.4g}, load {self.load:.3f}, {state})"

    @property
    def router(self) -> WeightedSplit:
        """The split as a policy for `simulate`."""
        return split_policy(self.shares)

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        units: dict[str, Callable[[float], str]] = {"slack": percent, "itl": seconds}
        unit = units.get(self.objective, "{:.5g}".format)
        what = {
            "slack": "greatest load (1: all that targets allow)",
            "itl": "worst ITL (program)",
            "congestion": "congestion",
            "waiting": "requests waiting",
            "cost": "price per hour",
        }[self.objective]
        found = [
            ("objective", self.objective),
            (what, unit(self.value)),
            ("no split below", f"{unit(self.lower_bound)} (gap {gap_text(self.gap)}, {self.solver})"),
            ("feasible", "yes" if self.feasible else "no"),
        ]
        return found + ([("because", self.reason)] if self.reason else [])

    def _table(self) -> list[tuple[str, ...]]:
        return [
            (
                pool.name,
                rate(pool.rate_per_s),
                percent(pool.load),
                pool.bottleneck,
                seconds(pool.itl_s),
                "-" if pool.verdict is None else str(pool.verdict),
                *(percent(float(share)) for share in shares),
            )
            for pool, shares in zip(self.pools, self.shares, strict=True)
        ]

    def _header(self) -> tuple[str, ...]:
        return ("pool", "rate", "load", "bottleneck", "ITL", "verdict", *(f"of {name}" for name in self.classes))

    def summary(self) -> str:
        """The split as text tables."""
        return f"{text_table(self.rows())}\n\n{text_table(self._table()[:40], self._header())}"

    def _repr_html_(self) -> str:
        return html_table(self.rows()) + html_table(self._table()[:40], self._header())

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        names = [name for name in self.__dataclass_fields__ if name != "system"]
        return {"schema": self.schema, **{name: json_safe(getattr(self, name)) for name in names}}

    def to_frame(self) -> pandas.DataFrame:
        """One row per pool and class: share and rate, 1/s."""
        needs("pandas")
        import pandas

        return pandas.DataFrame(
            [
                {
                    "pool": pool.name,
                    "class": name,
                    "share": float(self.shares[p, k]),
                    "rate_per_s": float(self.shares[p, k] * self.rates_per_s[k]),
                    "pool_load": pool.load,
                    "pool_itl_s": pool.itl_s,
                }
                for p, pool in enumerate(self.pools)
                for k, name in enumerate(self.classes)
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Rate of each class in each pool as stacked bars, on `ax` or a new figure."""
        from ..plots.control import split_bars

        return split_bars(self, ax)
