"""One run of the barrier kernel: its arrays, its marks, its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .._types import AnyArray, FloatArray, read_only
from ..model.fleet import Barrier, Pool
from ..model.requests import Requests
from ..policies.balance import BalanceRoute, BalanceRouter, LengthPartition
from ..policies.routers import Router
from .kernels import barrier as kernel
from .kernels import group_state as layout
from .kernels.dispatch import Desk, desk_of
from .kernels.laws import encode
from .kernels.state import NONE

MARKS = 256
"""Marks of the totals over a run."""

POWER_W = (100.0, 300.0, 0.7)
"""Idle power, its span and the exponent of the relative load: W per worker (the figures of BF-IO's authors)."""


@dataclass(slots=True, kw_only=True, eq=False)
class GroupRun:
    """A barrier group about to serve `requests`.

    Parameters
    ----------
    pool : Pool
        Coupled by a `Barrier`.
    policy : Router
    central : bool
        Whether requests wait in one queue.
    requests : Requests
    concurrency : int
        Requests in the system of a closed loop; 0 in an open one.
    uniforms, shares, tables : ndarray
        The router's random numbers, shares and predictions.
    """

    pool: Pool
    policy: Router
    central: bool
    requests: Requests
    concurrency: int
    uniforms: FloatArray
    shares: FloatArray
    tables: FloatArray
    jobs: layout.GroupJobs = field(init=False)
    state: layout.GroupState = field(init=False)

    @property
    def workers(self) -> int:
        """Workers of the group."""
        return self.pool.replicas

    @property
    def steps(self) -> int:
        """Steps made."""
        return int(self.state.registers[layout.STEP])

    @property
    def peak(self) -> int:
        """Largest KV read by one worker in one step."""
        return int(self.state.registers[layout.PEAK])

    def go(self, *, steps: int, warmup: float) -> None:
        """Run from the start, with room for so many `steps` in the log and marks after a share `warmup` of the completions."""
        count = len(self.requests)
        first = int(warmup * count)
        self.jobs = self._jobs()
        self.state = self._state(steps)
        limits = self._limits()
        end_s = kernel.run(limits, self.jobs, self.state, self._desk(), first, max(1, (count - first) // MARKS))
        kernel.mark(limits, self.state, 0, end_s)

    def window(self) -> tuple[dict[str, float], dict[str, float]]:
        """First and last mark of the measured window: as long as requests arrive, or as every worker has some waiting."""
        rows = self._rows()
        begin = rows[0]
        inside = [row for row in rows if row["fed"] > 0]
        end = inside[-1] if len(inside) > 1 else rows[-1]
        return begin, end

    def batches(self, begin: Mapping[str, float], end: Mapping[str, float]) -> dict[str, FloatArray]:
        """Totals at the marks of the window, as columns."""
        rows = [row for row in self._rows() if begin["at_s"] <= row["at_s"] <= end["at_s"]]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def log(self) -> Mapping[str, AnyArray]:
        """The recorded steps; empty if there are none."""
        rows, g = int(self.state.registers[layout.LOGGED]), self.workers
        if rows == 0:
            return {}
        log = self.state.log[:rows]
        columns = {
            "start_s": self.state.log_s[:rows, 0],
            "end_s": self.state.log_s[:rows, 1],
            "prefill": log[:, :g],
            "decodes": log[:, g : 2 * g],
            "kv_tokens": log[:, 2 * g : 3 * g],
            "waiting": log[:, 3 * g],
        }
        return {name: read_only(column) for name, column in columns.items()}

    def _rows(self) -> list[dict[str, float]]:
        names = ("at_s", *layout.TOTALS, "fed")
        marks = self.state.marks[: self.state.registers[layout.MARKS]]
        return [dict(zip(names, row, strict=True)) for row in marks.tolist()]

    def _limits(self) -> layout.GroupLimits:
        pool, engine = self.pool, self.pool.replica.engine
        assert isinstance(pool.coupling, Barrier)
        kind, law = encode(pool.replica.iteration, engine.max_num_batched_tokens)
        parts = self.policy if isinstance(self.policy, LengthPartition) else None
        return layout.GroupLimits(
            workers=pool.replicas,
            slots=engine.max_num_seqs,
            budget=engine.max_num_batched_tokens,
            kv_capacity=pool.replica.usable_kv_tokens,
            sync_s=float(pool.coupling.sync_s),
            law_kind=kind,
            law=law,
            decode_only=pool.role == "decode",
            central=self.central,
            router=self.policy.code,
            concurrency=self.concurrency,
            tables=self.tables,
            shares=self.shares,
            cutoffs=np.array(parts.cutoffs if parts else [], dtype=np.int64),
            part_start=np.cumsum([0, *(parts.workers if parts else [])], dtype=np.int64),
            power=np.array(POWER_W),
            reserve=engine.admission == "reserve" and engine.scheduler is None,
            capacity_blocks=pool.replica.capacity_blocks,
            watermark_blocks=engine.watermark_blocks(pool.replica.kv_capacity_tokens),
        )

    def _jobs(self) -> layout.GroupJobs:
        count, block = len(self.requests), self.pool.replica.engine.block_size
        return layout.GroupJobs(
            arrival_s=np.array(self.requests.arrival_s, dtype=np.float64),
            prompt=np.array(self.requests.prompt_tokens, dtype=np.int64),
            output=np.array(self.requests.output_tokens, dtype=np.int64),
            request_class=np.array(self.requests.request_class, dtype=np.int64),
            reserve_blocks=-(-(self.requests.prompt_tokens + self.requests.max_output_tokens) // block),
            uniforms=self.uniforms,
            base=np.full(count, NONE, dtype=np.int64),
            computed=np.zeros(count, dtype=np.int64),
            worker=np.full(count, NONE, dtype=np.int64),
            following=np.full(count, NONE, dtype=np.int64),
            assigned_s=np.full(count, np.nan),
            first_token_s=np.full(count, np.nan),
            finish_s=np.full(count, np.nan),
        )

    def _state(self, steps: int) -> layout.GroupState:
        g, n, count = self.workers, self.pool.replica.engine.max_num_seqs, len(self.requests)

        def zeros() -> AnyArray:
            return np.zeros(g, dtype=np.int64)

        return layout.GroupState(
            registers=np.zeros(11, dtype=np.int64),
            totals=np.zeros(len(layout.TOTALS)),
            marks=np.zeros((MARKS + 3, 2 + len(layout.TOTALS))),
            running=np.zeros((g, n), dtype=np.int64),
            occupied=zeros(),
            reserved_blocks=zeros(),
            prefilling=zeros(),
            decodes=zeros(),
            decode_kv=zeros(),
            resident_kv=zeros(),
            next_finish=np.full(g, layout.NEVER, dtype=np.int64),
            own_s=np.zeros(g),
            step_prefill=zeros(),
            queued=zeros(),
            queued_tokens=zeros(),
            queue_head=np.full(g, NONE, dtype=np.int64),
            queue_tail=np.full(g, NONE, dtype=np.int64),
            pool=np.zeros(count if self.central else 0, dtype=np.int64),
            candidates=zeros(),
            drawn=np.zeros(max(g, self.policy.draws), dtype=np.int64),
            log_s=np.zeros((steps, 2)),
            log=np.zeros((steps, 3 * g + 1), dtype=np.int64),
        )

    def _desk(self) -> Desk:
        if isinstance(self.policy, BalanceRouter):
            return desk_of(self.policy, self.workers, self.pool.replica.engine.max_num_seqs)
        return desk_of(BalanceRoute(window=1, greedy_slots=1), self.workers, 1)
