"""What `disaggregation` returns: loads by stage, capacity for every division of the GPUs, and the colocated comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .._extras import needs
from .._result import Tabular, no_truth, percent, rate, seconds
from .._types import FloatArray, IntArray

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Disaggregation(Tabular):
    """A fleet with a prefill and a decode pool, and what else its GPUs could be.

    Attributes
    ----------
    rate_per_s : float
        Arrivals, 1/s.
    load : float
        The greatest of `loads`; the stability condition is load < 1.
    loads : mapping of str to float
        Load of "prefill", "decode" and "link".
    capacity_per_s : float
        Rate at which the first of them reaches 1.
    bottleneck : str
        Which, with its resource: "prefill: compute", "decode: kv_memory", "link".
    itl_s : float
        Inter-token latency of the decode pool at the rate, s.
    transfer_s : float
        Mean time of a KV transfer at the rate, s.
    prefill_each_per_s, decode_each_per_s : float
        Capacity of one replica of each stage with an unlimited link, 1/s.
    gpus : int
        GPUs of the fleet.
    itl_target_s : float or None
        Target for the inter-token latency, s.
    splits : (n, 2) ndarray of int
        Prefill and decode replicas of every division of the GPUs.
    split_capacities_per_s, split_within_itl_per_s : (n,) ndarray
        Capacity of each, and its rate within the target.
    colocated_replicas : int
        Mixed replicas on the same GPUs.
    colocated_capacity_per_s, colocated_within_itl_per_s : float
        Their capacity by the same rows, and their rate within the target.
    colocated_itl_s : float
        Their inter-token latency at the rate, s; infinite where they are overloaded.
    assumptions : tuple of str

    Examples
    --------
    See :func:`stability.disaggregation`.
    """

    schema: ClassVar[str] = "stability/disaggregation/1"

    rate_per_s: float
    load: float
    loads: Mapping[str, float]
    capacity_per_s: float
    bottleneck: str
    itl_s: float
    transfer_s: float
    prefill_each_per_s: float
    decode_each_per_s: float
    gpus: int
    itl_target_s: float | None
    splits: IntArray
    split_capacities_per_s: FloatArray
    split_within_itl_per_s: FloatArray
    colocated_replicas: int
    colocated_capacity_per_s: float
    colocated_within_itl_per_s: float
    colocated_itl_s: float
    assumptions: tuple[str, ...]

    def __bool__(self) -> bool:
        raise no_truth("Disaggregation")

    def __repr__(self) -> str:
        return (
            f"Disaggregation(load {self.load:.3f}, capacity {self.capacity_per_s:.4g}/s, {self.bottleneck}, "
            f"best {self.best[0]}:{self.best[1]})"
        )

    @property
    def ratio(self) -> float:
        """Prefill replicas per decode replica at which both stages are full at once."""
        return self.decode_each_per_s / self.prefill_each_per_s

    @property
    def best(self) -> tuple[int, int]:
        """Prefill and decode replicas with the largest rate within the target, of the same GPUs."""
        place = int(self.split_within_itl_per_s.argmax())
        return int(self.splits[place, 0]), int(self.splits[place, 1])

    @property
    def best_within_itl_per_s(self) -> float:
        """That rate (the capacity where there is no target), 1/s."""
        return float(self.split_within_itl_per_s.max())

    @property
    def colocated_wins(self) -> bool:
        """Whether mixed replicas on the same GPUs serve at least as much within the target."""
        return self.colocated_within_itl_per_s >= self.best_within_itl_per_s

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        target = "" if self.itl_target_s is None else f" within an ITL of {seconds(self.itl_target_s)}"
        winner = "colocated" if self.colocated_wins else "disaggregated"
        return [
            ("rate", rate(self.rate_per_s)),
            ("load", ", ".join(f"{name} {percent(value)}" for name, value in self.loads.items())),
            ("capacity", rate(self.capacity_per_s)),
            ("bottleneck", self.bottleneck),
            ("inter-token latency", seconds(self.itl_s)),
            ("KV transfer", seconds(self.transfer_s)),
            ("prefill : decode, both full", f"{self.ratio:.3g} : 1"),
            (
                f"best of {self.gpus} GPUs",
                f"{self.best[0]} : {self.best[1]}, {rate(self.best_within_itl_per_s)}{target}",
            ),
            ("colocated", f"{self.colocated_replicas} replicas, {rate(self.colocated_within_itl_per_s)}{target}"),
            ("serves more" + target, winner),
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        derived = {"ratio": self.ratio, "best": list(self.best), "colocated_wins": self.colocated_wins}
        return {**Tabular.to_dict(self), **derived}

    def to_frame(self) -> pandas.DataFrame:
        """One row per division of the GPUs, units in column names."""
        needs("pandas")
        import pandas

        return pandas.DataFrame(
            {
                "prefill_replicas": self.splits[:, 0],
                "decode_replicas": self.splits[:, 1],
                "capacity_per_s": self.split_capacities_per_s,
                "within_itl_per_s": self.split_within_itl_per_s,
            }
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Rate against prefill replicas on `ax` (a new figure without it), with the colocated rate as a line."""
        from ..plots.disaggregation import plot_disaggregation

        return plot_disaggregation(self, ax)
