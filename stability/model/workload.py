"""Workloads: classes of requests, how often they come, and how their arrivals are spaced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .._result import Described, html_table
from .._types import ArrayLike, FloatArray
from ..errors import InputError, check_integer, check_number
from .arrivals import Arrivals, Poisson, RateSchedule, Renewal, Replay
from .lengths import Empirical, Lengths, Mixture
from .sessions import Sessions


@dataclass(frozen=True, slots=True)
class RequestClass(Described):
    """Requests of one kind.

    Parameters
    ----------
    name : str
        Unique in the workload.
    rate_per_s : float >= 0 or RateSchedule
        Arrival rate, 1/s, constant or over time.
    lengths : Lengths
        Joint law of prompt and output tokens.
    value : float >= 0
        What serving one request is worth (admission control).
    max_output_tokens : int >= 1, optional
        Output limit that reservation admission sets aside; without it each request's own output length.
    cached_prefix_tokens : int >= 0
        Leading prompt tokens known to be in the prefix cache, whole blocks of which need not be computed. The last prompt token
        always is. The request holds KV for all of its prompt.
    sessions : Sessions, optional
        The sessions that the requests are turns of; `lengths` are then theirs and `rate_per_s` counts turns. See
        `Workload.sessions`.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(50))
    >>> chat = st.RequestClass("chat", rate_per_s=12.0, lengths=lengths, value=2.0)
    >>> chat.mean_rate_per_s, chat.with_rate(6.0).mean_rate_per_s
    (12.0, 6.0)
    """

    name: str
    rate_per_s: float | RateSchedule
    lengths: Lengths
    value: float = field(default=1.0, kw_only=True)
    max_output_tokens: int | None = field(default=None, kw_only=True)
    cached_prefix_tokens: int = field(default=0, kw_only=True)
    sessions: Sessions | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.rate_per_s, RateSchedule):
            check_number("rate_per_s", self.rate_per_s, at_least=0)
        if not isinstance(self.lengths, Lengths):
            raise InputError(
                f"lengths = {self.lengths!r}, must be a joint law. Use lengths.Independent(prompt=..., output=...)."
            )
        check_number("value", self.value, at_least=0)
        check_integer("cached_prefix_tokens", self.cached_prefix_tokens, at_least=0)
        if self.sessions is not None and (self.lengths is not self.sessions.lengths or self.cached_prefix_tokens):
            raise InputError(
                f"class {self.name!r} has sessions and lengths or cached_prefix_tokens of its own, must have those of its sessions. "
                "Build it with RequestClass.of_sessions(name, rate, sessions)."
            )
        if self.max_output_tokens is not None:
            limit = check_integer("max_output_tokens", self.max_output_tokens, at_least=1)
            if limit < self.lengths.max_output_tokens:
                raise InputError(
                    f"max_output_tokens = {limit}, must be >= {self.lengths.max_output_tokens:g}, the longest output of {self.name!r}. "
                    "Truncate the output law or raise the limit."
                )

    @classmethod
    def of_sessions(
        cls, name: str, sessions_per_s: float | RateSchedule, sessions: Sessions, *, value: float = 1.0
    ) -> RequestClass:
        """The turns of `sessions` that start at `sessions_per_s` (named `name`, each turn worth `value`)."""
        each = sessions.turns_mean
        if isinstance(sessions_per_s, RateSchedule):
            return cls(name, sessions_per_s.scaled(each), sessions.lengths, value=value, sessions=sessions)
        rate = each * check_number("sessions_per_s", sessions_per_s, at_least=0)
        return cls(name, rate, sessions.lengths, value=value, sessions=sessions)

    @property
    def mean_rate_per_s(self) -> float:
        """Time-average arrival rate, 1/s."""
        if isinstance(self.rate_per_s, RateSchedule):
            return self.rate_per_s.mean_per_s
        return float(self.rate_per_s)

    @property
    def finds_prefixes(self) -> bool:
        """Whether its requests may find prompt tokens in the prefix cache."""
        return bool(self.cached_prefix_tokens) or self.lengths.knows_cached or self.sessions is not None

    def rate_at(self, time_s: ArrayLike) -> FloatArray:
        """Arrival rate at each instant of `time_s`, 1/s."""
        if isinstance(self.rate_per_s, RateSchedule):
            return self.rate_per_s.at(time_s)
        return np.full(np.shape(time_s), float(self.rate_per_s))

    def with_rate(self, rate_per_s: float | RateSchedule) -> RequestClass:
        """The same class at `rate_per_s`."""
        return replace(self, rate_per_s=rate_per_s)


@dataclass(frozen=True, init=False)
class Workload:
    """What arrives at a fleet.

    Parameters
    ----------
    classes : sequence of RequestClass
        At least one, with distinct names and some positive rate. Rate schedules end together and all repeat or none;
        with one that does not repeat, every class stops at its end.
    arrivals : Poisson, Renewal or Replay
        Spacing of the superposed arrivals.

    Raises
    ------
    InputError
        If names repeat, no rate is positive, or schedules and replays do not fit together.

    Notes
    -----
    Usually built by `Workload.poisson`, `Workload.renewal`, `Workload.scheduled` or `Workload.from_requests`.

    Examples
    --------
    Three chats for every summary; at twice the rate the mix stays:

    >>> import stability as st
    >>> short = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(50))
    >>> long = st.lengths.Independent(st.lengths.Constant(900), st.lengths.Constant(50))
    >>> mix = st.Workload([st.RequestClass("chat", 3.0, short), st.RequestClass("summary", 1.0, long)])
    >>> mix.rate_per_s, mix.lengths.prompt_mean_tokens  # (3*100 + 900)/4
    (4.0, 300.0)
    >>> mix.scaled(factor=2.0).rates_per_s.tolist()
    [6.0, 2.0]
    """

    classes: tuple[RequestClass, ...]
    arrivals: Arrivals

    def __init__(self, classes: Sequence[RequestClass], arrivals: Arrivals | None = None) -> None:
        if not classes:
            raise InputError("classes is empty, must hold at least one request class. Add one.")
        for index, item in enumerate(classes):
            if not isinstance(item, RequestClass):
                raise InputError(
                    f"classes[{index}] = {item!r}, must be a RequestClass. Use RequestClass(name, rate, lengths)."
                )
        names = [item.name for item in classes]
        if len(set(names)) < len(names):
            raise InputError(f"class names {names} repeat, must be distinct. Rename one.")
        if not sum(item.mean_rate_per_s for item in classes) > 0:
            raise InputError("the rates of all classes are 0, one must be > 0. Give a class a rate.")
        schedules = [item.rate_per_s for item in classes if isinstance(item.rate_per_s, RateSchedule)]
        ends = sorted({(schedule.end_s, schedule.repeat) for schedule in schedules})
        if len(ends) > 1:
            raise InputError(
                f"the classes' schedules have (end_s, repeat) = {ends}, must agree. Give them one end_s and one repeat."
            )
        process = Poisson() if arrivals is None else arrivals
        if isinstance(process, Replay):
            only = classes[0]
            rows = len(process.arrival_s)
            if len(classes) != 1 or not isinstance(only.lengths, Empirical) or len(only.lengths) != rows:
                raise InputError(
                    f"a replay of {rows} arrivals must have one class with as many Empirical lengths. Use Workload.from_requests."
                )
        object.__setattr__(self, "classes", tuple(classes))
        object.__setattr__(self, "arrivals", process)

    @classmethod
    def poisson(cls, rate_per_s: float, lengths: Lengths) -> Workload:
        """One class of `lengths` with Poisson arrivals at `rate_per_s`."""
        return cls([RequestClass("requests", rate_per_s, lengths)])

    @classmethod
    def renewal(cls, rate_per_s: float, lengths: Lengths, *, cv: float) -> Workload:
        """One class of `lengths` at `rate_per_s`, with gamma-distributed gaps of coefficient of variation `cv`."""
        return cls([RequestClass("requests", rate_per_s, lengths)], Renewal(cv))

    @classmethod
    def scheduled(cls, schedule: RateSchedule, lengths: Lengths) -> Workload:
        """One class of `lengths` with Poisson arrivals at a rate that follows `schedule`."""
        return cls([RequestClass("requests", schedule, lengths)])

    @classmethod
    def sessions(cls, sessions_per_s: float | RateSchedule, sessions: Sessions) -> Workload:
        """Sessions of several turns that start in a Poisson stream.

        Parameters
        ----------
        sessions_per_s : float > 0 or RateSchedule
            Sessions that start per second. `rate_per_s` of the workload counts turns: the mean number of turns as many.
        sessions : Sessions
            What a session is.

        Returns
        -------
        Workload
            One class, called "sessions".

        Examples
        --------
        >>> from stability import Sessions, lengths
        >>> chat = Sessions(lengths.Constant(4), lengths.Constant(100), lengths.Constant(50), think_s=20)
        >>> workload = Workload.sessions(0.5, chat)
        >>> workload.rate_per_s, workload.lengths.prompt_mean_tokens  # 0.5*4; (100 + 250 + 400 + 550)/4
        (2.0, 325.0)
        """
        return cls([RequestClass.of_sessions("sessions", sessions_per_s, sessions)])

    @classmethod
    def from_requests(
        cls,
        arrival_s: ArrayLike,
        prompt_tokens: ArrayLike,
        output_tokens: ArrayLike,
        *,
        cached_prefix_tokens: ArrayLike | None = None,
        name: str = "trace",
    ) -> Workload:
        """Replay of exactly these requests.

        Parameters
        ----------
        arrival_s : (n,) array_like, non-decreasing
            Arrival times, s.
        prompt_tokens, output_tokens : (n,) array_like of int, >= 1
            Lengths, tokens.
        cached_prefix_tokens : (n,) array_like of int, >= 0, optional
            Leading prompt tokens known to be in the prefix cache, tokens.
        name : str
            Name of the one class.
        """
        lengths = Empirical(prompt_tokens, output_tokens, cached_prefix_tokens)
        replay = Replay(arrival_s)
        if len(replay.arrival_s) != len(lengths):
            raise InputError(
                f"{len(replay.arrival_s)} arrivals but {len(lengths)} length pairs, must be as many. Give one arrival a request."
            )
        rate = replay.rate_per_s
        # All requests at one instant have no rate; saturated simulation ignores it, analysis asks for `.scaled`.
        return cls([RequestClass(name, rate if math.isfinite(rate) else _AT_ONCE, lengths)], replay)

    def _repr_html_(self) -> str:
        header = ("class", "requests/s", "prompt tokens, mean", "output tokens, mean", "value")
        rows = [
            (
                item.name,
                f"{item.mean_rate_per_s:.6g}" + (" (schedule)" if isinstance(item.rate_per_s, RateSchedule) else ""),
                f"{item.lengths.prompt_mean_tokens:.4g}",
                f"{item.lengths.output_mean_tokens:.4g}",
                f"{item.value:g}",
            )
            for item in self.classes
        ]
        return html_table(rows, header, caption=f"{type(self.arrivals).__name__} arrivals")

    @property
    def rate_per_s(self) -> float:
        """Time-average arrival rate over all classes, 1/s."""
        return math.fsum(item.mean_rate_per_s for item in self.classes)

    @property
    def rates_per_s(self) -> FloatArray:
        """Time-average rate of each class, 1/s. Shape (n_classes,)."""
        return np.array([item.mean_rate_per_s for item in self.classes])

    @property
    def has_sessions(self) -> bool:
        """Whether some requests are turns of sessions."""
        return any(item.sessions is not None for item in self.classes)

    @property
    def is_scheduled(self) -> bool:
        """Whether any rate varies over time."""
        return any(isinstance(item.rate_per_s, RateSchedule) for item in self.classes)

    @property
    def lengths(self) -> Lengths:
        """Joint length law of an arriving request, over all classes."""
        if len(self.classes) == 1:
            return self.classes[0].lengths
        return Mixture([item.lengths for item in self.classes], [item.mean_rate_per_s for item in self.classes])

    def scaled(self, *, rate_per_s: float | None = None, factor: float | None = None) -> Workload:
        """The same workload at another rate: mixes, schedules and gaps keep their shape.

        Parameters
        ----------
        rate_per_s : float > 0
            New total rate, 1/s; or
        factor : float > 0
            what to multiply every rate by.
        """
        if (rate_per_s is None) == (factor is None):
            raise InputError("give either rate_per_s or factor, not both or neither.")
        if rate_per_s is not None:
            factor = check_number("rate_per_s", rate_per_s, above=0) / self.rate_per_s
        by = check_number("factor", factor, above=0)
        arrivals = self.arrivals
        if isinstance(arrivals, Replay):
            if arrivals.span_s == 0:
                raise InputError(
                    "the replay's arrivals all come at once, must span some time to be scaled. "
                    "Build Workload.poisson(rate_per_s, workload.lengths)."
                )
            first = arrivals.arrival_s[0]
            arrivals = Replay(first + (arrivals.arrival_s - first) / by)
        return Workload([_scaled_class(item, by) for item in self.classes], arrivals)

    def at(self, time_s: float) -> Workload:
        """The stationary workload with the rates of instant `time_s`."""
        return Workload([item.with_rate(float(item.rate_at(time_s))) for item in self.classes], self.arrivals)

    def averaged(self) -> Workload:
        """The stationary workload with the time-average rates."""
        return Workload([item.with_rate(item.mean_rate_per_s) for item in self.classes], self.arrivals)

    def window_starts_s(self) -> FloatArray:
        """Instants in one pass at which some scheduled rate changes, s; just 0 for a stationary workload."""
        edges = {0.0}
        for item in self.classes:
            if isinstance(item.rate_per_s, RateSchedule):
                edges.update(item.rate_per_s.start_s)
        return np.array(sorted(edges))

    def resampled(self) -> Workload:
        """The same classes with Poisson arrivals: a replay becomes a bootstrap of its requests at its mean rate."""
        if isinstance(self.arrivals, Replay) and self.arrivals.span_s == 0:
            raise InputError(
                "the replay's arrivals all come at once, must span some time to have a rate. "
                "Build Workload.poisson(rate_per_s, workload.lengths)."
            )
        return Workload(self.classes, Poisson())


_AT_ONCE = 1e12
"""Rate that stands for arrivals at one instant."""


def _scaled_class(item: RequestClass, factor: float) -> RequestClass:
    if isinstance(item.rate_per_s, RateSchedule):
        return item.with_rate(item.rate_per_s.scaled(factor))
    return item.with_rate(item.rate_per_s * factor)
