r"""The mixed-integer program of a cheapest fleet, and its two linear companions.

Replicas n_i of candidate i, shares y_ikt of class k in window t, rows t_irk of `linearised`:

.. math::
   \min \sum_i p_i n_i \quad \text{s.t.} \quad \sum_i y_{ikt} = 1, \qquad
   \sum_k \lambda_{kt}\, y_{ikt}\, t_{irk} \le n_i, \qquad n_i \in \mathbb{Z}, \; \underline n_i \le n_i \le \bar n_i .

- A fleet that changes has n_it and pays for starts :math:`u_{it} \ge n_{it} - n_{i,t-1}`. The replicas of each window cost
  at least what the cheapest fleet for that window alone does: rows that branch and bound would be long to find.
- Failures f (replicas lost by candidate) must leave max(n_i - f_i, 0), stable under a split of its own; with
  a binary b_i the survivors are :math:`s_i \le n_i - f_i b_i,\ s_i \le U_i b_i`. Which f matter is found one by one
  (`failing`): a program with fewer failures is a relaxation, so a solution that withstands all is optimal.
- Loads stay `MARGIN` below their limit: stability is strict, and the solver's tolerance is 1e-7.

Companions for given n: `balanced` finds the split with the least greatest load z (a linear program with a dual
certificate); 1/z is how much of the rates the fleet can serve.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .._types import BoolArray, FloatArray, IntArray
from .programs import GAP, TINY, Budget, Optimum, Program

MARGIN = 1e-6
"""Relative distance of every load from its limit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetProgram:
    """Data of the program; the lists of rows and failures grow.

    Attributes
    ----------
    price : (n,) ndarray
        Per replica and hour.
    at_least, at_most : (n,) ndarray
        Limits of the counts; infinite where there is none.
    rates_per_s : (n_windows, n_classes) ndarray
    share : (n_windows,) ndarray
        Of the time.
    allowed : (n, n_classes) ndarray of bool
        Which candidate can hold which class.
    target, stable : list of (m, n_classes) ndarray
        Rows of each candidate, see `Linearised`.
    spares : int
        Failures to withstand.
    start_cost_per_hour : float or None
        Cost of one start per pass, spread over its hours; None for one fleet in all windows.
    repeats : bool
        Whether the first window follows the last.
    failures : list of (int, tuple of int)
        Window and replicas lost by candidate.
    floors : list of float
        Least price of the replicas of each window, where the fleet varies.
    """

    price: FloatArray
    at_least: FloatArray
    at_most: FloatArray
    rates_per_s: FloatArray
    share: FloatArray
    allowed: BoolArray
    target: list[FloatArray]
    stable: list[FloatArray]
    spares: int = 0
    start_cost_per_hour: float | None = None
    repeats: bool = True
    failures: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)

    @property
    def varies(self) -> bool:
        """Whether the fleet may change between windows."""
        return self.start_cost_per_hour is not None

    def enough(self) -> FloatArray:
        """Replicas of each candidate beyond which more of it serve nothing: every window it can hold, and the spares."""
        need = [float((self.rates_per_s * rows.max(axis=0)).sum(axis=-1).max()) for rows in self.target]
        return np.ceil(np.array(need) * (1 + MARGIN)) + self.spares

    def cheapest(self, budget: Budget, *, gap: float = GAP) -> tuple[IntArray, Optimum]:
        """Counts of the cheapest fleet that withstands all failures, (n_windows, n), and the program's outcome."""
        known = self._known(budget) if self.varies else None
        while True:
            found, counts = self._solve(gap, budget.half(), beyond=False, known=known)
            if not len(found.values) or not self._add_failures(counts):
                return counts, found

    def _known(self, budget: Budget) -> IntArray | None:
        """Set the floors, and return a fleet to start from: the cheapest of each window alone, or one for all, if cheaper.

        Failures that these programs meet count here, too.
        """
        self.floors.clear()
        alone = []
        each = budget.half() / (2 * len(self.rates_per_s))
        for t, rates in enumerate(self.rates_per_s):
            one = replace(self, rates_per_s=rates[None], share=np.ones(1), start_cost_per_hour=None, failures=[])
            counts, found = one.cheapest(Budget(2 * each))
            self.floors.append(found.bound if math.isfinite(found.bound) else 0.0)
            self._share_failures([(t, lost) for _, lost in one.failures])
            if len(found.values):
                alone.append(counts[0])
        fixed = replace(self, start_cost_per_hour=None, failures=list(self.failures))
        counts, found = fixed.cheapest(Budget(budget.half() / 2))
        self._share_failures(fixed.failures)
        choices = [np.array(alone)] if len(alone) == len(self.rates_per_s) else []
        choices += [counts] if len(found.values) else []
        return min(choices, key=self.cost_of, default=None)

    def _share_failures(self, met: Sequence[tuple[int, tuple[int, ...]]]) -> None:
        self.failures.extend(item for item in met if item not in self.failures)

    def cost_of(self, counts: IntArray) -> float:
        """Cost per hour of counts by window, starts included."""
        before = np.roll(counts, 1, axis=0) if self.repeats else np.concatenate([counts[:1], counts[:-1]])
        starts = float(np.maximum(counts - before, 0).sum())
        return float(self.share @ (counts @ self.price)) + (self.start_cost_per_hour or 0.0) * starts

    def least_beyond(self, budget: Budget) -> IntArray:
        """Fewest replicas beyond `at_most` with which the windows can be served, by candidate."""
        while True:
            found, counts = self._solve(GAP, budget.half(), beyond=True)
            if not len(found.values):
                return np.zeros(len(self.price), dtype=np.int64)
            if not self._add_failures(counts):
                return np.asarray(np.maximum(counts.max(axis=0) - np.minimum(self.at_most, 1e15), 0), dtype=np.int64)

    def failing(self, window: int, counts: IntArray) -> tuple[int, ...] | None:
        """Replicas lost by candidate that a fleet does not withstand in a window, or None."""
        for lost in failures_of(counts, self.spares):
            left = np.maximum(counts - np.array(lost), 0)
            if balanced(self.stable, self.allowed, self.rates_per_s[window], left).value > 1 - MARGIN / 2:
                return lost
        return None

    def _add_failures(self, counts: IntArray) -> bool:
        """Note the failures that `counts` does not withstand; whether there are any."""
        if not self.spares:
            return False
        added = False
        for window in range(len(self.rates_per_s)):
            lost = self.failing(window, counts[window])
            if lost is not None:
                if (window, lost) in self.failures:  # within the solver's tolerance of surviving
                    continue
                self.failures.append((window, lost))
                added = True
        return added

    def _solve(
        self, gap: float, time_limit_s: float, *, beyond: bool, known: IntArray | None = None
    ) -> tuple[Optimum, IntArray]:
        program, windows, kinds = Program(), len(self.rates_per_s), len(self.price)
        most = self.enough() if beyond else np.minimum(self.at_most, np.maximum(self.enough(), self.at_least))
        most = np.maximum(most, self.at_least)
        # Hours weigh windows of a changing fleet; one fleet is paid for all the time.
        weights = self.share if self.varies else np.ones(1)
        counts = np.array(
            [
                program.variables(
                    kinds, cost=0.0 if beyond else weight * self.price, lower=self.at_least, upper=most, integer=True
                )
                for weight in weights.tolist()
            ]
        )
        if beyond:
            extra = program.variables(
                kinds, cost=1.0 + 1e-6 * self.price / max(1.0, float(self.price.max())), integer=True
            )
            for row in counts:
                for i in range(kinds):
                    if math.isfinite(self.at_most[i]):
                        program.row([row[i], extra[i]], [1.0, -1.0], at_most=float(self.at_most[i]))
        elif self.varies:
            self._add_starts(program, counts)
            for row, floor in zip(counts, self.floors, strict=True):
                program.row(row, self.price, at_least=floor * (1 - TINY))
        for t in range(windows):
            self._add_block(program, self.target, self.rates_per_s[t], counts[t if self.varies else 0])
        for t, lost in self.failures:
            left = self._survivors(program, counts[t if self.varies else 0], most, lost)
            self._add_block(program, self.stable, self.rates_per_s[t], left)
        start = None if known is None else (counts.ravel(), known.ravel().astype(np.float64))
        found = program.minimise(gap=gap, time_limit_s=time_limit_s, start=start)
        if not len(found.values):
            return found, np.empty((0, kinds), dtype=np.int64)
        chosen = found.values[counts].astype(np.int64)
        return found, chosen if self.varies else np.repeat(chosen, windows, axis=0)

    def _add_starts(self, program: Program, counts: IntArray) -> None:
        windows, kinds = counts.shape
        for t in range(windows):
            if t == 0 and not self.repeats:
                continue  # what the pass begins with is not started in it
            starts = program.variables(kinds, cost=float(self.start_cost_per_hour or 0.0))
            for i in range(kinds):
                program.row([starts[i], counts[t, i], counts[t - 1, i]], [1.0, -1.0, 1.0], at_least=0.0)

    def _add_block(self, program: Program, rows: Sequence[FloatArray], rates: FloatArray, available: IntArray) -> None:
        """Serve `rates` with `available` (variables) replicas of each candidate."""
        kinds, classes = self.allowed.shape
        place = np.full((kinds, classes), -1)
        for k in np.flatnonzero(rates > 0).tolist():
            can = np.flatnonzero(self.allowed[:, k])
            place[can, k] = program.variables(len(can), upper=1.0)
            program.row(place[can, k], 1.0, at_least=1.0, at_most=1.0)
        for i in range(kinds):
            used = np.flatnonzero(place[i] >= 0)
            for row in undominated(rows[i][:, used] * rates[used] * (1 + MARGIN)):
                program.row([*place[i, used].tolist(), int(available[i])], [*row.tolist(), -1.0], at_most=0.0)

    def _survivors(self, program: Program, counts: IntArray, most: FloatArray, lost: Sequence[int]) -> IntArray:
        """Variables for max(n - lost, 0)."""
        left = counts.copy()
        for i, fewer in enumerate(lost):
            if not fewer:
                continue
            (left[i],) = program.variables(1, upper=float(most[i]))
            (some,) = program.variables(1, upper=1.0, integer=True)
            program.row([left[i], counts[i], some], [1.0, -1.0, fewer], at_most=0.0)
            program.row([left[i], some], [1.0, -max(float(most[i]), 1.0)], at_most=0.0)
        return left


def undominated(rows: FloatArray) -> Iterator[FloatArray]:
    """Rows that no other row exceeds everywhere; of equal ones, the first."""
    for index, row in enumerate(rows):
        over = (rows >= row).all(axis=1)
        over[index] = False
        equal = (rows == row).all(axis=1)
        over &= ~(equal & (np.arange(len(rows)) > index))
        if row.any() and not over.any():
            yield row


def failures_of(counts: IntArray, spares: int) -> Iterator[tuple[int, ...]]:
    """Every way to lose `spares` replicas (or all, if there are fewer), as losses by candidate."""
    have = np.flatnonzero(counts > 0).tolist()
    lost_in_all = min(spares, int(counts.sum()))
    for choice in itertools.combinations_with_replacement(have, lost_in_all):
        lost = np.bincount(choice, minlength=len(counts)) if choice else np.zeros(len(counts), dtype=np.int64)
        if lost_in_all and (lost <= counts).all():
            yield tuple(lost.tolist())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Balanced:
    """A split with the least greatest load.

    Attributes
    ----------
    shares : (n, n_classes) ndarray
        Of each class's rate, by candidate.
    value : float
        The greatest load z; infinite where a class fits no replica.
    bound : float
        What no split gets below, from the dual prices.
    violation : float
        Largest violation of the program's rows by the split.
    """

    shares: FloatArray
    value: float
    bound: float
    violation: float


def balanced(rows: Sequence[FloatArray], allowed: BoolArray, rates_per_s: FloatArray, counts: IntArray) -> Balanced:
    """The split of `rates_per_s` over `counts` replicas of each candidate with the least greatest load.

    Parameters
    ----------
    rows : sequence of (m, n_classes) ndarray
        Load per request/s of one replica of each candidate.
    allowed : (n, n_classes) ndarray of bool
        Which candidate can hold which class.
    rates_per_s : (n_classes,) ndarray
    counts : (n,) ndarray of int
    """
    program = Program()
    shares = np.zeros(allowed.shape)
    (top,) = program.variables(1, cost=1.0)
    place = np.full(allowed.shape, -1)
    for k in np.flatnonzero(rates_per_s > 0).tolist():
        can = np.flatnonzero(allowed[:, k] & (counts > 0))
        if not len(can):
            return Balanced(shares=shares, value=math.inf, bound=math.inf, violation=0.0)
        place[can, k] = program.variables(len(can), upper=1.0)
        program.row(place[can, k], 1.0, at_least=1.0, at_most=1.0)
    for i in np.flatnonzero(counts > 0).tolist():
        used = np.flatnonzero(place[i] >= 0)
        for row in undominated(rows[i][:, used] * rates_per_s[used] / float(counts[i])):
            program.row([*place[i, used].tolist(), int(top)], [*row.tolist(), -1.0], at_most=0.0)
    found = program.minimise()
    shares[place >= 0] = np.clip(found.values[place[place >= 0]], 0.0, 1.0)
    shares[shares < 1e-9] = 0.0
    shares[:, rates_per_s > 0] /= shares[:, rates_per_s > 0].sum(axis=0)
    return Balanced(shares=shares, value=found.value, bound=found.bound, violation=found.violation)
