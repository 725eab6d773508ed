"""A trace: requests as they came, one entry each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..._types import FloatArray, IntArray, read_only
from ...errors import InputError
from ...model.arrivals import Replay
from ...model.workload import Workload

if TYPE_CHECKING:
    from .summary import TraceSummary


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests in order of arrival, as columns of shape (n,).

    Parameters
    ----------
    arrival_s : float, non-decreasing
        Arrival times, s.
    prompt_tokens, output_tokens : int >= 1
        Lengths, tokens.
    cached_prefix_tokens : int >= 0, optional
        Leading prompt tokens that an unbounded prefix cache would hold on arrival.
    notes : tuple of str
        What was done to the rows on reading.
    source : str
        The file.
    """

    arrival_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    cached_prefix_tokens: IntArray | None = None
    notes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        rows = len(self.arrival_s)
        for name in ("arrival_s", "prompt_tokens", "output_tokens", "cached_prefix_tokens"):
            column = getattr(self, name)
            if column is None:
                continue
            if column.shape != (rows,):
                raise InputError(
                    f"{name} has shape {column.shape}, must be ({rows},) as arrival_s. Give one a request."
                )
            object.__setattr__(self, name, read_only(column.view()))

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __repr__(self) -> str:
        return f"Trace({len(self)} requests over {self.span_s:g} s{f', {self.source}' if self.source else ''})"

    @property
    def span_s(self) -> float:
        """Time from the first to the last arrival, s."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def rate_per_s(self) -> float | None:
        """Arrivals per second over the span; None if all come at once."""
        return (len(self) - 1) / self.span_s if self.span_s > 0 else None

    def workload(self, *, prefix_hits: bool = False) -> Workload:
        """A workload that replays exactly these requests.

        Parameters
        ----------
        prefix_hits : bool
            Whether prompt tokens that an unbounded prefix cache would hold are found; without it every prompt token is computed.

        Raises
        ------
        InputError
            If prefix hits are asked for and the trace has none recorded.
        """
        if prefix_hits and self.cached_prefix_tokens is None:
            raise InputError(
                f"prefix_hits = True, but {self.source or 'the trace'} records no prefix hits. Leave it out, or use a trace with "
                "a column prefix_hit_tokens."
            )
        cached = self.cached_prefix_tokens if prefix_hits else None
        return Workload.from_requests(
            self.arrival_s, self.prompt_tokens, self.output_tokens, cached_prefix_tokens=cached
        )

    def scaled(self, *, rate_per_s: float | None = None, factor: float | None = None) -> Trace:
        """The same requests, gaps and all, at another rate.

        Parameters
        ----------
        rate_per_s : float > 0
            New mean rate, 1/s; or
        factor : float > 0
            what to multiply the rate by.
        """
        arrivals = self.workload().scaled(rate_per_s=rate_per_s, factor=factor).arrivals
        assert isinstance(arrivals, Replay)
        return replace(self, arrival_s=arrivals.arrival_s)

    def resampled(self) -> Workload:
        """Poisson arrivals at the trace's mean rate, with lengths drawn from its rows with replacement."""
        return self.workload().resampled()

    def describe(self) -> TraceSummary:
        """Rates, burstiness, lengths and their correlation."""
        from .summary import summarise

        return summarise(self)
