"""Published stability conditions as special cases of one load formula, each with its own footprint convention.

WAIT's fluid model (arXiv 2504.11320, section 1.2), throughput-optimal batching (2504.07347, theorem 2), flow control
(2604.11001, proposition 3.2).
"""

import numpy as np
import pytest

import stability as st
from stability import iteration as it
from stability import lengths as L
from stability.theory import conditions, footprint
from stability.theory.envelope import upper_bound
from stability.theory.moments import N_DEMANDS, moments


def test_work_conserving_boundary_of_2504_07347() -> None:
    """lambda (m_p + m_d) = b_max/t(b_max) = 512/153.16 ms; (100, 100) gives 16.71 requests/s.

    No memory limit; v_d decode tokens after the prompt are o = v_d + 1 of ours, and cp = cd.
    """
    law = it.Staircase(base_s=0.01128, per_step_s=0.03547, step_tokens=128)
    lengths = L.Independent(L.Constant(100), L.Constant(100 + 1))
    engine = st.Engine(max_num_seqs=512, max_num_batched_tokens=512, admission="reserve", block_size=1)
    fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=10**9, engine=engine))
    report = st.analyze(fleet, st.Workload.poisson(1.0, lengths))
    assert report.upper_bound_per_s == pytest.approx(512 / 0.15316 / 200, rel=1e-9)
    assert report.capacity_per_s == pytest.approx(16.71, abs=0.005)
    assert report.bottleneck in ("token_budget", "compute")

    other = L.Independent(L.Constant(129), L.Constant(113))
    assert st.analyze(fleet, st.Workload.poisson(1.0, other)).upper_bound_per_s == pytest.approx(13.9, abs=0.03)


def test_proposition_3_2_of_2604_11001() -> None:
    """sum_k lambda_k w_k <= M with w = s*o + o(o+1)/2 per slot of one step: 4.0621 per class for M = 16 492."""
    w = [float(footprint.volume(10, o, 10**6, residency="slots")) for o in (20, 40, 60)]
    assert w == [410, 1220, 2430]
    one_step = np.array([1.0, 0, 0, 0, 0])
    no_work = np.zeros(N_DEMANDS)
    per_class = conditions.affine_capacity(one_step, no_work, np.array([sum(w) / 16_492]))
    assert float(per_class) == pytest.approx(4.0621, abs=5e-5)
    assert sum(4 * volume for volume in w) == 16_240


@pytest.mark.parametrize(("prompt", "decode"), [(512, 20), (10, 10), (20, 300)])
def test_equilibrium_of_wait(prompt: int, decode: int) -> None:
    """n* = d0 lambda/(1 - d1 lambda W): the fluid equilibrium is the memory row at C = M*.

    The paper's W = (l' + 1)(l + l'/2) is the `wait` footprint at o = l' + 1 with cp = cd = 0.
    """
    d0, d1, rate = 0.0131, 5.5e-7, 2.0
    w = float(footprint.volume(prompt, decode + 1, prompt, residency="wait"))
    assert w == (decode + 1) * (prompt + decode / 2)
    iteration = d0 / (1 - d1 * rate * w)
    memory = rate * iteration * w  # M* = n* W
    assert d0 + d1 * memory == pytest.approx(iteration)
    law = np.array([d0, 0, 0, d1, 0])
    demand = np.zeros(N_DEMANDS)
    demand[2] = float(footprint.reads(prompt, decode + 1, "wait"))
    assert float(conditions.affine_capacity(law, demand, np.array([w / memory]))) == pytest.approx(rate)


def test_large_token_budgets_give_the_wait_footprint() -> None:
    """With every prompt in one chunk the engine's g is WAIT's W."""
    lengths = L.Independent(L.Uniform(5, 500), L.Uniform(2, 90))
    w = lengths.expect(lambda s, o: footprint.volume(s, o, 500, residency="wait"))
    assert moments(lengths, 500).mean[5] == pytest.approx(w, rel=1e-12)


def test_constant_batch_time_gives_2605_04595() -> None:
    """lambda* = M/(b E[g]) when memory binds and every iteration takes b."""
    lengths = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 1600))
    demand = moments(lengths, 512).mean
    bound = upper_bound(st.IterationTime(base_s=0.04), demand, np.array([131_000.0, 10_000.0, 20_000.0]))
    assert bound == pytest.approx(131_000 / (0.04 * demand[6]), rel=1e-12)
