"""The cheapest fleet that serves a workload within its targets: a mixed-integer linear program, confirmed by `analyze`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .._result import Verdict
from .._types import FloatArray, IntArray, read_only
from ..errors import InputError, check_integer, check_number
from ..model.candidate import Candidate, priced
from ..model.checks import check_no_prefixes
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import Workload
from .fleet_program import FleetProgram, balanced
from .judgement import Judgement, judgement
from .linearised import Linearised, first_rows, linearised, misfit
from .programs import GAP, Budget, Optimum
from .shortfall import refused, shortfall
from .sized import SizedFleet, SizedPool
from .windows import Windows, windows_of

MOST_ROUNDS = 12
"""Rounds of linearising after which the last fleet is returned unconfirmed."""

MOVED = 1e-4
"""Relative change of a load by linearising at its own mix from which the program is solved once more."""

TRACE = 1e-6
"""Share of a mix at which classes outside it are taken along, so that rows have an entry for them."""


def cheapest_fleet(
    candidates: Fleet | Sequence[Candidate],
    workload: Workload | Sequence[Workload],
    *,
    targets: Targets | None = None,
    spares: int = 0,
    switching_cost: float | None = None,
    gap: float = GAP,
    time_limit_s: float = 20.0,
) -> SizedFleet:
    """The cheapest number of replicas of each candidate that is stable under a workload and meets its targets.

    Classes are split over the kinds of replica in the best way. A rate schedule is served in each of its windows, a
    sequence of workloads in each of them.

    Parameters
    ----------
    candidates : Fleet or sequence of Candidate
        What the fleet may be built from; each replica states its `price_per_hour`. Of a Fleet the kinds of replica
        count, not how many it has.
    workload : Workload or sequence of Workload
        What arrives, 1/s; or scenarios of which any may come.
    targets : Targets, optional
        Headroom and latencies, met by every pool in every window.
    spares : int >= 0
        Replicas that may fail at a time, whichever they are: the others are still stable (targets may be missed then).
    switching_cost : float >= 0, optional
        Price of starting one replica: the fleet may then change from window to window. Without it, one fleet serves
        all windows.
    gap : float >= 0
        Relative gap between cost and bound at which branch and bound stops.
    time_limit_s : float > 0
        Time for branch and bound in all, s; the gap that is left is in the result.

    Returns
    -------
    SizedFleet
        Counts, split, cost with its bound, and the verdict of `analyze` on every pool.

    Raises
    ------
    InputError
        If a candidate has no price, or an argument breaks its rule.
    NotModelledError
        As `analyze`.

    Notes
    -----
    The program of `stability.control.fleet_program` on the rows of `stability.control.linearised`. Every pool of its
    solution is judged by `analyze` (and `latency`) at the rates it gets: its rate must stay below (1 - headroom) of
    the rate below which `analyze` says STABLE, as in `replicas_needed`. Where that fails, the rows are linearised again at the
    mix that failed, which rules the solution out, and the program is solved again; once it holds, it is solved a last time
    with rows at the mixes it holds for. So the fleet is *confirmed*, and *cheapest* within the rows: exact where loads are
    linear in the mix (affine laws with slots, token budget or compute binding), an **approximation** where packing slack,
    eviction waste, a curved law or a latency target counts.

    Examples
    --------
    A small replica does 9 certain requests/s for 1 an hour, a big one 36 for 3; 50 requests/s need one big and two small:

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> def kind(name, slots, price):
    ...     engine = st.Engine(max_num_seqs=slots, max_num_batched_tokens=512, admission="reserve", block_size=1)
    ...     speed = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4 * 8 / slots)
    ...     return st.Candidate(name, st.Replica(iteration=speed, kv_capacity_tokens=100_000, engine=engine, price_per_hour=price))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> found = st.cheapest_fleet([kind("small", 8, 1.0), kind("big", 32, 3.0)], st.Workload.poisson(50.0, lengths))
    >>> [(pool.name, pool.replicas) for pool in found.pools], found.cost_per_hour, found.verdict
    ([('small', 2), ('big', 1)], 5.0, <Verdict.STABLE: 'stable'>)
    """
    kinds = priced(candidates)
    check_integer("spares", spares, at_least=0)
    check_number("gap", gap, at_least=0)
    check_number("time_limit_s", time_limit_s, above=0)
    windows = windows_of(workload)
    check_no_prefixes(Workload(windows.classes), "the cheapest fleet")
    if switching_cost is not None:
        check_number("switching_cost", switching_cost, at_least=0)
        if not windows.hours:
            raise InputError(
                f"switching_cost = {switching_cost!r}, must come with a rate schedule, in whose windows a fleet can change. "
                "Leave it out or give the workload a schedule."
            )
    wanted = Targets() if targets is None else targets
    sizing = _Sizing.of(kinds, windows, wanted, spares, switching_cost)
    why = refused(kinds, windows.classes, wanted, sizing.unservable, sizing.refusals)
    if why:
        return _none(sizing, why, 1)
    return sizing.run(gap, time_limit_s)


@dataclass(slots=True, kw_only=True, eq=False)
class _Sizing:
    """One problem, its rows so far, and what `analyze` said."""

    kinds: tuple[Candidate, ...]
    windows: Windows
    targets: Targets
    program: FleetProgram
    unservable: dict[tuple[int, int], str]
    refusals: dict[tuple[int, int], str]
    rounds: int = 1
    moved: bool = False
    cuts_stable: dict[int, list[FloatArray]] = field(default_factory=dict)
    cuts_target: dict[int, list[FloatArray]] = field(default_factory=dict)
    judged: dict[tuple[int, bytes], Judgement] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        kinds: tuple[Candidate, ...],
        windows: Windows,
        targets: Targets,
        spares: int,
        switching_cost: float | None,
    ) -> _Sizing:
        count, classes = len(kinds), windows.classes
        allowed = np.ones((count, len(classes)), dtype=np.bool_)
        unservable: dict[tuple[int, int], str] = {}
        for i, item in enumerate(kinds):
            for k, one in enumerate(classes):
                why = misfit(item, one)
                if why:
                    allowed[i, k] = False
                    unservable[i, k] = why
        busiest = windows.rates_per_s[int(windows.rates_per_s.sum(axis=1).argmax())]
        mean = windows.share @ windows.rates_per_s
        refusals: dict[tuple[int, int], str] = {}
        target: list[FloatArray] = []
        stable: list[FloatArray] = []
        for i, item in enumerate(kinds):
            mix = np.where(allowed[i], np.where(busiest > 0, busiest, TRACE * mean), 0.0)
            found = first_rows(item, classes, mix, targets)
            refusals |= {(i, k): why for k, why in found.refusals.items()}
            allowed[i, list(found.refusals)] = False
            target.append(found.target)
            stable.append(found.stable)
        start = None if switching_cost is None else switching_cost / windows.hours
        # One fleet: windows that another exceeds in every class need no place in the program.
        kept = np.unique(windows.greatest()) if start is None else np.arange(len(windows.share))
        program = FleetProgram(
            price=np.array([float(item.replica.price_per_hour or 0.0) for item in kinds]),
            at_least=np.array([float(item.at_least) for item in kinds]),
            at_most=np.array([math.inf if item.at_most is None else float(item.at_most) for item in kinds]),
            rates_per_s=windows.rates_per_s[kept],
            share=windows.share[kept],
            allowed=allowed,
            target=target,
            stable=stable,
            spares=spares,
            start_cost_per_hour=start,
            repeats=windows.repeats,
        )
        return cls(
            kinds=kinds, windows=windows, targets=targets, program=program, unservable=unservable, refusals=refusals
        )

    def run(self, gap: float, time_limit_s: float) -> SizedFleet:
        """Solve, judge and linearise again: where it fails, and once it holds, at the mixes it holds for."""
        budget, best = Budget(time_limit_s), None
        while True:
            counts, found = self.program.cheapest(budget, gap=gap)
            if not len(found.values):
                if best is not None:
                    return best
                if found.status == "none":
                    raise InputError(
                        f"time_limit_s = {time_limit_s:g}, must be longer: the solver found no fleet in that time. Raise it."
                    )
                if self._move(*self._most()):  # the rows' mix may be what stands in the way
                    self.rounds += 1
                    continue
                return _none(self, shortfall(self.kinds, self.windows.classes, self.program, budget), self.rounds)
            if best is not None and found.value >= best.cost_per_hour * (1 - GAP):
                return best
            everywhere = counts if self.program.varies else np.repeat(counts[:1], len(self.windows.rates_per_s), axis=0)
            shares = self._splits(everywhere)
            failed = self._failed(everywhere, shares)
            if not failed:
                best = self._result(everywhere, shares, found, confirmed=True)
                if found.status != "optimal" or not self._move(everywhere, shares):
                    return best
            elif self.rounds >= MOST_ROUNDS:
                return self._result(everywhere, shares, found, confirmed=False) if best is None else best
            for i, mix, spare in failed:
                self._cut(i, mix, spare)
            self.rounds += 1

    def _cut(self, i: int, mix: FloatArray, spare: bool) -> None:
        """Add rows of candidate i at a mix that failed; where nothing is certain at it, half as much again of the rows so far."""
        found = self._linearised(i, mix)
        pairs = [(self.program.stable, self.cuts_stable, found.stable)]
        if not spare:
            pairs.append((self.program.target, self.cuts_target, found.target))
        for rows, cuts, new in pairs:
            cut = 1.5 * rows[i] if found.refusal else new
            rows[i] = np.concatenate([rows[i], cut])
            cuts.setdefault(i, []).append(cut)

    def _move(self, counts: IntArray, shares: FloatArray) -> bool:
        """Take the first rows of each candidate in use at the mix it has when busiest; whether that lowers any load there."""
        if self.moved:
            return False
        self.moved = True
        rates = shares * self.windows.rates_per_s[:, None, :]
        lower = False
        for i in np.flatnonzero(rates.any(axis=(0, 2))).tolist():
            loads = (rates[:, i] @ self.program.target[i].T).max(axis=1) / np.maximum(counts[:, i], 1)
            mix = rates[int(loads.argmax()), i]
            found = self._linearised(i, mix)
            if found.refusal:
                continue
            lower |= bool((found.target @ mix).max() < (1 - MOVED) * (self.program.target[i] @ mix).max())
            self.program.target[i] = np.concatenate([found.target, *self.cuts_target.get(i, [])])
            self.program.stable[i] = np.concatenate([found.stable, *self.cuts_stable.get(i, [])])
        return lower

    def _most(self) -> tuple[IntArray, FloatArray]:
        """All that can be had, in every window, and its split."""
        program = self.program
        most = np.minimum(program.at_most, np.maximum(program.enough(), program.at_least)).astype(np.int64)
        counts = np.repeat(most[None], len(self.windows.rates_per_s), axis=0)
        return counts, self._splits(counts)

    def _linearised(self, i: int, mix: FloatArray) -> Linearised:
        everywhere = np.where(self.program.allowed[i], np.maximum(mix, TRACE * mix.sum()), 0.0)
        return linearised(self.kinds[i].replica, self.windows.classes, everywhere, self.targets)

    def _splits(self, counts: IntArray) -> FloatArray:
        """The balanced split in each window, (n_windows, n, n_classes)."""
        rates = self.windows.rates_per_s
        by = np.arange(len(rates)) if self.program.varies else self.windows.greatest()
        known = {t: balanced(self.program.target, self.program.allowed, rates[t], counts[t]) for t in set(by.tolist())}
        return np.array([known[t].shares for t in by.tolist()])

    def _failed(self, counts: IntArray, shares: FloatArray) -> list[tuple[int, FloatArray, bool]]:
        """(candidate, mix, whether with spares lost) of the pools that `analyze` does not confirm."""
        rates = shares * self.windows.rates_per_s[:, None, :]
        failed = [
            (i, rates[t, i], False)
            for t, i in self._busy(counts, rates)
            if not self._judge(i, rates[t, i] / counts[t, i]).met
        ]
        for t, lost in self.program.failures:
            # `t` counts the windows of the program, which may be fewer.
            window = self.program.rates_per_s[t]
            place = int(np.flatnonzero((self.windows.rates_per_s == window).all(axis=1))[0])
            left = np.maximum(counts[place] - np.array(lost), 0)
            split = balanced(self.program.stable, self.program.allowed, window, left)
            for i in np.flatnonzero(left).tolist():
                mix = split.shares[i] * window
                if mix.any() and not self._judge(i, mix / left[i]).stable:
                    failed.append((i, mix, True))
        return failed

    def _busy(self, counts: IntArray, rates: FloatArray) -> list[tuple[int, int]]:
        """(window, candidate) with traffic whose replicas get no less of every class elsewhere."""
        found = []
        for i in range(len(self.kinds)):
            used = np.flatnonzero(rates[:, i].any(axis=1)).tolist()
            each = {t: rates[t, i] / counts[t, i] for t in used}
            kept: list[int] = []
            for t in sorted(used, key=lambda t: -float(each[t].sum())):
                if not any((each[other] >= each[t] - 1e-12).all() for other in kept):
                    kept.append(t)
            found += [(t, i) for t in kept]
        return found

    def _judge(self, i: int, rates: FloatArray) -> Judgement:
        """What `analyze` and `latency` say of one replica of candidate i at these rates."""
        key = (i, rates.tobytes())
        if key not in self.judged:
            self.judged[key] = judgement(self.kinds[i], self.windows, rates, self.targets)
        return self.judged[key]

    def _result(self, counts: IntArray, shares: FloatArray, found: Optimum, *, confirmed: bool) -> SizedFleet:
        rates = shares * self.windows.rates_per_s[:, None, :]
        busy = self._busy(counts, rates)
        weights = self.windows.share
        pools = []
        for i in np.flatnonzero(counts.sum(axis=0)).tolist():
            said = [self._judge(i, rates[t, i] / counts[t, i]) for t, j in busy if j == i]
            item = self.kinds[i]
            most = int(counts[:, i].max())
            price = float(item.replica.price_per_hour or 0.0)
            pools.append(
                SizedPool(
                    name=item.name,
                    replicas=most,
                    gpus=most * item.replica.gpus,
                    price_per_hour=price,
                    cost_per_hour=price * float(weights @ counts[:, i]),
                    rate_per_s=float(weights @ rates[:, i].sum(axis=1)),
                    load=max((one.load for one in said), default=0.0),
                    verdict=Verdict.STABLE if all(one.stable for one in said) else Verdict.UNDETERMINED,
                    itl_s=max((one.itl_s for one in said), default=math.nan),
                    ttft_mean_s=_most([one.ttft_mean_s for one in said]),
                    ttft_p99_s=_most([one.ttft_p99_s for one in said]),
                )
            )
        worst = max(pool.load for pool in pools)
        when = " in every window" if len(counts) > 1 else ""
        reason = f"every pool is stable and meets its targets{when}, by `analyze` at the rates it gets"
        if not confirmed:
            reason = f"after {self.rounds} rounds `analyze` does not yet confirm every pool: add a replica, or simulate"
        if found.status == "limit":
            reason += f"; branch and bound stopped at a gap of {found.gap:.2g}"
        return SizedFleet(
            feasible=True,
            reason=reason,
            verdict=Verdict.STABLE if confirmed else Verdict.UNDETERMINED,
            cost_per_hour=found.value,
            lower_bound_per_hour=min(found.bound, found.value),
            violation=found.violation,
            headroom=1 - worst,
            spares=self.program.spares,
            rounds=self.rounds,
            pools=tuple(pools),
            candidates=self.kinds,
            classes=tuple(item.name for item in self.windows.classes),
            start_s=self.windows.start_s,
            end_s=3600 * self.windows.hours,
            replicas=read_only(counts),
            rates_per_s=read_only(rates),
            costs_per_hour=read_only(counts @ self.program.price),
            assumptions=_assumptions(self),
        )


def _most(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def _assumptions(sizing: _Sizing) -> tuple[str, ...]:
    notes = [
        "rows are linearised at a mix and confirmed at the rates each pool gets; the bound on the cost holds within the rows",
        "classes are split at random over the pools, evenly over the replicas of a pool",
    ]
    if sizing.targets.ttft_mean_s is not None or sizing.targets.ttft_p99_s is not None:
        notes.append(
            "a target for the time to first token is a largest load in the program, by a latency approximation"
        )
    for (i, k), why in sizing.refusals.items():
        notes.append(f"{sizing.kinds[i].name} gets nothing of class {sizing.windows.classes[k].name!r}: {why}")
    for i, k in sizing.unservable:
        notes.append(
            f"{sizing.kinds[i].name} cannot hold the longest requests of class {sizing.windows.classes[k].name!r}"
        )
    return tuple(notes)


def _none(sizing: _Sizing, reason: str, rounds: int) -> SizedFleet:
    windows, count = len(sizing.windows.rates_per_s), len(sizing.kinds)
    return SizedFleet(
        feasible=False,
        reason=reason,
        verdict=None,
        cost_per_hour=math.inf,
        lower_bound_per_hour=math.inf,
        violation=0.0,
        headroom=math.nan,
        spares=sizing.program.spares,
        rounds=rounds,
        pools=(),
        candidates=sizing.kinds,
        classes=tuple(item.name for item in sizing.windows.classes),
        start_s=sizing.windows.start_s,
        end_s=3600 * sizing.windows.hours,
        replicas=read_only(np.zeros((windows, count), dtype=np.int64)),
        rates_per_s=read_only(np.zeros((windows, count, len(sizing.windows.classes)))),
        costs_per_hour=read_only(np.zeros(windows)),
        assumptions=_assumptions(sizing),
    )
