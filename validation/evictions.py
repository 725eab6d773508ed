"""Evictions and capacity of gates and slot caps, against the token-level simulator.

`python -m validation --full --only eviction` is the claim; `python -m validation.evictions` writes its table into docs/theory/eviction.md.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import stability as st
from stability import lengths as L
from stability.model import catalog
from stability.sim.engine import simulate
from stability.theory.moments import Demand, moments
from stability.theory.surplus import lundberg_exponent

from .cells import Cell, Status, Task, claim, measured

LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)

MEMORIES = {"quick": (131_000,), "full": (131_000, 524_000)}
"""KV tokens: a hundred requests running or so, and four times as many, which the token budget then crowds."""

REQUESTS = {"quick": 20_000, "full": 60_000}

FEW_EVICTIONS, OTHER = 0.05, 0.10
"""Tolerances on capacity: fewer than one eviction per request, everything else."""

FACTOR, LEAST = 1.5, 1e-3
"""The predicted chance of an eviction lies within this factor, where the simulated one is larger than the least."""

DOUBT, DOUBTFUL = 0.93, "; in doubt"
"""Certain rate over capacity below which the theory doubts its capacity, and how a cell says so."""

BUDGET, SEED = 2048, 2026

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "theory" / "eviction.md"
BEGIN, END = "<!-- table: python -m validation.evictions -->", "<!-- end of table -->"


def workloads() -> dict[str, L.Lengths]:
    """Length laws by name."""
    uniform = L.Uniform
    return {
        "U(10, 1600)^2": L.Independent(uniform(10, 1600), uniform(10, 1600)),
        "2:1": L.Independent(uniform(10, 1600), uniform(5, 800)),
        "1:2": L.Independent(uniform(5, 800), uniform(10, 1600)),
        "geometric": L.Independent(L.Geometric(500, limit=16_000), L.Geometric(300, limit=8_000)),
        "lognormal, sigma 1": L.Independent(
            L.LogNormal.from_sigma(400, 1.0, limit=16_000), L.LogNormal.from_sigma(200, 1.0, limit=8_000)
        ),
        "reasoning": L.Independent(
            L.LogNormal.from_sigma(150, 0.8, limit=4_000), L.LogNormal.from_sigma(2500, 1.0, limit=16_000)
        ),
        "constant 100/500": L.Independent(L.Constant(100), L.Constant(500)),
        "+-20 % of 1000/500": L.Independent(uniform(800, 1200), uniform(400, 600)),
        "10/{100, 500}": L.Independent(L.Constant(10), L.Discrete([100, 500])),
        "Azure conv": catalog.lengths("azure-conv-2023"),
        "Azure code": catalog.lengths("azure-code-2023"),
        "Mooncake": catalog.lengths("mooncake-conversation"),
    }


QUICK = ("U(10, 1600)^2", "lognormal, sigma 1", "constant 100/500", "Azure conv")

HEADROOMS = (0.0, 1.0, 2.0, 4.0)
"""In units of 1/theta."""

SLOTS = (0.7, 0.8, 0.9, 0.95)
"""Over the number of requests that fills memory."""

CACHE_HEADROOM = 0.6
"""Share of the cache that headroom may take."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One engine under one length law, by name."""

    workload: str
    memory: int
    what: str
    engine: st.Engine

    @property
    def case(self) -> str:
        """All names, joined."""
        return f"{self.workload} / {self.memory} / {self.what}"


def settings(size: str) -> Iterator[Setting]:
    """Every engine of every workload."""
    for name, lengths in workloads().items():
        if size == "quick" and name not in QUICK:
            continue
        for memory in MEMORIES[size]:
            yield from _settings(name, lengths, memory)


def _settings(name: str, lengths: L.Lengths, memory: int) -> Iterator[Setting]:
    many = {"max_num_seqs": BUDGET, "max_num_batched_tokens": BUDGET}
    scale = 1 / lundberg_exponent(lengths) / memory
    for headroom in HEADROOMS:
        if headroom * scale < CACHE_HEADROOM:
            yield Setting(name, memory, f"h = {headroom:g}/theta", st.Engine(**many, watermark=headroom * scale))
    mean = moments(lengths, BUDGET, 16).mean
    filling = memory * mean[Demand.ITERATIONS] / mean[Demand.VOLUME]
    for share in SLOTS:
        slots = max(1, int(share * filling))
        if slots <= BUDGET:
            yield Setting(name, memory, f"slots {share:g}", st.Engine(**{**many, "max_num_seqs": slots}))
    yield Setting(name, memory, "prefix caching", st.Engine(**many, prefix_caching=True))
    yield Setting(name, memory, "chunk gate", st.Engine(**many, admission="chunk_gate"))
    yield Setting(name, memory, "chunk gate, h = 5 %", st.Engine(**many, admission="chunk_gate", watermark=0.05))


@claim("eviction")
def tasks(size: str) -> Iterator[Task]:
    """One task per engine: analysis and a saturated run."""
    for setting in settings(size):
        yield Task(setting.case, cells_of, (setting, size))


def cells_of(setting: Setting, size: str) -> list[Cell]:
    """Capacity, and the chance of an eviction where it is not negligible."""
    replica = st.Replica(iteration=LAW, kv_capacity_tokens=setting.memory, engine=setting.engine)
    fleet, unit = st.Fleet.of(replica), st.Workload.poisson(1.0, workloads()[setting.workload])
    report = st.analyze(fleet, unit)
    run = simulate(fleet, unit, requests=REQUESTS[size], saturated=True, keep="summary", rng=SEED)
    evictions = run.preemptions / REQUESTS[size]
    half = run.intervals["throughput_per_s"].half_width
    found = [
        measured(
            "eviction capacity",
            setting.case,
            predicted=report.capacity_per_s,
            observed=run.throughput_per_s,
            half_width=half,
            tolerance=FEW_EVICTIONS if evictions < 1 else OTHER,
            note=f"evictions per request predicted {report.evictions_per_request:.4g}, simulated {evictions:.4g}",
        ),
        _certain(setting, report, run.throughput_per_s, half),
    ]
    predicted = report.evictions_per_request / (1 + report.evictions_per_request)
    observed = evictions / (1 + evictions)
    if observed > LEAST:
        within = predicted > 0 and abs(math.log(predicted / observed)) <= math.log(FACTOR)
        found.append(
            Cell(
                claim="eviction chance",
                case=setting.case,
                predicted=predicted,
                observed=observed,
                tolerance=FACTOR - 1,
                status=Status.PASS if within else Status.FAIL,
                note=f"within a factor {FACTOR}",
            )
        )
    return found


def _certain(setting: Setting, report: st.StabilityReport, throughput: float, half: float) -> Cell:
    """Whether the rates that verdicts rest on lie on the right sides of the simulated one."""
    low, high = report.stable_below_per_s, report.unstable_above_per_s
    right = low <= throughput + half and high >= throughput - half
    return Cell(
        claim="eviction verdict",
        case=setting.case,
        predicted=f"{low:.4g} .. {high:.4g}",
        observed=f"{throughput:.4g}",
        status=Status.PASS if right else Status.FAIL,
        note="stable below .. unstable above" + (DOUBTFUL if low < DOUBT * report.capacity_per_s else ""),
    )


def markdown(cells: list[Cell]) -> str:
    """The cells as a table, one row per engine."""
    capacity = {cell.case: cell for cell in cells if cell.claim == "eviction capacity"}
    chance = {cell.case: cell for cell in cells if cell.claim == "eviction chance"}
    lines = [
        "| lengths | KV tokens | engine | capacity, 1/s | simulated | deviation | P(evict) | simulated | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, cell in capacity.items():
        workload, memory, what = case.split(" / ")
        other = chance.get(case)
        p = f"{other.predicted:.2g} | {other.observed:.2g}" if other else "- | -"
        bad = [c.claim.split()[1] for c in (cell, other) if c is not None and c.status is Status.FAIL]
        flag = f"**{' and '.join(bad)} outside**" if bad else ""
        lines.append(
            f"| {workload} | {memory} | {what} | {cell.predicted:.4g} | {cell.observed:.4g} | "
            f"{100 * cell.deviation:+.1f} % | {p} | {flag} |"
        )
    within = sum(cell.status is Status.PASS for cell in cells)
    doubtful = {cell.case for cell in cells if cell.note.endswith(DOUBTFUL)}
    sure = [abs(cell.deviation) for case, cell in capacity.items() if case not in doubtful]
    wrong = sum(cell.claim == "eviction verdict" and cell.status is Status.FAIL for cell in cells)
    lines += [
        "",
        f"{within} of {len(cells)} figures are right or within their tolerance, the verdicts' rates included (wrong: {wrong}). Where the "
        f"theory states no doubt ({len(sure)} of {len(capacity)} engines) capacity is within {100 * max(sure):.1f} %, "
        f"{100 * sum(sure) / len(sure):.1f} % on average.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the full claim and write its table into the document."""
    import joblib  # type: ignore[import-untyped]
    from tqdm import tqdm

    wanted = list(tasks("full"))
    runs = joblib.Parallel(n_jobs=-1, return_as="generator")(joblib.delayed(task.run)() for task in wanted)
    cells = [cell for found in tqdm(runs, total=len(wanted), unit="engine", disable=None) for cell in found]
    text = DOCUMENT.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    DOCUMENT.write_text(f"{head}{BEGIN}\n\n{markdown(cells)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
