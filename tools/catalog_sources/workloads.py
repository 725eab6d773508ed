"""Workloads: quantile grids of the length marginals, their correlation, and the trace's exact moments."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np

from stability.model.lengths import GaussianCopula, Quantiles

KNOTS = 160
"""Points of a quantile grid."""

TRACES = (
    (
        "azure-conv-2023",
        "azure/azure_2023_conv.csv",
        "Azure conversation service, one hour, November 2023",
        "Azure/AzurePublicDataset AzureLLMInferenceTrace_conv.csv (CC-BY-4.0; Patel et al., Splitwise, ISCA 2024)",
    ),
    (
        "azure-code-2023",
        "azure/azure_2023_code.csv",
        "Azure code completion service, one hour, November 2023",
        "Azure/AzurePublicDataset AzureLLMInferenceTrace_code.csv (CC-BY-4.0; Patel et al., Splitwise, ISCA 2024)",
    ),
    (
        "mooncake-conversation",
        "mooncake/mooncake_conversation.csv",
        "Kimi conversation service, one hour",
        "kvcache-ai/Mooncake FAST25-release conversation_trace.jsonl (Apache-2.0; Qin et al., Mooncake, FAST 2025)",
    ),
    (
        "mooncake-synthetic",
        "mooncake/mooncake_synthetic.csv",
        "lengths of public multi-turn data sets, generated Poisson arrivals",
        "kvcache-ai/Mooncake FAST25-release synthetic_trace.jsonl (Apache-2.0; Qin et al., Mooncake, FAST 2025)",
    ),
)

TAIL_FROM, TAIL_STEPS = 0.99, 4
"""Level from which published quantiles are refined, and pieces each step is cut into."""

SERVEGEN = ("m-large", "m-mid", "m-small", "deepseek-r1")
SERVEGEN_SOURCE = "alibaba/ServeGen token quantiles (Apache-2.0; Xiang et al., ServeGen, arXiv 2505.09999)"


def records(data: Path) -> list[dict[str, object]]:
    """One record per workload."""
    found = [_from_trace(data, *trace) for trace in TRACES]
    with (data / "servegen" / "workload_summary.csv").open(encoding="utf-8", newline="") as file:
        summary = {row["workload"]: row for row in csv.DictReader(file)}
    with (data / "servegen" / "token_quantiles.csv").open(encoding="utf-8", newline="") as file:
        quantiles = list(csv.DictReader(file))
    return found + [_from_servegen(name, summary[name], quantiles) for name in SERVEGEN]


def _from_trace(data: Path, name: str, path: str, description: str, source: str) -> dict[str, object]:
    arrival, s, o = np.loadtxt(data / path, delimiter=",", skiprows=1, usecols=(0, 1, 2)).T
    prompt, output = _grid(s), _grid(o)
    marginals = Quantiles(*prompt), Quantiles(*output)
    return {
        "name": name,
        "description": description,
        "source": source,
        "requests": len(s),
        "mean_rate_per_s": round((len(s) - 1) / float(arrival[-1]), 6),
        "spearman": round(float(np.corrcoef(_ranks(s), _ranks(o))[0, 1]), 5),
        "copula_spearman": _calibrated(*marginals, float(np.mean(s * o))),
        "exact": {
            "prompt_mean": float(np.mean(s)),
            "output_mean": float(np.mean(o)),
            "product_mean": float(np.mean(s * o)),
            "prompt_square_mean": float(np.mean(s * s)),
            "output_square_mean": float(np.mean(o * o)),
            "prompt_max": int(s.max()),
            "output_max": int(o.max()),
            "total_max": int((s + o).max()),
        },
        "prompt": prompt,
        "output": output,
    }


def _from_servegen(name: str, summary: dict[str, str], quantiles: list[dict[str, str]]) -> dict[str, object]:
    description = "production traffic at Alibaba Cloud, " + (
        "one day" if float(summary["span_days"]) == 1 else f"{float(summary['span_days']):g} days"
    )
    mean_s, mean_o = float(summary["input_mean"]), float(summary["output_mean"])
    square_s = mean_s**2 * (1 + float(summary["input_cv"]) ** 2)
    square_o = mean_o**2 * (1 + float(summary["output_cv"]) ** 2)
    absent = float(summary["rate_share_absent"])
    if absent:
        description += f"; lengths of clients with {absent:.0%} of the traffic are absent"
    grids = {}
    for side, square in (("input", square_s), ("output", square_o)):
        rows = [q for q in quantiles if q["workload"] == name and q["quantity"] == f"{side}_tokens"]
        grids[side] = _tailed([float(q["quantile"]) for q in rows], [float(q["tokens"]) for q in rows], square)
    return {
        "name": name,
        "description": description,
        "source": SERVEGEN_SOURCE,
        "requests": None,
        "mean_rate_per_s": float(summary["mean_rate"]),
        "spearman": None,
        "copula_spearman": 0.0,
        "exact": {
            "prompt_mean": mean_s,
            "output_mean": mean_o,
            "product_mean": None,
            "prompt_square_mean": round(square_s, 1),
            "output_square_mean": round(square_o, 1),
            "prompt_max": None,
            "output_max": None,
            "total_max": None,
        },
        "prompt": grids["input"],
        "output": grids["output"],
    }


def _grid(lengths: np.ndarray) -> tuple[list[float], list[float]]:
    """Knots of the empirical quantile function, placed where linear interpolation is worst.

    A piece is split at its largest deviation, the piece with the largest integral of |deviation| * (length + mean)
    first: that keeps the first and the second moment.
    """
    x = np.sort(lengths)
    levels = np.concatenate([[0.0], (np.arange(len(x)) + 0.5) / len(x), [1.0]])
    tokens = np.concatenate([x[:1], x, x[-1:]])
    weight = np.gradient(levels) * (tokens + tokens.mean())

    def deviation(first: int, last: int) -> tuple[float, int]:
        inner = slice(first + 1, last)
        straight = np.interp(levels[inner], levels[[first, last]], tokens[[first, last]])
        gap = np.abs(tokens[inner] - straight)
        return (float((gap * weight[inner]).sum()), first + 1 + int(np.argmax(gap))) if len(gap) else (0.0, -1)

    pieces = {(0, len(levels) - 1): deviation(0, len(levels) - 1)}
    while len(pieces) < KNOTS - 1:
        (first, last), (worst, split) = max(pieces.items(), key=lambda item: item[1][0])
        if worst == 0:
            break
        del pieces[first, last]
        pieces[first, split] = deviation(first, split)
        pieces[split, last] = deviation(split, last)
    knots = sorted({end for piece in pieces for end in piece})
    return [round(v, 8) for v in levels[knots].tolist()], tokens[knots].tolist()


def _tailed(levels: list[float], tokens: list[float], square_mean: float) -> tuple[list[float], list[float]]:
    """The published quantiles with a tail: their last level is 0.9999, and linear pieces overstate a convex tail.

    From the 99 % quantile on, points are added between the published ones on straight lines of log length against log tail
    probability; a greatest length is added where the published second moment asks for one. Points inside a run of equal
    lengths are left out.
    """
    dense_levels, dense_tokens = [levels[0]], [tokens[0]]
    for (p, x), (q, y) in itertools.pairwise(zip(levels, tokens, strict=True)):
        for step in range(1, TAIL_STEPS + 1) if p >= TAIL_FROM else (TAIL_STEPS,):
            share = step / TAIL_STEPS
            dense_levels.append(round(1 - (1 - p) ** (1 - share) * (1 - q) ** share, 8))
            dense_tokens.append(round(x ** (1 - share) * y**share, 2))
    short = square_mean - Quantiles(dense_levels, dense_tokens).moment(2)
    last, mass = dense_tokens[-1], 1 - dense_levels[-1]
    if (
        short > 0
    ):  # uniform from `last` to the greatest length: mass * (greatest^2 + greatest*last - 2*last^2)/3 = short
        greatest = (-last + np.sqrt(9 * last**2 + 12 * short / mass)) / 2
        dense_levels.append(1.0)
        dense_tokens.append(round(float(greatest)))
    t = dense_tokens
    keep = [i for i in range(len(t)) if i in (0, len(t) - 1) or not t[i - 1] == t[i] == t[i + 1]]
    return [dense_levels[i] for i in keep], [t[i] for i in keep]


def _ranks(x: np.ndarray) -> np.ndarray:
    """Mid-ranks, as Spearman's correlation takes them."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last + 1) / 2)[inverse]


def _calibrated(prompt: Quantiles, output: Quantiles, product_mean: float) -> float:
    """The rank correlation at which the copula has the trace's E[so].

    The measured one misses it by up to 14 %, because real pairs are not joined by a Gaussian copula, and E[so] is
    what capacity depends on.
    """
    low, high = -0.99, 0.99
    for _ in range(30):
        middle = (low + high) / 2
        expected = GaussianCopula(prompt, output, middle).expect(lambda s, o: s.astype(np.float64) * o)
        low, high = (low, middle) if expected > product_mean else (middle, high)
    return round((low + high) / 2, 5)
