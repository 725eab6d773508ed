"""`stability catalog`."""

from __future__ import annotations

from collections.abc import Callable

import click

from .._result import json_safe, text_table
from ..errors import unknown_name
from .output import Command, json_option, print_json, print_text

Rows = list[tuple[str, ...]]


@click.command(
    cls=Command,
    examples=(
        ("stability catalog", "everything but roofline"),
        ("stability catalog gpus", "one kind"),
        ("stability catalog roofline", "the fallback law against every measured one"),
        ("stability catalog models --json", "with every field"),
    ),
    exit_codes="0, or 2 for an unknown KIND.",
)
@click.argument("kind", required=False)
@json_option
def catalog(kind: str | None, as_json: bool) -> int:
    """Known GPUs, models, workloads and step-time laws, with their sources and errors.

    KIND is gpus, models, workloads, laws or roofline.
    """
    if kind is not None and kind not in KINDS:
        raise unknown_name("kind of catalog", kind, KINDS)
    wanted = [kind] if kind is not None else [name for name in KINDS if name != "roofline"]
    if as_json:
        print_json({"schema": "stability/catalog/1", **{name: json_safe(_records(name)) for name in wanted}})
        return 0
    print_text("\n\n".join(_table(name) for name in wanted))
    return 0


def _table(kind: str) -> str:
    """The rows of a kind; sources, which are long, stand below by number."""
    rows, header = KINDS[kind]()
    if header[-1] != "source":
        return f"{kind}\n{text_table(rows, header)}"
    numbers: dict[str, int] = {}
    short = [(*row[:-1], f"[{numbers.setdefault(row[-1], len(numbers) + 1)}]") for row in rows]
    sources = "\n".join(f"[{number}] {source}" for source, number in numbers.items())
    return f"{kind}\n{text_table(short, header)}\n\n{sources}"


def _records(kind: str) -> list[object]:
    """The catalog's own records, without the laws' and lengths' objects."""
    from ..model import catalog as known

    if kind == "roofline":
        return [{"law": _law_name(error.record), **_flat(error)} for error in known.roofline_errors()]
    records = {"gpus": known.gpus, "models": known.models, "workloads": known.workloads, "laws": known.laws}[kind]()
    return [_flat(record) for record in records]


def _flat(record: object) -> dict[str, object]:
    slots: tuple[str, ...] = type(record).__slots__  # type: ignore[attr-defined]
    return {
        name: repr(value) if name in ("law", "lengths") else value
        for name in slots
        for value in (getattr(record, name),)
        if name != "record"
    }


def _gpus() -> tuple[Rows, tuple[str, ...]]:
    from ..model import catalog as known

    rows: Rows = [
        (
            gpu.name,
            f"{gpu.memory_bytes / 2**30:g} GiB",
            f"{gpu.bandwidth_bytes_per_s / 1e9:g} GB/s",
            f"{gpu.bf16_flops_per_s / 1e12:g} TFLOP/s",
            gpu.source,
        )
        for gpu in known.gpus()
    ]
    return rows, ("gpu", "memory", "bandwidth", "bf16", "source")


def _models() -> tuple[Rows, tuple[str, ...]]:
    from ..model import catalog as known

    rows: Rows = [
        (
            model.name,
            f"{model.parameters / 1e9:.4g}",
            f"{model.active_parameters / 1e9:.4g}",
            f"{model.kv_bytes_per_token():.0f}",
            model.source,
        )
        for model in known.models()
    ]
    return rows, ("model", "billion parameters", "active", "KV bytes/token, bf16", "source")


def _workloads() -> tuple[Rows, tuple[str, ...]]:
    from ..model import catalog as known

    rows: Rows = []
    for record in known.workloads():
        errors = [getattr(record.relative_errors(), name) for name in ("footprint_mean", "prompt_mean", "output_mean")]
        worst = max(abs(error) for error in errors if error is not None)
        lengths = record.lengths
        rows.append(
            (
                record.name,
                f"{lengths.prompt_mean_tokens:.0f}",
                f"{lengths.output_mean_tokens:.0f}",
                f"{record.mean_rate_per_s:.4g}/s",
                "pairs" if record.joint else "independent",
                f"{100 * worst:.2f} %",
                record.source,
            )
        )
    return rows, ("workload", "prompt tokens", "output tokens", "rate", "lengths", "grid error", "source")


def _law_name(record: object) -> str:
    names = (getattr(record, field) for field in ("gpu", "model", "dtype", "backend"))
    return " ".join([*(name for name in names if name), f"TP{getattr(record, 'tensor_parallel')}"])  # noqa: B009


def _laws() -> tuple[Rows, tuple[str, ...]]:
    from ..model import catalog as known

    rows: Rows = []
    for record in known.laws():
        fit = record.fit
        error = "-" if fit is None else f"{100 * fit.mape:.3g} %"
        rows.append((_law_name(record), type(record.law).__name__, record.basis, error, record.source))
    return rows, ("law", "form", "basis", "mean error", "source")


def _roofline() -> tuple[Rows, tuple[str, ...]]:
    import numpy as np

    from ..model import catalog as known

    errors = known.roofline_errors()
    rows: Rows = [
        (
            _law_name(error.record),
            f"{100 * error.median_error:.1f} %",
            f"{100 * error.max_error:.1f} %",
            f"{100 * error.bias:+.1f} %",
        )
        for error in errors
    ]
    medians = [100 * error.median_error for error in errors]
    rows.append(
        ("all: median over laws", f"{np.median(medians):.1f} %", f"{100 * max(e.max_error for e in errors):.1f} %", "")
    )
    return rows, ("law", "roofline median error", "largest", "bias")


KINDS: dict[str, Callable[[], tuple[Rows, tuple[str, ...]]]] = {
    "gpus": _gpus,
    "models": _models,
    "workloads": _workloads,
    "laws": _laws,
    "roofline": _roofline,
}
