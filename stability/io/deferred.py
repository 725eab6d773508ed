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

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import stability as st
    >>> lines = [
    ...     "schema: stability/plan/1",
    ...     "workload: {rate_per_s: 40, lengths: azure-conv-2023}",
    ...     "fleet: [{pool: chat, gpu: H100-SXM, model: Llama-3.1-8B, replicas: 8}]",
    ... ]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "plan.yaml")
    ...     _ = path.write_text(chr(10).join(lines))
    ...     st.read_plan(path).workload.rate_per_s
    40.0
    """
    from . import plan

    return plan.read_plan(path)


def example_plan() -> Plan:
    """The plan that commands run without a plan: a chat service on eight H100s.

    Returns
    -------
    Plan
        With `fleet`, `workload`, `targets` and `path`.

    Examples
    --------
    >>> import stability as st
    >>> plan = st.example_plan()
    >>> plan.workload.rate_per_s, plan.fleet.replicas
    (40.0, 8)
    """
    from . import plan

    return plan.example_plan()
