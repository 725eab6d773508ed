"""Models: the published table, the models it lacks, and exact parameter counts from the shapes."""

from __future__ import annotations

import csv
from pathlib import Path

CONFIG = "upstream config.json; KV blocks agree with inference-sim/inference-sim defaults.yaml"

ADDED = (
    # name, layers, hidden, q_heads, kv_heads, head_dim, ffn, vocab, experts, experts per token, total, active (1e9)
    ("Qwen2.5-3B", 36, 2048, 16, 2, 128, 11008, 151936, 0, 0, 3.086, 3.086, CONFIG),
    ("Granite-3.1-8B", 40, 4096, 32, 8, 128, 12800, 49155, 0, 0, 8.171, 8.171, CONFIG),
    ("Phi-4", 40, 5120, 40, 10, 128, 17920, 100352, 0, 0, 14.66, 14.66, CONFIG),
    ("Mistral-Small-24B", 40, 5120, 32, 8, 128, 32768, 131072, 0, 0, 23.572, 23.572, CONFIG),
    ("CodeLlama-34B", 48, 8192, 64, 8, 128, 22016, 32000, 0, 0, 33.744, 33.744, "upstream config.json"),
    ("BLOOM-176B", 70, 14336, 112, 112, 128, 57344, 250880, 0, 0, 176.247, 176.247, "upstream config.json; model card"),
    ("gpt-oss-20b", 24, 2880, 64, 8, 64, 2880, 201088, 32, 4, 20.915, 3.61, "upstream config.json; model card"),
)

NO_GATE = ("BLOOM-176B",)
"""Models whose counts do not follow the gated layout below."""

TIED = ("Qwen2.5-3B", "Granite-3.1-8B", "BLOOM-176B")
"""Models that use one matrix for the input embedding and the output projection."""

QKV_BIAS = ("Qwen2.5-3B", "Qwen2.5-7B", "Qwen2.5-14B", "Qwen2.5-32B", "Qwen2.5-72B")
QK_NORM = ("Qwen3-8B", "Qwen3-14B", "Qwen3-32B")

MLA_HEAD_DIM = 128
"""Value head size of DeepSeek-V3; the published table has hidden / heads, which its attention does not use."""

ALIASES = {
    "Llama-3.1-8B": ("Llama-3.1-8B-Instruct", "Llama-3-8B", "Llama-3-8B-Instruct"),
    "Llama-3.1-70B": (
        "Llama-3.1-70B-Instruct",
        "Llama-3-70B",
        "Llama-3-70B-Instruct",
        "Llama-3.3-70B",
        "Llama-3.3-70B-Instruct",
    ),
    "Llama-3.1-405B": ("Llama-3.1-405B-Instruct",),
    "Llama-2-7B": ("Llama-2-7b-hf", "Llama-2-7b-chat-hf"),
    "Llama-2-13B": ("Llama-2-13b-hf", "Llama-2-13b-chat-hf"),
    "Llama-2-70B": ("llama2-70b", "Llama-2-70b-hf", "Llama-2-70b-chat-hf"),
    "Mistral-7B-v0.1": ("Mistral-7B", "Mistral-7B-Instruct-v0.1"),
    "Mixtral-8x7B": ("Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B-v0.1"),
    "Mistral-Small-24B": ("Mistral-Small-24B-Instruct-2501",),
    "Qwen2.5-3B": ("Qwen2.5-3B-Instruct",),
    "Qwen2.5-7B": ("Qwen2.5-7B-Instruct",),
    "Qwen2.5-14B": ("Qwen2.5-14B-Instruct",),
    "Qwen2.5-32B": ("Qwen2.5-32B-Instruct",),
    "Qwen2.5-72B": ("Qwen2.5-72B-Instruct",),
    "Qwen3-30B-A3B": ("Qwen3-30B-A3B-Instruct-2507",),
    "Qwen3-235B-A22B": ("Qwen3-235B-A22B-FP8",),
    "Granite-3.1-8B": ("granite-3.1-8b-instruct",),
    "CodeLlama-34B": ("codellama-34b-instruct-hf",),
    "DeepSeek-V3": ("DeepSeek-R1", "DeepSeek-V3-0324", "DeepSeek-R1-0528"),
}
"""Names of the same shapes."""


def rows(data: Path) -> list[dict[str, object]]:
    """One row per model, smallest first."""
    with (data / "published" / "models.csv").open(encoding="utf-8", newline="") as file:
        published = [_from_published(entry) for entry in csv.DictReader(file)]
    table = published + [_added(*entry) for entry in ADDED]
    return sorted(table, key=lambda row: float(str(row["parameters"])))


def _from_published(entry: dict[str, str]) -> dict[str, object]:
    names = ("layers", "hidden", "q_heads", "kv_heads", "head_dim", "ffn_inner", "vocab", "experts")
    layers, hidden, q_heads, kv_heads, head_dim, ffn, vocab, experts = (int(entry[n]) for n in names)
    latent = int(entry["mla_latent"])
    per_token = 2 * layers * (latent or 2 * kv_heads * head_dim)
    if per_token != int(entry["kv_bytes_per_token_16bit"]):
        raise ValueError(f"{entry['model']}: {per_token} KV bytes per token from the shapes, {entry} published")
    return _row(
        entry["model"],
        layers,
        hidden,
        q_heads,
        kv_heads,
        MLA_HEAD_DIM if latent else head_dim,
        ffn,
        vocab,
        experts,
        int(entry["experts_per_token"]),
        latent,
        float(entry["params_total"]),
        float(entry["params_active"]),
        entry["source"],
    )


def _added(
    name: str,
    layers: int,
    hidden: int,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    vocab: int,
    experts: int,
    per_token: int,
    total: float,
    active: float,
    source: str,
) -> dict[str, object]:
    return _row(
        name, layers, hidden, q_heads, kv_heads, head_dim, ffn, vocab, experts, per_token, 0, total, active, source
    )


def _row(
    name: str,
    layers: int,
    hidden: int,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    vocab: int,
    experts: int,
    experts_per_token: int,
    latent: int,
    total_1e9: float,
    active_1e9: float,
    source: str,
) -> dict[str, object]:
    total, active = round(total_1e9 * 1e9), round(active_1e9 * 1e9)
    if not experts and name not in NO_GATE:
        total = active = _dense_parameters(name, layers, hidden, q_heads, kv_heads, head_dim, ffn, vocab)
        if abs(total / 1e9 / total_1e9 - 1) > 2e-4:  # published without norms and biases
            raise ValueError(f"{name}: {total} parameters from the shapes, {total_1e9}e9 published")
    return {
        "name": name,
        "aliases": ";".join(ALIASES.get(name, ())),
        "layers": layers,
        "hidden": hidden,
        "query_heads": q_heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "vocabulary": vocab,
        "ffn": ffn,
        "experts": experts,
        "experts_per_token": experts_per_token,
        "mla_latent": latent,
        "tied_embeddings": int(name in TIED),
        "parameters": total,
        "active_parameters": active,
        "source": source,
    }


def _dense_parameters(
    name: str, layers: int, hidden: int, q_heads: int, kv_heads: int, head_dim: int, ffn: int, vocab: int
) -> int:
    """Gated feed-forward, grouped-query attention, root-mean-square norms."""
    qkv = (q_heads + 2 * kv_heads) * head_dim
    layer = hidden * qkv + q_heads * head_dim * hidden + 3 * hidden * ffn + 2 * hidden
    layer += qkv if name in QKV_BIAS else 0
    layer += 2 * head_dim if name in QK_NORM else 0
    return layers * layer + vocab * hidden * (1 if name in TIED else 2) + hidden
