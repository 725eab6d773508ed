"""What BalanceRoute and BF-IO decide: identities, hand numbers, brute force, the integer program, kernel against reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability.errors import InputError
from stability.model.lengths import Constant, Discrete, Independent
from stability.model.workload import RequestClass, Workload
from stability.policies import BalanceFuture, BalanceRoute, LengthPartition, PowerOfChoices
from stability.policies.balance import BalanceRouter, group_router_of
from stability.sim.kernels import dispatch as kernels
from stability.sim.predictors import output_mass, prediction_tables, remaining
from stability.sim.reference import dispatch as reference
from stability.sim.reference.dispatch import (
    NONE,
    Scores,
    best_exact_set,
    best_set,
    dispatch,
    gain,
    imbalance,
    margins,
    penalty,
    project,
    score,
    target,
)


def test_resolution_is_the_same() -> None:
    assert kernels.BITS == reference.BITS


def test_published_figures() -> None:
    loads = [100, 90, 70, 60]
    assert imbalance(loads) == 80
    assert margins(loads) == [0, 10, 30, 40]
    assert (gain(25, 40, 4), gain(80, 40, 4)) == (25, -80)
    assert (gain(500, 1000, 8), gain(1500, 1000, 8)) == (500, -2500)


def test_gain_is_the_fall_of_the_imbalance_in_100_000_cases() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100_000):
        loads = rng.integers(0, 1000, rng.integers(2, 9)).tolist()
        worker, tokens = int(rng.integers(len(loads))), int(rng.integers(0, 1500))
        after = [load + tokens * (g == worker) for g, load in enumerate(loads)]
        fall = imbalance(loads) - imbalance(after)
        assert gain(tokens, margins(loads)[worker], len(loads)) == fall


def test_worked_example_of_the_horizon() -> None:
    discounts = [0.9**h for h in (0, 5, 10, 50)]
    a = penalty(500, [0, 190, 1590, 1250], 8.0, discounts)
    b = penalty(500, [1400, 0, 0, 0], 8.0, discounts)
    assert a == pytest.approx(5464.4, abs=0.05)
    assert b == pytest.approx(3777.3, abs=0.05)
    assert b < a  # worker B


def test_horizon_zero_is_br0() -> None:
    rng = np.random.default_rng(2)
    for _ in range(500):
        tokens, margin, workers = (int(v) for v in rng.integers(1, 500, 3))
        assert score(tokens, [margin], 1.0, float(workers), [1.0]) == gain(tokens, margin, workers)
    assert BalanceRoute().horizon == 0
    assert BalanceRoute().beta is None  # the number of workers


small_scores = st.builds(
    lambda ahead, beta, decay: Scores(
        ahead=ahead, alpha=1.0, beta=beta, discounts=[decay**h for h in range(len(ahead))]
    ),
    st.lists(st.integers(0, 120), min_size=1, max_size=4),
    st.sampled_from((0.5, 1.0, 2.0, 4.0, 8.5)),
    st.sampled_from((0.5, 0.9, 1.0)),
)
small_prompts = st.lists(st.integers(1, 60), min_size=1, max_size=7)


def aim_of(scores: Scores) -> int:
    return target(scores.ahead, scores.alpha, scores.beta, scores.discounts)


@given(small_scores, small_prompts, st.integers(1, 7))
def test_the_set_chosen_has_the_greatest_gain_of_all_sets(scores: Scores, prompts: list[int], most: int) -> None:
    chosen = best_set(prompts, min(most, len(prompts)), scores, aim_of(scores))
    assert len(set(chosen)) == len(chosen) <= most
    best = max(
        scores.of(sum(pick))
        for k in range(1, most + 1)
        for pick in itertools.combinations(prompts, min(k, len(prompts)))
    )
    assert scores.of(sum(prompts[i] for i in chosen)) == pytest.approx(best, rel=1e-9, abs=1e-9)


@given(small_scores)
def test_target_is_the_least_maximiser(scores: Scores) -> None:
    aim, values = aim_of(scores), [scores.of(tokens) for tokens in range(200)]
    if aim == NONE:
        assert values[-1] > values[150] > values[121]
    else:
        assert max(values) == pytest.approx(values[aim], rel=1e-9)
        assert all(values[aim] > value for value in values[:aim])


@given(small_scores, small_prompts, st.integers(1, 7))
def test_bf_io_takes_for_each_count_the_largest_sum_within_the_margins(
    scores: Scores, prompts: list[int], most: int
) -> None:
    most, room = min(most, len(prompts)), min(scores.ahead)
    chosen = best_exact_set(prompts, most, scores, room)
    options = []
    for k in range(1, most + 1):
        sums = sorted(sum(pick) for pick in itertools.combinations(prompts, k))
        within = [total for total in sums if total <= room]
        options.append(within[-1] if within else sums[0])
    assert scores.of(sum(prompts[i] for i in chosen)) == pytest.approx(max(map(scores.of, options)), rel=1e-9)


policies = st.one_of(
    st.builds(
        BalanceRoute,
        horizon=st.integers(0, 3),
        beta=st.sampled_from((None, 1.0, 8.0)),
        decay=st.sampled_from((0.5, 0.9, 1.0)),
        greedy_slots=st.integers(0, 7),
        window=st.sampled_from((1, 2, 4, 20)),
    ),
    st.builds(
        BalanceFuture, horizon=st.integers(0, 3), greedy_slots=st.integers(0, 7), window=st.sampled_from((1, 2, 4, 20))
    ),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[BalanceRouter, list[list[int]], list[int], list[int]]:
    policy, workers, size = draw(policies), draw(st.integers(2, 5)), draw(st.sampled_from((20, 300, 60_000)))
    row = st.lists(st.integers(0, 3 * size), min_size=workers, max_size=workers)
    loads = draw(st.lists(row, min_size=policy.horizon + 1, max_size=policy.horizon + 1))
    free = draw(st.lists(st.integers(0, 5), min_size=workers, max_size=workers))
    return policy, loads, free, draw(st.lists(st.integers(1, size), max_size=14))


@given(situations())
def test_kernel_decides_as_the_reference(
    situation: tuple[BalanceRouter, list[list[int]], list[int], list[int]],
) -> None:
    policy, loads, free, prompts = situation
    expected = dispatch(policy, loads, free, prompts)
    assert len(expected) == min(sum(free), len(prompts))  # no slot stays free while something waits
    assert len({position for position, _ in expected}) == len(expected)
    desk = kernels.desk_of(policy, len(free), 5)
    desk.loads[:], desk.free[:] = loads, free
    count = min(len(prompts), policy.window + sum(free))
    desk.prompts[:count] = prompts[:count]
    done = kernels.dispatch(desk, count)
    assert list(zip(desk.placed[:done].tolist(), desk.worker[:done].tolist(), strict=True)) == expected


def integer_program(loads: list[list[int]], free: list[int], prompts: list[int]) -> float:
    """Least sum of imbalances ahead over all assignments that fill the slots, by branch and bound."""
    import cvxpy as cp

    workers, waiting = len(free), len(prompts)
    x = cp.Variable((waiting, workers), boolean=True)
    largest = cp.Variable(len(loads))
    added = np.array(prompts) @ x
    total = min(waiting, sum(free))
    constraints = [cp.sum(x, axis=1) <= 1, cp.sum(x, axis=0) <= free, cp.sum(x) == total]
    constraints += [largest[h] >= np.array(row) + added for h, row in enumerate(loads)]
    sums = [workers * largest[h] - sum(row) - cp.sum(added) for h, row in enumerate(loads)]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.hstack(sums))), constraints)
    problem.solve(solver=cp.HIGHS)
    return float(problem.value)


def objective(loads: list[list[int]], prompts: list[int], placed: list[tuple[int, int]]) -> int:
    after = [list(row) for row in loads]
    for position, worker in placed:
        for row in after:
            row[worker] += prompts[position]
    return sum(imbalance(row) for row in after)


def test_heuristics_against_the_integer_program() -> None:
    rng = np.random.default_rng(7)
    ratios = {"BR": [], "BF-IO": []}  # type: dict[str, list[float]]
    for _ in range(12):
        workers, horizon = int(rng.integers(2, 4)), int(rng.integers(0, 3))
        first = rng.integers(400, 600, workers)
        loads = [(first * (1 - 0.1 * h * rng.random(workers))).astype(int).tolist() for h in range(horizon + 1)]
        free = rng.integers(0, 3, workers).tolist()
        prompts = rng.integers(10, 150, 6).tolist()
        best = integer_program(loads, free, prompts)
        for name, policy in (
            ("BR", BalanceRoute(horizon=horizon, decay=1.0)),
            ("BF-IO", BalanceFuture(horizon=horizon, decay=1.0, beta=float(workers))),
        ):
            found = objective(loads, prompts, dispatch(policy, loads, free, prompts))
            assert found >= best - 1e-6
            ratios[name].append((found + 100) / (best + 100))
    # One worker at a time against all at once; the mean excess is what the greedy order costs.
    assert np.mean(ratios["BR"]) < 1.6
    assert np.mean(ratios["BF-IO"]) < 1.6


def test_projection_counts_requests_until_they_end() -> None:
    residents = [(0, 100, 2.0), (0, 50, 3.0), (1, 70, 1.5), (1, 20, 9.0)]
    ahead = project([150, 90], residents, 3)
    assert ahead == [[150, 90], [150, 90], [50, 20], [50, 20]]


def test_remaining_steps_by_brute_force() -> None:
    mass = np.array([0, 0.1, 0.0, 0.4, 0.3, 0.2])
    for horizon in (1, 2, 4, np.inf):
        table = remaining(mass, horizon)
        for a in range(5):
            tail = mass[a + 1 :]
            expected = sum(p * min(o - a, horizon) for o, p in enumerate(mass) if o > a) / tail.sum()
            assert table[a] == pytest.approx(expected)


def test_survival_pools_the_classes_and_exact_match_keeps_them_apart() -> None:
    lengths = [Independent(Constant(10), Constant(4)), Independent(Constant(10), Discrete([2, 6], [1, 1]))]
    workload = Workload([RequestClass(f"c{i}", rate_per_s=1.0 + 2 * i, lengths=law) for i, law in enumerate(lengths)])
    np.testing.assert_allclose(output_mass(lengths[1]), [0, 0, 0.5, 0, 0, 0, 0.5])
    exact = prediction_tables(workload, "exact_match", 3)
    assert exact[0, :4].tolist() == [3, 3, 2, 1]
    pooled = prediction_tables(workload, "survival", 3)
    assert pooled[0].tolist() == pooled[1].tolist()
    # after one token: 1/4 end in 3, 3/8 in 1, 3/8 in 5 steps
    assert pooled[0, 1] == pytest.approx(3 / 4 + 3 / 8 + 3 * 3 / 8)
    assert prediction_tables(workload, "oracle", 3).shape == (2, 0)


def test_parameters_are_checked() -> None:
    with pytest.raises(InputError, match="decay"):
        BalanceRoute(decay=1.5)
    with pytest.raises(InputError, match="increase strictly"):
        LengthPartition((100, 50), (1, 1, 1))
    with pytest.raises(InputError, match="router"):
        group_router_of("balance")
    assert PowerOfChoices(3).draws == 3
