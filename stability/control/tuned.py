"""What `tune` returns: present and recommended engine of each pool, what changes, and what to paste."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._extras import needs
from .._result import Described, Tabular, html_table, json_safe, rate, seconds, text_table
from ..errors import unknown_name
from ..model.targets import Targets
from ..theory.latency import PoolLatency
from .flags import EngineFlags
from .sensitivity import Sensitivity
from .settings import SETTINGS, Setting

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

SELDOM = 1e-6
"""Evictions per request that tables call none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTuning(Described):
    """One pool's engine, now and recommended. Rates are of the whole pool.

    Attributes
    ----------
    pool : str
    replicas : int
    rate_per_s : float
        Arrivals sent to the pool, 1/s.
    now, then : Setting
        Present and recommended setting; equal where nothing gains enough.
    rate_within_now_per_s, rate_within_per_s : float
        Largest rate that meets the targets, now and then, 1/s; the capacity without targets.
    latency_now, latency_then : PoolLatency or None
        At the pool's rate; None if not asked for.
    admissions : tuple of Setting
        The best setting of each admission policy looked at.
    surest : Setting
        The setting with the greatest rate below which stability is certain.
    sensitivity : Sensitivity
        Capacity against headroom, the recommended slots and token budget given.
    missed : str
        Why the targets cannot be met at the pool's rate, and how near the best setting comes; empty if they can.
    flags : tuple of EngineFlags
        The recommendation in the words of each engine.
    plan_engine : str
        The recommendation as a plan has it.
    notes : tuple of str
        What the figures rest on.

    Examples
    --------
    See :func:`stability.tune`.
    """

    pool: str
    replicas: int
    rate_per_s: float
    now: Setting
    then: Setting
    rate_within_now_per_s: float
    rate_within_per_s: float
    latency_now: PoolLatency | None
    latency_then: PoolLatency | None
    admissions: tuple[Setting, ...]
    surest: Setting
    sensitivity: Sensitivity
    missed: str
    flags: tuple[EngineFlags, ...]
    plan_engine: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"PoolTuning({self.pool!r}, {self.change}, capacity {percent_change(self.gain)})"

    @property
    def gain(self) -> float:
        """Relative change of the capacity."""
        return self.then.capacity_per_s / self.now.capacity_per_s - 1

    @property
    def standing(self) -> str:
        """Whether both capacities are "validated", inside the regime in which the formula was measured, or "approximate"."""
        return "approximate" if self.now.doubt or self.then.doubt else "validated"

    @property
    def change(self) -> str:
        """What changes, in words."""
        now, then = self.now.engine, self.then.engine
        changed = [name for name in SETTINGS if getattr(now, name) != getattr(then, name)]
        if not changed:
            return "present settings are best"
        return ", ".join(f"{name} {shown(getattr(now, name))} -> {shown(getattr(then, name))}" for name in changed)

    def rows(self) -> list[tuple[str, str, str]]:
        """(quantity, now, recommended) for people."""
        both = (self.now, self.then)
        found: list[tuple[str, str, str]] = []

        def row(name: str, values: Sequence[str]) -> None:
            found.append((name, *values))  # type: ignore[arg-type]

        for name in SETTINGS:
            row(name, [shown(getattr(s.engine, name)) for s in both])
        if self.then.engine.admission == "prompt_gate":
            found.insert(2, ("  by the closed form", "", f"{self.sensitivity.closed_form_watermark:.2g}"))
        capacities = [rate(s.capacity_per_s) for s in both]
        row("capacity", [capacities[0], f"{capacities[1]} ({percent_change(self.gain)})"])
        row("  stable below", [rate(s.stable_below_per_s) for s in both])
        row("  standing", [s.standing for s in both])
        within = (self.rate_within_now_per_s, self.rate_within_per_s)
        if any(r < s.capacity_per_s for r, s in zip(within, both, strict=True)):
            row("rate within targets", [rate(r) for r in within])
        row("bottleneck", [s.bottleneck for s in both])
        row(
            "evictions per request",
            [f"{s.evictions_per_request:.3g}" if s.evictions_per_request > SELDOM else "none" for s in both],
        )
        if self.latency_now is not None and self.latency_then is not None:
            at = f" at {rate(self.rate_per_s)}"
            pair = (self.latency_now, self.latency_then)
            row("inter-token latency" + at, [seconds(x.itl_s) for x in pair])
            row("time to first token, mean", [_wait(x.ttft_mean_s) for x in pair])
            row("time to first token, 99 %", [_wait(x.ttft_p99_s) for x in pair])
        return found

    _ADMISSIONS = ("best of each admission", "watermark", "slots", "budget", "capacity", "stable below", "standing")

    def admission_rows(self) -> list[tuple[str, ...]]:
        """The best setting of each admission policy for people."""
        return [
            (
                s.engine.admission,
                shown(s.engine.watermark),
                str(s.engine.max_num_seqs),
                str(s.engine.max_num_batched_tokens),
                ("at most " if s.doubt and s.stable_below_per_s == 0 else "") + rate(s.capacity_per_s),
                rate(s.stable_below_per_s),
                s.standing,
            )
            for s in self.admissions
        ]

    def summary(self) -> str:
        """Tables and flags as text."""
        title = f"pool {self.pool}, {self.replicas} replica{'s' * (self.replicas > 1)}: {self.change}"
        parts = [title, text_table(self.rows(), ("", "now", "recommended"))]
        if self.missed:
            parts.append(f"targets cannot be met: {self.missed}")
        parts.append(text_table(self.admission_rows(), self._ADMISSIONS))
        parts.append("\n".join(["to paste", self.plan_engine, *(flags.text() for flags in self.flags)]))
        parts.append("\n".join(["notes", *(f"- {note}" for note in self.notes)]))
        return "\n\n".join(parts)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Capacity against headroom on `ax` (a new figure without it): both branches, marks at present and recommended."""
        from ..plots.tuning import plot_tuning

        return plot_tuning(self, ax)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningResult(Tabular):
    """Recommended engine settings of a fleet.

    Attributes
    ----------
    pools : tuple of PoolTuning
    capacity_now_per_s, capacity_per_s : float
        Capacity of the whole fleet, now and with the recommended settings, 1/s.
    targets : Targets
        What was asked besides capacity.

    Examples
    --------
    See :func:`stability.tune`.
    """

    schema = "stability/tuning/1"

    pools: tuple[PoolTuning, ...]
    capacity_now_per_s: float
    capacity_per_s: float
    targets: Targets

    def __repr__(self) -> str:
        return (
            f"TuningResult({self.capacity_now_per_s:.4g} -> {self.capacity_per_s:.4g}/s ({percent_change(self.gain)}), "
            f"{self.standing}{'' if self.met else ', targets cannot be met'})"
        )

    @property
    def gain(self) -> float:
        """Relative change of the fleet's capacity."""
        return self.capacity_per_s / self.capacity_now_per_s - 1

    @property
    def standing(self) -> str:
        """Whether every pool is "validated", or the gain "approximate"."""
        return "approximate" if any(pool.standing == "approximate" for pool in self.pools) else "validated"

    @property
    def met(self) -> bool:
        """Whether the targets can be met at the workload's rate; True without targets."""
        return not any(pool.missed for pool in self.pools)

    @property
    def changed(self) -> bool:
        """Whether any setting should change."""
        return any(pool.now.engine != pool.then.engine for pool in self.pools)

    @property
    def exit_code(self) -> int:
        """0 settings found (the present ones may be best), 1 the targets cannot be met by any."""
        return 0 if self.met else 1

    def pool(self, name: str) -> PoolTuning:
        """The tuning of the pool called `name`."""
        for item in self.pools:
            if item.pool == name:
                return item
        raise unknown_name("pool", name, [item.pool for item in self.pools])

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        found = [
            (
                "fleet capacity",
                f"{rate(self.capacity_now_per_s)} -> {rate(self.capacity_per_s)} "
                f"({percent_change(self.gain)}, {self.standing})",
            )
        ]
        found += [(f"pool {item.pool}", item.change) for item in self.pools]
        found += [(f"pool {item.pool}, targets", f"cannot be met: {item.missed}") for item in self.pools if item.missed]
        return found

    def summary(self) -> str:
        """Fleet and pools as text."""
        return "\n\n".join([text_table(self.rows()), *(item.summary() for item in self.pools)])

    def _repr_html_(self) -> str:
        tables = [html_table(x.rows(), ("", "now", "recommended"), x.pool) for x in self.pools]
        return html_table(self.rows()) + "".join(tables)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        figures = {"exit_code": self.exit_code, "met": self.met, "gain": self.gain, "standing": self.standing}
        return {"schema": self.schema, **json_safe(figures), **json_safe(self)}

    def to_frame(self) -> pandas.DataFrame:
        """Capacity against headroom: one row per pool and headroom, units in column names."""
        needs("pandas")
        import pandas

        return pandas.concat(
            [item.sensitivity.to_frame().assign(pool=item.pool) for item in self.pools], ignore_index=True
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """The pools' capacity against headroom, a panel each; on `ax` the first pool alone."""
        from ..plots.tuning import plot_tunings

        return self.pools[0].plot(ax) if ax is not None else plot_tunings(self.pools)


def shown(value: object) -> str:
    """A setting's value for people."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wait(value_s: float) -> str:
    """A time for people; infinite where the pool is at or above capacity."""
    return "unbounded" if math.isinf(value_s) else seconds(value_s)


def percent_change(gain: float) -> str:
    """A relative change for people."""
    return f"{100 * gain:+.1f} %"
