"""Step-time laws per (GPU, model, tensor parallelism, dtype, backend) from published fits and measurements.

Rows of one key stand in order of preference: two-phase fits to kernel times (decode-only; mixed with the prefill-attention
term), then fits to timings of whole servers, vLLM first because the engine's defaults are vLLM's, then, only where a key
has nothing else, black-box coefficients without a KV term.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

HOST_OVERHEAD_MS = 2.7
"""Scheduler and host time of a step, added to fits of kernel times: those hold GPU work alone.

Kernel times are aiconfigurator's composed steps ("No scheduler or host time"), vidur's operators put together over the
layers, and LLMServingSim's operator profiles; whole-server timings (time per output token, splitwise's prompt and
token times) and black-box fits to whole runs contain the host already.
"""

AICONFIGURATOR = "ai-dynamo/aiconfigurator {}; fit: published/fitted_step_time_models.csv"
COMPOSED = AICONFIGURATOR.format("kernel timings composed over the layers")
VIDUR = "microsoft/vidur operator timings composed over the layers; fit: published/fitted_step_time_models.csv"
SERVINGSIM = "casys-kaist/LLMServingSim operator profile, vLLM 0.19.0; fit: published/fitted_step_time_models.csv"
SPLITWISE = "Mutinifni/splitwise-sim perf_model.csv; fit: published/fitted_step_time_models.csv"
END_TO_END = AICONFIGURATOR.format("silicon_sample.csv, closed-loop time per output token")
END_TO_END_REFIT = (
    "ai-dynamo/aiconfigurator silicon_sample.csv, closed-loop time per output token; fit: tools/catalog_sources/laws.py"
)
BLIS = "inference-sim/inference-sim defaults.yaml; fit by others to vLLM runs"

GPU_OF = {
    "a100-80gb": "A100-80GB-SXM",
    "h100-80gb": "H100-SXM",
    "a100_sxm": "A100-80GB-SXM",
    "h100_sxm": "H100-SXM",
    "h200_sxm": "H200-SXM",
    "b200_sxm": "B200-SXM",
    "l40s": "L40S",
    "RTX4090": "RTX4090",
    "RTXPRO6000": "RTX-PRO-6000-Server",
    "H100": "H100-SXM",
    "A100-80": "A100-80GB-SXM",
}
MODEL_OF = {
    "llama2-70b": "Llama-2-70B",
    "bloom-176b": "BLOOM-176B",
    "openai/gpt-oss-120b": "gpt-oss-120b",
    "deepseek-ai/DeepSeek-V3": "DeepSeek-V3",
    "Qwen/Qwen3-235B-A22B-FP8": "Qwen3-235B-A22B",
    "codellama/codellama-34b-instruct-hf": "CodeLlama-34B",
    "ibm-granite/granite-3.1-8b-instruct": "Granite-3.1-8B",
    "meta-llama/llama-3.1-8b-instruct": "Llama-3.1-8B",
    "meta-llama/llama-3.3-70b-instruct": "Llama-3.1-70B",
    "microsoft/phi-4": "Phi-4",
    "mistralai/mistral-small-24b-instruct-2501": "Mistral-Small-24B",
    "mistralai/mixtral-8x7b-instruct-v0.1": "Mixtral-8x7B",
    "openai/gpt-oss-20b": "gpt-oss-20b",
    "qwen/qwen2.5-3b-instruct": "Qwen2.5-3B",
    "qwen/qwen2.5-7b-instruct": "Qwen2.5-7B",
    "qwen/qwen3-14b": "Qwen3-14B",
    "redhatai/qwen2.5-7b-instruct-fp8-dynamic": "Qwen2.5-7B",
    "redhatai/phi-4-fp8-dynamic": "Phi-4",
}
FP4_MODELS = ("openai/gpt-oss-120b", "openai/gpt-oss-20b")
"""Released with 4-bit experts, served that way whatever the run is called."""

MEASURED_MOE = ("openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-235B-A22B-FP8")
"""Mixtures of experts whose whole-server rows the published fits leave out; fitted here by the same rule."""

BASES = ("kernels", "end_to_end", "black_box")
BACKENDS = ("vllm", "trtllm", "sglang", "")
"""Orders of preference."""

LEAST_ROWS = 15
LEAST_CONCURRENCY = 32
LEAST_R2 = 0.75
"""Fewest measurements of a mixture's fit, the load they must reach, and the least share of variance it explains: the
time of a mixture is concave in the batch, so the affine form fits worse than for dense models."""

FIELDS = (
    "gpu",
    "model",
    "tensor_parallel",
    "dtype",
    "backend",
    "basis",
    "host_overhead_ms",
    "decode_base_ms",
    "decode_per_token_us",
    "decode_per_kv_us",
    "base_ms",
    "per_prefill_us",
    "per_decode_us",
    "per_kv_us",
    "per_prefill_context_us",
    "decode_r2",
    "decode_mape_percent",
    "decode_max_error_percent",
    "r2",
    "mape_percent",
    "max_error_percent",
    "note",
    "source",
)

Row = dict[str, object]


def rows(data: Path, gpus: list[Row], models: list[Row]) -> list[Row]:
    """One row per law, keys in order, the preferred law of a key first."""
    with (data / "published" / "fitted_step_time_models.csv").open(encoding="utf-8", newline="") as file:
        fits = defaultdict(dict)
        for fit in csv.DictReader(file):
            fits[fit["configuration"]][fit["subset"], fit["model"]] = fit
    found = [law for name, parts in fits.items() if (law := _kernel_law(name, parts) or _end_to_end(name, parts))]
    found += _splitwise(fits) + _mixtures(data)
    taken = {_key(law) for law in found}
    found += [law for law in _black_box(data, gpus, models) if _key(law) not in taken]
    found.sort(key=lambda law: (*_key(law), BASES.index(str(law["basis"])), BACKENDS.index(str(law["backend"]))))
    return [{field: law.get(field, "") for field in FIELDS} for law in found]


def _key(law: Row) -> tuple[str, str, int, str]:
    return str(law["gpu"]), str(law["model"]), int(str(law["tensor_parallel"])), str(law["dtype"])


def _kernel_law(name: str, parts: dict[tuple[str, str], dict[str, str]]) -> Row | None:
    """A two-phase law of kernel times."""
    if match := re.fullmatch(r"vidur A100 (Llama-2-70B) TP(\d) .*", name):
        gpu, model, tp, source, backend = "A100-80GB-SXM", match[1], int(match[2]), VIDUR, ""
    elif match := re.fullmatch(r"LLMServingSim vLLM 0.19 profile (\w+) (\S+) tp(\d), .*", name):
        gpu, model, tp, source, backend = GPU_OF[match[1]], match[2], int(match[3]), SERVINGSIM, "vllm"
    elif match := re.fullmatch(r"(\w+) (Llama-3.1-\w+) TP(\d)", name):
        gpu, model, tp, source, backend = GPU_OF[match[1]], match[2], int(match[3]), COMPOSED, ""
    else:
        return None
    if "no all-reduce" in name and tp > 1:
        return None  # over PCI Express the missing all-reduce takes as long as the kernels that were timed
    decode = parts["decode-only", "c0+c1*n+c2*kv"]
    mixed = parts.get(("mixed", "+c3*w")) or parts["mixed", "c0+c1*n+c2*kv+c3*w"]
    return {
        **_identity(gpu, model, tp, "bf16", backend, "kernels", source),
        "host_overhead_ms": HOST_OVERHEAD_MS,
        **_decode_part(decode),
        **_mixed_part(mixed, mixed["c2_us"], mixed["c3_us"]),
    }


def _end_to_end(name: str, parts: dict[tuple[str, str], dict[str, str]]) -> Row | None:
    """An affine law of a whole server; prompt and decode tokens cost alike."""
    match = re.fullmatch(r"end to end (\w+) (\S+) (\w+) (\w+) TP(\d), (concurrency up to \d+)", name)
    if not match:
        return None
    gpu, model, dtype, backend, tp, range_note = match.groups()
    (fit,) = parts.values()
    return {
        **_identity(GPU_OF[gpu], model, int(tp), dtype, backend, "end_to_end", END_TO_END),
        "host_overhead_ms": 0,
        **_mixed_part(fit, fit["c2_us"], "0"),
        "note": range_note + ("" if float(fit["c2_us"]) > 0 else ", KV term fitted as zero"),
    }


def _splitwise(fits: dict[str, dict[tuple[str, str], dict[str, str]]]) -> list[Row]:
    """Two phases from whole-server decode and prefill times.

    A mixed step is taken as a prefill batch of all its tokens that reads the KV of its decodes as well.
    """
    found = []
    for name, parts in fits.items():
        match = re.fullmatch(r"splitwise-sim (\S+) (\S+) TP(\d) decode time per token", name)
        if not match:
            continue
        hardware, model, tp = match.groups()
        (decode,) = parts.values()
        (prefill,) = fits[f"splitwise-sim {hardware} {model} TP{tp} prefill of a batch"].values()
        found.append(
            {
                **_identity(GPU_OF[hardware], MODEL_OF[model], int(tp), "bf16", "", "end_to_end", SPLITWISE),
                "host_overhead_ms": 0,
                **_decode_part(decode),
                **_mixed_part(prefill, decode["c2_us"], "0"),
                "note": "mixed steps priced as prefill batches",
            }
        )
    return found


def _mixtures(data: Path) -> list[Row]:
    """Mixtures of experts, fitted as the published end-to-end laws are: least squares of the relative error."""
    with (data / "aiconfigurator" / "end_to_end_ttft_tpot.csv").open(encoding="utf-8", newline="") as file:
        groups = defaultdict(list)
        for row in csv.DictReader(file):
            tp, experts = int(row["tensor_parallel"]), (int(row["moe_tp"]), int(row["moe_ep"]))
            whole = row["pipeline_parallel"] == "1" and row["attention_dp"] in ("", "1")
            if row["model"] in MEASURED_MOE and whole and experts in ((tp, 1), (1, tp)):
                groups[row["gpu"], row["model"], row["precision"], row["backend"], tp, experts[1]].append(row)
    found = []
    for (gpu, model, dtype, backend, tp, expert_parallel), members in groups.items():
        if len(members) < LEAST_ROWS or max(float(m["concurrency"]) for m in members) < LEAST_CONCURRENCY:
            continue
        columns = ("concurrency", "isl", "osl", "tpot_ms")
        b, isl, osl, tpot = np.array([[float(m[c]) for c in columns] for m in members]).T
        design = np.column_stack([np.ones_like(b), b * (1 + isl / osl) * 1e-3, b * (isl + osl / 2) * 1e-3])
        c0, c1, c2 = nnls(design / tpot[:, None], np.ones_like(tpot))[0]
        fitted = design @ np.array([c0, c1, c2])
        error = np.abs(fitted / tpot - 1)
        r2 = 1 - ((fitted - tpot) ** 2).sum() / ((tpot - tpot.mean()) ** 2).sum()
        if r2 < LEAST_R2 or min(c0, c1, c2) <= 0:
            continue
        fit = {
            "c0_ms": f"{c0:.4f}",
            "c1_us": f"{c1:.4f}",
            "R2": f"{r2:.4f}",
            "MAPE_percent": f"{100 * error.mean():.2f}",
            "max_error_percent": f"{100 * error.max():.1f}",
        }
        spread = f", experts parallel over {expert_parallel} GPUs" if expert_parallel > 1 else ""
        found.append(
            {
                **_identity(GPU_OF[gpu], MODEL_OF[model], tp, dtype, backend, "end_to_end", END_TO_END_REFIT),
                "host_overhead_ms": 0,
                **_mixed_part(fit, f"{c2:.5f}", "0"),
                "note": f"concurrency up to {b.max():.0f}{spread}",
            }
        )
    return found


def _black_box(data: Path, gpus: list[Row], models: list[Row]) -> list[Row]:
    """Coefficients fitted by others without a KV term, where they are physical.

    Physical: the base is at least 0.9 of the time to read the weights once at the GPU's peak bandwidth (for mixtures of
    experts, the active ones); a prompt token costs between 0.9 and 5 times its arithmetic at the peak rate; a decode
    costs between 1 us and 100 us.
    """
    gpu_of = {str(gpu["name"]): gpu for gpu in gpus}
    model_of = {str(model["name"]): model for model in models}
    with (data / "blis" / "blackbox_coefficients.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    found: dict[tuple[str, str, int, str], tuple[float, Row]] = {}
    for row in table:
        if row["model"] not in MODEL_OF:
            continue
        gpu, model, tp = GPU_OF[row["gpu"]], MODEL_OF[row["model"]], int(row["tensor_parallel"])
        dtype = "fp4" if row["model"] in FP4_MODELS else "fp8" if "fp8" in row["model"] else "bf16"
        base, prefill, decode = (
            float(row[c]) for c in ("beta0_us", "beta1_us_per_prefill_token", "beta2_us_per_decode_token")
        )
        active = float(str(model_of[model]["active_parameters"])) / tp
        rate = float(str(gpu_of[gpu][f"{'fp8' if dtype == 'fp8' else 'bf16'}_tflops"]))
        read_us = active * {"bf16": 2, "fp8": 1, "fp4": 0.5625}[dtype] / float(str(gpu_of[gpu]["bandwidth_gb_s"])) / 1e3
        compute_us = 2 * active / rate / 1e6
        physical = base >= 0.9 * read_us and 0.9 * compute_us <= prefill <= 5 * compute_us and 1 <= decode <= 100
        law = {
            **_identity(gpu, model, tp, dtype, "vllm", "black_box", f"{BLIS} ({row['vllm_version']})"),
            "host_overhead_ms": 0,
            "base_ms": f"{base / 1e3:.4f}",
            "per_prefill_us": f"{prefill:.4f}",
            "per_decode_us": f"{decode:.4f}",
            "per_kv_us": 0,
            "per_prefill_context_us": 0,
            "note": "fitted without a KV term",
        }
        error = float(row["train_error"] or "inf")
        if physical and (_key(law) not in found or error < found[_key(law)][0]):
            found[_key(law)] = (error, law)
    return [law for _, law in found.values()]


def _identity(gpu: str, model: str, tp: int, dtype: str, backend: str, basis: str, source: str) -> Row:
    return {
        "gpu": gpu,
        "model": model,
        "tensor_parallel": tp,
        "dtype": dtype,
        "backend": backend,
        "basis": basis,
        "source": source,
    }


def _decode_part(fit: dict[str, str]) -> Row:
    return {
        "decode_base_ms": fit["c0_ms"],
        "decode_per_token_us": fit["c1_us"],
        "decode_per_kv_us": fit["c2_us"],
        "decode_r2": fit["R2"],
        "decode_mape_percent": fit["MAPE_percent"],
        "decode_max_error_percent": fit["max_error_percent"],
    }


def _mixed_part(fit: dict[str, str], per_kv_us: str, per_prefill_context_us: str) -> Row:
    return {
        "base_ms": fit["c0_ms"],
        "per_prefill_us": fit["c1_us"],
        "per_decode_us": fit["c1_us"],
        "per_kv_us": per_kv_us,
        "per_prefill_context_us": per_prefill_context_us,
        "r2": fit["R2"],
        "mape_percent": fit["MAPE_percent"],
        "max_error_percent": fit["max_error_percent"],
    }
