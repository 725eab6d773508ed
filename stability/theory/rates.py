"""Latency and KV occupancy against the arrival rate: what a fleet feels on the way to its capacity.

**Approximation**, as `stability.theory.latency` is. Not to be confused with a ramp over time (`transient`): every point
is a fleet that has stood at its rate for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._extras import needs
from .._result import Tabular, percent, rate, seconds
from .._types import FloatArray, read_only
from ..errors import check_integer
from ..model.fleet import Fleet
from ..model.workload import Workload
from .analyze import analyze
from .latency import latency
from .report import StabilityReport

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

LIGHTEST, NEAREST = 0.02, 0.005
"""Load of the first point; what the last one leaves free. Between them points crowd towards capacity, where curves bend."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RateCurve(Tabular):
    """Latency and memory at rates from nearly 0 to nearly the capacity. Read-only arrays of one shape, (n,).

    Attributes
    ----------
    report : StabilityReport
        The fleet at the workload's own (time-average) rate, with capacities and bounds.
    rate_per_s : ndarray
        Arrival rates, 1/s, increasing.
    load : ndarray
        Rate over capacity.
    itl_s, ttft_mean_s, ttft_p99_s : ndarray
        Of the worst pool, s.
    kv_occupancy, kv_occupancy_std : ndarray
        Mean and standard deviation of the KV in use of the fullest pool, as a share of its cache.
    running_mean : ndarray
        Requests resident per replica of that pool.

    Examples
    --------
    See :func:`stability.rate_curve`.
    """

    schema: ClassVar[str] = "stability/rate-curve/1"

    report: StabilityReport
    rate_per_s: FloatArray
    load: FloatArray
    itl_s: FloatArray
    ttft_mean_s: FloatArray
    ttft_p99_s: FloatArray
    kv_occupancy: FloatArray
    kv_occupancy_std: FloatArray
    running_mean: FloatArray

    def __repr__(self) -> str:
        return f"RateCurve({len(self.rate_per_s)} rates up to {self.rate_per_s[-1]:.4g}/s)"

    def rows(self) -> list[tuple[str, str]]:
        """The curve at a tenth, half and nine tenths of the capacity."""
        found = []
        for load in (0.1, 0.5, 0.9):
            at = int(np.abs(self.load - load).argmin())
            found.append(
                (
                    f"load {self.load[at]:.2f}, {rate(float(self.rate_per_s[at]))}",
                    f"ITL {seconds(float(self.itl_s[at]))}, TTFT mean {seconds(float(self.ttft_mean_s[at]))}, "
                    f"99 % {seconds(float(self.ttft_p99_s[at]))}, KV {percent(float(self.kv_occupancy[at]))}",
                )
            )
        return found

    def to_frame(self) -> pandas.DataFrame:
        """One row per rate, units in column names."""
        needs("pandas")
        import pandas

        columns = [item.name for item in fields(self) if item.name != "report"]
        return pandas.DataFrame({name: getattr(self, name) for name in columns})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Latencies against the rate on `ax` (a new figure without it)."""
        from ..plots.rates import latency_curve

        return latency_curve(self, ax)


def rate_curve(fleet: Fleet, workload: Workload, *, points: int = 20) -> RateCurve:
    """Latency and KV occupancy at rates from nearly 0 to nearly the capacity, at the workload's mix.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives; a schedule is taken at its time average.
    points : int >= 2
        Rates on the curve; they crowd towards capacity.

    Returns
    -------
    RateCurve
        With `to_frame()` and `plot()`.

    Raises
    ------
    InputError
        If `points` is less than 2.
    UnservableError, NotModelledError
        As `latency`.

    Notes
    -----
    Rates are capacity * (1 - f) with f from 0.98 down to 0.005 in equal ratios: times to first token grow as
    1/(1 - load) (Kingman's limit), so that equal ratios of what is free show the bend evenly.

    Examples
    --------
    Iterations of 10 ms, whatever is in them: the inter-token latency is 10 ms at every rate.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> curve = st.rate_curve(fleet, st.Workload.poisson(5.0, lengths), points=5)
    >>> curve.itl_s.round(6).tolist(), round(float(curve.rate_per_s[-1]), 2)  # capacity 10/s = 8 slots / (80 x 10 ms)
    ([0.01, 0.01, 0.01, 0.01, 0.01], 9.95)
    """
    count = check_integer("points", points, at_least=2)
    steady = workload.averaged()
    report = analyze(fleet, steady)
    rates = report.capacity_per_s * (1 - np.geomspace(1 - LIGHTEST, NEAREST, count))
    found = [latency(fleet, steady.scaled(rate_per_s=value)) for value in rates.tolist()]
    fullest = [max(at.pools, key=lambda pool: pool.kv_occupancy) for at in found]
    columns = {
        "rate_per_s": rates,
        "load": rates / report.capacity_per_s,
        **{name: np.array([getattr(at, name) for at in found]) for name in ("itl_s", "ttft_mean_s", "ttft_p99_s")},
        **{
            name: np.array([getattr(pool, name) for pool in fullest])
            for name in ("kv_occupancy", "kv_occupancy_std", "running_mean")
        },
    }
    return RateCurve(report=report, **{name: read_only(values) for name, values in columns.items()})
