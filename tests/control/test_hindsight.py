"""Hindsight bounds: enumeration of all schedules, a second solver, certificates, published check values."""

import itertools
import json

import numpy as np
import pytest

import stability as st
from stability.control.hindsight import memory_tokens
from stability.errors import UnservableError


def instance(seed: int, n: int, arrivals: bool = False) -> dict[str, object]:
    """As in the experiments of arXiv 2502.07115: M in [30, 50], prompts in [1, 5], outputs in [1, M - s]."""
    rng = np.random.default_rng(seed)
    room = int(rng.integers(30, 51))
    prompt = rng.integers(1, 6, n)
    output = np.array([rng.integers(1, room - s + 1) for s in prompt])
    arrival = rng.integers(0, 12, n) if arrivals else np.zeros(n, dtype=int)
    return {"arrival": arrival, "prompt": prompt, "output": output, "room": room}


def bound(case: dict[str, object], method: str) -> st.HindsightBound:
    return st.hindsight_bound(
        case["arrival"], case["prompt"], case["output"], kv_capacity_tokens=case["room"], method=method
    )


def brute_force(case: dict[str, object]) -> int:
    """Least total latency over all starts, each up to where all others would have been served one by one."""
    a, s, o, room = case["arrival"], case["prompt"], case["output"], case["room"]
    last = int(a.max() + o.sum())
    best = None
    for starts in itertools.product(*(range(first, last - size + 1) for first, size in zip(a, o, strict=True))):
        total = sum(k + size - first for k, size, first in zip(starts, o, a, strict=True))
        if (best is None or total < best) and memory_tokens(np.array(starts), s, o).max() <= room:
            best = total
    return best


@pytest.mark.parametrize("seed", range(8))
def test_no_enumerated_schedule_is_better_than_the_exact_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = {
        "arrival": rng.integers(0, 4, 3),
        "prompt": rng.integers(1, 5, 3),
        "output": rng.integers(1, 8, 3),
        "room": 13,
    }
    best = brute_force(case)
    exact = bound(case, "exact")
    assert exact.bound == pytest.approx(best)
    assert exact.achieved == best
    assert exact.memory_tokens.max() <= case["room"]
    assert (exact.start_rounds >= case["arrival"]).all()
    for method in ("relaxed", "volume"):
        assert bound(case, method).bound <= best + 1e-6


@pytest.mark.parametrize("arrivals", [False, True])
def test_bounds_in_order_and_their_certificates(arrivals: bool) -> None:
    for seed in range(4):
        case = instance(seed, 5, arrivals)
        exact, relaxed, volume = (bound(case, method) for method in ("exact", "relaxed", "volume"))
        assert exact.achieved - exact.bound <= 1e-7 * exact.bound
        assert relaxed.bound <= exact.bound + 1e-6
        assert volume.bound <= exact.bound + 1e-9
        assert relaxed.verified() == pytest.approx(relaxed.bound, rel=1e-7)
        assert (relaxed.prices >= 0).all()
        assert exact.achieved <= relaxed.achieved  # shortest outputs first


def test_prices_prove_the_bound_in_exact_arithmetic() -> None:
    """The sum of `verified` once more, with fractions and without prefix sums."""
    from fractions import Fraction

    case = instance(3, 5)
    relaxed = bound(case, "relaxed")
    prices = [Fraction(z) for z in relaxed.prices.tolist()]
    wait = int(relaxed.achieved - case["output"].sum())
    total = -case["room"] * sum(prices)
    for a, s, o in zip(case["arrival"].tolist(), case["prompt"].tolist(), case["output"].tolist(), strict=True):
        total += min(
            k + o - a + sum(prices[t] * (s + t - k) for t in range(k + 1, min(k + o, len(prices) - 1) + 1))
            for k in range(a, a + wait + 1)
        )
    assert float(total) == pytest.approx(relaxed.bound, rel=1e-7)
    assert total <= bound(case, "exact").achieved


@pytest.mark.parametrize("seed", range(3))
def test_the_relaxation_agrees_with_a_second_solver(seed: int) -> None:
    import cvxpy as cp

    case = instance(seed, 5, arrivals=True)
    a, s, o, room = case["arrival"], case["prompt"], case["output"], case["room"]
    relaxed = bound(case, "relaxed")
    wait = int(relaxed.achieved - o.sum())  # the horizon of the module
    x = [cp.Variable(wait + 1, nonneg=True) for _ in o]
    cost = sum(cp.sum(cp.multiply(np.arange(wait + 1) + size, own)) for own, size in zip(x, o, strict=True))
    rows = [cp.sum(own) == 1 for own in x]
    for t in range(1, int((a + wait + o).max()) + 1):
        held = [
            cp.sum(cp.multiply(np.where((k < t) & (t <= k + o[i]), s[i] + t - k, 0), x[i]))
            for i, k in enumerate(a[:, None] + np.arange(wait + 1))
        ]
        rows.append(sum(held) <= room)
    other = cp.Problem(cp.Minimize(cost), rows).solve(solver=cp.CLARABEL)
    assert relaxed.bound == pytest.approx(other, rel=1e-6)


def test_shortest_first_is_near_the_optimum_as_published() -> None:
    """arXiv 2502.07115 reports a mean ratio of 1.005 for 40 to 60 requests; five requests are less kind."""
    ratios = []
    for seed in range(6):
        case = instance(seed, 5)
        ratios.append(bound(case, "volume").achieved / bound(case, "exact").achieved)
    assert min(ratios) >= 1
    assert np.mean(ratios) < 1.05


def test_the_volume_bound_by_hand_and_for_many() -> None:
    """Volumes 4 + 1 + 2 = 3*2 + 3 = 9 and 1*1 + 1 = 2: (2 + 11)/5; outputs alone give 3."""
    found = st.hindsight_bound([0, 0], [3, 1], [2, 1], kv_capacity_tokens=5, method="volume")
    assert found.bound == pytest.approx(max((2 + 2 + 9) / 5, 3))
    case = instance(1, 400)
    many = bound(case, "volume")
    volume = np.sort(case["prompt"] * case["output"] + case["output"] * (case["output"] + 1) / 2)
    assert many.bound == pytest.approx(sum(volume[: j + 1].sum() for j in range(400)) / case["room"])
    assert many.bound < many.achieved < 2 * many.bound


def test_what_the_result_carries() -> None:
    found = bound(instance(0, 5, arrivals=True), "exact")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["schema"] == "stability/hindsight/1"
    assert found.to_frame().latency_rounds.sum() == found.achieved
    assert found.plot().get_xlabel() == "round"
    assert "no scheduler below" in found.summary()
    with pytest.raises(TypeError):
        bool(found)
    with pytest.raises(st.InputError, match="must be 'relaxed'"):
        found.verified()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (([0], [5], [6]), "request 0 takes up to 11 KV tokens, must be <= kv_capacity_tokens = 10"),
        (([0.5], [5], [1]), "arrival_rounds must be integers"),
        (([0, 0], [5], [1]), "have .2, 1, 1. entries"),
        (([0], [5], [0]), "output_tokens must be integers >= 1"),
        (([], [], []), "at least one"),
    ],
)
def test_bad_input(given: tuple[list[float], ...], match: str) -> None:
    with pytest.raises(st.InputError, match=match) as error:
        st.hindsight_bound(*given, kv_capacity_tokens=10)
    assert isinstance(error.value, UnservableError) == ("takes up to" in match)


def test_a_program_too_large_says_what_to_use() -> None:
    case = instance(1, 400)
    with pytest.raises(st.InputError, match="method='volume'"):
        bound(case, "exact")
