"""Linear and integer programs: another solver, enumeration, and certificates in plain arithmetic."""

import itertools

import numpy as np
import pytest

from stability.control.programs import Program


def random_program(seed: int, *, integer: bool) -> tuple[Program, dict[str, np.ndarray]]:
    """min c x, A x <= b, E x >= f, x in [0, 4]; feasible by construction."""
    rng = np.random.default_rng(seed)
    n = 4
    data = {
        "c": rng.normal(size=n),
        "A": rng.uniform(0, 1, (3, n)),
        "E": rng.uniform(0, 1, (2, n)),
        "inside": rng.integers(0, 4, n).astype(float),
    }
    data["b"] = data["A"] @ data["inside"] + rng.uniform(0, 1, 3)
    data["f"] = data["E"] @ data["inside"] - rng.uniform(0, 1, 2)
    program = Program()
    x = program.variables(n, cost=data["c"], upper=4.0, integer=integer)
    for row, limit in zip(data["A"], data["b"], strict=True):
        program.row(x, row, at_most=limit)
    for row, limit in zip(data["E"], data["f"], strict=True):
        program.row(x, row, at_least=limit)
    return program, data


@pytest.mark.parametrize("seed", range(10))
def test_linear_programs_agree_with_a_second_solver_and_prove_their_value(seed: int) -> None:
    import cvxpy as cp

    program, data = random_program(seed, integer=False)
    found = program.minimise()
    x = cp.Variable(4)
    rows = [data["A"] @ x <= data["b"], data["E"] @ x >= data["f"], x >= 0, x <= 4]
    other = cp.Problem(cp.Minimize(data["c"] @ x), rows).solve(solver=cp.CLARABEL)
    assert found.value == pytest.approx(other, abs=1e-6)
    assert found.gap == pytest.approx(0, abs=1e-7)
    assert found.violation <= 1e-7
    # The bound once more, by hand: weak duality with prices <= 0 on upper limits and >= 0 on lower ones.
    y, z = found.prices[:3], found.prices[3:]
    assert (y <= 0).all()
    assert (z >= 0).all()
    reduced = data["c"] - data["A"].T @ y - data["E"].T @ z
    bound = data["b"] @ y + data["f"] @ z + 4 * np.minimum(reduced, 0).sum()
    assert bound == pytest.approx(found.value, abs=1e-7)


@pytest.mark.parametrize("seed", range(10))
def test_integer_programs_find_what_enumeration_finds(seed: int) -> None:
    program, data = random_program(seed, integer=True)
    found = program.minimise()
    grid = np.array(list(itertools.product(range(5), repeat=4)), dtype=float)
    fits = (grid @ data["A"].T <= data["b"] + 1e-9).all(axis=1) & (grid @ data["E"].T >= data["f"] - 1e-9).all(axis=1)
    assert found.value == pytest.approx(float((grid[fits] @ data["c"]).min()), abs=1e-9)
    assert found.gap == pytest.approx(0, abs=1e-7)
    assert found.violation <= 1e-6


def test_programs_without_an_optimum_say_so() -> None:
    for integer in (False, True):
        program = Program()
        x = program.variables(1, cost=1.0, upper=1.0, integer=integer)
        program.row(x, 1.0, at_least=2.0)
        assert program.minimise().status == "infeasible"
    program = Program()
    program.variables(1, cost=-1.0)
    assert program.minimise().status == "unbounded"
