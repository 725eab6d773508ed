"""`fit_benchmark` and the mean step of a closed loop, against hand numbers and simulation."""

from __future__ import annotations

import numpy as np
import pytest

import stability as st
from stability.theory.closed_loop import loop_steps

from .steps import LAW, TWO

LENGTHS = ((128, 1024), (1024, 256), (4096, 128), (2000, 2000))
N = (1, 4, 16, 64)


def points(law: st.iteration.IterationLaw) -> st.BenchmarkPoints:
    n, s, o = np.array([(n, s, o) for s, o in LENGTHS for n in N], dtype=float).T
    tpot = loop_steps(s, o, n, max_num_batched_tokens=8192).time_s(law)
    return st.BenchmarkPoints(in_flight=n, prompt_tokens=s, output_tokens=o, tpot_s=tpot)


def test_points_of_the_model_give_the_law_back() -> None:
    fit = st.fit_benchmark(points(LAW), form="affine")
    assert fit.law.coefficients == pytest.approx(LAW.coefficients, rel=1e-6)
    two = st.fit_benchmark(points(TWO), form="two_phase")
    assert isinstance(two.law, st.iteration.TwoPhase)
    assert two.law.decode.base_s == pytest.approx(TWO.decode.base_s, rel=1e-4)
    assert two.law.mixed.per_prefill_token_s == pytest.approx(TWO.mixed.per_prefill_token_s, rel=1e-3)


def test_points_of_simulated_runs_give_the_law_within_its_error() -> None:
    n, s, o = np.array([(n, s, o) for s, o in ((100, 200), (800, 100), (1500, 400)) for n in (2, 8, 32)]).T
    tpot, ttft = [], []
    for flight, prompt, output in zip(n, s, o, strict=True):
        engine = st.Engine(max_num_seqs=256, max_num_batched_tokens=8192)
        fleet = st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=10**6, engine=engine))
        # Lengths vary a little, as random phases need.
        lengths = st.lengths.Independent(
            st.lengths.Uniform(int(0.8 * prompt), int(1.2 * prompt)),
            st.lengths.Uniform(int(0.8 * output), int(1.2 * output)),
        )
        run = st.simulate(
            fleet, st.Workload.poisson(1.0, lengths), requests=40 * int(flight), concurrency=int(flight), rng=1
        )
        assert run.requests is not None
        tpot.append(run.itl_mean_s)
        ttft.append(run.ttft_mean_s)
    measured = st.BenchmarkPoints(in_flight=n, prompt_tokens=s, output_tokens=o, tpot_s=tpot, ttft_s=ttft)
    for found in (st.fit_benchmark(measured), st.fit_benchmark(measured, form="affine")):
        assert found.mape < 0.03
        assert found.law.time_s(0, 16, 16_000) == pytest.approx(LAW.time_s(0, 16, 16_000), rel=0.04)


def test_times_to_first_token_tell_how_many_wait() -> None:
    """64 in flight on 16 slots: Little's law sees 16 in the batch, the number in flight does not."""
    law, s, o, slots = LAW, 500, 100, 16
    y = slots / (1 + o - 1)
    tpot = float(law.time_s(0, 1 + y * (slots - 1) / slots * (o - 1), 8000))
    rows = loop_steps(s, o, 64, max_num_batched_tokens=8192, first_token_steps=64 / y - (o - 1))
    assert float(rows.decode_tokens) == pytest.approx(1 + 63 / 64 * slots * 99 / 100)
    assert float(loop_steps(s, o, 64, max_num_batched_tokens=8192).decode_tokens) > 60
    assert tpot > 0


def test_hand_numbers_of_the_mean_step() -> None:
    # 100-token prompts, 11 output tokens, 12 in flight: 11 iterations resident, so one of the 11 others joins in each.
    steps = loop_steps(100, 11, 12, max_num_batched_tokens=512)
    assert float(steps.prefill_tokens) == 100
    assert float(steps.prefill_context) == 5000
    assert float(steps.decode_tokens) == 11
    assert float(steps.mixed_share) == 1
    law = st.IterationTime(base_s=1, per_prefill_token_s=0.01, per_decode_token_s=0.1)
    assert float(steps.time_s(law)) == pytest.approx(1 + 1 + 1.1)
    alone = loop_steps(100, 11, 1, max_num_batched_tokens=512)
    assert float(alone.time_s(law)) == pytest.approx(1.1)
    assert float(alone.kv_tokens) == pytest.approx(100 + 11 / 2)


def test_one_pair_of_lengths_ties_or_refuses() -> None:
    n = np.array([2.0, 4, 8, 16, 32, 64])
    flat = st.BenchmarkPoints(
        in_flight=n, prompt_tokens=np.full(6, 512), output_tokens=np.full(6, 128), tpot_s=0.01 + 1e-4 * n
    )
    with pytest.raises(st.InputError, match=r"cannot tell .* apart"):
        st.fit_benchmark(flat)
