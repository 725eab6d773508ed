"""What a fleet has to serve: rates of each class in windows of time, or in scenarios of which any may come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray, IntArray, read_only
from ..errors import InputError
from ..model.arrivals import RateSchedule, Replay
from ..model.workload import RequestClass, Workload


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """Rates by window and class.

    Attributes
    ----------
    classes : tuple of RequestClass
        Every class that occurs, at rate 1.
    rates_per_s : (n_windows, n_classes) ndarray
    start_s : (n_windows,) ndarray
        Where each window begins; all 0 for scenarios.
    share : (n_windows,) ndarray
        Its share of the time; the same for every scenario.
    hours : float
        Length of one pass through the schedule; 0 where there is none.
    repeats : bool
        Whether the first window follows the last one.
    """

    classes: tuple[RequestClass, ...]
    rates_per_s: FloatArray
    start_s: FloatArray
    share: FloatArray
    hours: float
    repeats: bool

    def greatest(self) -> IntArray:
        """For each window, one whose rates are nowhere lower and that no other window exceeds in the same sense."""
        rates = self.rates_per_s
        over = np.asarray((rates[None] >= rates[:, None]).all(axis=-1))  # [t, other]
        order = np.argsort(-rates.sum(axis=-1), kind="stable")
        return np.array([next(int(other) for other in order if over[t, other]) for t in range(len(rates))])


def windows_of(workload: Workload | Sequence[Workload]) -> Windows:
    """The windows of one workload (one unless it follows a schedule), or one window for each scenario.

    Parameters
    ----------
    workload : Workload or sequence of Workload
        Scenarios must be stationary; classes of one name are one class and must agree in everything but their rate.
    """
    if isinstance(workload, Workload):
        _check_rate(workload)
        starts = workload.window_starts_s()
        schedules = [c.rate_per_s for c in workload.classes if isinstance(c.rate_per_s, RateSchedule)]
        end, repeats = (schedules[0].end_s, schedules[0].repeat) if schedules else (1.0, True)
        rates = np.array([c.rate_at(starts) for c in workload.classes]).T
        share = np.diff([*starts.tolist(), end]) / end
        classes = [c.with_rate(1.0) for c in workload.classes]
        return _windows(classes, rates, starts, share, end / 3600 if schedules else 0.0, repeats)
    if not workload:
        raise InputError("workload holds no scenario, must hold at least one. Give a Workload.")
    known: dict[str, RequestClass] = {}
    for index, scenario in enumerate(workload):
        if not isinstance(scenario, Workload) or scenario.is_scheduled:
            raise InputError(
                f"workload[{index}] = {scenario!r}, must be a stationary Workload. Use workload.at(time_s) or .averaged()."
            )
        _check_rate(scenario)
        for item in scenario.classes:
            if known.setdefault(item.name, item.with_rate(1.0)) != item.with_rate(1.0):
                raise InputError(
                    f"class {item.name!r} of workload[{index}] differs from an earlier scenario's, must differ in its rate only. "
                    "Rename one of them."
                )
    names = list(known)
    rates = np.zeros((len(workload), len(names)))
    for row, scenario in enumerate(workload):
        for item in scenario.classes:
            rates[row, names.index(item.name)] = item.mean_rate_per_s
    count = len(workload)
    return _windows(list(known.values()), rates, np.zeros(count), np.full(count, 1 / count), 0.0, False)


def _windows(
    classes: Sequence[RequestClass],
    rates: FloatArray,
    starts: FloatArray,
    share: FloatArray,
    hours: float,
    repeats: bool,
) -> Windows:
    come = rates.max(axis=0) > 0
    return Windows(
        classes=tuple(item for item, here in zip(classes, come.tolist(), strict=True) if here),
        rates_per_s=read_only(np.ascontiguousarray(rates[:, come])),
        start_s=read_only(starts),
        share=read_only(share),
        hours=hours,
        repeats=repeats,
    )


def _check_rate(workload: Workload) -> None:
    if isinstance(workload.arrivals, Replay) and workload.arrivals.span_s == 0:
        raise InputError(
            "the requests of the replay arrive at one instant, must come at a rate. Give one: `arrivals: poisson` with "
            "rate_per_s in a plan, Workload.poisson(rate_per_s, lengths) in Python."
        )
