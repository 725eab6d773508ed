r"""The recursion as ordinary differential equations, where a few sums close it: outputs in stages.

An output that ends with chance r in each of k stages, one after the other (negative binomial: mean k/r, cv below 1; k = 1 is
geometric) needs only the requests :math:`x_i` and the KV :math:`K_i` of each stage. With :math:`a` admissions in an iteration,

.. math:: \tau \dot x_i = (1 - r)(x_i + a_i) + r\,(x_{i-1} + a_{i-1}) - x_i, \qquad
          \tau \dot K_i = (1 - r)(K_i + x_i + s a_i) + r\,(K_{i-1} + x_{i-1} + s a_{i-1}) - K_i, \qquad
          \dot q = \lambda - a/\tau,

with :math:`a_1 = a`, :math:`a_i = 0` else, :math:`\tau = c_0 + c_p s a + c_d \sum x_i + c_k \sum (K_i + x_i)` and
:math:`a = \min(q,\ (M - h - \sum (K_i + x_i))/s,\ N - \sum x_i,\ (B - \sum x_i)/s)`. Its equilibria are those of the recursion, and for k = 1 the
closure is exact. **Approximation** of it between iterations: it does not evict and cannot show the cycles of synchronised
lengths, so nothing follows from it for other laws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._types import ComplexArray, FloatArray, read_only
from ...errors import InputError, NotModelledError, check_integer, check_number
from ...model.iteration import IterationTime
from ...model.replica import Replica

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class StageModel:
    """One replica that serves requests of one prompt length and outputs in stages.

    Parameters
    ----------
    replica : Replica
        With an affine law without prefill attention; a prompt gate.
    rate_per_s : float >= 0
        Arrivals.
    prompt_tokens : float > 0
        Mean prompt; at most a token budget.
    output_tokens : float >= stages
        Mean output.
    stages : int >= 1
        Stages k; the output's squared coefficient of variation is (1 - k/output)/k.

    Examples
    --------
    Ten arrivals a second of 100 + 50 tokens at 10 ms an iteration: x = 10 * 0.5 s less the first iteration of each.

    >>> import stability as st
    >>> replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000)
    >>> model = StageModel(replica=replica, rate_per_s=10.0, prompt_tokens=100, output_tokens=50, stages=1)
    >>> model.equilibrium().running.round(6).tolist()
    [4.9]
    """

    replica: Replica
    rate_per_s: float
    prompt_tokens: float
    output_tokens: float
    stages: int = 1

    def __post_init__(self) -> None:
        law = self.replica.iteration
        if not isinstance(law, IterationTime) or law.per_prefill_context_s:
            raise NotModelledError(
                f"iteration = {law!r} has no equations here, must be affine without prefill attention."
            )
        check_number("rate_per_s", self.rate_per_s, at_least=0)
        check_number("prompt_tokens", self.prompt_tokens, above=0, at_most=self.replica.engine.max_num_batched_tokens)
        check_integer("stages", self.stages, at_least=1, at_most=64)
        check_number("output_tokens", self.output_tokens, at_least=self.stages)
        if self.replica.engine.admission == "reserve":
            raise NotModelledError("admission = 'reserve' has no equations here, must be a gate.")

    @property
    def step(self) -> float:
        """Chance r to leave a stage in an iteration."""
        return self.stages / self.output_tokens

    def admissions(self, state: FloatArray) -> float:
        """Admissions in an iteration, a, from (x_1 .., K_1 .., q)."""
        x, kv, q = self._split(state)
        engine, running = self.replica.engine, float(x.sum())
        used = float(kv.sum()) + running
        room = self.replica.usable_kv_tokens - self.replica.watermark_tokens - used
        budget = engine.max_num_batched_tokens - running
        most = min(room / self.prompt_tokens, engine.max_num_seqs - running, budget / self.prompt_tokens, float(q))
        return max(0.0, most)

    def iteration_s(self, state: FloatArray) -> float:
        """Iteration time, s."""
        return float(self._time(*self._split(state)[:2], self.admissions(state)))

    def slope(self, time_s: float, state: FloatArray) -> FloatArray:
        """Derivative of (x_1 .., K_1 .., q), 1/s."""
        del time_s
        x, kv, _ = self._split(state)
        a = self.admissions(state)
        return np.array(self._slope(x, kv, a), dtype=np.float64)

    def _split(self, state: Any) -> tuple[Any, Any, Any]:
        return state[: self.stages], state[self.stages : -1], state[-1]

    def _time(self, x: Any, kv: Any, a: Any) -> Any:
        law = self.replica.iteration
        assert isinstance(law, IterationTime)
        c0, cp, cd, ck, _ = law.coefficients
        return c0 + cp * self.prompt_tokens * a + cd * sum(x) + ck * (sum(kv) + sum(x))

    def _slope(self, x: Any, kv: Any, a: Any) -> list[Any]:
        """The equations, for numbers and for symbols alike."""
        r, tau = self.step, self._time(x, kv, a)
        held = [n + (a if i == 0 else 0) for i, n in enumerate(x)]
        stored = [k + n + (self.prompt_tokens * a if i == 0 else 0) for i, (k, n) in enumerate(zip(kv, x, strict=True))]

        def through(values: list[Any], old: Any) -> list[Any]:
            moved = [(1 - r) * v + (r * values[i - 1] if i else 0) for i, v in enumerate(values)]
            return [(new - before) / tau for new, before in zip(moved, old, strict=True)]

        return [*through(held, x), *through(stored, kv), self.rate_per_s - a / tau]

    def solve(self, horizon_s: float, *, start: FloatArray | None = None, points: int = 400) -> StagePath:
        """The path from `start` (idle if None), (x_1 .., K_1 .., q), until `horizon_s`, at `points` instants."""
        check_number("horizon_s", horizon_s, above=0)
        from scipy.integrate import solve_ivp

        first = np.zeros(2 * self.stages + 1) if start is None else np.asarray(start, dtype=np.float64)
        if first.shape != (2 * self.stages + 1,) or (first < 0).any():
            raise InputError(
                f"start = {start!r}, must be {2 * self.stages + 1} numbers >= 0: requests, KV of each stage, queue."
            )
        instants = np.linspace(0.0, horizon_s, points)
        found = solve_ivp(
            self.slope,
            (0.0, horizon_s),
            first,
            method="LSODA",
            t_eval=instants,
            rtol=1e-8,
            atol=1e-8,
            max_step=horizon_s / 50,
        )
        k = self.stages
        return StagePath(
            time_s=read_only(instants),
            running=read_only(found.y[:k].T.copy()),
            kv_tokens=read_only(found.y[k:-1].T.copy()),
            waiting=read_only(found.y[-1].copy()),
        )

    def equilibrium(self) -> Equilibrium:
        """The state that does not change, and whether small deviations from it die out.

        Below capacity everyone is admitted at once (a = q); above it the gate holds the KV at its limit and the queue grows.
        Found from a = lambda tau (or the full memory) in closed form; eigenvalues are those of the symbolic Jacobian there.
        """
        law = self.replica.iteration
        assert isinstance(law, IterationTime)
        c0, cp, cd, ck, _ = law.coefficients
        # Per admission in an iteration: requests and KV of each stage, and those that leave it.
        r = self.step
        x, kv = [(1 - r) / r], [(1 - r) * ((1 - r) / r + self.prompt_tokens) / r]
        leaving, leaving_kv = x[0] + 1, kv[0] + x[0] + self.prompt_tokens
        for _ in range(1, self.stages):
            x.append(leaving)
            kv.append((1 - r) * leaving / r + leaving_kv)
            leaving_kv = kv[-1] + leaving
        each = cp * self.prompt_tokens + cd * sum(x) + ck * (sum(kv) + sum(x))
        engine = self.replica.engine
        room = self.replica.usable_kv_tokens - self.replica.watermark_tokens
        most = min(
            room / (sum(kv) + sum(x) + self.prompt_tokens),
            engine.max_num_seqs / (sum(x) + 1),
            engine.max_num_batched_tokens / (sum(x) + self.prompt_tokens),
        )
        capacity = most / (c0 + most * each)
        stable = self.rate_per_s < capacity
        a = c0 * self.rate_per_s / (1 - self.rate_per_s * each) if stable else most
        state = np.array([*(a * n for n in x), *(a * k for k in kv), a if stable else np.inf])
        values = self._eigenvalues(state, stable)
        return Equilibrium(
            running=read_only(state[: self.stages].copy()),
            kv_tokens=read_only(state[self.stages : -1].copy()),
            waiting=float(state[-1]),
            iteration_s=float(c0 + a * each),
            capacity_per_s=float(capacity),
            admits_all=stable,
            eigenvalues=values,
        )

    def _eigenvalues(self, state: FloatArray, admits_all: bool) -> ComplexArray:
        """Of the Jacobian at `state`: of the whole system, or with a full cache of all but the queue."""
        import sympy

        x = sympy.symbols(f"x1:{self.stages + 1}")
        kv = sympy.symbols(f"K1:{self.stages + 1}")
        q = sympy.Symbol("q")
        room = self.replica.usable_kv_tokens - self.replica.watermark_tokens - sum(kv) - sum(x)
        a = q if admits_all else room / self.prompt_tokens
        free = [*x, *kv, q] if admits_all else [*x, *kv]
        jacobian = sympy.Matrix(self._slope(x, kv, a)[: len(free)]).jacobian(free)
        numbers = dict(zip([*x, *kv, q], state.tolist(), strict=True))
        return np.linalg.eigvals(np.array(jacobian.subs(numbers).tolist(), dtype=np.float64)).astype(np.complex128)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Equilibrium:
    """A state of a `StageModel` that does not change.

    Attributes
    ----------
    running, kv_tokens : (stages,) array
        Requests resident after an iteration, and their KV, by stage.
    waiting : float
        Requests that arrive in an iteration; infinite above capacity.
    iteration_s : float
    capacity_per_s : float
        Largest rate at which all are admitted.
    admits_all : bool
        Whether the rate is below it.
    eigenvalues : (n,) array of complex
        Of the Jacobian, 1/s.
    """

    running: FloatArray
    kv_tokens: FloatArray
    waiting: float
    iteration_s: float
    capacity_per_s: float
    admits_all: bool
    eigenvalues: ComplexArray

    @property
    def locally_stable(self) -> bool:
        """Whether every eigenvalue has a negative real part: small deviations die out."""
        return bool((self.eigenvalues.real < 0).all())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StagePath:
    """A path of a `StageModel`.

    Attributes
    ----------
    time_s : (n,) array
    running, kv_tokens : (n, stages) array
    waiting : (n,) array
    """

    time_s: FloatArray
    running: FloatArray
    kv_tokens: FloatArray
    waiting: FloatArray


def phase_portrait(model: StageModel, ax: Axes | None = None, *, horizon_s: float | None = None) -> Axes:
    """Requests running against KV: direction of the flow, paths from several states, and the equilibrium.

    Parameters
    ----------
    model : StageModel
        Of one stage or several, which are summed.
    ax : Axes, optional
        Where to draw; a new figure without it.
    horizon_s : float > 0, optional
        How long paths are followed, s; five mean residences if omitted.
    """
    from ...plots.phase import plot_phase

    return plot_phase(model, ax, horizon_s=horizon_s)
