"""The axes of the matrix: workloads, step-time laws, engine policies, fleets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import stability as st
from stability import lengths as L
from stability.model import catalog

UNIFORM = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 1600))


def workloads() -> dict[str, L.Lengths]:
    """Length laws by name: synthetic families and published traces."""
    return {
        "uniform 1:1": UNIFORM,
        "uniform 2:1": L.Independent(L.Uniform(10, 2133), L.Uniform(10, 1066)),
        "uniform 1:2": L.Independent(L.Uniform(10, 1066), L.Uniform(10, 2133)),
        "geometric": L.Independent(L.Geometric(500, limit=16_000), L.Geometric(300, limit=8_000)),
        "lognormal": L.Independent(
            L.LogNormal.from_sigma(400, 1.0, limit=16_000), L.LogNormal.from_sigma(200, 1.0, limit=8_000)
        ),
        "reasoning": L.Independent(L.Uniform(50, 300), L.LogNormal(1500, cv=1.2, limit=16_000)),
        "short": L.Independent(L.Uniform(10, 100), L.Uniform(10, 400)),
        "constant 500/200": L.Independent(L.Constant(500), L.Constant(200)),
        "two lengths 10/{100,500}": L.Independent(L.Constant(10), L.Discrete([100, 500])),
        "mixture": L.Mixture([UNIFORM, L.Independent(L.Uniform(2000, 6000), L.Uniform(10, 100))], [3, 1]),
        "azure conv": catalog.lengths("azure-conv-2023"),
        "azure code": catalog.lengths("azure-code-2023"),
        "mooncake": catalog.lengths("mooncake-conversation"),
    }


def laws() -> dict[str, st.iteration.IterationLaw]:
    """Step-time laws by name."""
    return {
        "affine": st.IterationTime(
            base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8
        ),
        "two-phase H100": catalog.replica("H100-SXM", "Llama-3.1-8B").iteration,
        "hinge": st.iteration.Hinge(
            base_s=0.0118, per_token_s=5.3e-5, threshold_tokens=96, per_kv_token_s=8e-8, per_prefill_context_s=3.7e-9
        ),
        "staircase": st.iteration.Staircase(base_s=0.008, per_step_s=0.006, step_tokens=128, per_kv_token_s=4e-8),
        "roofline L4": catalog.roofline("L4", "Llama-3.1-8B"),
    }


def policies() -> dict[str, dict[str, object]]:
    """Engine settings by name."""
    return {
        "reserve": {"admission": "reserve"},
        "prompt gate": {"admission": "prompt_gate"},
        "prompt gate h=5%": {"admission": "prompt_gate", "watermark": 0.05},
        "chunk gate": {"admission": "chunk_gate"},
        "slots 48": {"admission": "prompt_gate", "max_num_seqs": 48},
    }


@dataclass(frozen=True, slots=True)
class Case:
    """One point of the matrix, by names."""

    workload: str
    law: str
    policy: str
    fleet: str = "1"

    @property
    def name(self) -> str:
        """All names, joined."""
        return f"{self.workload} / {self.law} / {self.policy} / {self.fleet}"

    @property
    def lengths(self) -> L.Lengths:
        """The length law."""
        return workloads()[self.workload]

    def build(self) -> st.Fleet:
        """The fleet."""
        lengths = self.lengths
        engine = st.Engine(**{"max_num_seqs": 1024, "max_num_batched_tokens": 2048, **policies()[self.policy]})  # type: ignore[arg-type]
        mean = lengths.prompt_mean_tokens + lengths.output_mean_tokens
        memory = int(max(60 * mean, 2.5 * lengths.max_total_tokens, 60_000))
        replica = st.Replica(iteration=laws()[self.law], kv_capacity_tokens=memory, engine=engine)
        if self.fleet == "mixed":
            slower = replace(replica, iteration=replica.iteration.scaled(1.6), kv_capacity_tokens=int(1.5 * memory))
            return st.Fleet([st.Pool("fast", replica, 2), st.Pool("slow", slower, 2)])
        return st.Fleet.of(replica, int(self.fleet))


def matrix(size: str) -> list[Case]:
    """Every combination for "full"; for "quick" each workload and each law with each policy, and one fleet of each kind."""
    every = [
        Case(workload, law, policy, fleet)
        for workload in workloads()
        for law in laws()
        for policy in policies()
        for fleet in ("1", "8", "mixed")
    ]
    if size == "full":
        return every
    return [
        case
        for case in every
        if (case.fleet == "1" and "affine" in case.law and case.policy in ("reserve", "prompt gate", "slots 48"))
        or (case.fleet == "1" and case.workload in ("uniform 1:1", "azure conv"))
        or (case.workload == "azure conv" and case.law == "two-phase H100" and case.policy == "reserve")
    ]
