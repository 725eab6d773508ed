"""What a fluid run returns: the fleet over time, and the figures people ask of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..._extras import needs
from ..._result import Tabular, seconds
from ..._types import FloatArray

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

GONE = 1e-3
"""Share of its peak below which a backlog counts as gone."""

FEW = 0.5
"""Requests over the whole fleet below which a backlog counts as none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FluidPath(Tabular):
    """A fleet over time in the fluid limit. Arrays of shape (n, n_pools), over all replicas of a pool, but for `time_s`.

    Attributes
    ----------
    time_s : (n,) array
        Instants, s.
    waiting, running : array
        Requests waiting (held at a pool that is down included) and resident.
    kv_tokens : array
        KV held.
    iteration_s : array
        Iteration time of a replica; the token gap that its users see.
    alive : array
        Replicas that are up.
    arrivals_per_s, throughput_per_s, evictions_per_s, tokens_per_s : array
        Rates over the interval that ends at each instant; tokens generated.
    wait_s : array
        How long a request that arrives then waits for admission; infinite if beyond the end.
    held : (n,) array
        Requests that no pool can take because none is up.
    backlog_std : (n,) array
        Standard deviation of the backlog around the path, by the diffusion: chance in Poisson arrivals and in what is
        served, added up since the queue last was empty.
    pools : tuple of str
    kv_capacity_tokens : (n_pools,) array
        Of one replica of each pool.
    width : int
        Iterations in a bin of ages; 1 is the exact recursion.
    error : float
        Largest difference of waiting and of running to bins twice as wide, over the most requests in the fleet; 0 at
        width 1.
    imbalance : float
        Requests that round-off made or lost, over those that arrived.

    Examples
    --------
    See :func:`stability.fluid_path`.
    """

    schema: ClassVar[str] = "stability/fluid-path/1"

    time_s: FloatArray
    waiting: FloatArray
    running: FloatArray
    kv_tokens: FloatArray
    iteration_s: FloatArray
    alive: FloatArray
    arrivals_per_s: FloatArray
    throughput_per_s: FloatArray
    evictions_per_s: FloatArray
    tokens_per_s: FloatArray
    wait_s: FloatArray
    held: FloatArray
    backlog_std: FloatArray
    pools: tuple[str, ...]
    kv_capacity_tokens: FloatArray
    width: int
    error: float
    imbalance: float

    def __repr__(self) -> str:
        return (
            f"FluidPath({self.time_s[-1]:.4g} s, peak backlog {self.peak_backlog:.4g} at {self.peak_s:.4g} s, "
            f"drained {'never' if math.isinf(self.drain_time_s) else f'{self.drain_time_s:.4g} s later'})"
        )

    @property
    def backlog(self) -> FloatArray:
        """Requests waiting or held, over the fleet. Shape (n,)."""
        return np.asarray(self.waiting.sum(axis=1) + self.held)

    @property
    def peak_backlog(self) -> float:
        """Most requests waiting or held at a time."""
        return float(self.backlog.max())

    @property
    def peak_s(self) -> float:
        """When the backlog is largest, s."""
        return float(self.time_s[int(np.argmax(self.backlog))])

    @property
    def drain_time_s(self) -> float:
        """Time from the peak until the backlog is gone for good, s; 0 without one, infinite if not by the end."""
        backlog = self.backlog
        peak = int(np.argmax(backlog))
        level = max(GONE * float(backlog[peak]), FEW)
        if backlog[peak] <= level:
            return 0.0
        above = np.flatnonzero(backlog > level)
        last = int(above[-1])
        if last == len(backlog) - 1:
            return math.inf
        # The backlog falls linearly between instants.
        fall = backlog[last] - backlog[last + 1]
        part = (backlog[last] - level) / fall if fall > 0 else 1.0
        gone = self.time_s[last] + part * (self.time_s[last + 1] - self.time_s[last])
        return float(gone - self.time_s[peak])

    @property
    def growth_rate_per_s(self) -> float:
        """Growth of the backlog over the last quarter of the run, 1/s: arrivals less throughput in overload."""
        tail = slice(3 * len(self.time_s) // 4, None)
        time, backlog = self.time_s[tail], self.backlog[tail]
        centred = time - time.mean()
        return float((centred * backlog).sum() / (centred * centred).sum())

    @property
    def longest_wait_s(self) -> float:
        """Longest wait for admission of any arrival, s; infinite if one is not admitted by the end."""
        return float(self.wait_s.max())

    def rows(self) -> Sequence[tuple[str, str]]:
        """The main figures by name, for people."""
        drained = "not by the end" if math.isinf(self.drain_time_s) else f"{seconds(self.drain_time_s)} after the peak"
        if self.peak_backlog <= FEW:
            drained = "no backlog"
        return [
            ("time", f"0 to {seconds(float(self.time_s[-1]))}, {len(self.time_s)} instants"),
            ("peak backlog", f"{self.peak_backlog:.4g} requests at {seconds(self.peak_s)}"),
            ("backlog gone", drained),
            ("longest wait", seconds(self.longest_wait_s)),
            ("growth at the end", f"{self.growth_rate_per_s:+.3g} req/s"),
            ("peak running", f"{float(self.running.sum(axis=1).max()):.4g} requests"),
            ("peak KV", f"{float(self.kv_share.max()):.1%} of a pool"),
            ("longest iteration", seconds(float(self.iteration_s.max()))),
            ("evictions", f"{self._over_time(self.evictions_per_s):.4g}"),
            ("age bins", f"{self.width} iterations, error {self.error:.1e}"),
        ]

    @property
    def kv_share(self) -> FloatArray:
        """KV held over the capacity of the replicas that are up. Shape (n, n_pools)."""
        room = self.alive * self.kv_capacity_tokens
        return np.divide(self.kv_tokens, room, out=np.zeros_like(self.kv_tokens), where=room > 0)

    def _over_time(self, rates: FloatArray) -> float:
        """Integral of rates over intervals that end at each instant, over all pools."""
        return float((rates[1:].sum(axis=1) * np.diff(self.time_s)).sum())

    def to_frame(self) -> pandas.DataFrame:
        """One row per instant and pool, units in column names."""
        needs("pandas")
        import pandas

        columns = (
            "waiting",
            "running",
            "kv_tokens",
            "iteration_s",
            "alive",
            "arrivals_per_s",
            "throughput_per_s",
            "evictions_per_s",
            "tokens_per_s",
            "wait_s",
        )
        frames = [
            pandas.DataFrame({"pool": name, "time_s": self.time_s, **{c: getattr(self, c)[:, i] for c in columns}})
            for i, name in enumerate(self.pools)
        ]
        return pandas.concat(frames, ignore_index=True)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Backlog and requests running over time on `ax`; without it also KV and iteration time in panels below."""
        from ...plots.fluid import plot_path

        return plot_path(self, ax)
