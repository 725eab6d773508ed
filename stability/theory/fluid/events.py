"""What happens to a fleet over time: bursts of arrivals and outages of replicas."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..._result import Described
from ...errors import InputError, check_integer, check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst(Described):
    """All arrival rates times `factor` for a while.

    Parameters
    ----------
    factor : float >= 0
        What rates are multiplied by; below 1 it is a lull.
    duration_s : float > 0
        How long it lasts, s.
    at_s : float >= 0
        When it begins, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> st.Burst(factor=3.0, duration_s=60.0, at_s=30.0).end_s
    90.0
    """

    factor: float = 2.0
    duration_s: float = 600.0
    at_s: float = 0.0

    def __post_init__(self) -> None:
        check_number("factor", self.factor, at_least=0)
        check_number("duration_s", self.duration_s, above=0)
        check_number("at_s", self.at_s, at_least=0)

    @property
    def end_s(self) -> float:
        """When it ends, s."""
        return self.at_s + self.duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage(Described):
    """Replicas of a pool that stop, and may come back empty.

    Parameters
    ----------
    pool : str
        Name of the pool; the only one, or the first, if empty.
    replicas : int >= 1, or None
        How many stop; all of the pool if None.
    at_s : float >= 0
        When they stop, s.
    until_s : float > at_s
        When as many come back; infinite if they do not, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Notes
    -----
    What ran on a lost replica is recomputed on the pool's others, prompt and the tokens generated so far, ahead of their
    queues; what waited on it joins their queues. Where the pool has no others, both wait for its return. New arrivals
    go to the pools that are up; where there are none, they are held until one is. The split stays static: replicas that
    return get their share of the arrivals, not of the queues of others.

    Examples
    --------
    Two replicas of a pool stop at 60 s and return two minutes later:

    >>> import stability as st
    >>> outage = st.Outage(pool="chat", replicas=2, at_s=60.0, until_s=180.0)
    >>> outage.until_s - outage.at_s
    120.0
    """

    pool: str = ""
    replicas: int | None = 1
    at_s: float = 0.0
    until_s: float = math.inf

    def __post_init__(self) -> None:
        check_number("at_s", self.at_s, at_least=0)
        if self.replicas is not None:
            check_integer("replicas", self.replicas, at_least=1)
        if not self.until_s > self.at_s:
            raise InputError(
                f"until_s = {self.until_s!r}, must be > at_s = {self.at_s!r}. Let the replicas return after they stop."
            )
