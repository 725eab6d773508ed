"""From samples to columns: which server, counters over restarts, sums over label sets."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..._types import BoolArray, FloatArray, IntArray, read_only
from ...errors import InputError
from .names import CACHE_CONFIG, ENGINES, PARTS, RANK_LABELS, REPLICA_LABELS, Quantity, spellings
from .samples import Key, Samples
from .series import COLUMNS, MetricsHistogram, MetricsSeries

HISTOGRAMS_NEED = "_bucket"


def assemble(samples: Samples, *, labels: Mapping[str, str] | None = None) -> MetricsSeries:
    """Columns over time from `samples`, of the series whose labels include `labels`.

    Gauges and counters are summed over label sets (engines, finish reasons), shares averaged. Of two spellings of a quantity the
    current one counts. A counter that falls was restarted, and goes on from its last value; one that first shows later
    started at 0.
    """
    wanted = set((labels or {}).items())
    keys = [key for key in samples.series if wanted <= set(key[1])]
    if not keys:
        raise InputError(_nothing(samples, labels))
    server = _server(keys)
    known = spellings(server)
    axis = samples.axis()
    table = _Table(samples, axis, _first_ranks([key for key in keys if key[0].startswith(f"{server}_")]))
    columns: dict[str, FloatArray] = {}
    restarted = np.zeros(len(axis), dtype=np.bool_)
    histograms: dict[str, MetricsHistogram] = {}
    for quantity, name in _chosen(known, table):
        if quantity.kind == "histogram":
            histogram = table.histogram(quantity.name, name)
            if histogram is not None:
                histograms[quantity.name] = histogram
        elif quantity.kind == "counter":
            columns[quantity.name], fell = table.counter(name, quantity.label)
            restarted |= fell
        else:
            columns[quantity.name] = table.gauge(name, mean=quantity.kind == "share")
    _require(samples, columns, server)
    if "swapped" in columns:
        columns["waiting"] = columns["waiting"] + np.nan_to_num(columns["swapped"])
    if "aborted" in columns and "finished" in columns:
        columns["finished"] = columns["finished"] + columns["aborted"]
    if server == "vllm" and "prompt_tokens" in columns:
        # Hits are counted when a prompt is scheduled, its tokens when it is done: what is taken off too early comes back.
        hits = np.nan_to_num(columns.get("prefix_hits_tokens", np.zeros(len(axis))))
        columns["prefill_tokens"] = np.fmax.accumulate(columns["prompt_tokens"] - hits)
    # A scrape that shows neither gauge is none: of a server that was away, or of another one.
    rows = ~(np.isnan(columns["running"]) | np.isnan(columns["waiting"]))
    restarted = _carried(restarted, rows)
    blank = np.full(len(axis), math.nan)
    notes = () if rows.all() else (f"{int((~rows).sum())} scrapes without running and waiting requests left out",)
    return MetricsSeries(
        source=samples.where,
        server=server,
        time_s=read_only(axis[rows]),
        restarted=read_only(restarted),
        kv_capacity_tokens=_kv_capacity(table, columns),
        histograms={
            name: MetricsHistogram(
                name=name,
                bounds=found.bounds,
                counts=read_only(found.counts[rows]),
                sums=read_only(found.sums[rows]),
            )
            for name, found in histograms.items()
        },
        replicas=_replicas(table),
        notes=notes,
        **{name: read_only(columns.get(name, blank)[rows]) for name in COLUMNS},
    )


class _Table:
    """Series by metric name, on one axis."""

    def __init__(self, samples: Samples, axis: FloatArray, keys: list[Key]) -> None:
        self.samples, self.axis = samples, axis
        self.by_name: dict[str, list[Key]] = {}
        for key in keys:
            self.by_name.setdefault(key[0], []).append(key)

    def columns(self, name: str, label: tuple[str, str] | None = None) -> FloatArray:
        """Every series of a metric (with `label`), shape (label sets, n)."""
        keys = [key for key in self.by_name[name] if label is None or label in key[1]]
        return np.array([self.samples.column(key, self.axis) for key in keys])

    def gauge(self, name: str, *, mean: bool) -> FloatArray:
        values = self.columns(name)
        here = ~np.isnan(values)
        total = np.where(here, values, 0.0).sum(axis=0)
        count = here.sum(axis=0)
        found: FloatArray = np.where(count > 0, total / np.maximum(count, 1) if mean else total, math.nan)
        return found

    def counter(self, name: str, label: tuple[str, str] | None = None) -> tuple[FloatArray, BoolArray]:
        """Sum over label sets (those with `label`), each mended, and where one fell."""
        total = np.zeros(len(self.axis))
        fell = np.zeros(len(self.axis), dtype=np.bool_)
        columns = self.columns(name, label)
        if not len(columns):
            return np.full(len(self.axis), math.nan), fell
        shown = ~np.isnan(columns).all(axis=0)
        for values in columns:
            mended, falls = mended_counter(values)
            total += mended
            fell |= falls
        first = int(np.argmax(shown))
        total[:first] = math.nan
        return total, fell

    def histogram(self, name: str, metric: str) -> MetricsHistogram | None:
        """Counts by bucket, summed over label sets; None if the label sets' buckets differ or none are there."""
        buckets: dict[float, FloatArray] = {}
        bucket_name, sum_name, _ = (metric + part for part in PARTS)
        for key in self.by_name.get(bucket_name, ()):
            bound = float(dict(key[1]).get("le", "nan"))
            mended, _ = mended_counter(self.samples.column(key, self.axis))
            buckets[bound] = buckets.get(bound, 0.0) + mended
        if not buckets or any(math.isnan(bound) for bound in buckets):
            return None
        bounds = np.array(sorted(buckets))
        counts = np.maximum(np.diff(np.array([buckets[b] for b in bounds]), axis=0, prepend=0.0), 0.0).T
        sums = self.counter(sum_name)[0] if sum_name in self.by_name else np.full(len(self.axis), math.nan)
        return MetricsHistogram(name=name, bounds=read_only(bounds), counts=counts, sums=sums)


def mended_counter(values: FloatArray) -> tuple[FloatArray, BoolArray]:
    """A counter that never falls: after a restart it goes on from its last value; and where it fell.

    Parameters
    ----------
    values : (n,) array
        As scraped, NaN where absent: 0 before the first value, the last value after one.
    """
    shown = ~np.isnan(values)
    fell = np.zeros(len(values), dtype=np.bool_)
    if not shown.any():
        return np.zeros(len(values)), fell
    where = np.flatnonzero(shown)
    present = values[where]
    steps = np.diff(present, prepend=0.0)
    falls = steps < 0
    steps[falls] = present[falls]
    fell[where[falls]] = True
    last = np.searchsorted(where, np.arange(len(values)), side="right")
    return np.concatenate(([0.0], np.cumsum(steps)))[last], fell


def _server(keys: list[Key]) -> str:
    counts = {engine: sum(key[0].startswith(f"{engine}_") for key in keys) for engine in ENGINES}
    return max(counts, key=lambda engine: counts[engine])


def _first_ranks(keys: list[Key]) -> list[Key]:
    """Without the tensor- and pipeline-parallel ranks that repeat what the first says."""
    lowest: dict[str, str] = {}
    for _, labels in keys:
        for label, value in labels:
            if label in RANK_LABELS:
                lowest[label] = min(lowest.get(label, value), value)
    return [key for key in keys if all(lowest.get(label, value) == value for label, value in key[1])]


def _chosen(known: Mapping[str, tuple[Quantity, int]], table: _Table) -> list[tuple[Quantity, str]]:
    """Each quantity once, under the most current spelling that is there."""
    best: dict[str, tuple[int, Quantity, str]] = {}
    for name, (quantity, rank) in known.items():
        there = (name + HISTOGRAMS_NEED if quantity.kind == "histogram" else name) in table.by_name
        if there and (quantity.name not in best or rank < best[quantity.name][0]):
            best[quantity.name] = (rank, quantity, name)
    return [(quantity, name) for _, quantity, name in best.values()]


def _require(samples: Samples, columns: Mapping[str, FloatArray], server: str) -> None:
    missing = [name for name in ("running", "waiting") if name not in columns]
    if missing:
        names = [name for name, (quantity, _) in spellings(server).items() if quantity.name in missing]
        found = sorted({key[0] for key in samples.series})[:6]
        raise InputError(
            f"{samples.where} has no {' and no '.join(names)}, must have them. Found {', '.join(found)}: record the whole /metrics page."
        )


def _nothing(samples: Samples, labels: Mapping[str, str] | None) -> str:
    if labels and samples.series:
        sets = sorted({_replica(key) for key in samples.series})[:4]
        return f"{samples.where} has no series with labels {dict(labels)}, must have some. Found {'; '.join(sets)}."
    return (
        f"{samples.where} holds no metric of vLLM (vllm:...) or SGLang (sglang:...), must hold some. Record the server's own "
        "/metrics page (SGLang: --enable-metrics)."
    )


def _replica(key: Key) -> str:
    return ", ".join(f"{name}={value}" for name, value in key[1] if name in REPLICA_LABELS)


def _replicas(table: _Table) -> tuple[str, ...]:
    keys = [
        key
        for name in table.by_name
        if name.endswith(("num_requests_running", "num_running_reqs"))
        for key in table.by_name[name]
    ]
    return tuple(sorted({_replica(key) for key in keys}))


def _kv_capacity(table: _Table, columns: Mapping[str, FloatArray]) -> float:
    """KV cache of all replicas, tokens: SGLang's gauge, or blocks times block size from vLLM's labels."""
    if "kv_capacity_tokens" in columns:
        values = columns["kv_capacity_tokens"]
        known = values[~np.isnan(values)]
        return float(known[-1]) if len(known) else math.nan
    total = 0.0
    for _, labels in table.by_name.get(CACHE_CONFIG, ()):
        config = dict(labels)
        try:
            total += int(config["block_size"]) * int(config["num_gpu_blocks"])
        except (KeyError, ValueError):
            return math.nan
    return total or math.nan


def _carried(flags: BoolArray, rows: BoolArray) -> BoolArray:
    """Flags of the kept rows, each with those of the dropped rows before it."""
    which: IntArray = np.cumsum(rows) - rows
    found = np.zeros(int(rows.sum()), dtype=np.bool_)
    inside = which < len(found)
    np.logical_or.at(found, which[inside], flags[inside])
    return found
