"""The recorded decisions of vLLM's scheduler, as inputs and expected outcomes."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stability.model.engine import Engine
from stability.model.iteration import IterationTime
from stability.model.replica import Replica
from stability.model.requests import Requests

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "vllm_scheduler"
STEP_COLUMNS = ("scheduled_tokens", "scheduled_requests", "running", "preempted")
REQUEST_COLUMNS = ("first_token_step", "finish_step", "preemptions")


@dataclass(frozen=True)
class Recording:
    """One case: a replica with a step time of 1 s, its requests, and what the scheduler did."""

    replica: Replica
    requests: Requests
    steps: dict[str, np.ndarray]
    outcomes: dict[str, np.ndarray]


def names() -> list[str]:
    """All cases; empty where the data are absent."""
    if not FOLDER.exists():
        return []
    return [c["name"] for c in json.loads((FOLDER / "configs.json").read_text())]


def load(name: str) -> Recording:
    config = next(c for c in json.loads((FOLDER / "configs.json").read_text()) if c["name"] == name)
    engine = Engine(
        max_num_seqs=config["max_num_seqs"],
        max_num_batched_tokens=config["max_num_batched_tokens"],
        admission="prompt_gate" if config["scheduler_reserve_full_isl"] else "chunk_gate",
        watermark=config["watermark"],
        block_size=config["block_size"],
        prefix_caching=config["enable_prefix_caching"],
    )
    replica = Replica(
        iteration=IterationTime(base_s=1.0),
        kv_capacity_tokens=config["usable_kv_blocks"] * config["block_size"],
        engine=engine,
    )
    requests, steps = _columns(FOLDER / f"{name}_requests.csv"), _columns(FOLDER / f"{name}_steps.csv")
    zeros = np.zeros_like(requests["arrival_step"])
    return Recording(
        replica=replica,
        requests=Requests(
            arrival_s=requests["arrival_step"].astype(float),
            prompt_tokens=requests["prompt_tokens"],
            output_tokens=requests["output_tokens"],
            max_output_tokens=requests["output_tokens"],
            cached_prefix_tokens=zeros,
            request_class=zeros,
        ),
        steps={c: steps[c] for c in ("step", *STEP_COLUMNS)},
        outcomes={c: requests[c] for c in REQUEST_COLUMNS},
    )


def _columns(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([int(row[name]) for row in rows]) for name in rows[0]}
