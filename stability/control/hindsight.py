r"""Hindsight: the least total latency that any scheduler reaches when it knows all requests beforehand.

The model of arXiv 2502.07115: one worker, KV capacity M tokens, rounds of one token a request, no preemption. Request i
(arrival a_i, prompt s_i, output o_i) that starts in round k holds s_i + (t - k) tokens at t = k+1 .. k+o_i and ends at k + o_i:

.. math::
   \min \sum_i \Bigl(\sum_{k \ge a_i} k\, x_{ik} + o_i - a_i\Bigr) \quad \text{s.t.} \quad \sum_k x_{ik} = 1, \qquad
   \sum_i \sum_{k=\max(a_i, t-o_i)}^{t-1} (s_i + t - k)\, x_{ik} \le M, \qquad x_{ik} \in \{0, 1\} .

- *exact*: this program, for small instances.
- *relaxed*: with 0 <= x <= 1. Any prices z_t >= 0 of a token in round t prove the bound
  :math:`\sum_i \min_k [k + o_i - a_i + \sum_t z_t u_{ikt}] - M \sum_t z_t`, u the tokens held and k within the horizon:
  `HindsightBound.verified`.
- *volume*: the j-th completion cannot come before the volume of the j smallest requests went through the cache, so with
  :math:`\mathrm{vol}_i = s_i o_i + o_i(o_i+1)/2` in ascending order the latencies add up to at least
  :math:`\frac1M \sum_j \sum_{i \le j} \mathrm{vol}_{(i)} - \sum_i (a_i - \min a)`, and to at least the sum of the o_i.

All three are **necessary** for non-preemptive schedulers of that model; the volume bound holds with preemption, too.

The horizon is safe: shortest outputs first has the total latency U, so in a schedule that is no worse nobody waits longer than U
less the sum of all outputs.

References: Jaillet et al., arXiv 2502.07115 (program and MC-SF); Kong et al., arXiv 2606.22327 (volume bound).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._extras import needs
from .._result import Tabular, no_truth
from .._types import ArrayLike, FloatArray, IntArray, read_only
from ..errors import InputError, UnservableError, check_choice, check_integer, check_number
from .programs import Program

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

METHODS = ("exact", "relaxed", "volume")

MOST_VARIABLES = 2_000_000
"""Starts that a program may choose from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HindsightBound(Tabular):
    """A lower bound on the total latency of any scheduler, in rounds.

    Attributes
    ----------
    method : str
        "exact", "relaxed" or "volume".
    bound : float
        What no scheduler gets below.
    achieved : float
        Total latency of a schedule that exists: the optimum of the exact method, else that of shortest outputs first.
    kv_capacity_tokens : int
        Capacity M.
    arrival_rounds, prompt_tokens, output_tokens : (n,) ndarray of int
        The requests.
    start_rounds : (n,) ndarray of int
        Starts of that schedule.
    prices : (n_rounds,) ndarray
        Price of a token in each round, from the relaxed program; empty otherwise.

    Examples
    --------
    See :func:`stability.hindsight_bound`.
    """

    schema: ClassVar[str] = "stability/hindsight/1"

    method: str
    bound: float
    achieved: float
    kv_capacity_tokens: int
    arrival_rounds: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    start_rounds: IntArray
    prices: FloatArray

    def __bool__(self) -> bool:
        raise no_truth("HindsightBound")

    def __repr__(self) -> str:
        return f"HindsightBound({self.bound:.6g} rounds by {self.method}, {len(self.start_rounds)} requests, achieved {self.achieved:g})"

    @property
    def gap(self) -> float:
        """achieved/bound - 1."""
        return self.achieved / self.bound - 1

    @property
    def memory_tokens(self) -> IntArray:
        """KV held in each round by the schedule at `start_rounds`."""
        return memory_tokens(self.start_rounds, self.prompt_tokens, self.output_tokens)

    def verified(self) -> float:
        """The bound that `prices` prove, summed here request by request.

        Raises
        ------
        InputError
            Unless the method is "relaxed", which alone has prices.
        """
        if self.method != "relaxed":
            raise InputError(f"the method is {self.method!r}, must be 'relaxed' to have prices. Ask for it.")
        last, wait = len(self.prices) - 1, int(self.achieved - self.output_tokens.sum())
        plain, timed = np.cumsum(self.prices), np.cumsum(self.prices * np.arange(last + 1))
        total = -float(self.kv_capacity_tokens * self.prices.sum())
        for a, s, o in zip(self.arrival_rounds, self.prompt_tokens, self.output_tokens, strict=True):
            k = np.arange(a, a + wait + 1)
            first, ends = np.minimum(k, last), np.minimum(k + o, last)
            held = (s - k) * (plain[ends] - plain[first]) + timed[ends] - timed[first]  # sum of z_t (s + t - k)
            total += float((k + o - a + held).min())
        return total

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        count = len(self.start_rounds)
        best = "optimum" if self.method == "exact" else "shortest outputs first"
        return [
            ("requests", f"{count}, {self.kv_capacity_tokens} KV tokens"),
            ("no scheduler below", f"{self.bound:.6g} rounds in all, {self.bound / count:.4g} each ({self.method})"),
            (best, f"{self.achieved:g} rounds, {100 * self.gap:.2f} % more"),
        ]

    def to_frame(self) -> pandas.DataFrame:
        """One row per request: arrival, lengths, start and latency, units in column names."""
        needs("pandas")
        import pandas

        return pandas.DataFrame(
            {
                "arrival_rounds": self.arrival_rounds,
                "prompt_tokens": self.prompt_tokens,
                "output_tokens": self.output_tokens,
                "start_rounds": self.start_rounds,
                "latency_rounds": self.start_rounds + self.output_tokens - self.arrival_rounds,
            }
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """KV held over the rounds by the schedule on `ax` (a new figure without it), against the capacity."""
        from ..plots.hindsight import plot_hindsight

        return plot_hindsight(self, ax)


def hindsight_bound(
    arrival_rounds: ArrayLike,
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    *,
    kv_capacity_tokens: int,
    method: str = "relaxed",
    time_limit_s: float = 60.0,
) -> HindsightBound:
    """A lower bound on the total latency of any scheduler that serves these requests in unit rounds.

    Parameters
    ----------
    arrival_rounds : (n,) array_like of int, >= 0
        Round in which each request arrives; it may start in it.
    prompt_tokens, output_tokens : (n,) array_like of int, >= 0 and >= 1
        Lengths, tokens. An engine stores s + j - 1 tokens in the step of token j: give it prompts of s - 1.
    kv_capacity_tokens : int >= 1
        KV cache, tokens (M).
    method : {"exact", "relaxed", "volume"}
        The integer program (tens of requests), its relaxation (hundreds), or the volume bound (any number).
    time_limit_s : float > 0
        For the exact method, s; out of time, `bound` stays below `achieved`.

    Returns
    -------
    HindsightBound
        The bound, a schedule, and what lies between them.

    Raises
    ------
    UnservableError
        If a request takes more KV than there is.

    Notes
    -----
    See the module `stability.control.hindsight` for the program and the proofs.

    Examples
    --------
    Two requests of 4 + 1..4 tokens in a cache of 8 cannot overlap: they end after 4 and 8 rounds. Their volume of 26 each
    needs 26/8 and 52/8 rounds at least:

    >>> import stability as st
    >>> st.hindsight_bound([0, 0], [4, 4], [4, 4], kv_capacity_tokens=8, method="exact").bound
    12.0
    >>> st.hindsight_bound([0, 0], [4, 4], [4, 4], kv_capacity_tokens=8, method="volume").bound
    9.75
    """
    a, s, o = _checked(arrival_rounds, prompt_tokens, output_tokens)
    room = check_integer("kv_capacity_tokens", kv_capacity_tokens, at_least=1)
    check_choice("method", method, METHODS)
    check_number("time_limit_s", time_limit_s, above=0)
    peak = s + o
    if (peak > room).any():
        row = int(np.argmax(peak > room))
        raise UnservableError(
            f"request {row} takes up to {peak[row]} KV tokens, must be <= kv_capacity_tokens = {room}. "
            f"Leave it out or give it {int(peak.max())}."
        )
    starts = shortest_first(a, s, o, room)
    achieved, prices = float((starts + o - a).sum()), np.empty(0)
    if method == "volume":
        volume = np.sort(s * o + o * (o + 1) // 2).astype(np.float64)
        bound = max(float(np.cumsum(volume).sum()) / room - float((a - a.min()).sum()), float(o.sum()))
    else:
        bound, starts, prices = _program(a, s, o, room, starts, method, time_limit_s)
        achieved = float((starts + o - a).sum())
    return HindsightBound(
        method=method,
        bound=bound,
        achieved=achieved,
        kv_capacity_tokens=room,
        arrival_rounds=read_only(a),
        prompt_tokens=read_only(s),
        output_tokens=read_only(o),
        start_rounds=read_only(starts),
        prices=read_only(prices),
    )


def _checked(*given: ArrayLike) -> tuple[IntArray, IntArray, IntArray]:
    names, least = ("arrival_rounds", "prompt_tokens", "output_tokens"), (0, 0, 1)
    found = []
    for name, values, low in zip(names, given, least, strict=True):
        array = np.asarray(values)
        if array.ndim != 1 or not len(array) or not (array == np.round(array)).all() or (array < low).any():
            raise InputError(f"{name} must be integers >= {low}, one a request and at least one. Round the values.")
        found.append(array.astype(np.int64))
    if len({len(array) for array in found}) > 1:
        raise InputError(
            f"{', '.join(names)} have {[len(x) for x in found]} entries, must have as many. Give one a request."
        )
    return found[0], found[1], found[2]


def memory_tokens(starts: IntArray, prompt: IntArray, output: IntArray) -> IntArray:
    """KV held at t = 0, 1, ...: s + (t - k) tokens at t = k+1 .. k+o."""
    held = np.zeros(int((starts + output).max()) + 1, dtype=np.int64)
    for k, s, o in zip(starts.tolist(), prompt.tolist(), output.tolist(), strict=True):
        held[k + 1 : k + o + 1] += s + np.arange(1, o + 1)
    return held


def shortest_first(arrival: IntArray, prompt: IntArray, output: IntArray, room: int) -> IntArray:
    """Starts under MC-SF: each round, waiting requests by ascending output while the whole future fits."""
    starts = np.full(len(arrival), -1)
    held = np.zeros(int(arrival.max() + output.sum()) + 2, dtype=np.int64)
    waiting, t = set(range(len(arrival))), int(arrival.min())
    while waiting:
        for i in sorted((i for i in waiting if arrival[i] <= t), key=lambda i: (output[i], i)):
            own = prompt[i] + np.arange(1, output[i] + 1)
            span = slice(t + 1, t + int(output[i]) + 1)
            if (held[span] + own > room).any():
                break
            held[span] += own
            starts[i] = t
            waiting.discard(i)
        t += 1
    return starts


def program_entries(arrival: IntArray, prompt: IntArray, output: IntArray, room: int) -> int:
    """Entries of the program's matrix: starts to choose from times the rounds each lasts."""
    known = shortest_first(arrival, prompt, output, room)
    return (_longest_wait(arrival, output, known) + 1) * int(output.sum() + len(output))


def _longest_wait(a: IntArray, o: IntArray, known: IntArray) -> int:
    """Rounds beyond which nobody waits in a schedule no worse than the one known."""
    return int((known + o - a).sum() - o.sum())


def _program(
    a: IntArray, s: IntArray, o: IntArray, room: int, known: IntArray, method: str, time_limit_s: float
) -> tuple[float, IntArray, FloatArray]:
    """(bound, starts, prices) of the integer program or its relaxation."""
    longest_wait = _longest_wait(a, o, known)
    count = len(a) * (longest_wait + 1)
    if count > MOST_VARIABLES:
        raise InputError(
            f"the program has {count} starts to choose from, must have at most {MOST_VARIABLES}. Use method='volume'."
        )
    exact, program = method == "exact", Program()
    columns: dict[int, tuple[list[int], list[int]]] = {}
    index = []
    for i in range(len(a)):
        k = np.arange(a[i], a[i] + longest_wait + 1)
        x = program.variables(len(k), cost=(k + o[i] - a[i]).astype(np.float64), upper=1.0, integer=exact)
        program.row(x, 1.0, at_least=1.0, at_most=1.0)
        index.append(x)
        for start, column in zip(k.tolist(), x.tolist(), strict=True):
            for t in range(start + 1, start + int(o[i]) + 1):
                wide, entries = columns.setdefault(t, ([], []))
                wide.append(column)
                entries.append(int(s[i]) + t - start)
    first = len(a)
    rounds = sorted(columns)
    for t in rounds:
        program.row(*columns[t], at_most=float(room))
    found = program.minimise(time_limit_s=time_limit_s)
    if exact:
        if not len(found.values):
            return float(o.sum()), known, np.empty(0)
        starts = np.array([int(a[i]) + int(found.values[x].argmax()) for i, x in enumerate(index)])
        return min(found.bound, found.value), starts, np.empty(0)
    prices = np.zeros(rounds[-1] + 1)
    prices[rounds] = np.maximum(-found.prices[first:], 0.0)
    return found.bound, known, prices
