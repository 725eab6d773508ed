"""`validate`: what theory says about one fleet against what the simulator measures.

Theory and simulation share the nouns and nothing else, so that agreement means something. Tolerances are those of the
validation table (`python -m validation`); a prediction agrees when it is off by no more than the tolerance and the
run's own 95 % interval together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .._result import Tabular, Verdict, html_table, no_truth, percent, rate, seconds, text_table
from ..errors import check_integer
from ..model.arrivals import Replay
from ..model.checks import check_no_sessions, check_pair
from ..model.fleet import Fleet
from ..model.streams import RandomState, seed_sequence
from ..model.workload import Workload
from ..policies.routers import WeightedSplit
from ..sim.capacity import MeasuredCapacity, measured_capacity
from ..sim.engine import simulate
from ..sim.result import SimulationResult
from ..theory.analyze import analyze
from ..theory.latency import latency
from ..theory.report import StabilityReport

NEVER_EVICTING, FEW_EVICTIONS, OTHER = 0.03, 0.05, 0.10
"""Tolerances on capacity: runs that never evict, fewer than one eviction per request, everything else."""

ITL, OCCUPANCY, TTFT = 0.10, 0.10, 0.25
"""Tolerances below capacity."""

ZONE = 0.03
"""A verdict is judged where the measured load differs from 1 by more."""

RULE = "a prediction agrees if it is off by at most its tolerance and the +- of its 95 % interval together"
"""What tables say about `agrees`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One predicted figure beside the measured one.

    Attributes
    ----------
    quantity : str
        Its name, with its unit.
    predicted, measured : float or str
        Figures in that unit; words for verdicts.
    half_width : float
        Of the measurement's 95 % interval; NaN where it has none.
    tolerance : float
        Largest relative deviation; NaN where it is not judged by one.
    agrees : bool or None
        None where it is shown and not judged.
    note : str
        Why, where that needs saying.

    Examples
    --------
    See :func:`stability.validate`.
    """

    quantity: str
    predicted: float | str
    measured: float | str
    half_width: float = math.nan
    tolerance: float = math.nan
    agrees: bool | None = None
    note: str = ""

    @property
    def deviation(self) -> float:
        """predicted/measured - 1; NaN for words."""
        if isinstance(self.predicted, str) or isinstance(self.measured, str) or self.measured == 0:
            return math.nan
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation(Tabular):
    """Theory against simulation of one fleet under one workload.

    Attributes
    ----------
    predictions : tuple of Prediction
    requests : int
        Simulated at the workload's rate.
    seed : int
    notes : tuple of str
        What was and was not compared.

    Examples
    --------
    See :func:`stability.validate`.
    """

    schema: ClassVar[str] = "stability/validation/1"

    predictions: tuple[Prediction, ...]
    requests: int
    seed: int
    notes: tuple[str, ...]

    def __bool__(self) -> bool:
        raise no_truth("Validation")

    def __repr__(self) -> str:
        judged = [item for item in self.predictions if item.agrees is not None]
        return f"Validation({sum(bool(item.agrees) for item in judged)} of {len(judged)} predictions agree)"

    @property
    def agrees(self) -> bool:
        """Whether every judged prediction does."""
        return all(item.agrees is not False for item in self.predictions)

    _HEADER = ("prediction", "theory", "simulation", "+-", "deviation", "tolerance", "")

    def rows(self) -> list[tuple[str, str]]:
        """Every prediction as (name, figures) for people."""
        return [(row[0], ", ".join(cell for cell in row[1:] if cell)) for row in self._rows()]

    def _rows(self) -> list[tuple[str, ...]]:
        words = {True: "agrees", False: "DISAGREES", None: "not judged"}
        return [
            (
                item.quantity,
                _shown(item.quantity, item.predicted),
                _shown(item.quantity, item.measured),
                "" if math.isnan(item.half_width) else _shown(item.quantity, item.half_width),
                "" if math.isnan(item.deviation) else f"{100 * item.deviation:+.1f} %",
                "" if math.isnan(item.tolerance) else f"{100 * item.tolerance:g} %",
                words[item.agrees] + (f": {item.note}" if item.note else ""),
            )
            for item in self.predictions
        ]

    def summary(self) -> str:
        """The predictions as a text table."""
        notes = "".join(f"\n- {note}" for note in (*self.notes, RULE))
        return f"{text_table(self._rows(), self._HEADER)}\n\nrequests {self.requests}, seed {self.seed}{notes}"

    def _repr_html_(self) -> str:
        return html_table(self._rows(), self._HEADER)


def validate(
    fleet: Fleet, workload: Workload, *, requests: int | None = None, rng: RandomState = 0, progress: bool = False
) -> Validation:
    """Theory against simulation: capacity, verdict, and below capacity inter-token latency, KV occupancy and time to first token.

    The fleet is simulated twice: saturated, which measures its capacity, and at the workload's rate.

    Parameters
    ----------
    fleet : Fleet
        Independent pools.
    workload : Workload
        What arrives; a schedule is taken at its time average.
    requests : int >= 1000, optional
        Requests at the workload's rate; 20 000, or the whole trace of a replay. The saturated runs are five of as many, up
        to 10 000.
    rng : int, SeedSequence, Generator or None
        Seed.
    progress : bool
        Show a progress bar of the run at the workload's rate.

    Returns
    -------
    Validation
        With `agrees`, and one row per prediction.

    Raises
    ------
    InputError
        If `requests` are too few to fill a replica.
    UnservableError, NotModelledError
        As `analyze`, `latency` and `simulate`.

    Notes
    -----
    A prediction agrees if it is off by no more than its tolerance, relative to the measured figure, and the half-width of that
    figure's 95 % interval together. Tolerances: 3 % on a capacity without evictions, 5 % with fewer than one per request, else 10 %; 10 % on latency between
    tokens and on occupancy, 25 % on time to first token, for which a single pool is needed. A verdict disagrees when
    the measured capacity, or a queue that grows, contradicts it; UNDETERMINED is shown and not judged.

    Examples
    --------
    Iterations of 10 ms, 80 of them a request, 8 slots: 10 requests/s.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> found = st.validate(fleet, st.Workload.poisson(5.0, lengths), requests=2000)
    >>> found.agrees, found.predictions[0].predicted, round(float(found.predictions[0].measured), 2)
    (True, 10.0, 10.0)
    """
    check_pair(fleet, workload)
    check_no_sessions(workload, "validate()")
    steady = workload.averaged()
    replayed = len(steady.arrivals.arrival_s) if isinstance(steady.arrivals, Replay) else None
    count = check_integer("requests", requests if requests is not None else replayed or 20_000, at_least=1000)
    root = seed_sequence(rng)
    saturated, open_loop = root.spawn(2)
    report = analyze(fleet, steady)
    measured = measured_capacity(fleet, steady, requests=min(count, 10_000), rng=saturated)
    capacity = _capacity(report, measured)
    run = simulate(
        fleet, steady, requests=count, router=_split(report), keep="summary", rng=open_loop, progress=progress
    )
    notes = ["saturated: five runs of each pool; at the rate: one run under the split that the analysis assumes"]
    if workload.is_scheduled:
        notes.append("the rate schedule is taken at its time average")
    if len(fleet.pools) > 1:
        notes.append(
            "time to first token is not compared: the simulation measures it over all pools, theory pool by pool"
        )
    if replayed is not None:
        notes.append("latencies in theory are of Poisson arrivals, the simulation replays the trace")
    return Validation(
        predictions=(
            capacity,
            _verdict(report, capacity, run),
            *_below(fleet, steady, report, capacity, run),
        ),
        requests=count,
        seed=root.entropy if isinstance(root.entropy, int) else 0,
        notes=tuple(notes),
    )


def _capacity(report: StabilityReport, measured: MeasuredCapacity) -> Prediction:
    """Of the fleet under the analysis' split: the pool that its share fills first sets it."""
    shares = np.array([pool.rate_per_s for pool in report.pools]) / report.rate_per_s
    used = shares > 0
    found = float((measured.pools_per_s[used] / shares[used]).min())
    evictions = float(measured.preemptions_per_request[used].max())
    tolerance = NEVER_EVICTING if evictions == 0 else FEW_EVICTIONS if evictions < 1 else OTHER
    return judged(
        "capacity, 1/s",
        predicted=report.capacity_per_s,
        measured=found,
        half_width=measured.interval.half_width * found / measured.capacity_per_s,
        tolerance=tolerance,
        note=f"{evictions:.2g} evictions per request" if evictions else "",
    )


def _split(report: StabilityReport) -> WeightedSplit | str:
    """The split that the analysis assumes: over pools as stated or by capacity, at random within."""
    if len(report.pools) == 1:
        return "random"
    return WeightedSplit([pool.rate_per_s / report.rate_per_s for pool in report.pools])


def _verdict(report: StabilityReport, capacity: Prediction, run: SimulationResult) -> Prediction:
    assert isinstance(capacity.measured, float)
    load = report.rate_per_s / capacity.measured
    truth = Verdict.UNSTABLE if load > 1 or run.overloaded else Verdict.STABLE
    agrees: bool | None = report.verdict is truth
    note = f"load {load:.3f} by the measured capacity{', the queue grew' if run.overloaded else ''}"
    if report.verdict is Verdict.UNDETERMINED or abs(load - 1) <= ZONE:
        agrees = None
    return Prediction(quantity="verdict", predicted=str(report.verdict), measured=str(truth), agrees=agrees, note=note)


def _below(
    fleet: Fleet, workload: Workload, report: StabilityReport, capacity: Prediction, run: SimulationResult
) -> Iterator[Prediction]:
    assert isinstance(capacity.measured, float)
    if report.rate_per_s > (1 - ZONE) * capacity.measured or report.load >= 1 or run.overloaded:
        return
    weights = np.array([pool.rate_per_s for pool in report.pools])
    memory = np.array([pool.replicas * pool.replica.usable_kv_tokens for pool in fleet.pools])
    yield judged(
        "inter-token latency, s",
        predicted=float(np.average([pool.itl_s for pool in report.pools], weights=weights)),
        measured=run.itl_mean_s,
        half_width=run.intervals["itl_mean_s"].half_width,
        tolerance=ITL,
    )
    yield judged(
        "KV occupancy",
        predicted=float(np.average([pool.kv_occupancy for pool in report.pools], weights=memory)),
        measured=run.kv_occupancy,
        tolerance=OCCUPANCY,
    )
    if len(fleet.pools) == 1:
        yield judged(
            "time to first token, mean, s",
            predicted=latency(fleet, workload).ttft_mean_s,
            measured=run.ttft_mean_s,
            half_width=run.intervals["ttft_mean_s"].half_width,
            tolerance=TTFT,
        )


def judged(
    quantity: str, *, predicted: float, measured: float, tolerance: float, half_width: float = math.nan, note: str = ""
) -> Prediction:
    """A prediction and whether it is off by no more than the tolerance and the interval together."""
    slack = tolerance * abs(measured) + (half_width if math.isfinite(half_width) else 0.0)
    agrees = math.isfinite(predicted) and math.isfinite(measured) and abs(predicted - measured) <= slack
    return Prediction(
        quantity=quantity,
        predicted=predicted,
        measured=measured,
        half_width=half_width,
        tolerance=tolerance,
        agrees=agrees,
        note=note,
    )


def _shown(quantity: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if quantity.endswith(", 1/s"):
        return rate(value)
    return seconds(value) if quantity.endswith(", s") else percent(value)
