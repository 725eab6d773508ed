"""The stage equations: the closure against the recursion, equilibria against flow balance, stability against eigenvalues."""

from __future__ import annotations

import numpy as np
import pytest

import stability as st
from stability.theory.fluid.ode import StageModel, phase_portrait

L = st.lengths
LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
REPLICA = st.Replica(iteration=LAW, kv_capacity_tokens=30_000, engine=st.Engine(max_num_seqs=512, block_size=1))


def model(rate: float, stages: int = 1, replica: st.Replica = REPLICA) -> StageModel:
    return StageModel(replica=replica, rate_per_s=rate, prompt_tokens=200, output_tokens=200, stages=stages)


def test_geometric_outputs_close_exactly() -> None:
    """The recursion of the whole age structure and three equations: within half an iteration's arrivals."""
    workload = st.Workload.poisson(15.0, L.Independent(L.Constant(200), L.Geometric(200)))
    path = st.fluid_path(st.Fleet.of(REPLICA), workload, horizon_s=60.0, width=1, points=101)
    found = model(15.0).solve(60.0, points=101)
    # Resident in an iteration are those after the last one and the newly admitted.
    assert np.abs(path.running[:, 0] - found.running[:, 0] - found.waiting).max() < 0.1
    assert path.running[-1, 0] == pytest.approx(float(found.running[-1, 0] + found.waiting[-1]), rel=1e-4)


def test_equilibria_do_not_change_and_paths_reach_them() -> None:
    for stages in (1, 2, 5):
        for rate in (5.0, 18.0):
            of = model(rate, stages)
            rest = of.equilibrium()
            state = np.concatenate((rest.running, rest.kv_tokens, [rest.waiting]))
            assert np.abs(of.slope(0.0, state)).max() < 1e-9
            assert rest.locally_stable
            end = of.solve(120.0)
            assert end.running[-1] == pytest.approx(rest.running, rel=1e-5)
            assert end.kv_tokens[-1] == pytest.approx(rest.kv_tokens, rel=1e-5)


def test_capacity_of_geometric_outputs_is_the_bound() -> None:
    workload = st.Workload.poisson(1.0, L.Independent(L.Constant(200), L.Geometric(200)))
    bound = st.analyze(st.Fleet.of(REPLICA), workload).upper_bound_per_s
    assert model(1.0).equilibrium().capacity_per_s == pytest.approx(bound, rel=1e-6)


def test_above_capacity_memory_is_full_and_the_queue_grows_by_the_excess() -> None:
    rest = model(40.0).equilibrium()
    assert not rest.admits_all
    assert rest.locally_stable
    path = model(40.0).solve(100.0)
    growth = (path.waiting[-1] - path.waiting[-100]) / (path.time_s[-1] - path.time_s[-100])
    assert growth == pytest.approx(40.0 - rest.capacity_per_s, rel=1e-3)


def test_eigenvalues_are_those_of_finite_differences() -> None:
    of = model(18.0, 3)
    rest = of.equilibrium()
    state = np.concatenate((rest.running, rest.kv_tokens, [rest.waiting]))
    columns = []
    for i in range(len(state)):
        step = np.eye(len(state))[i] * 1e-4 * max(1.0, state[i])
        columns.append((of.slope(0.0, state + step) - of.slope(0.0, state - step)) / (2 * step[i]))
    by_difference = np.sort_complex(np.linalg.eigvals(np.array(columns).T))
    assert np.sort_complex(rest.eigenvalues) == pytest.approx(by_difference, rel=1e-4, abs=1e-4)


def test_portrait_and_refusals() -> None:
    axes = phase_portrait(model(15.0))
    assert axes.get_xlabel() == "requests running"
    with pytest.raises(st.InputError, match="start"):
        model(1.0).solve(1.0, start=np.array([1.0]))
    with pytest.raises(st.StabilityError, match="affine"):
        model(1.0, replica=st.replica("H100-SXM", "Llama-3.1-8B"))
