"""Results of closed-loop benchmarks: CSV tables (aiconfigurator's, or one's own) and the JSON of `vllm bench serve`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...calibration.benchmark import BenchmarkPoints
from ...errors import InputError
from .table import CsvTable, read_text

IN_FLIGHT = {"concurrency": 1.0, "in_flight": 1.0, "max_concurrency": 1.0}
PROMPT = {"isl": 1.0, "prompt_tokens": 1.0}
OUTPUT = {"osl": 1.0, "output_tokens": 1.0}
TPOT = {"tpot_ms": 1e-3, "tpot_s": 1.0, "mean_tpot_ms": 1e-3}
TTFT = {"ttft_ms": 1e-3, "ttft_s": 1.0, "mean_ttft_ms": 1e-3}
"""Names that columns may have, with the factor to SI."""

DEPLOYMENT = (
    "gpu",
    "model",
    "precision",
    "backend",
    "backend_version",
    "tensor_parallel",
    "pipeline_parallel",
    "attention_dp",
    "moe_tp",
    "moe_ep",
)
"""Columns that tell deployments apart: one law is fitted to one deployment."""

DRAINED = 0.8
"""Mean in flight over the limit below which a run was mostly filling or draining."""

OVERFULL = 1.1
"""Mean in flight over the limit above which the numbers of a run contradict each other."""


def read_benchmark(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, where: Sequence[tuple[str, str]] = ()
) -> tuple[BenchmarkPoints, tuple[str, ...]]:
    """The points of one or more benchmark files of one deployment, and notes on how they were read.

    Parameters
    ----------
    paths : path or sequence of paths
        CSV files with the columns concurrency, isl, osl, tpot_ms and, if measured, ttft_ms (aiconfigurator's); and
        JSON results of `vllm bench serve --save-result`, one or several a file (`--append-result`).
    where : sequence of (str, str)
        Column and text of the rows to take from CSV files.

    Returns
    -------
    BenchmarkPoints, tuple of str

    Raises
    ------
    InputError
        With the file, and the line of a CSV file, of what is wrong; if rows are of several deployments.

    Notes
    -----
    Of a vLLM result, lengths are total_input_tokens and total_output_tokens over completed, times are mean_tpot_ms and
    mean_ttft_ms, the number in flight is max_concurrency; at a finite request rate it is, by Little's law, request
    throughput times mean_ttft + mean_tpot (output - 1).
    """
    files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    rows: list[tuple[float, float, float, float, float]] = []
    notes: list[str] = []
    seen: dict[str, tuple[str, str]] = {}
    for path in files:
        name = os.fspath(path)
        if name.casefold().removesuffix(".gz").endswith((".json", ".jsonl")):
            for place, record in _records(name):
                _same_deployment(f"{name}{place}", record, seen)
                rows.append(_vllm(f"{name}{place}", record, notes))
        else:
            rows += _csv(path, where)
    if not rows:
        raise InputError("no benchmark files, must be at least one. Name CSV or JSON files.")
    n, s, o, tpot, ttft = np.array(rows).T
    if np.isnan(ttft).any() and not np.isnan(ttft).all():
        notes.append("times to first token are known for some points only, and not used")
    known = not np.isnan(ttft).any()
    points = BenchmarkPoints(in_flight=n, prompt_tokens=s, output_tokens=o, tpot_s=tpot, ttft_s=ttft if known else None)
    return points, tuple(notes)


def _csv(
    path: str | os.PathLike[str], where: Sequence[tuple[str, str]]
) -> list[tuple[float, float, float, float, float]]:
    table = CsvTable(path)
    table.where(where)
    several = {name: sorted(set(table.text(name))) for name in DEPLOYMENT if name in table.header}
    mixed = {name: values for name, values in several.items() if len(values) > 1}
    if mixed:
        name, values = next(iter(mixed.items()))
        raise InputError(
            f"{table.name}: rows of several deployments ({', '.join(mixed)} differ), must be of one. Choose, e.g. "
            f"--where {name}={values[-1]}."
        )
    columns = []
    for what, names, least, above in (
        ("the requests in flight", IN_FLIGHT, 1.0, None),
        ("the prompt length", PROMPT, 1.0, None),
        ("the output length", OUTPUT, 2.0, None),
        ("the time per output token", TPOT, 0.0, 0.0),
    ):
        found = table.find(what, names)
        assert found is not None
        columns.append(table.numbers(found[0], factor=found[1], at_least=least, above=above))
    first = table.find("the time to first token", TTFT, required=False)
    ttft = np.full(len(table.rows), math.nan) if first is None else table.numbers(first[0], factor=first[1], above=0.0)
    return list(zip(*(column.tolist() for column in columns), ttft.tolist(), strict=True))


def _records(name: str) -> list[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file with where they stand: one, a list, or several one after another."""
    text, decoder = read_text(name), json.JSONDecoder()
    found: list[tuple[str, Any]] = []
    at = len(text) - len(text.lstrip())
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{name}:{error.lineno}: not valid JSON ({error.msg}), must be. Correct the file."
            ) from None
        found += [(f":{line}", item) for item in value] if isinstance(value, list) else [(f":{line}", value)]
        at = end + len(text[end:]) - len(text[end:].lstrip())
    if not found:
        raise InputError(f"{name} is empty, must hold a benchmark result. Check the file.")
    for place, item in found:
        if not isinstance(item, dict):
            raise InputError(
                f"{name}{place}: a {type(item).__name__}, must be a result of `vllm bench serve`. Check the file."
            )
    return found


def _same_deployment(place: str, record: dict[str, Any], seen: dict[str, tuple[str, str]]) -> None:
    """Refuse a result of another model or engine than one before; the chat endpoint is the same engine."""
    engine = record.get("backend") or record.get("endpoint_type")
    for key, value in (("model_id", record.get("model_id")), ("backend", engine)):
        if not isinstance(value, str):
            continue
        text = value.removesuffix("-chat")
        before, where = seen.setdefault(key, (text, place))
        if before != text:
            raise InputError(
                f"{place}: {key} = {text!r}, must be {before!r} as at {where}: one law is of one deployment. Fit them apart."
            )


def _vllm(place: str, record: dict[str, Any], notes: list[str]) -> tuple[float, float, float, float, float]:
    completed = _number(place, record, "completed", above=0)
    prompt = _number(place, record, "total_input_tokens", above=0) / completed
    output = _number(place, record, "total_output_tokens", above=0) / completed
    if output < 2:
        raise InputError(
            f"{place}: {output:.3g} output tokens a request, must be >= 2 for a time per output token. Drop the run."
        )
    tpot = _number(place, record, "mean_tpot_ms", above=0) * 1e-3
    ttft = _number(place, record, "mean_ttft_ms", above=0) * 1e-3
    mean = completed * (ttft + tpot * (output - 1)) / _number(place, record, "duration", above=0)
    offered = record.get("request_rate", "inf")
    open_loop = offered not in (None, "inf") and math.isfinite(_number(place, record, "request_rate", above=0))
    limit = None if record.get("max_concurrency") is None else _number(place, record, "max_concurrency", above=0)
    if limit is None and not open_loop:
        raise InputError(
            f"{place}: no max_concurrency and an infinite request_rate, must have one of them: all requests at once are no "
            "steady state. Run with --max-concurrency."
        )
    if limit is None or open_loop:
        notes.append(f"{place}: {mean:.3g} in flight on average, by Little's law")
        return max(mean, 1.0), prompt, output, tpot, ttft
    if mean < DRAINED * limit:
        notes.append(
            f"{place}: {mean:.3g} in flight on average of {limit:g}: the run was mostly filling or draining; send more prompts"
        )
    if mean > OVERFULL * limit:
        notes.append(
            f"{place}: {mean:.3g} in flight on average of {limit:g}, more than may be: duration, times and lengths contradict it"
        )
    return limit, prompt, output, tpot, ttft


def _number(place: str, record: dict[str, Any], key: str, *, above: float) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not value > above:
        raise InputError(
            f"{place}: {key} = {value!r}, must be a number > {above:g}. Give a result of `vllm bench serve`."
        )
    return float(value)
