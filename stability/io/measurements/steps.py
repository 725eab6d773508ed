"""Per-step measurements of an engine as CSV."""

from __future__ import annotations

import os

from ...calibration.observations import StepObservations
from .table import CsvTable

TIME = {"time_s": 1.0, "time_ms": 1e-3, "time_us": 1e-6, "step_time_s": 1.0, "step_time_ms": 1e-3, "duration_s": 1.0}
PREFILL = {"prefill_tokens": 1.0, "prompt_tokens": 1.0, "num_prefill_tokens": 1.0, "context_tokens": 1.0}
DECODE = {"decode_tokens": 1.0, "decode_seqs": 1.0, "num_decode_tokens": 1.0, "generation_tokens": 1.0}
KV = {"kv_tokens": 1.0, "decode_kv_tokens": 1.0}
CONTEXT = {"prefill_context": 1.0, "prefill_context_tokens2": 1.0}
"""Names that columns may have, with the factor to SI."""


def read_steps(path: str | os.PathLike[str]) -> StepObservations:
    """The engine steps of a CSV file, one a row.

    Parameters
    ----------
    path : str or os.PathLike
        CSV with a header. Columns: prompt tokens computed (`prefill_tokens`), requests that decode (`decode_tokens`),
        KV tokens that they read (`kv_tokens`), the time (`time_s`, `time_ms` or `time_us`); if known, the prefill
        attention work (`prefill_context`: the sum over chunks of chunk * (past + chunk/2)) and `weight`, the number of
        steps a row is the mean of. Other columns are passed over, as are empty lines and lines that begin with #.

    Returns
    -------
    StepObservations

    Raises
    ------
    InputError
        With file and line of what is wrong.
    """
    table = CsvTable(path)
    found = {
        name: table.find(what, columns)
        for name, what, columns in (
            ("prefill_tokens", "the prompt tokens of a step", PREFILL),
            ("decode_tokens", "the decoding requests of a step", DECODE),
            ("kv_tokens", "the KV tokens that decoding requests read", KV),
        )
    }
    columns = {name: table.numbers(column[0]) for name, column in found.items() if column}
    time = table.find("the time of a step", TIME)
    assert time is not None
    context = table.find("the prefill attention work", CONTEXT, required=False)
    weight = table.find("the weight of a row", {"weight": 1.0, "weights": 1.0}, required=False)
    return StepObservations(
        prefill_tokens=columns["prefill_tokens"],
        decode_tokens=columns["decode_tokens"],
        kv_tokens=columns["kv_tokens"],
        time_s=table.numbers(time[0], factor=time[1], above=0.0),
        prefill_context=None if context is None else table.numbers(context[0]),
        weights=None if weight is None else table.numbers(weight[0], above=0.0),
    )
