"""A replica from the catalog: step-time law and KV capacity of a model on its GPUs."""

from __future__ import annotations

from ...errors import NotModelledError, check_choice, check_integer
from ..engine import Engine
from ..iteration import IterationLaw
from ..replica import Replica
from .fallback import roofline
from .gpus import Gpu
from .gpus import gpu as find_gpu
from .laws import find_law
from .memory import activation_reserve, kv_capacity
from .models import KV_BYTES, WEIGHT_BYTES, Model
from .models import model as find_model

ROOFLINE_ERROR_PERCENT = {"dense": 13, "mixture": 27}
"""Typical error of the roofline for dense models and mixtures of experts: the median over the measured laws of its median
error over typical batches, rounded. `roofline_errors` computes it; a test keeps the two equal."""


def replica(
    gpu: str | Gpu,
    model: str | Model,
    *,
    tensor_parallel: int = 1,
    engine: Engine | None = None,
    dtype: str = "bf16",
    kv_dtype: str | None = None,
    gpu_memory_utilization: float = 0.9,
    activation_reserve_bytes: float | None = None,
    kv_capacity_tokens: int | None = None,
    iteration: IterationLaw | None = None,
    pipeline_parallel: int = 1,
    price_per_hour: float | None = None,
) -> Replica:
    """A replica of a model on GPUs of the catalog.

    Parameters
    ----------
    gpu, model : str or Gpu, str or Model
        Names or aliases of the catalog, or objects.
    tensor_parallel : int >= 1
        GPUs of the tensor-parallel group.
    engine : Engine, optional
        Scheduler settings; vLLM's defaults without.
    dtype : {"bf16", "fp8", "fp4"}
        Type of the weights ("bf16" for any 16-bit type).
    kv_dtype : {"bf16", "fp8"}, optional
        Type of the KV cache; 16-bit by default, whatever the weights are.
    gpu_memory_utilization : float in (0, 1]
        Share of the GPU's memory the engine may use.
    activation_reserve_bytes : float >= 0, optional
        Bytes per GPU that are neither weights nor KV; estimated by `activation_reserve` without.
    kv_capacity_tokens : int, optional
        KV capacity where it is known (engines print it at start); nothing is computed from memory then.
    iteration : IterationLaw, optional
        Step-time law; without, the measured one of the catalog, else the roofline of the data sheets.
    pipeline_parallel : int >= 1
        Pipeline stages. The catalog has no laws of pipelines: more than one needs `iteration`.
    price_per_hour : float >= 0, optional
        Price of the whole replica.

    Returns
    -------
    Replica
        `notes` says where its law and its KV capacity come from.

    Raises
    ------
    UnknownNameError
        If the catalog has no such GPU or model.
    InputError
        If the model does not fit its GPUs, or a setting breaks its rule.
    NotModelledError
        If there are several pipeline stages and no `iteration`.

    Examples
    --------
    >>> replica("H100-SXM", "Llama-3.1-8B", activation_reserve_bytes=0).kv_capacity_tokens
    467280
    """
    card, shape = find_gpu(gpu), find_model(model)
    engine = Engine() if engine is None else engine
    gpus = check_integer("tensor_parallel", tensor_parallel, at_least=1)
    stages = check_integer("pipeline_parallel", pipeline_parallel, at_least=1)
    check_choice("dtype", dtype, WEIGHT_BYTES)
    cache = check_choice("kv_dtype", "bf16" if kv_dtype is None else kv_dtype, KV_BYTES)
    law, law_note = _law(card, shape, gpus, stages, dtype, cache, iteration)
    if kv_capacity_tokens is None:
        capacity = kv_capacity(
            card,
            shape,
            tensor_parallel=gpus,
            pipeline_parallel=stages,
            engine=engine,
            dtype=dtype,
            kv_dtype=cache,
            gpu_memory_utilization=gpu_memory_utilization,
            activation_reserve_bytes=activation_reserve_bytes,
        )
        reserve = activation_reserve_bytes
        origin = "given"
        if reserve is None:
            reserve, origin = activation_reserve(shape, engine, tensor_parallel=gpus), "estimated"
        memory_note = (
            f"KV capacity {capacity} tokens = {gpu_memory_utilization:g} of {card.memory_bytes / 2**30:g} GiB per GPU less {dtype} weights and "
            f"{reserve / 1e9:.2f} GB reserve ({origin}), {cache} KV"
        )
    else:
        capacity, memory_note = kv_capacity_tokens, f"KV capacity {kv_capacity_tokens} tokens, given"
    return Replica(
        iteration=law,
        kv_capacity_tokens=capacity,
        engine=engine,
        kv_bytes_per_token=shape.kv_bytes_per_token(cache, tensor_parallel=gpus) * gpus,
        gpus=gpus * stages,
        gpu=card.name,
        model=shape.name,
        price_per_hour=price_per_hour,
        notes=(law_note, memory_note),
    )


def _law(
    gpu: Gpu,
    model: Model,
    tensor_parallel: int,
    pipeline_parallel: int,
    dtype: str,
    kv_dtype: str,
    iteration: IterationLaw | None,
) -> tuple[IterationLaw, str]:
    """The law of a replica and a sentence about its origin."""
    if iteration is not None:
        return iteration, "step-time law given"
    if pipeline_parallel > 1:
        raise NotModelledError(
            f"pipeline_parallel = {pipeline_parallel} has no step-time law in the catalog, which knows whole steps only. "
            "Give the measured law of the pipeline as iteration=."
        )
    record = find_law(gpu, model, tensor_parallel=tensor_parallel, dtype=dtype)
    if record is not None:
        return record.law, record.describe()
    law = roofline(gpu, model, tensor_parallel=tensor_parallel, dtype=dtype, kv_dtype=kv_dtype)
    return law, (
        f"step-time law from the data sheets of {gpu.name} and {model.name} (roofline): nobody measured this case; "
        f"typical error {ROOFLINE_ERROR_PERCENT['mixture' if model.experts else 'dense']} %"
    )
