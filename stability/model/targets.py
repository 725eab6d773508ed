"""What a fleet is to achieve besides being stable."""

from __future__ import annotations

from dataclasses import dataclass

from .._result import Described
from ..errors import check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets(Described):
    """Limits that a planner states; None where there is none.

    Parameters
    ----------
    itl_s : float > 0, optional
        Mean inter-token latency, s.
    ttft_p99_s : float > 0, optional
        99th percentile of the time to first token, s.
    ttft_mean_s : float > 0, optional
        Mean time to first token, s.
    headroom : float in [0, 1), optional
        Share of the capacity that is to stay free.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> st.Targets(itl_s=0.05, headroom=0.1)
    Targets(itl_s=0.05, ttft_p99_s=None, ttft_mean_s=None, headroom=0.1)
    """

    itl_s: float | None = None
    ttft_p99_s: float | None = None
    ttft_mean_s: float | None = None
    headroom: float | None = None

    def __post_init__(self) -> None:
        for name in ("itl_s", "ttft_p99_s", "ttft_mean_s"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)
        if self.headroom is not None:
            check_number("headroom", self.headroom, at_least=0, below=1)
