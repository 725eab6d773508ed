"""`simulate` as a whole: conservation laws, reproducibility, modes, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hs

import stability as st
from stability.errors import InputError, NotModelledError, UnservableError
from stability.sim.capacity import measured_capacity
from stability.sim.engine import simulate
from stability.sim.result import SimulationResult

LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
LENGTHS = st.lengths.Independent(prompt=st.lengths.Uniform(1, 200), output=st.lengths.Uniform(1, 120))
ENGINE = st.Engine(max_num_seqs=16, max_num_batched_tokens=64)
REPLICA = st.Replica(iteration=LAW, kv_capacity_tokens=1200, engine=ENGINE)


def run(rate_per_s: float = 3.0, *, count: int = 1, requests: int | None = 400, **options: object) -> SimulationResult:
    workload = st.Workload.poisson(rate_per_s, LENGTHS)
    return simulate(st.Fleet.of(REPLICA, count), workload, requests=requests, rng=7, **options)  # type: ignore[arg-type]


@given(hs.floats(0.5, 20.0), hs.integers(1, 3), hs.sampled_from(("round_robin", "join_shortest_kv", "power_of_two")))
def test_conservation(rate_per_s: float, count: int, router: str) -> None:
    result = run(rate_per_s, count=count, requests=60, router=router, record_steps=True, warmup=0.0)
    records, steps = result.requests, result.steps
    assert records is not None
    assert result.generated_tokens == records.output_tokens.sum()
    # Every prompt token is computed, and whatever an eviction threw away again.
    assert result.computed_prompt_tokens >= records.prompt_tokens.sum()
    if result.preemptions == 0:
        assert result.computed_prompt_tokens == records.prompt_tokens.sum()
    # A completed prompt gives a token too: one a request, and one more for each eviction while it decoded.
    again = result.computed_prompt_tokens + result.generated_tokens - len(records) - steps["scheduled_tokens"].sum()
    assert 0 <= again <= result.preemptions
    assert steps["used_blocks"].max() <= REPLICA.capacity_blocks
    assert steps["running"].max() <= ENGINE.max_num_seqs
    assert steps["scheduled_tokens"].max() <= ENGINE.max_num_batched_tokens
    for r in range(count):
        own = steps["replica"] == r
        assert (steps["start_s"][own][1:] >= steps["end_s"][own][:-1]).all()
        mine = records.replica == r
        assert (np.diff(records.admitted_s[mine]) >= 0).all()  # first come, first served
    assert (records.arrival_s <= records.admitted_s).all()
    assert (records.admitted_s < records.first_token_s).all()
    assert (records.first_token_s <= records.finish_s).all()


def test_tokens_in_are_tokens_out_and_in_flight() -> None:
    result = run(30.0, requests=None, horizon_s=12.0)
    records = result.requests
    assert records is not None
    done = np.isfinite(records.finish_s)
    assert 0 < done.sum() < len(records)
    given_out = records.output_tokens[done].sum()
    started = np.isfinite(records.first_token_s) & ~done
    assert given_out + started.sum() <= result.generated_tokens
    assert result.generated_tokens < given_out + records.output_tokens[started].sum()
    assert np.isnan(records.finish_s[~done]).all()
    assert result.completed == done.sum()


@pytest.mark.parametrize("mode", [{}, {"concurrency": 12}, {"saturated": True}])
def test_little(mode: dict[str, object]) -> None:
    result = run(4.0, requests=300, warmup=0.0, **mode)
    records = result.requests
    assert records is not None
    window = (0.0, result.end_s)
    if result.window_s == pytest.approx(window):
        in_system = (records.finish_s - records.arrival_s).sum() / result.end_s
        assert result.running_mean + result.waiting_mean == pytest.approx(in_system, rel=1e-9)
    else:  # over any window: time in it of each request
        begin, end = result.window_s
        inside = np.clip(records.finish_s, begin, end) - np.clip(records.arrival_s, begin, end)
        assert result.running_mean + result.waiting_mean == pytest.approx(inside.sum() / (end - begin), rel=1e-9)


def test_itl_is_weighted_by_tokens() -> None:
    result = run(warmup=0.0)
    records = result.requests
    assert records is not None
    inside = records.finish_s <= result.window_s[1]
    gaps = (records.finish_s - records.first_token_s)[inside].sum()
    assert result.itl_mean_s == pytest.approx(gaps / (records.output_tokens[inside] - 1).sum())
    assert len(result.itl_s) == (records.output_tokens > 1).sum()


def test_summary_agrees_with_kept_requests() -> None:
    kept, summary = run(requests=5000), run(requests=5000, keep="summary")
    assert summary.requests is None
    for name in ("throughput_per_s", "itl_mean_s", "ttft_mean_s", "preemptions", "end_s", "window_s", "kv_occupancy"):
        assert getattr(summary, name) == getattr(kept, name)
    for p in (0.1, 0.5, 0.9, 0.99):
        assert summary.ttft_quantile_s(p) == pytest.approx(kept.ttft_quantile_s(p), rel=0.03)
    with pytest.raises(InputError, match="keep"):
        _ = summary.ttft_s


SCRIPT = """
import hashlib, sys
sys.path.insert(0, {root!r})
import stability as st
from stability.sim.engine import simulate
law = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
engine = st.Engine(max_num_seqs=4, max_num_batched_tokens=16, block_size=4)
lengths = st.lengths.Independent(prompt=st.lengths.Uniform(1, 20), output=st.lengths.Uniform(1, 90))
fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=160, engine=engine), 2)
for options in ({{}}, {{"concurrency": 7}}, {{"saturated": True}}, {{"router": "power_of_two"}}):
    result = simulate(fleet, st.Workload.poisson(3.0, lengths), requests=50, rng=3, **options)
    print(hashlib.sha256(result.requests.finish_s.tobytes()).hexdigest(), result.preemptions)
"""


def test_same_bits_in_every_process_compiled_or_not(root: Path) -> None:
    script = SCRIPT.format(root=str(root))
    outputs = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env=os.environ | {"NUMBA_DISABLE_JIT": flag},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for flag in ("0", "0", "1")
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(set(outputs[0].split("\n"))) == 5


def test_import_needs_no_numba(root: Path) -> None:
    code = "import sys, stability.sim.engine, stability.sim.capacity; print('numba' in sys.modules, 'pandas' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.split() == ["False", "False"]


def test_policies_compared_on_one_seed_see_the_same_requests() -> None:
    one, other = run(router="random", count=2), run(router="join_shortest_queue", count=3)
    assert one.requests is not None
    assert other.requests is not None
    np.testing.assert_array_equal(one.requests.prompt_tokens, other.requests.prompt_tokens)
    np.testing.assert_array_equal(one.requests.arrival_s, other.requests.arrival_s)


def test_overload_is_said_and_ends() -> None:
    result = run(200.0, requests=3000)
    assert result.complete
    assert result.overloaded
    assert "grew more steadily" in result.reason
    assert result.completed == 3000
    assert not run(1.0, requests=3000).overloaded


def test_a_queue_that_may_settle_is_not_called_overloaded() -> None:
    for rate_per_s in (8.8, 9.5):  # loads of 0.9 and 0.97; the second is undetermined
        result = run(rate_per_s, requests=3000, keep="summary")
        assert (result.overloaded, result.reason) == (False, "")


def test_series_and_plot() -> None:
    result = run(resolution_s=0.5)
    series = result.series
    assert len(series["time_s"]) == int(result.end_s / 0.5) + 1
    # Samples at fixed times see the time averages.
    assert series["running"].mean() == pytest.approx(run(warmup=0.0).running_mean, rel=0.1)
    axes = result.plot()
    assert axes.get_ylabel() == "requests"
    with pytest.raises(InputError, match="resolution_s"):
        run().plot()


def test_steps_that_end_after_the_horizon_are_sampled() -> None:
    result = run(30.0, requests=None, horizon_s=10.24, resolution_s=0.01)  # 1024 samples, the room made at first
    assert result.end_s > 10.24
    assert len(result.series["time_s"]) == int(result.end_s / 0.01) + 1 > 1024


def test_a_run_limited_by_time_takes_few_samples_and_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    from stability.sim.kernels.state import Arrivals
    from stability.sim.run import Run

    pieces: list[int] = []
    arrive = Run._arrive

    def noted(self: Run, piece: Arrivals) -> None:
        pieces.append(len(piece.arrival_s))
        arrive(self, piece)

    monkeypatch.setattr(Run, "_arrive", noted)
    result = run(4.0, requests=None, horizon_s=20_000.0, keep="summary")
    assert result.arrived == sum(pieces) > 70_000  # two blocks
    assert 256 <= len(pieces) < 512
    run(4.0, requests=10**7, horizon_s=1000.0, keep="summary")
    assert len(pieces) > 512  # the horizon counts, not the requests that never come


def test_result_formats() -> None:
    result = run()
    assert json.loads(json.dumps(result.to_dict()))["completed"] == 400
    frame = result.to_frame()
    assert list(frame.columns[:3]) == ["arrival_s", "prompt_tokens", "output_tokens"]
    assert frame["request_class"].cat.categories.tolist() == ["requests"]
    assert "throughput" in result.summary()
    assert "<table>" in result._repr_html_()
    assert "400 of 400" in repr(result)
    assert len(run(keep="summary", count=2).to_frame()) == 2
    with pytest.raises(ValueError, match="read-only"):
        result.requests.finish_s[0] = 0.0  # type: ignore[union-attr]


def test_interrupt_returns_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from stability.sim.run import Run

    advance = Run._advance

    def interrupted(self: Run, time_s: float) -> None:
        advance(self, time_s)
        if self.arrived > 200:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_advance", interrupted)
    result = run()
    assert not result.complete
    assert "interrupted" in result.reason
    assert 200 < result.arrived < 400
    assert 0 < result.completed <= result.arrived
    assert result.requests is not None
    assert len(result.requests) == result.arrived


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    run(progress=True)
    assert "400/400" in capsys.readouterr().err


def test_memory_of_a_summary_does_not_grow() -> None:
    from stability.sim import run as module

    pools = []
    checkpoint = module.Run.checkpoint

    def watched(self: module.Run, time_s: float) -> None:
        pools.append(len(self.machine.pool))
        checkpoint(self, time_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Run, "checkpoint", watched)
        run(requests=400_000, keep="summary")
    assert pools[-1] == pools[len(pools) // 4] < 200_000


def test_saturated_throughput_is_measured_while_the_queue_lasts() -> None:
    result = run(saturated=True, requests=600, record_steps=True)
    steps, records = result.steps, result.requests
    assert records is not None
    emptied = steps["start_s"][np.argmax(steps["waiting"] == 0)]
    begin, end = result.saturated_s
    assert end == emptied
    assert 0 < begin < end
    done = ((records.finish_s > begin) & (records.finish_s <= end)).sum()
    assert result.throughput_per_s == pytest.approx(done / (end - begin))
    assert result.makespan_throughput_per_s == pytest.approx(600 / result.end_s)
    assert result.makespan_throughput_per_s < result.throughput_per_s


def test_capacity_brackets_its_own_long_run() -> None:
    fleet = st.Fleet.of(REPLICA, 3)
    workload = st.Workload.poisson(1.0, LENGTHS)
    found = measured_capacity(fleet, workload, requests=2000, rng=1)
    long = measured_capacity(st.Fleet.of(REPLICA), workload, requests=40_000, replications=2, rng=2)
    assert found.capacity_per_s == pytest.approx(3 * long.capacity_per_s, rel=0.03)
    assert json.loads(json.dumps(found.to_dict()))["capacity_per_s"] == found.capacity_per_s
    assert "interval" in found.summary()
    assert found.interval.low < found.capacity_per_s < found.interval.high
    assert run(1.05 * long.capacity_per_s, requests=20_000).overloaded
    with pytest.raises(InputError, match="hardly fill"):
        measured_capacity(fleet, workload, requests=3, rng=1)


def test_capacity_bound_by_the_token_budget() -> None:
    # Four steps of 64 tokens a prompt and nothing to decode: 4 s a request.
    replica = st.Replica(iteration=st.IterationTime(base_s=1.0), kv_capacity_tokens=100_000, engine=ENGINE)
    lengths = st.lengths.Independent(prompt=st.lengths.Constant(256), output=st.lengths.Constant(1))
    found = measured_capacity(st.Fleet.of(replica), st.Workload.poisson(1.0, lengths), requests=500, rng=1)
    assert found.capacity_per_s == pytest.approx(0.25, rel=0.01)


def test_bad_input() -> None:
    fleet = st.Fleet.of(REPLICA)
    trace = st.Workload.from_requests([0.0, 1.0, 2.0], [10, 2000, 10], [5, 5, 5])
    with pytest.raises(UnservableError, match="request 1 needs 2004 KV tokens"):
        simulate(fleet, trace)
    late = np.full(100_000, 10)
    late[90_000] = 2000
    with pytest.raises(UnservableError, match="request 90000 "):
        simulate(fleet, st.Workload.from_requests(np.arange(100_000.0), late, late), keep="summary")
    with pytest.raises(InputError, match="1000000000"):
        simulate(fleet, st.Workload.from_requests([0.0], [1], [1]), requests=10**9)
    with pytest.raises(InputError, match="keep='summary'"):
        run(requests=10**9)
    with pytest.raises(InputError, match="requests or horizon_s"):
        run(requests=None)
    with pytest.raises(InputError, match="saturated"):
        run(requests=None, saturated=True)
    with pytest.raises(InputError, match="Drop one"):
        run(saturated=True, concurrency=3)
    with pytest.raises(InputError, match="must be >= 0"):
        simulate(fleet, st.Workload.from_requests([-1.0], [1], [1]))
    with pytest.raises(InputError, match="router"):
        run(router="join_shortest_kw")
    with pytest.raises(InputError, match="have no weight"):
        run(router="weighted_split")
    with pytest.raises(InputError, match="coarser"):
        run(resolution_s=1e-9)
    for options in ({"requests": 0}, {"horizon_s": -1.0}, {"concurrency": 0}, {"warmup": 1.0}, {"keep": "all"}):
        with pytest.raises(InputError):
            run(**options)  # type: ignore[arg-type]


def test_not_modelled_yet() -> None:
    workload = st.Workload.poisson(1.0, LENGTHS)
    split = [st.Pool("prefill", REPLICA, role="prefill"), st.Pool("decode", REPLICA, role="decode")]
    barrier = [st.Pool("workers", REPLICA, 2, coupling=st.Barrier(2))]
    for fleet in (st.Fleet(split), st.Fleet(barrier)):
        with pytest.raises(NotModelledError):
            simulate(fleet, workload, requests=3)


def test_a_router_that_avoids_a_small_pool_may_send_long_requests() -> None:
    small = st.Replica(iteration=LAW, kv_capacity_tokens=64, engine=ENGINE)
    fleet = st.Fleet([st.Pool("small", small), st.Pool("large", REPLICA)])
    trace = st.Workload.from_requests([0.0], [100], [5])
    with pytest.raises(UnservableError, match="'small'"):
        simulate(fleet, trace)
    result = simulate(fleet, trace, router=st.policies.routers.WeightedSplit([0.0, 1.0]))
    assert result.completed == 1


def test_degenerate_runs() -> None:
    assert run(count=50, requests=3).completed == 3
    nothing = simulate(st.Fleet.of(REPLICA), st.Workload.poisson(1e-9, LENGTHS), horizon_s=1.0, rng=1)
    assert nothing.arrived == nothing.completed == 0
    assert len(nothing.to_frame()) == 0
    assert np.isnan(nothing.throughput_per_s) or nothing.throughput_per_s == 0
    nothing.summary()
    both = run(requests=100, horizon_s=5.0)
    assert both.arrived < 100
    assert both.requests is not None
    assert both.requests.arrival_s.max() < 5.0
    late = simulate(st.Fleet.of(REPLICA), st.Workload.from_requests([1.7e9, 1.7e9 + 1], [5, 5], [5, 5]))
    assert late.makespan_throughput_per_s == pytest.approx(2 / 1.06, rel=0.02)
