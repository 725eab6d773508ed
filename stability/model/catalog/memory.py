"""How many KV tokens fit on the GPUs of a replica."""

from __future__ import annotations

import math

from ...errors import InputError, check_choice, check_integer, check_number
from ..engine import Engine
from .gpus import Gpu
from .models import KV_BYTES, WEIGHT_BYTES, Model

FIXED_RESERVE_BYTES = float(1 << 30)
"""CUDA context, captured graphs and library workspaces, per GPU."""

LOGIT_BYTES = 12.0
"""Per sequence and vocabulary entry while sampling: the float32 logits, their probabilities and a sorted copy."""

WIDER = (2, 4, 8, 16, 32, 64)
"""Tensor-parallel degrees proposed when a model does not fit."""


def activation_reserve(model: Model, engine: Engine, *, tensor_parallel: int = 1) -> float:
    """Bytes per GPU that are neither weights nor KV cache: an estimate, for want of the engine's own profile.

    Parameters
    ----------
    model : Model
        The model.
    engine : Engine
        Its token budget and batch slots.
    tensor_parallel : int >= 1
        GPUs of the tensor-parallel group.

    Returns
    -------
    float
        `1 GiB + 2 B (4 hidden + 3 ffn/TP) + 12 N vocabulary`, bytes: fixed costs; 16-bit residual stream, attention and
        gated feed-forward activations of a full token budget B; sampling of N sequences.

    Notes
    -----
    vLLM 0.19 with B = 2048 keeps 41 408 KV tokens of Llama-3.1-8B on an RTX 4090: 1.70 GB; the formula gives 1.71 GB.

    Examples
    --------
    1 GiB + 2*2048*(4*4096 + 3*14336) + 12*256*128256 bytes:

    >>> import stability as st
    >>> round(st.catalog.activation_reserve(st.catalog.model("Llama-3.1-8B"), st.Engine()) / 1e9, 2)
    1.71
    """
    activations = 2.0 * engine.max_num_batched_tokens * (4 * model.hidden + 3 * model.ffn / tensor_parallel)
    return FIXED_RESERVE_BYTES + activations + LOGIT_BYTES * engine.max_num_seqs * model.vocabulary


def kv_capacity(
    gpu: Gpu,
    model: Model,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    engine: Engine | None = None,
    dtype: str = "bf16",
    kv_dtype: str = "bf16",
    gpu_memory_utilization: float = 0.9,
    activation_reserve_bytes: float | None = None,
) -> int:
    """KV capacity of a replica in tokens, whole blocks.

    `(utilization * memory - weights - activation reserve) / KV bytes per token`, all per GPU, on the GPU with the least
    room. Weights are split over all GPUs; with pipeline stages, over the stage with the most layers and one embedding.

    Parameters
    ----------
    gpu, model : Gpu, Model
        Hardware and model.
    tensor_parallel, pipeline_parallel : int >= 1
        GPUs of a tensor-parallel group, and pipeline stages.
    engine : Engine, optional
        Block size; token budget and batch slots for the default reserve.
    dtype : {"bf16", "fp8", "fp4"}
        Type of the weights.
    kv_dtype : {"bf16", "fp8"}
        Type of the KV cache.
    gpu_memory_utilization : float in (0, 1]
        Share of the memory the engine may use.
    activation_reserve_bytes : float >= 0, optional
        Bytes per GPU for everything else; `activation_reserve` by default.

    Returns
    -------
    int
        Tokens, in whole blocks.

    Raises
    ------
    InputError
        If not even one block fits, with the numbers and what would make it fit.

    Examples
    --------
    >>> from stability.model.catalog import gpu, model
    >>> kv_capacity(gpu("H100-SXM"), model("Llama-3.1-8B"), activation_reserve_bytes=0)
    467280
    """
    engine = Engine() if engine is None else engine
    check_integer("tensor_parallel", tensor_parallel, at_least=1)
    check_integer("pipeline_parallel", pipeline_parallel, at_least=1)
    check_choice("dtype", dtype, WEIGHT_BYTES)
    check_choice("kv_dtype", kv_dtype, KV_BYTES)
    check_number("gpu_memory_utilization", gpu_memory_utilization, above=0, at_most=1)
    if model.query_heads % tensor_parallel:
        raise InputError(
            f"tensor_parallel = {tensor_parallel}, must divide the {model.query_heads} query heads of {model.name}. "
            "Use a power of two."
        )
    if pipeline_parallel > model.layers:
        raise InputError(
            f"pipeline_parallel = {pipeline_parallel}, must be at most the {model.layers} layers of {model.name}. Use fewer stages."
        )
    if activation_reserve_bytes is not None:
        check_number("activation_reserve_bytes", activation_reserve_bytes, at_least=0)
    share = math.ceil(model.layers / pipeline_parallel) / model.layers

    def parts(gpus: int) -> tuple[float, float, int]:
        """Weights and reserve per GPU, bytes, and whole blocks, with `gpus` in a tensor-parallel group."""
        weights = _weights_per_gpu(model, dtype, gpus, pipeline_parallel)
        reserve = activation_reserve_bytes
        if reserve is None:
            reserve = activation_reserve(model, engine, tensor_parallel=gpus)
        room = gpu_memory_utilization * gpu.memory_bytes - weights - reserve
        per_block = model.kv_bytes_per_token(kv_dtype, tensor_parallel=gpus) * share * engine.block_size
        return weights, reserve, math.floor(max(room, 0.0) / per_block)

    weights, reserve, blocks = parts(tensor_parallel)
    if blocks < 1:
        wider = [n for n in WIDER if n > tensor_parallel and model.query_heads % n == 0 and parts(n)[2] > 0]
        ways = [f"tensor_parallel={wider[0]}"] if wider else []
        ways += ["dtype='fp8'"] if dtype == "bf16" else []
        raise InputError(
            f"{model.name} in {dtype} with tensor_parallel = {tensor_parallel} leaves no room for KV on {gpu.name}: weights of "
            f"{weights / 1e9:.1f} GB and a reserve of {reserve / 1e9:.1f} GB per GPU must fit in {gpu_memory_utilization:g} of "
            f"{gpu.memory_bytes / 1e9:.1f} GB with at least one block. Use {' or '.join([*ways, 'a GPU with more memory'])}."
        )
    return blocks * engine.block_size


def _weights_per_gpu(model: Model, dtype: str, tensor_parallel: int, pipeline_parallel: int) -> float:
    total = model.weight_bytes(dtype)
    if pipeline_parallel == 1:
        return total / tensor_parallel
    embedding = WEIGHT_BYTES["bf16"] * model.embedding_parameters
    one_embedding = WEIGHT_BYTES["bf16"] * model.vocabulary * model.hidden
    share = math.ceil(model.layers / pipeline_parallel) / model.layers
    return ((total - embedding) * share + one_embedding) / tensor_parallel
