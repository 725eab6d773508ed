"""Measured step-time laws per GPU, model, tensor parallelism, dtype and backend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..._result import Described
from ...errors import check_choice, check_integer
from ..iteration import IterationLaw, TwoPhase
from ..iteration.affine import affine
from .files import number_or_none, read_rows
from .gpus import Gpu
from .gpus import gpu as find_gpu
from .models import WEIGHT_BYTES, Model
from .models import model as find_model

BACKENDS = ("vllm", "trtllm", "sglang")
"""Engines that laws were measured with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitQuality:
    """How well a fit meets its measurements.

    Parameters
    ----------
    r2 : float
        Share of the variance explained.
    mape : float
        Mean absolute error over the measured time.
    max_error : float
        Largest error over the measured time.

    Examples
    --------
    See :func:`stability.catalog.find_law`.
    """

    r2: float
    mape: float
    max_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LawRecord(Described):
    """A step-time law and its provenance.

    Parameters
    ----------
    gpu, model : str
        Names in the catalog.
    tensor_parallel : int
        GPUs of the tensor-parallel group.
    dtype : str
        Weights: "bf16" (any 16-bit type), "fp8" or "fp4".
    backend : str
        Engine that was measured; empty for kernels put together without one.
    basis : str
        "kernels": GPU times of operators, composed over the layers; "end_to_end": timings of a whole server;
        "black_box": coefficients fitted by others to whole runs, without a KV term.
    law : IterationLaw
        The law, `host_overhead_s` included.
    host_overhead_s : float
        Scheduler and host time added to each step, s; 0 where the measurement contains it.
    has_kv_term : bool
        Whether the law charges for reading the KV cache; without, it is blind to the context length.
    decode_fit, fit : FitQuality, optional
        Of the decode-only law, and of the law of mixed (or all) steps; None where the source does not say.
    note : str
        Range or peculiarity of the fit.
    source : str
        Where the numbers come from.

    Examples
    --------
    See :func:`stability.catalog.find_law`.
    """

    gpu: str
    model: str
    tensor_parallel: int
    dtype: str
    backend: str
    basis: str
    law: IterationLaw
    host_overhead_s: float
    has_kv_term: bool
    decode_fit: FitQuality | None
    fit: FitQuality | None
    note: str
    source: str

    def describe(self) -> str:
        """One line for reports: the kind of measurement, its error and its source."""
        kinds = {
            "kernels": "kernel times",
            "end_to_end": "whole-server timings",
            "black_box": "black-box fit",
        }
        text = f"step-time law from {kinds[self.basis]}"
        if self.backend:
            text += f" ({self.backend})"
        if self.host_overhead_s:
            text += f" + {self.host_overhead_s * 1e3:g} ms host time"
        errors = [fit.mape for fit in (self.decode_fit, self.fit) if fit]
        text += f", mean error {100 * max(errors):.3g} %" if errors else ", error not published"
        text += f", {self.note}" if self.note else ""
        return f"{text}; {self.source}"


@cache
def laws() -> tuple[LawRecord, ...]:
    """Every law of the catalog; those of one key in order of preference."""
    return tuple(_record(row) for row in read_rows("laws.csv"))


def find_law(
    gpu: str | Gpu,
    model: str | Model,
    *,
    tensor_parallel: int = 1,
    dtype: str = "bf16",
    backend: str | None = None,
) -> LawRecord | None:
    """The preferred law measured for a GPU and a model, or None if there is none.

    Parameters
    ----------
    gpu, model : str or Gpu, str or Model
        Names or aliases, or objects (found by their names).
    tensor_parallel : int >= 1
        GPUs of the tensor-parallel group.
    dtype : {"bf16", "fp8", "fp4"}
        Type of the weights.
    backend : str, optional
        Only laws of this engine ("vllm", "trtllm", "sglang").

    Returns
    -------
    LawRecord or None

    Raises
    ------
    UnknownNameError
        If the catalog has no such GPU or model.

    Examples
    --------
    >>> find_law("H100-SXM", "Llama-3.1-8B").law.decode.base_s
    0.0090784
    """
    gpu_name, model_name = find_gpu(gpu).name, find_model(model).name
    check_integer("tensor_parallel", tensor_parallel, at_least=1)
    check_choice("dtype", dtype, WEIGHT_BYTES)
    if backend is not None:
        check_choice("backend", backend, BACKENDS)
    key = (gpu_name, model_name, tensor_parallel, dtype)
    for record in laws():
        if (record.gpu, record.model, record.tensor_parallel, record.dtype) == key and backend in (
            None,
            record.backend,
        ):
            return record
    return None


def _record(row: dict[str, str]) -> LawRecord:
    host = float(row["host_overhead_ms"])
    mixed = affine(
        round(float(row["base_ms"]) + host, 6) * 1e-3,
        float(row["per_prefill_us"]) * 1e-6,
        float(row["per_decode_us"]) * 1e-6,
        float(row["per_kv_us"]) * 1e-6,
        float(row["per_prefill_context_us"]) * 1e-6,
    )
    law: IterationLaw = mixed
    if row["decode_base_ms"]:
        per_token = float(row["decode_per_token_us"]) * 1e-6
        decode = affine(
            round(float(row["decode_base_ms"]) + host, 6) * 1e-3,
            per_token,
            per_token,
            float(row["decode_per_kv_us"]) * 1e-6,
            0.0,
        )
        law = TwoPhase(decode=decode, mixed=mixed)
    return LawRecord(
        gpu=row["gpu"],
        model=row["model"],
        tensor_parallel=int(row["tensor_parallel"]),
        dtype=row["dtype"],
        backend=row["backend"],
        basis=row["basis"],
        law=law,
        host_overhead_s=host * 1e-3,
        has_kv_term=mixed.per_kv_token_s > 0,
        decode_fit=_quality(row, "decode_"),
        fit=_quality(row, ""),
        note=row["note"],
        source=row["source"],
    )


def _quality(row: dict[str, str], prefix: str) -> FitQuality | None:
    r2, mape, worst = (number_or_none(row[prefix + field]) for field in ("r2", "mape_percent", "max_error_percent"))
    if r2 is None or mape is None or worst is None:
        return None
    return FitQuality(r2=r2, mape=mape / 100, max_error=worst / 100)
