"""Operator profiles put together to engine steps, as rows to fit a law to.

LLMServingSim's profiles (vLLM 0.19) time one operator of one layer, in microseconds: dense operators by tokens in the batch, the
output projection and the sampler by sequences, attention by (chunk of one prompt, its past, decoding sequences, KV of each). A step is
the sum over the layers; operators are interpolated linearly between measured token counts. No host time and, for tensor parallelism, no
all-reduce. aiconfigurator's composed steps are put together in the same way by the data's own makers.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from stability.calibration.observations import StepObservations

from .measurements import table

ONCE, TWICE = ("embedding", "final_layernorm"), ("layernorm",)
"""Operators that run once a step, and twice a layer."""


def profiled_steps(name: str, layers: int, kv_capacity_tokens: float) -> StepObservations:
    """The steps of a profile whose KV fits.

    Parameters
    ----------
    name : str
        GPU, model and parallelism as in the file names.
    layers : int
        Layers of the model.
    kv_capacity_tokens : float
        KV cache, tokens.
    """
    columns = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
    rows = table(f"llmservingsim/profile_{name}_attention.csv")
    chunk, past, decodes, context, attention_us = np.array([[float(row[c]) for c in columns] for row in rows]).T
    time_us = layers * attention_us
    for layer, (tokens, us) in _curves(f"llmservingsim/profile_{name}_dense.csv", "tokens").items():
        times = 1 if layer in ONCE else 2 * layers if layer in TWICE else layers
        time_us = time_us + times * np.interp(chunk + decodes, tokens, us)
    for sequences, us in _curves(f"llmservingsim/profile_{name}_per_sequence.csv", "sequences").values():
        time_us = time_us + np.interp(decodes + (chunk > 0), sequences, us)
    fits = decodes * context + past + chunk <= kv_capacity_tokens
    return StepObservations(
        prefill_tokens=chunk[fits],
        decode_tokens=decodes[fits],
        kv_tokens=(decodes * context)[fits],
        prefill_context=(chunk * (past + chunk / 2))[fits],
        time_s=time_us[fits] * 1e-6,
    )


def composed_steps() -> dict[str, StepObservations]:
    """The composed steps of aiconfigurator by deployment, named as in the published fits."""
    groups = defaultdict(list)
    for row in table("aiconfigurator/composed_iteration_times.csv"):
        groups[f"{row['gpu']} {row['model']} TP{row['tensor_parallel']}"].append(row)
    found = {}
    for name, rows in groups.items():
        columns = ("prefill_tokens", "decode_seqs", "kv_tokens", "time_ms")
        prefill, decodes, kv, time_ms = np.array([[float(row[c]) for c in columns] for row in rows]).T
        found[name] = StepObservations(
            prefill_tokens=prefill, decode_tokens=decodes, kv_tokens=kv, time_s=time_ms * 1e-3
        )
    return found


def _curves(name: str, key: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Times of each operator by `key`, ascending."""
    groups = defaultdict(list)
    for row in table(name):
        groups[row["layer"]].append((float(row[key]), float(row["time_us"])))
    return {layer: tuple(np.array(sorted(points)).T) for layer, points in groups.items()}
