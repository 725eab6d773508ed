"""Cost against headroom or inter-token latency: the cheapest fleet for each of several targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from .._extras import needs
from .._result import Tabular, html_table, json_safe, percent, seconds, text_table
from .._types import ArrayLike
from ..errors import InputError, check_choice
from ..model.candidate import Candidate
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import Workload
from .sized import SizedFleet
from .sizing import cheapest_fleet

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

AGAINST = ("headroom", "itl_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFront(Tabular):
    """Cheapest fleets by target.

    Attributes
    ----------
    against : str
        "headroom" or "itl_s".
    values : tuple of float
        Targets, from loose to strict.
    fleets : tuple of SizedFleet
        The cheapest for each.

    Examples
    --------
    See :func:`stability.cost_front`.
    """

    schema: ClassVar[str] = "stability/cost-front/1"

    against: str
    values: tuple[float, ...]
    fleets: tuple[SizedFleet, ...]

    def __repr__(self) -> str:
        return f"CostFront(cost against {self.against}, {len(self.values)} points)"

    def rows(self) -> list[tuple[str, str]]:
        """(target, fleet and its cost) pairs for people."""
        return [(row[0], f"{row[1]}/h: {row[2]}") for row in self._rows()]

    def _rows(self) -> list[tuple[str, str, str]]:
        show = percent if self.against == "headroom" else seconds
        return [
            (
                show(value),
                f"{fleet.cost_per_hour:.6g}" if fleet.feasible else "-",
                ", ".join(f"{pool.replicas} {pool.name}" for pool in fleet.pools) if fleet.feasible else fleet.reason,
            )
            for value, fleet in zip(self.values, self.fleets, strict=True)
        ]

    @property
    def _header(self) -> tuple[str, str, str]:
        return ("headroom" if self.against == "headroom" else "ITL target", "cost/h", "fleet")

    def summary(self) -> str:
        """The front as a text table."""
        return text_table(self._rows(), self._header)

    def _repr_html_(self) -> str:
        return html_table(self._rows(), self._header)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {
            "schema": self.schema,
            "against": self.against,
            "values": json_safe(self.values),
            "fleets": [fleet.to_dict() for fleet in self.fleets],
        }

    def to_frame(self) -> pandas.DataFrame:
        """One row per target: cost, bound, headroom and replicas of each candidate, units in column names."""
        needs("pandas")
        import pandas

        rows = []
        for value, fleet in zip(self.values, self.fleets, strict=True):
            row: dict[str, Any] = {
                f"{self.against}_target": value,
                "feasible": fleet.feasible,
                "cost_per_hour": fleet.cost_per_hour,
                "lower_bound_per_hour": fleet.lower_bound_per_hour,
                "headroom": fleet.headroom,
            }
            counts = fleet.replicas.max(axis=0).tolist()
            row.update({f"replicas_{c.name}": n for c, n in zip(fleet.candidates, counts, strict=True)})
            rows.append(row)
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Cost per hour against the target on `ax` (a new figure without it)."""
        from ..plots.sizing import plot_cost_front

        return plot_cost_front(self, ax)


def cost_front(
    candidates: Fleet | Sequence[Candidate],
    workload: Workload | Sequence[Workload],
    *,
    against: str,
    values: ArrayLike,
    targets: Targets | None = None,
    spares: int = 0,
    switching_cost: float | None = None,
) -> CostFront:
    """What a better target costs: the cheapest fleet for each value of one target, the others held.

    Parameters
    ----------
    candidates, workload
        As `cheapest_fleet`.
    against : {"headroom", "itl_s"}
        The target that varies.
    values : (n,) array_like of float
        Its values: shares of the capacity to stay free, or inter-token latencies, s.
    targets : Targets, optional
        The other targets.
    spares, switching_cost
        As `cheapest_fleet`.

    Returns
    -------
    CostFront
        One fleet per value, from loose to strict targets.

    Raises
    ------
    InputError
        If an argument breaks the rule stated for it.

    Notes
    -----
    The epsilon-constraint method: a fleet that is cheapest for a target is on the Pareto front of cost and target (up to
    ties), and every point of the front is the cheapest fleet for some target. Between the values the front is not searched.

    Examples
    --------
    9 certain requests/s a replica; 40 requests/s need 5 without headroom and 6 with 20 % of it (40/(0.8 * 9) = 5.6):

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> one = st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine, price_per_hour=2.0)
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> front = st.cost_front(st.Fleet.of(one), st.Workload.poisson(40.0, lengths), against="headroom", values=[0, 0.2])
    >>> [fleet.cost_per_hour for fleet in front.fleets]
    [10.0, 12.0]
    """
    check_choice("against", against, AGAINST)
    import numpy as np

    given = np.atleast_1d(np.asarray(values, dtype=np.float64)).tolist()
    if not given:
        raise InputError("values is empty, must hold at least one target. Give some.")
    ordered = sorted(set(given), reverse=against == "itl_s")
    base = Targets() if targets is None else targets
    fleets = [
        cheapest_fleet(
            candidates,
            workload,
            targets=replace(base, headroom=value) if against == "headroom" else replace(base, itl_s=value),
            spares=spares,
            switching_cost=switching_cost,
        )
        for value in ordered
    ]
    return CostFront(against=against, values=tuple(ordered), fleets=tuple(fleets))
