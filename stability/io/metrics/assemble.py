"""From samples to columns: which server, counters over restarts, sums over label sets."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..._types import BoolArray, FloatArray, IntArray, read_only
from ...errors import InputError
from .align import align, target
from .names import CACHE_CONFIG, ENGINES, PARTS, RANK_LABELS, REPLICA_LABELS, Quantity, spellings
from .samples import Key, Labels, Samples
from .series import COLUMNS, MetricsHistogram, MetricsSeries

HISTOGRAMS_NEED = "_bucket"
RUNNING = ("num_requests_running", "num_running_reqs")


def assemble(samples: Samples, *, labels: Mapping[str, str] | None = None) -> MetricsSeries:
    """Columns over time from `samples`, of the series whose labels include `labels`.

    Gauges and counters are summed over label sets (engines, finish reasons), shares averaged. Of two spellings of a quantity the
    current one counts. A counter that falls was restarted, and goes on from its last value; one that first shows later
    started at 0, unless its replica was not scraped before. Where a replica comes or goes nothing is concluded, as over a restart.
    """
    keys = _labelled(samples, labels or {})
    if not any(key[0] != CACHE_CONFIG for key in keys):
        raise InputError(_nothing(samples, labels))
    server = _server(keys)
    known = spellings(server)
    keys = _first_ranks([key for key in keys if key[0].startswith(f"{server}_")])
    _check_values(samples, keys)
    axis, carry_s = align(samples, keys)
    table = _Table(samples, axis, keys, carry_s)
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
    restarted |= table.came_or_went
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
    if not rows.any():
        raise InputError(
            f"{samples.where} has no scrape with both running and waiting requests, must have one. Record the whole /metrics page."
        )
    restarted = _carried(restarted, rows)
    blank = np.full(len(axis), math.nan)
    notes: tuple[str, ...] = (
        () if rows.all() else (f"{int((~rows).sum())} scrapes without running and waiting requests left out",)
    )
    if carry_s:
        notes += ("replicas were scraped at different times: between its scrapes each keeps its last values",)
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

    def __init__(self, samples: Samples, axis: FloatArray, keys: list[Key], carry_s: Mapping[Labels, float]) -> None:
        self.samples, self.axis, self.carry_s = samples, axis, carry_s
        self.by_name: dict[str, list[Key]] = {}
        for key in keys:
            self.by_name.setdefault(key[0], []).append(key)
        self.first_row, self.came_or_went = self._presence()

    def _presence(self) -> tuple[dict[Labels, int], BoolArray]:
        """Row at which each replica is first seen running, and rows at which one of several comes or goes."""
        here: dict[Labels, BoolArray] = {}
        for name, keys in self.by_name.items():
            if name.endswith(RUNNING):
                for key in keys:
                    here[target(key)] = here.get(target(key), False) | ~np.isnan(self.column(key))
        changed = np.zeros(len(self.axis), dtype=np.bool_)
        if len(here) > 1:
            for shown in here.values():
                changed[1:] |= shown[1:] != shown[:-1]
        return {name: int(np.argmax(shown)) for name, shown in here.items() if shown.any()}, changed

    def column(self, key: Key) -> FloatArray:
        """One series on the axis."""
        return self.samples.column(key, self.axis, carry_s=self.carry_s.get(target(key), 0.0))

    def mended(self, key: Key) -> tuple[FloatArray, BoolArray]:
        """One counter, mended; it counts from what it shows first where its replica was not scraped before."""
        return mended_counter(self.column(key), unseen_until=self.first_row.get(target(key), 0))

    def keys(self, name: str, label: tuple[str, str] | None = None) -> list[Key]:
        """The series of a metric (with `label`)."""
        return [key for key in self.by_name[name] if label is None or label in key[1]]

    def gauge(self, name: str, *, mean: bool) -> FloatArray:
        values = np.array([self.column(key) for key in self.keys(name)])
        here = ~np.isnan(values)
        total = np.where(here, values, 0.0).sum(axis=0)
        count = here.sum(axis=0)
        found: FloatArray = np.where(count > 0, total / np.maximum(count, 1) if mean else total, math.nan)
        return found

    def counter(self, name: str, label: tuple[str, str] | None = None) -> tuple[FloatArray, BoolArray]:
        """Sum over label sets (those with `label`), each mended, and where one fell."""
        total = np.zeros(len(self.axis))
        fell = np.zeros(len(self.axis), dtype=np.bool_)
        shown = np.zeros(len(self.axis), dtype=np.bool_)
        for key in self.keys(name, label):
            mended, falls = self.mended(key)
            total += mended
            fell |= falls
            shown |= ~np.isnan(self.column(key))
        if not shown.any():
            return np.full(len(self.axis), math.nan), fell
        first = int(np.argmax(shown))
        total[:first] = math.nan
        return total, fell

    def histogram(self, name: str, metric: str) -> MetricsHistogram | None:
        """Counts by bucket, summed over label sets; None if the label sets' buckets differ or none are there."""
        buckets: dict[float, FloatArray] = {}
        bucket_name, sum_name, _ = (metric + part for part in PARTS)
        for key in self.by_name.get(bucket_name, ()):
            bound = _bound(self.samples.where, key)
            mended, _ = self.mended(key)
            buckets[bound] = buckets.get(bound, 0.0) + mended
        if not buckets or any(math.isnan(bound) for bound in buckets):
            return None
        bounds = np.array(sorted(buckets))
        counts = np.maximum(np.diff(np.array([buckets[b] for b in bounds]), axis=0, prepend=0.0), 0.0).T
        sums = self.counter(sum_name)[0] if sum_name in self.by_name else np.full(len(self.axis), math.nan)
        return MetricsHistogram(name=name, bounds=read_only(bounds), counts=counts, sums=sums)


def mended_counter(values: FloatArray, *, unseen_until: int = 0) -> tuple[FloatArray, BoolArray]:
    """A counter that never falls: after a restart it goes on from its last value; and where it fell.

    Parameters
    ----------
    values : (n,) array
        As scraped, NaN where absent: 0 before the first value, the last value after one.
    unseen_until : int
        Row before which its server was not scraped: what a counter shows there first was counted before, and is no growth.
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
    if unseen_until > 0 and where[0] == unseen_until:
        steps[0] = 0.0
    fell[where[falls]] = True
    last = np.searchsorted(where, np.arange(len(values)), side="right")
    return np.concatenate(([0.0], np.cumsum(steps)))[last], fell


def _labelled(samples: Samples, labels: Mapping[str, str]) -> list[Key]:
    """Series with these labels, and the cache's size of the same targets, which does not carry all of them."""
    wanted = set(labels.items())
    found = [key for key in samples.series if wanted <= set(key[1])]
    targets, chosen = {target(key) for key in found}, set(found)
    found += [
        key
        for key in samples.series
        if key[0] == CACHE_CONFIG
        and key not in chosen
        and target(key) in targets
        and all(dict(key[1]).get(name, value) == value for name, value in labels.items())
    ]
    return found


def _check_values(samples: Samples, keys: list[Key]) -> None:
    for key in keys:
        for time_s, value in samples.series[key].items():
            if value < 0 or math.isinf(value):
                raise InputError(
                    f"{samples.where}: {key[0]} = {value:g} at time {time_s:.3f} s, must be a finite number >= 0. "
                    "Mend or drop the sample."
                )


def _bound(where: str, key: Key) -> float:
    """Upper end of a histogram's bucket; NaN without one."""
    text = dict(key[1]).get("le", "nan")
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{where}: le = {text!r} of {key[0]}, must be a number or +Inf. Mend or drop the lines."
        ) from None


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
    keys = [key for name in table.by_name if name.endswith(RUNNING) for key in table.by_name[name]]
    return tuple(sorted({_replica(key) for key in keys}))


def _kv_capacity(table: _Table, columns: Mapping[str, FloatArray]) -> float:
    """KV cache of all replicas, tokens: SGLang's gauge, or from vLLM's labels, told or blocks times block size."""
    if "kv_capacity_tokens" in columns:
        values = columns["kv_capacity_tokens"]
        known = values[~np.isnan(values)]
        return float(known[-1]) if len(known) else math.nan
    total = 0.0
    for _, labels in table.by_name.get(CACHE_CONFIG, ()):
        config = dict(labels)
        try:
            told = config.get("kv_cache_size_tokens", "")
            total += int(told) if told.isdigit() else int(config["block_size"]) * int(config["num_gpu_blocks"])
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
