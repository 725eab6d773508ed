"""A step-time law from data sheets, for GPUs and models nobody has measured together."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import check_choice, check_integer
from ..iteration import Roofline
from .gpus import Gpu
from .gpus import gpu as find_gpu
from .models import WEIGHT_BYTES, Model
from .models import model as find_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """What share of the data-sheet figures engines reach; one set for all GPUs and models.

    Fitted by `python -m tools.fit_roofline` to every law of the catalog but the black-box ones: least mean over the laws of
    the mean absolute error. How well it does is `roofline_errors()`.

    Parameters
    ----------
    weights, kv : float
        Of the memory bandwidth when reading weights and KV cache.
    compute, attention : float
        Of the tensor rate in linear layers and in prefill attention.
    link : float
        Of one direction of the link bandwidth in all-reduces.
    layer_s : float
        Launch and element-wise latency per layer, s.
    all_reduce_s : float
        Latency of one all-reduce, s.
    host_s : float
        Scheduler and host time of a step, s (the 2.7 ms added to laws of kernel times).

    Examples
    --------
    See :func:`stability.catalog.roofline`.
    """

    weights: float = 0.86
    kv: float = 0.81
    compute: float = 0.68
    attention: float = 0.19
    link: float = 0.33
    layer_s: float = 21e-6
    all_reduce_s: float = 5e-6
    host_s: float = 2.7e-3


def roofline(
    gpu: str | Gpu,
    model: str | Model,
    *,
    tensor_parallel: int = 1,
    dtype: str = "bf16",
    kv_dtype: str = "bf16",
    efficiency: Efficiency | None = None,
) -> Roofline:
    """The step-time law that the data sheets of a GPU and a model imply.

    Each step reads the weights once (of a mixture, the experts its tokens touch) or multiplies by them, whichever takes
    longer; reads the KV of its decodes; computes prefill attention; and all-reduces twice per layer between the GPUs of a
    tensor-parallel group.

    Parameters
    ----------
    gpu, model : str or Gpu, str or Model
        Hardware and model.
    tensor_parallel : int >= 1
        GPUs of the tensor-parallel group.
    dtype : {"bf16", "fp8", "fp4"}
        Type of the weights.
    kv_dtype : {"bf16", "fp8"}
        Type of the KV cache.
    efficiency : Efficiency, optional
        Shares of the data-sheet figures.

    Returns
    -------
    Roofline

    Raises
    ------
    UnknownNameError
        If the catalog has no such GPU or model.

    Examples
    --------
    >>> law = roofline("H100-SXM", "Llama-3.1-8B")
    >>> round(float(law.time_s(0, 32, 32 * 1000)) * 1e3, 1)
    10.1
    """
    card, shape, reached = find_gpu(gpu), find_model(model), efficiency or Efficiency()
    gpus = check_integer("tensor_parallel", tensor_parallel, at_least=1)
    check_choice("dtype", dtype, WEIGHT_BYTES)
    rate = card.flops_per_s(dtype)
    read_per_s = card.bandwidth_bytes_per_s * reached.weights * gpus
    output_projection = shape.vocabulary * shape.hidden
    common = shape.parameters - shape.embedding_parameters - shape.expert_parameters
    common_bytes = WEIGHT_BYTES[dtype] * common + WEIGHT_BYTES["bf16"] * output_projection
    # The output projection multiplies sampled tokens only: few, and it waits for its weights.
    multiplied = shape.active_parameters - shape.embedding_parameters
    all_reduces = 2 * shape.layers if gpus > 1 else 0
    message_bytes = 2.0 * shape.hidden * 2 * (gpus - 1) / gpus  # ring, per token
    return Roofline(
        overhead_s=reached.host_s + shape.layers * reached.layer_s + all_reduces * reached.all_reduce_s,
        weights_s=common_bytes / read_per_s,
        experts_s=WEIGHT_BYTES[dtype] * shape.expert_parameters / read_per_s,
        expert_share=shape.experts_per_token / shape.experts if shape.experts else 0.0,
        per_token_compute_s=2.0 * multiplied / (rate * reached.compute * gpus),
        per_token_s=all_reduces * message_bytes / (card.link_bytes_per_s / 2 * reached.link),
        per_kv_token_s=shape.kv_bytes_per_token(kv_dtype, tensor_parallel=gpus)
        / (card.bandwidth_bytes_per_s * reached.kv),
        per_prefill_context_s=4.0
        * shape.layers
        * shape.query_heads
        * shape.head_dim
        / (card.bf16_flops_per_s * reached.attention * gpus),
    )
