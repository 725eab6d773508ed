"""Laws fitted by `stability fit` to measured steps and benchmark points, beside the published fits of the same data.

The published fits (published/fitted_step_time_models.csv) are least squares of relative errors with one coefficient per batched token; for
benchmark points with the mean step taken as concurrency * (1 + isl/osl) tokens. What passes: a mean absolute error of at most the
published one and half a point. Errors are on the very points that were fitted ("in sample"), whose measured time per output token also
turns the time to first token into steps; "left out" predicts each point, steps included, by the law fitted to the others.

The RTX 4090 run: the law fitted to that GPU's operator profile, plus 2.7 ms of host time a step as for every law of kernel times, gives
the capacity of a real overloaded server.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

import stability as st
from stability.calibration.observations import StepObservations
from stability.model import catalog
from stability.theory.closed_loop import loop_steps

from . import real_runs
from .cells import Cell, Status, Task, claim, measured, shown
from .measurements import FOLDER, absent, columns, table
from .profiles import composed_steps, profiled_steps

SLACK = 0.005
"""Points of error that a fit may be above the published one: Huber's loss does not minimise the mean."""

CAPACITY = 0.10
HOST_S = 2.7e-3
"""Host time of a step, as the catalog adds to laws of kernel times."""

PROFILES = {
    "RTX4090_Llama-3.1-8B_tp1": ("RTX4090", "Llama-3.1-8B", 32, 1, 41_408),
    "RTXPRO6000_Llama-3.1-8B_tp1": ("RTX-PRO-6000-Server", "Llama-3.1-8B", 32, 1, None),
    "RTXPRO6000_Qwen3-32B_tp2": ("RTX-PRO-6000-Server", "Qwen3-32B", 64, 2, None),
}
"""GPU, model, layers, tensor parallelism and KV cache of each profile; None: by the memory formula."""

TRACES = ("azure/azure_2023_conv", "azure/azure_2023_code", "mooncake/mooncake_conversation")
DEVIATION = 0.05
"""Tolerance of the standard deviation of fitted lengths."""


@claim("fit")
def tasks(size: str) -> Iterator[Task]:
    """Profiles, composed steps, benchmark points, and the runs."""
    for name in PROFILES if size == "full" else list(PROFILES)[:1]:
        yield Task(f"fit {name}", profile, (name,))
    yield Task("fit composed", composed, ())
    yield Task("fit end to end", end_to_end, (size,))
    for name in TRACES:
        yield Task(f"fit {name}", lengths, (name,))
    for run in real_runs.RUNS[:2]:
        yield Task(f"fit {run.name}", capacity, (run,))


def published() -> dict[str, dict[tuple[str, str], dict[str, str]]]:
    """The published fits by configuration, then by subset and form."""
    found: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for row in table("published/fitted_step_time_models.csv"):
        found.setdefault(row["configuration"], {})[row["subset"], row["model"]] = row
    return found


def profile(name: str) -> list[Cell]:
    """Decode-only, mixed and all steps of a profile."""
    if not FOLDER.is_dir():
        return [absent("fit")]
    gpu, model, tp = name.split("_")
    (parts,) = [fits for key, fits in published().items() if f"profile {gpu} {model} {tp}," in key]
    return _subsets(f"profile {gpu} {model} {tp}", steps_of(name), parts)


def steps_of(name: str) -> StepObservations:
    """The steps of a profile."""
    gpu, model, layers, degree, kv_capacity = PROFILES[name]
    room = kv_capacity or catalog.kv_capacity(catalog.gpu(gpu), catalog.model(model), tensor_parallel=degree)
    return profiled_steps(name, layers, room)


def composed() -> list[Cell]:
    """The same of aiconfigurator's composed steps."""
    if not FOLDER.is_dir():
        return [absent("fit")]
    fits, found = published(), []
    for name, steps in composed_steps().items():
        found += _subsets(f"composed {name}", steps, fits[name])
    return found


def _subsets(case: str, steps: StepObservations, parts: dict[tuple[str, str], dict[str, str]]) -> list[Cell]:
    forms = {"decode-only": ("c0+c1*n+c2*kv",), "mixed": ("+c3*w", "c0+c1*n+c2*kv+c3*w")}
    found = []
    for subset, names in {**forms, "all": forms["mixed"]}.items():
        rows = steps.prefill_tokens > 0 if subset == "mixed" else steps.prefill_tokens == 0
        kept = steps if subset == "all" else steps.only(rows)
        (row,) = [parts[subset, name] for name in names if (subset, name) in parts]
        fit = st.fit_law(kept, form="affine" if subset != "all" else "auto")
        found.append(_beside(f"{case}, {subset}", fit, row))
    return found


def _beside(case: str, fit: st.LawFit, row: dict[str, str]) -> Cell:
    theirs = float(row["MAPE_percent"]) / 100
    note = (
        f"1 + mean absolute error, ours and published; {fit.form}, {fit.observations} rows (published {row['N']}), median error "
        f"{100 * fit.median_error:.1f} %, worst {100 * fit.worst_error:.0f} %"
    )
    status = Status.PASS if fit.mape <= theirs + SLACK else Status.FAIL
    return Cell(
        claim="fit",
        case=case,
        predicted=1 + fit.mape,
        observed=1 + theirs,
        tolerance=math.nan,
        status=status,
        note=note,
    )


def end_to_end(size: str) -> list[Cell]:
    """The dense deployments of the published fits, from concurrency, TPOT and TTFT."""
    if not FOLDER.is_dir():
        return [absent("fit")]
    rows = table("aiconfigurator/end_to_end_ttft_tpot.csv")
    found: list[Cell] = []
    theirs: list[float] = []
    ours: dict[str, list[float]] = {"in sample": [], "without times to first token": [], "left out": []}
    for name, parts in published().items():
        match = re.fullmatch(r"end to end (\w+) (\S+) (\w+) (\w+) TP(\d), .*", name)
        if not match:
            continue
        gpu, model, precision, backend, degree = match.groups()
        wanted = {"gpu": gpu, "precision": precision, "backend": backend, "tensor_parallel": degree}
        points = points_of(
            [row for row in rows if row["model"].endswith(f"/{model}") and wanted.items() <= row.items()]
        )
        (row,) = parts.values()
        fit = st.fit_benchmark(points)
        found.append(_beside(f"end to end {gpu} {model} {precision} {backend} TP{degree}", fit, row))
        theirs.append(float(row["MAPE_percent"]) / 100)
        ours["in sample"].append(fit.mape)
        ours["without times to first token"].append(st.fit_benchmark(without_ttft(points)).mape)
        if size == "full":
            ours["left out"].append(_left_out(points))
    for how, errors in ours.items():
        for word, figure in (("median", np.median), ("mean", np.mean)) if errors else ():
            found.append(
                shown(
                    "fit",
                    f"end to end, {word} over deployments, {how}",
                    predicted=1 + float(figure(errors)),
                    observed=1 + float(figure(theirs)),
                    note=f"1 + mean absolute error of {len(errors)} dense deployments, ours and published (in sample)",
                )
            )
    return found


def points_of(rows: list[dict[str, str]]) -> st.BenchmarkPoints:
    """Benchmark points of aiconfigurator's rows."""
    n, s, o, ttft, tpot = np.array(
        [[float(row[c]) for c in ("concurrency", "isl", "osl", "ttft_ms", "tpot_ms")] for row in rows]
    ).T
    return st.BenchmarkPoints(in_flight=n, prompt_tokens=s, output_tokens=o, tpot_s=1e-3 * tpot, ttft_s=1e-3 * ttft)


def without_ttft(points: st.BenchmarkPoints) -> st.BenchmarkPoints:
    """The points as if times to first token had not been measured."""
    return st.BenchmarkPoints(
        in_flight=points.in_flight,
        prompt_tokens=points.prompt_tokens,
        output_tokens=points.output_tokens,
        tpot_s=points.tpot_s,
    )


def _left_out(points: st.BenchmarkPoints) -> float:
    """Mean absolute error of each point under the law of the others."""
    errors = []
    for left in range(len(points)):
        law = st.fit_benchmark(points.only(np.arange(len(points)) != left)).law
        one = points.only([left])
        assert one.ttft_s is not None
        predicted = float(np.median(points.tpot_s))
        for _ in range(100):  # the time to first token counts in steps of the predicted length
            steps = loop_steps(
                one.prompt_tokens,
                one.output_tokens,
                one.in_flight,
                max_num_batched_tokens=8192,
                first_token_steps=one.ttft_s / predicted,
            )
            before, predicted = predicted, float(steps.time_s(law)[0])
            if abs(predicted - before) <= 1e-9 * before:
                break
        errors.append(abs(predicted / float(one.tpot_s[0]) - 1))
    return float(np.mean(errors))


def lengths(name: str) -> list[Cell]:
    """Moments of the lengths fitted to a trace, against the trace's own."""
    if not FOLDER.is_dir():
        return [absent("fit")]
    trace = st.read_trace(FOLDER / f"{name}.csv")
    fit = st.fit_lengths(trace.prompt_tokens, trace.output_tokens)
    product = float(np.mean(trace.prompt_tokens * trace.output_tokens))
    found = [
        measured(
            "fit",
            f"{name}: standard deviation of {what} lengths",
            predicted=part.std_tokens,
            observed=float(values.std()),
            tolerance=DEVIATION,
            note=f"{part.family}; mean {part.mean_tokens:.1f} against {values.mean():.1f} tokens",
        )
        for what, part, values in (
            ("prompt", fit.prompt, trace.prompt_tokens),
            ("output", fit.output, trace.output_tokens),
        )
    ]
    note = f"Gaussian copula, rank correlation {fit.spearman:.3f}: the trace itself has its own dependence"
    predicted = fit.lengths.expect(lambda s, o: s * o)
    found.append(shown("fit", f"{name}: mean of prompt x output", predicted=predicted, observed=product, note=note))
    return found


def capacity(run: real_runs.Run, hosts_s: tuple[float, ...] = (HOST_S, 0.0)) -> list[Cell]:
    """Capacity of a real run from the law fitted to its GPU's profile, for each host time of a step."""
    if not FOLDER.is_dir():
        return [absent("fit")]
    requests = columns(f"llmservingsim/vllm_run_{run.file}.csv")
    seconds = columns(f"llmservingsim/vllm_timeseries_{run.file}.csv")
    rate, length_s = real_runs.saturated_rate(run, requests, seconds)
    steps, replica = steps_of(f"{run.file}_tp1"), run.build()
    lengths = st.lengths.Empirical(requests["prompt_tokens"].astype(int), requests["output_tokens"].astype(int))
    workload = st.Workload.poisson(10.0, lengths)
    found = []
    for host_s in hosts_s:
        fit = st.fit_law(steps.with_times(steps.time_s + host_s))
        known = st.fitted_capacity(st.Fleet.of(replace(replica, iteration=fit.law)), workload, fit=fit)
        low, high = known.capacity_interval
        note = (
            f"{fit.form} law of the profile + {1e3 * host_s:g} ms host time, mean error {100 * fit.mape:.1f} %; 95 % interval from the fit "
            f"and the 300 lengths {low:.3f} .. {high:.3f}; {known.report.bottleneck} binds; measured over {length_s} s with "
            "requests waiting"
        )
        case = f"{run.name}: capacity from the fitted law, {1e3 * host_s:g} ms host time"
        if host_s:
            found.append(
                measured("fit", case, predicted=known.capacity_per_s, observed=rate, tolerance=CAPACITY, note=note)
            )
        else:
            found.append(shown("fit", case, predicted=known.capacity_per_s, observed=rate, note=note))
    return found
