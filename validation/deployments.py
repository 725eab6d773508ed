"""Measured closed-loop deployments: time per output token of thousands of (GPU, model, engine) under a fixed concurrency.

The time per output token is that of the mean step in which a request decodes (`stability.theory.closed_loop`), an **approximation**. Not
in the data: the token budget, taken as 8192; the slots, taken as enough (where TTFT is many times a prefill they were not, and
requests queued); the type of the KV cache, taken as fp8 under fp8 and fp4 weights, because prompts of 8192 tokens at 64 in flight on
one B200 did not queue.

Two laws: the catalog's, a claim where its deployment is the measured one; and the roofline, shown. Whole-server laws were fitted to these very
points ("in sample"): they test the form, not the law, and cannot be nearer than the law's own fit. DeepSeek-R1 is the exception.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stability.errors import InputError, UnknownNameError
from stability.model import catalog
from stability.model.iteration import IterationLaw
from stability.theory.closed_loop import loop_steps

from .cells import Cell, Status, Task, claim, measured, shown
from .measurements import FOLDER, absent, table

TPOT = 0.10
"""Tolerance on the mean absolute error of a deployment."""

BUDGET = 8192
LEAST_ROWS = 5
"""Fewest points of a deployment with a cell of its own."""

NEVER_FITTED = ("DeepSeek-R1",)
"""Releases whose points no law has seen, but for those that repeat DeepSeek-V3's: its law is that of the same shape."""

AT = ("concurrency", "isl", "osl")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What was deployed."""

    gpu: str
    model: str
    release: str
    """Name of the weights, of which several may have one shape."""
    dtype: str
    backend: str
    tensor_parallel: int
    expert_parallel: int

    @property
    def name(self) -> str:
        """For cells."""
        spread = f" EP{self.expert_parallel}" if self.expert_parallel > 1 else ""
        return f"{self.gpu} {self.release} {self.dtype} {self.backend} TP{self.tensor_parallel}{spread}"


@claim("deployments")
def tasks(size: str) -> Iterator[Task]:  # noqa: ARG001 - seconds in either size
    """All points in one task."""
    yield Task("deployments", cells_of, ())


def cells_of() -> list[Cell]:
    """One cell per deployment and law, then the totals of each kind of law."""
    if not FOLDER.is_dir():
        return [absent("deployments")]
    groups, left_out = _groups()
    found: list[Cell | None] = []
    errors: dict[str, list[float]] = defaultdict(list)
    for deployment, rows in groups.items():
        record = _record(deployment)
        if record is not None:
            kind = _kind(deployment, record)
            mine = _errors(deployment, rows, record.law)
            errors[kind] += list(mine)
            fit = f"; the law's own fit misses by {100 * record.fit.mape:.1f} %" if record.fit else ""
            found.append(_cell(f"{deployment.name}, {kind}", rows, mine, claimed=True, note=fit))
        mine = _errors(deployment, rows, _roofline(deployment))
        errors["roofline"] += list(mine)
        found.append(_cell(f"{deployment.name}, roofline", rows, mine, claimed=False))
    for kind, values in errors.items():
        found.append(_total(kind, np.array(values)))
    reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
    found.append(
        Cell(claim="deployments", case="left out", predicted="", observed="", status=Status.SHOWN, note=reasons)
    )
    return [cell for cell in found if cell is not None]


def closed_loop_tpot_s(
    law: IterationLaw, prompt_tokens: int, output_tokens: int, in_flight: float, kv_capacity_tokens: float
) -> float:
    """Time per output token of a replica with `in_flight` equal requests, s."""
    steps = loop_steps(
        prompt_tokens, output_tokens, in_flight, max_num_batched_tokens=BUDGET, kv_capacity_tokens=kv_capacity_tokens
    )
    return float(steps.time_s(law))


def _groups() -> tuple[dict[Deployment, list[dict[str, str]]], dict[str, int]]:
    """The points by deployment, and how many are left out, why."""
    groups: dict[Deployment, list[dict[str, str]]] = defaultdict(list)
    left_out: dict[str, int] = defaultdict(int)
    rows = table("aiconfigurator/end_to_end_ttft_tpot.csv")
    fitted = {_measurement(row) for row in rows if row["model"].rpartition("/")[2] not in NEVER_FITTED}
    for row in rows:
        reason = _reason(row)
        if row["model"].rpartition("/")[2] in NEVER_FITTED and _measurement(row) in fitted:
            reason = "of one measurement recorded under two names"
        if reason:
            left_out[reason] += 1
            continue
        tensor_parallel = int(row["tensor_parallel"])
        model, gpu = catalog.model(row["model"]), catalog.gpu(row["gpu"])
        key = Deployment(
            gpu.name,
            model.name,
            row["model"].rpartition("/")[2],
            # Released with 4-bit experts, served that way whatever the row says.
            "fp4" if model.name.startswith("gpt-oss") else row["precision"],
            row["backend"],
            tensor_parallel,
            int(row["moe_ep"]) if model.experts else 1,
        )
        groups[key].append(row)
    for key in [key for key in groups if not _fits(key)]:
        left_out["of models that do not fit by the memory formula"] += len(groups.pop(key))
    return dict(groups), dict(left_out)


def _measurement(row: dict[str, str]) -> tuple[str, ...]:
    """What tells one measurement from another, the model's name apart."""
    return tuple(value for name, value in row.items() if name != "model")


def _reason(row: dict[str, str]) -> str:
    """Why a point is left out; empty if it is not."""
    if row["precision"] not in ("bf16", "fp8", "fp4"):
        return "of unstated or 4-bit-integer precision"
    if row["attention_dp"] not in ("", "1"):
        return "with data-parallel attention (barriers are not modelled)"
    if int(row["osl"]) < 2:
        return "without a second token"
    try:
        model = catalog.model(row["model"])
    except UnknownNameError:
        return "of models not in the catalog"
    whole = ((row["tensor_parallel"], "1"), ("1", row["tensor_parallel"]))
    if model.experts and (row["moe_tp"], row["moe_ep"]) not in whole:
        return "with experts not spread over all GPUs one way"
    return ""


def _record(deployment: Deployment) -> catalog.LawRecord | None:
    """The catalog's law of this very deployment; a law of kernel times holds for any engine."""
    for record in catalog.laws():
        key = (record.gpu, record.model, record.dtype, record.tensor_parallel)
        if key != (deployment.gpu, deployment.model, deployment.dtype, deployment.tensor_parallel):
            continue
        spread = f"experts parallel over {deployment.expert_parallel} GPUs"
        same_experts = (spread in record.note) == (deployment.expert_parallel > 1)
        if record.basis == "kernels" or (record.backend == deployment.backend and same_experts):
            return record
    return None


def _kind(deployment: Deployment, record: catalog.LawRecord) -> str:
    fitted = "closed-loop" in record.source and deployment.release not in NEVER_FITTED
    return "law in sample" if fitted else "law out of sample"


def _roofline(deployment: Deployment) -> IterationLaw:
    return catalog.roofline(
        deployment.gpu,
        deployment.model,
        tensor_parallel=deployment.tensor_parallel,
        dtype=deployment.dtype,
        kv_dtype=_kv_dtype(deployment),
    )


def _capacity(deployment: Deployment) -> int:
    return catalog.kv_capacity(
        catalog.gpu(deployment.gpu),
        catalog.model(deployment.model),
        tensor_parallel=deployment.tensor_parallel,
        dtype=deployment.dtype,
        kv_dtype=_kv_dtype(deployment),
    )


def _kv_dtype(deployment: Deployment) -> str:
    return "bf16" if deployment.dtype == "bf16" else "fp8"


def _fits(deployment: Deployment) -> bool:
    try:
        _capacity(deployment)
    except InputError:
        return False
    return True


def _errors(deployment: Deployment, rows: list[dict[str, str]], law: IterationLaw) -> np.ndarray:
    """Relative errors of the points."""
    capacity = _capacity(deployment)
    predicted = [
        1e3 * closed_loop_tpot_s(law, int(row["isl"]), int(row["osl"]), float(row["concurrency"]), capacity)
        for row in rows
    ]
    errors: np.ndarray = np.array(predicted) / np.array([float(row["tpot_ms"]) for row in rows]) - 1
    return errors


def _cell(case: str, rows: list[dict[str, str]], errors: np.ndarray, *, claimed: bool, note: str = "") -> Cell | None:
    """The mean absolute error of a deployment, as 1 + error over 1."""
    if len(rows) < LEAST_ROWS:
        return None
    mean, worst = float(np.abs(errors).mean()), int(np.abs(errors).argmax())
    at = ", ".join(f"{name} {rows[worst][name]}" for name in AT)
    figures = (
        f"1 + mean absolute error over 1; {len(rows)} points, median {100 * np.median(np.abs(errors)):.1f} %, "
        f"bias {100 * np.median(errors):+.1f} %, worst {100 * errors[worst]:+.0f} % at {at}"
    )
    if claimed:
        return measured("deployments", case, predicted=1 + mean, observed=1.0, tolerance=TPOT, note=figures + note)
    return shown("deployments", case, predicted=1 + mean, observed=1.0, note=figures + note)


def _total(kind: str, errors: np.ndarray) -> Cell:
    size = np.abs(errors)
    note = (
        f"{len(errors)} points: median {100 * np.median(size):.1f} %, 90 % below {100 * np.quantile(size, 0.9):.0f} %, "
        f"within {100 * TPOT:g} %: {100 * (size <= TPOT).mean():.0f} %, bias {100 * np.median(errors):+.1f} %"
    )
    return shown("deployments", f"all, {kind}", predicted=1 + float(size.mean()), observed=1.0, note=note)
