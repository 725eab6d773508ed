"""Plan files from Python, without loading the schema library before a plan is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import Plan


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a YAML or TOML file; files it names are looked for from its folder.

    Parameters
    ----------
    path : str or os.PathLike
        The file; its ending tells the format.

    Returns
    -------
    Plan
        With `fleet`, `workload`, `targets` and `path`.

    Raises
    ------
    PlanSyntaxError, PlanError
        If the file cannot be read, does not fit the schema or makes no sense; with every problem and its line.
    """
    from . import plan

    return plan.read_plan(path)


def example_plan() -> Plan:
    """The plan that commands run without a plan: a chat service on eight H100s.

    Returns
    -------
    Plan
        With `fleet`, `workload`, `targets` and `path`.
    """
    from . import plan

    return plan.example_plan()
