"""KV capacities that engines and papers published, against the catalog's memory formula.

Sources: inference-sim/inference-sim defaults.yaml (KV blocks of 16 tokens; vLLM 0.8.4 rows are computed without an activation
reserve); casys-kaist/LLMServingSim (RTX 4090, vLLM 0.19.0); arXiv 2605.04595 (A100-40GB).
"""

from __future__ import annotations

import pytest

from stability.model import catalog

# model, tensor parallel, published blocks. With tensor parallelism the source counts the blocks of every GPU, although one
# token needs one block on each of them: the capacity is the published number over the degree.
BLOCKS = [
    ("Llama-3.1-8B", 1, 29_205),
    ("Qwen2.5-7B", 1, 67_659),
    ("Granite-3.1-8B", 1, 23_257),
    ("Phi-4", 1, 14_645),
    ("Mistral-Small-24B", 1, 11_506),
    ("Llama-3.1-8B", 2, 132_139),
    ("Llama-3.1-8B", 4, 559_190),
    ("Llama-3.1-70B", 4, 128_273),
    ("Llama-3.1-70B", 8, 728_405),
    ("Qwen2.5-7B", 4, 1_281_766),
    ("Mixtral-8x7B", 2, 58_377),
]


@pytest.mark.parametrize(("model", "tensor_parallel", "blocks"), BLOCKS)
def test_blocks_on_80_gib_without_a_reserve(model, tensor_parallel, blocks):
    capacity = catalog.kv_capacity(
        catalog.gpu("H100-SXM"), catalog.model(model), tensor_parallel=tensor_parallel, activation_reserve_bytes=0
    )
    # Mixtral's parameter count is known to 1e6 only: one block.
    assert abs(capacity // 16 - blocks // tensor_parallel) <= (model == "Mixtral-8x7B")


def test_llama_8b_on_80_gib_is_exact():
    capacity = catalog.kv_capacity(catalog.gpu("H100"), catalog.model("Llama-3.1-8B"), activation_reserve_bytes=0)
    assert capacity == 467_280


def test_fp8_weights_keep_their_embeddings_at_16_bits():
    # Llama-3.1-Nemotron-70B-FP8 on two H100s: 31 261 blocks of two GPUs; scales and norms are the 0.1 %.
    capacity = catalog.kv_capacity(
        catalog.gpu("H100"),
        catalog.model("Llama-3.1-70B"),
        tensor_parallel=2,
        dtype="fp8",
        activation_reserve_bytes=0,
    )
    assert capacity / 16 == pytest.approx(31_261 / 2, rel=1e-3)


def test_rtx_4090_with_the_default_reserve():
    """Measured 41 408 tokens; -0.1 %. The reserve's constants were chosen with this figure in view, to 2 %."""
    assert catalog.replica("RTX4090", "Llama-3.1-8B").kv_capacity_tokens == pytest.approx(41_408, rel=0.02)


@pytest.mark.parametrize(("model", "blocks"), [("Qwen3-14B", 17_600), ("Qwen2.5-3B", 117_925)])
def test_h100_with_the_default_reserve(model, blocks):
    """vLLM 0.11.0 rows that are not explained without a reserve; no constant was chosen for them: -0.4 % and -0.2 %."""
    h100, shape = catalog.gpu("H100"), catalog.model(model)
    assert catalog.kv_capacity(h100, shape) / 16 == pytest.approx(blocks, rel=0.01)
    assert catalog.kv_capacity(h100, shape, activation_reserve_bytes=0) / 16 > 1.02 * blocks


def test_a100_40gb_of_2605_04595():
    """The paper's 131 000 tokens are 22 % below the default, and are 16 GiB of KV: utilisation 0.775 without a reserve."""
    default = catalog.replica("A100-40GB-SXM", "Llama-3-8B").kv_capacity_tokens
    assert default / 131_000 - 1 == pytest.approx(0.216, abs=0.005)
    explicit = catalog.replica("A100-40GB-SXM", "Llama-3-8B", gpu_memory_utilization=0.775, activation_reserve_bytes=0)
    assert explicit.kv_capacity_tokens == pytest.approx(131_000, rel=0.01)
