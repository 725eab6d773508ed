"""Geometric outputs: equilibria against the package's means, Routh-Hurwitz against eigenvalues, the mode against the root count."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sympy as sp

from stability import lengths as L
from stability.theory import conditions
from stability.theory import symbolic as sym
from stability.theory.moments import Demand, moments
from stability.theory.symbolic.geometric_ode import REGIMES, geometric_capacity, geometric_volume, geometric_work
from stability.theory.synchrony import roots_outside


def point(rng: random.Random) -> dict[str, float]:
    prompt = rng.uniform(1, 1000)
    return {
        "c_0": rng.uniform(0.001, 0.1),
        "c_p": rng.uniform(0, 1e-3),
        "c_d": rng.uniform(0, 1e-3),
        "c_k": rng.uniform(0, 1e-6),
        "c_a": rng.uniform(0, 1e-7),
        "E[s]": prompt,
        "E[s^2]": prompt**2 * rng.uniform(1, 3),
        "p": rng.uniform(1e-3, 0.9),
        "M": rng.uniform(1e4, 1e6),
        "kappa": rng.uniform(0.01, 1),
    }


def test_means_are_those_of_the_package() -> None:
    lengths = L.Independent(L.Uniform(10, 1600), L.Geometric(200.0))
    demand = moments(lengths, 1 << 20).mean
    law = {"c_0": 0.012, "c_p": 1e-4, "c_d": 2e-5, "c_k": 8e-8, "c_a": 1e-9}
    at = {**law, "E[s]": 805.0, "E[s^2]": 2 * demand[Demand.CONTEXT], "p": 1 / 200, "M": 1e5}
    assert float(geometric_volume().at(at)) == pytest.approx(demand[Demand.VOLUME], rel=1e-8)
    work = float(conditions.work_s(np.array(list(law.values())), demand))
    assert float(geometric_work().at(at)) == pytest.approx(work, rel=1e-8)
    capacity = 1 / (work + 0.012 * demand[Demand.VOLUME] / 1e5)
    assert float(geometric_capacity().at(at)) == pytest.approx(capacity, rel=1e-8)
    rate = 0.5 / work
    tau = 0.012 / 0.5
    running, held = (float(x) for x in sym.equilibrium().at(at | {"lambda": rate}))
    assert running == pytest.approx(rate * tau * demand[Demand.ITERATIONS], rel=1e-8)
    assert held == pytest.approx(rate * tau * demand[Demand.VOLUME], rel=1e-8)
    assert float(sym.equilibrium(regime="memory").at(at | {"lambda": rate})[1]) == pytest.approx(
        rate - capacity, rel=1e-8
    )


@pytest.mark.parametrize("regime", ["below", "paced"])
def test_the_equations_rest_at_the_equilibrium_and_have_the_jacobian(regime: str) -> None:
    rng = random.Random(1)
    state = ["X", "Z", "Q"][: 3 if regime == "paced" else 2]
    for _ in range(3):
        at = point(rng)
        at["lambda"] = rng.uniform(0.1, 0.9) / float(geometric_work().at(at))
        rates = sym.equations(regime=regime).lambdify(*at, *state)
        rest = np.array([float(x) for x in sym.equilibrium(regime=regime).at(at)])
        assert np.ravel(rates(*at.values(), *rest)) == pytest.approx(0, abs=1e-9 * at["lambda"] * max(1, at["E[s]"]))
        jacobian = np.array(sym.jacobian(regime=regime).at(at), dtype=float)
        for column in range(len(state)):
            step = np.eye(len(state))[column] * rest[column] * 1e-5
            change = np.ravel(rates(*at.values(), *(rest + step))) - np.ravel(rates(*at.values(), *(rest - step)))
            quotient = change / (2 * step[column])
            assert jacobian[:, column] == pytest.approx(quotient, rel=1e-5, abs=1e-6 * np.abs(jacobian).max())


@pytest.mark.parametrize("regime", REGIMES)
def test_routh_hurwitz_agrees_with_eigenvalues(regime: str) -> None:
    """At random points, on both sides of stability: all minors positive iff all eigenvalues lie in the left half plane."""
    rng = random.Random(2)
    seen = set()
    minors = sym.stability_conditions(regime=regime)
    matrix = sym.jacobian(regime=regime)
    names = [str(s) for s in sorted(minors.result.free_symbols | matrix.result.free_symbols, key=str)]
    fast_minors, fast_matrix = minors.lambdify(*names), matrix.lambdify(*names)
    for _ in range(80):
        at = point(rng)
        at["lambda"] = rng.uniform(0.01, 2) / float(geometric_work().lambdify(*at)(*at.values()))
        values = [at[name] for name in names]
        jacobian = np.array(fast_matrix(*values), dtype=float)
        if regime == "memory":
            jacobian = jacobian[:1, :1]
        # The Jacobian is tau J over tau, and tau at rest is negative above saturation: take the minors' own sign of time.
        stretch = (
            1.0
            if regime == "memory" or at["lambda"] * float(geometric_work().lambdify(*at)(*at.values())) < 1
            else -1.0
        )
        stable = bool(np.all(np.linalg.eigvals(stretch * jacobian).real < 0))
        assert stable == bool(np.all(np.ravel(fast_minors(*values)) > 0))
        seen.add(stable)
    assert seen == ({True} if regime == "memory" else {True, False})


@pytest.mark.parametrize("size", [2, 3, 4])
def test_routh_hurwitz_of_random_matrices(size: int) -> None:
    rng = np.random.default_rng(size)
    seen = set()
    for _ in range(40):
        entries = rng.integers(-5, 6, (size, size)) - 3 * np.eye(size, dtype=int)
        minors = sym.routh_hurwitz(sp.Matrix(entries.tolist()))
        real = np.linalg.eigvals(entries.astype(float)).real
        if np.abs(real).min() < 1e-9:
            continue
        assert bool(np.all(real < 0)) == all(minor > 0 for minor in minors)
        seen.add(bool(np.all(real < 0)))
    assert seen == {True, False}


def test_below_saturation_stable_exactly_where_flow_balance_holds() -> None:
    rng = random.Random(3)
    minors = sym.stability_conditions()
    for share in (0.3, 0.999, 1.001, 1.2):
        at = point(rng) | {"c_p": 1e-6, "c_a": 0.0}  # lambda G < 1
        at["lambda"] = share / float(geometric_work().at(at))
        assert all(float(x) > 0 for x in minors.at(at)) == (share < 1)


def test_the_mode_is_the_root_of_the_large_system_polynomial() -> None:
    """And it lies inside the unit circle, as the winding number of the package finds."""
    lengths = L.Independent(L.Constant(50), L.Geometric(40.0))
    z = float(sym.slowest_mode().at({"p": 1 / 40, "E[s]": 50}))
    ages = np.arange(4000)
    weights = (50 + ages) * (1 - 1 / 40) ** ages
    assert abs(np.polynomial.polynomial.polyval(1 / z, weights[:1500])) > 1e3  # the series converges outside 1-p only
    assert z == pytest.approx((1 - 1 / 40) * (1 - 1 / 50))
    assert 0 <= z < 1
    assert roots_outside((lengths,), (1.0,)) == 0
    held, running, path = 10_000.0, 90.0, []
    for _ in range(400):
        admitted = (held / 40 - (1 - 1 / 40) * running) / 50
        running = (1 - 1 / 40) * running + admitted
        path.append(running)
    rest = held / 40 / (1 - 1 / 40 + 50 / 40)
    gaps = np.array(path[:40]) - rest
    assert gaps[1:] / gaps[:-1] == pytest.approx(z, rel=1e-6)
