"""Checks of arguments that several entry points share."""

from __future__ import annotations

from ..errors import InputError, NotModelledError
from .fleet import Barrier, Fleet
from .replica import Replica
from .workload import Workload


def check_pair(fleet: object, workload: object) -> None:
    """Refuse anything but a fleet and a workload, in this order."""
    if isinstance(fleet, Workload) and isinstance(workload, Fleet):
        raise InputError("the fleet and the workload are swapped, the fleet must come first. Exchange the arguments.")
    if not isinstance(fleet, Fleet):
        hint = "Use Fleet.of(replica)." if isinstance(fleet, Replica) else "Use Fleet([...]) or read_plan(...).fleet."
        raise InputError(f"fleet = {fleet!r}, must be a Fleet. {hint}")
    if not isinstance(workload, Workload):
        raise InputError(f"workload = {workload!r}, must be a Workload. Use Workload.poisson(rate_per_s, lengths).")


def check_no_prefixes(workload: Workload, what: str) -> None:
    """Refuse workloads that find prefixes in the cache where `what` does not know them."""
    for item in workload.classes:
        if item.finds_prefixes:
            raise NotModelledError(
                f"class {item.name!r} finds prompt tokens in the prefix cache, must find none for {what}. "
                "Use `stability check` or `stability simulate`, analyze() or simulate() in Python."
            )


def check_no_sessions(workload: Workload, what: str) -> None:
    """Refuse sessions where `what` needs requests that all wait at the start."""
    if workload.has_sessions:
        raise NotModelledError(
            f"the workload has sessions, must have none for {what}: a turn arrives a think time after the last one, so that sessions have no "
            "saturated run. Use prefix_equilibria() or simulate()."
        )


def check_independent(fleet: Fleet, what: str) -> None:
    """Refuse barrier groups where `what` does not know them."""
    for pool in fleet.pools:
        if isinstance(pool.coupling, Barrier):
            raise NotModelledError(
                f"pool {pool.name!r} is coupled by {pool.coupling!r}, must be independent for {what}. Use analyze() or simulate_barrier()."
            )
