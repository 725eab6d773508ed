"""What `cheapest_fleet` returns: how many of what, at which price, with which split, and how that was checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._extras import needs
from .._result import Described, Tabular, Verdict, html_table, json_safe, no_truth, percent, rate, seconds, text_table
from .._types import FloatArray, IntArray
from ..errors import InputError
from ..model.candidate import Candidate
from ..model.fleet import Fleet, Pool
from ..policies.routers import WeightedSplit

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedPool(Described):
    """The replicas of one candidate. Load and latencies are those of the window in which they are greatest.

    Attributes
    ----------
    name : str
        Of the candidate.
    replicas : int
        The most in any window.
    gpus : int
        GPUs of those replicas.
    price_per_hour : float
        Of one replica.
    cost_per_hour : float
        Of all of them, averaged over time.
    rate_per_s : float
        Requests/s, averaged over time.
    load : float
        Rate over the rate below which `analyze` says STABLE.
    verdict : Verdict
        The worst over windows.
    itl_s : float
        Inter-token latency, s.
    ttft_mean_s, ttft_p99_s : float or None
        Time to first token, s; None unless there is a target for it.

    Examples
    --------
    See :func:`stability.cheapest_fleet`.
    """

    name: str
    replicas: int
    gpus: int
    price_per_hour: float
    cost_per_hour: float
    rate_per_s: float
    load: float
    verdict: Verdict
    itl_s: float
    ttft_mean_s: float | None
    ttft_p99_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SizedFleet(Tabular):
    """The cheapest fleet, or why there is none.

    Attributes
    ----------
    feasible : bool
        Whether there is one.
    reason : str
        Why, in one sentence; if there is none, what binds and the least change that helps.
    verdict : Verdict or None
        STABLE once `analyze` confirmed every pool in every window with all targets; UNDETERMINED where it did not; None
        where there is no fleet.
    cost_per_hour : float
        Price of the fleet, starts included, averaged over time.
    lower_bound_per_hour : float
        What no fleet costs less than, within the rows (see `cheapest_fleet`).
    violation : float
        Largest violation of a row of the program by the integer solution, in plain arithmetic.
    headroom : float
        Share of the stable capacity that stays free in the busiest window, under the split.
    spares : int
        Failures withstood.
    rounds : int
        How often rows were linearised.
    pools : tuple of SizedPool
        Candidates in use.
    candidates : tuple of Candidate
    classes : tuple of str
        Names of the request classes.
    start_s : (n_windows,) ndarray
        Where each window begins, s; 0 for scenarios.
    end_s : float
        Where the last one ends, s; 0 without a schedule.
    replicas : (n_windows, n) ndarray of int
        Replicas of each candidate.
    rates_per_s : (n_windows, n, n_classes) ndarray
        The split: what each candidate's pool gets.
    costs_per_hour : (n_windows,) ndarray
        Price of the replicas in each window.
    assumptions : tuple of str

    Examples
    --------
    See :func:`stability.cheapest_fleet`.
    """

    schema: ClassVar[str] = "stability/sizing/1"

    feasible: bool
    reason: str
    verdict: Verdict | None
    cost_per_hour: float
    lower_bound_per_hour: float
    violation: float
    headroom: float
    spares: int
    rounds: int
    pools: tuple[SizedPool, ...]
    candidates: tuple[Candidate, ...]
    classes: tuple[str, ...]
    start_s: FloatArray
    end_s: float
    replicas: IntArray
    rates_per_s: FloatArray
    costs_per_hour: FloatArray
    assumptions: tuple[str, ...]

    def __bool__(self) -> bool:
        raise no_truth("SizedFleet")

    def __repr__(self) -> str:
        if not self.feasible:
            return "SizedFleet(infeasible)"
        what = ", ".join(f"{pool.replicas} {pool.name}" for pool in self.pools)
        return f"SizedFleet({what}, {self.cost_per_hour:.6g}/h, {self.verdict})"

    @property
    def gap(self) -> float:
        """(cost - bound)/cost."""
        return (self.cost_per_hour - self.lower_bound_per_hour) / max(self.cost_per_hour, 1e-12)

    @property
    def exit_code(self) -> int:
        """0 found and confirmed, 1 there is none, 3 found but not confirmed."""
        if not self.feasible:
            return 1
        return 0 if self.verdict is Verdict.STABLE else 3

    def fleet(self, window: int = 0) -> Fleet:
        """The pools in use in `window`, for `simulate`."""
        return Fleet([Pool(self.candidates[i].name, self.candidates[i].replica, n) for i, n in self._used(window)])

    def split(self, window: int = 0) -> WeightedSplit:
        """The routing in `window`, for `simulate`: one row a class, one weight a pool of `fleet`."""
        rows = self.rates_per_s[window][[i for i, _ in self._used(window)]].T
        evenly = [float(n) for _, n in self._used(window)]  # for classes that do not come
        return WeightedSplit([row.tolist() if row.any() else evenly for row in rows])

    def _used(self, window: int) -> list[tuple[int, int]]:
        if not self.feasible:
            raise InputError(f"there is no fleet: {self.reason}")
        return [(i, n) for i, n in enumerate(self.replicas[window].tolist()) if n]

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        if not self.feasible:
            return [("fleet", "none"), ("because", self.reason)]
        gap = f"{self.lower_bound_per_hour:.6g}/h (gap {max(self.gap, 0.0):.1e})"
        starts = self.cost_per_hour - sum(pool.cost_per_hour for pool in self.pools) if len(self.start_s) > 1 else 0.0
        found = [
            ("fleet", ", ".join(f"{pool.replicas} {pool.name}" for pool in self.pools)),
            ("because", self.reason),
            ("cost", f"{self.cost_per_hour:.6g}/h"),
            *([("  of it starts", f"{starts:.6g}/h")] if starts > 1e-9 * self.cost_per_hour else []),
            ("  no fleet below", gap),
            ("GPUs", str(sum(pool.gpus for pool in self.pools))),
            ("verdict", str(self.verdict)),
            ("headroom", percent(self.headroom)),
        ]
        if self.spares:
            found.append(("failures withstood", str(self.spares)))
        return found

    _POOLS = ("pool", "replicas", "price/h", "cost/h", "rate", "load", "ITL", "TTFT, 99 %", "verdict")

    def _pool_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                pool.name,
                str(pool.replicas),
                f"{pool.price_per_hour:.6g}",
                f"{pool.cost_per_hour:.6g}",
                rate(pool.rate_per_s),
                percent(pool.load),
                seconds(pool.itl_s),
                seconds(pool.ttft_p99_s),
                str(pool.verdict),
            )
            for pool in self.pools
        ]

    def _window_rows(self) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        used = np.flatnonzero(self.replicas.sum(axis=0)).tolist()
        header = ("window", "rate", *(self.candidates[i].name for i in used), "cost/h")
        timed = bool(self.start_s.any())
        rows = []
        for t, start in enumerate(self.start_s.tolist()):
            name = f"{start / 3600:.4g} h" if timed else f"scenario {t + 1}"
            counts = (str(self.replicas[t, i]) for i in used)
            rows.append((name, rate(float(self.rates_per_s[t].sum())), *counts, f"{self.costs_per_hour[t]:.6g}"))
        return rows, header

    def _split_rows(self) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """Where each class goes in the busiest window."""
        t = int(self.rates_per_s.sum(axis=(1, 2)).argmax())
        used = np.flatnonzero(self.replicas[t]).tolist()
        rates = self.rates_per_s[t]
        rows = [
            (name, rate(float(rates[:, k].sum())), *(percent(rates[i, k] / rates[:, k].sum()) for i in used))
            for k, name in enumerate(self.classes)
            if rates[:, k].any()
        ]
        return rows, ("class to pool", "rate", *(self.candidates[i].name for i in used))

    def _tables(self) -> list[tuple[list[tuple[str, ...]], tuple[str, ...]]]:
        if not self.feasible:
            return []
        tables: list[tuple[list[tuple[str, ...]], tuple[str, ...]]] = [(self._pool_rows(), self._POOLS)]
        if len(self.replicas) > 1:
            tables.append(self._window_rows())
        if len(self.pools) > 1:
            tables.append(self._split_rows())
        return tables

    def summary(self) -> str:
        """The fleet, its pools, windows and split as text tables."""
        return "\n\n".join([text_table(self.rows()), *(text_table(*table) for table in self._tables())])

    def _repr_html_(self) -> str:
        return html_table(self.rows()) + "".join(html_table(*table) for table in self._tables())

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema; candidates by name, price and limits."""
        told = {
            name: json_safe(getattr(self, name)) for name in self.__slots__ if name not in ("candidates", "__weakref__")
        }
        told["candidates"] = [
            {
                "name": item.name,
                "price_per_hour": item.replica.price_per_hour,
                "gpus": item.replica.gpus,
                "at_least": item.at_least,
                "at_most": item.at_most,
            }
            for item in self.candidates
        ]
        return {"schema": self.schema, "gap": json_safe(self.gap), **told}

    def to_frame(self) -> pandas.DataFrame:
        """One row per window, candidate in use and class: replicas, price and rate, units in column names."""
        needs("pandas")
        import pandas

        rows = []
        for t, i in zip(*np.nonzero(self.replicas), strict=True):
            for k, name in enumerate(self.classes):
                rows.append(
                    {
                        "start_s": float(self.start_s[t]),
                        "candidate": self.candidates[i].name,
                        "replicas": int(self.replicas[t, i]),
                        "price_per_hour": self.candidates[i].replica.price_per_hour,
                        "request_class": name,
                        "rate_per_s": float(self.rates_per_s[t, i, k]),
                    }
                )
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Cost per hour of each pool on `ax` (a new figure without it): stacked over the day, or as bars for one window."""
        from ..plots.sizing import plot_sized_fleet

        return plot_sized_fleet(self, ax)
