"""Answers of Prometheus to a range query over HTTP.

`GET /api/v1/query_range?query={__name__=~"(vllm|sglang):.*"}&start=..&end=..&step=15` answers with

    {"status": "success", "data": {"resultType": "matrix", "result":
        [{"metric": {"__name__": "vllm:num_requests_running", "engine": "0"}, "values": [[1700000000.0, "12"], ...]}, ...]}}

https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

from __future__ import annotations

import json
from typing import Any

from ...errors import InputError
from .exposition import wanted
from .names import plain
from .samples import Samples, labels_of


def add_range_query(samples: Samples, text: str) -> None:
    """Add the series of an answer, or of a JSON list of answers, to `samples`.

    Parameters
    ----------
    samples : Samples
        What they are added to; `samples.where` names the source in messages.
    text : str
        JSON.

    Raises
    ------
    InputError
        If it is no such answer, an error, of one instant, or of series without a metric's name.
    """
    where = samples.where
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is no JSON ({error}), must be an answer of Prometheus. Save it anew.") from None
    for answer in document if isinstance(document, list) else [document]:
        for entry in _matrix(where, answer):
            _add(samples, entry)


def _matrix(where: str, answer: Any) -> list[Any]:
    if isinstance(answer, dict) and answer.get("status") == "error":
        raise InputError(
            f"{where} holds an error ({answer.get('error')}), must be an answer of Prometheus. Correct the query."
        )
    data = answer.get("data") if isinstance(answer, dict) else None
    kind = data.get("resultType") if isinstance(data, dict) else None
    if kind != "matrix" or not isinstance(data, dict) or not isinstance(data.get("result"), list):
        raise InputError(
            f"{where} has resultType {kind!r}, must be 'matrix'. Save the answer of /api/v1/query_range, not of /api/v1/query."
        )
    result: list[Any] = data["result"]
    return result


def _add(samples: Samples, entry: Any) -> None:
    metric = entry.get("metric") if isinstance(entry, dict) else None
    if not isinstance(metric, dict) or "__name__" not in metric:
        raise InputError(
            f"{samples.where} holds a series without __name__, must have one. Query the metrics themselves, not rate() or sum()."
        )
    name = str(metric["__name__"])
    if not wanted(name):
        return
    labels = labels_of((str(key), str(value)) for key, value in metric.items() if key != "__name__")
    values = entry.get("values", ())
    if not isinstance(values, list | tuple):
        raise InputError(
            f'{samples.where}: values = {values!r:.60} of {name}, must be a list of [time, "value"]. Save it anew.'
        )
    for pair in values:
        try:
            time_s, value = float(pair[0]), float(pair[1])
        except (TypeError, ValueError, IndexError, KeyError):
            raise InputError(
                f'{samples.where}: {pair!r:.60} of {name}, must be [time, "value"]. Save it anew.'
            ) from None
        samples.add(plain(name), labels, time_s, value)
