"""The eviction theory equals its derivation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp

from stability import lengths as L
from stability.theory import eviction, excursions, gate
from stability.theory import surplus as walks
from stability.theory import symbolic as sym
from stability.theory.conditions import work_s
from stability.theory.moments import Demand, moments
from stability.theory.symbolic.capacities import EVICTIONS, FREE, GENERATED, LOST_VOLUME, LOST_WORK

GEOMETRIC = L.Independent(L.Geometric(500.0), L.Geometric(300.0))
UNIFORM = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 1600))
CONSTANT = L.Independent(L.Constant(100), L.Constant(500))
DISCRETE = L.Independent(L.Discrete([10, 50], [0.4, 0.6]), L.Discrete([100, 500], [0.3, 0.7]))
CASES = {
    "geometric": (GEOMETRIC, {"mu_s": 500, "mu_o": 300}),
    "uniform": (UNIFORM, {"low_s": 10, "high_s": 1600, "low_o": 10, "high_o": 1600}),
    "constant": (CONSTANT, {"k_s": 100, "k_o": 500}),
    "discrete": (DISCRETE, {"x1_s": 10, "x2_s": 50, "p1_s": 0.4, "x1_o": 100, "x2_o": 500, "p1_o": 0.3}),
}
BETA = sp.Symbol("beta", positive=True)


def surplus(lengths: L.Lengths) -> walks.Surplus:
    return walks.surplus((lengths,), (1.0,))


@pytest.mark.parametrize("family", CASES)
def test_root_slope_and_curvature(family: str) -> None:
    """The numeric theta solves the closed-form equation; psi' and psi'' there are its derivatives (in 40 digits)."""
    lengths, parameters = CASES[family]
    walk = surplus(lengths)
    psi = sym.laplace_exponent(prompt=family, output=family).at({k: sp.nsimplify(v) for k, v in parameters.items()})
    theta = sp.Float(walk.exponent, 40)
    slope = sp.diff(psi, BETA)
    root = sp.nsolve(psi, BETA, theta, prec=40)
    assert float(root) == pytest.approx(walk.exponent, rel=1e-10)
    assert float(slope.evalf(40, subs={BETA: root})) == pytest.approx(walk.slope, rel=1e-8)
    assert float(sp.diff(slope, BETA).evalf(40, subs={BETA: root})) == pytest.approx(walk.curvature, rel=1e-8)


@pytest.mark.parametrize("lengths", [lengths for lengths, _ in CASES.values()], ids=list(CASES))
def test_probabilities_slack_and_age(lengths: L.Lengths) -> None:
    walk = surplus(lengths)
    at = {
        "psi'(theta)": walk.slope,
        "psi''(theta)": walk.curvature,
        "theta": walk.exponent,
        "E[s]": walk.prompt_mean,
        "E[o]": walk.output_mean,
        "E[exp(-theta s)]": lengths.expect(lambda s, o: np.exp(-walk.exponent * s) + 0.0 * o),
    }
    assert float(sym.first_eviction().at(at)) == pytest.approx(walk.first, rel=1e-12)
    assert float(sym.next_eviction().at(at)) == pytest.approx(walk.again, rel=1e-12)
    assert float(sym.slack_when_evicted().at(at)) == pytest.approx(walk.slack_when_evicted, rel=1e-12)
    assert float(sym.age_transform().at(at)) == pytest.approx(walk.age_transform, rel=1e-9)


def test_overshoot_density_gives_the_same_first_probability() -> None:
    """p0 by integrating the density of the slack, summed over the law of S: a road without Wiener-Hopf."""
    walk = surplus(UNIFORM)
    theta = walk.exponent
    total = np.convolve(np.full(1591, 1 / 1591), np.full(1591, 1 / 1591))
    sizes = np.arange(20, 20 + len(total))
    # p0 = theta/E[s] * integral of z exp(-theta z) P(S > z) dz, exactly for each size.
    integral = (1 - np.exp(-theta * sizes) * (1 + theta * sizes)) / theta**2
    assert theta / walk.prompt_mean * float(total @ integral) == pytest.approx(walk.first, rel=1e-9)


@pytest.mark.parametrize("headroom", [0.0, 300.0, 2000.0])
@pytest.mark.parametrize("lengths", [UNIFORM, GEOMETRIC], ids=["uniform", "geometric"])
def test_evictions_generated_and_free(lengths: L.Lengths, headroom: float) -> None:
    walk, y, room = surplus(lengths), 0.1, 1e6
    point = [np.array([x]) for x in (headroom, y, room)]
    found = eviction.evictions(
        (lengths,), (1.0,), headroom=point[0], per_iteration=point[1], running=np.array([1e6]), room=point[2]
    )
    first, again, spare = (float(x[0]) for x in excursions.chances((lengths,), (1.0,), *point))
    height = float(sym.ladder_height().at({"E[s]": walk.prompt_mean, "E[o]": walk.output_mean, "theta": walk.exponent}))
    near = math.exp(-headroom / height)
    chances = {"P_evict": first, "P_again": near * again + (1 - near) * first}
    assert float(sym.evictions_per_request().at(chances)) == pytest.approx(found.per_request[0], rel=1e-12)
    at = {"h": headroom, "E[X|evicted]": walk.slack_when_evicted, "y": y, "psi'(theta)": walk.slope}
    assert float(sym.generated_when_evicted().at(at)) == pytest.approx(found.generated_tokens[0], rel=1e-12)
    square = 2 * walk.prompt_mean * walk.age_mean
    at = {"h": headroom, "theta": walk.exponent, "E[s]": walk.prompt_mean, "E[s^2]": square}
    at["E[exp(-theta age)]"] = walk.age_transform
    assert float(sym.free_memory().at(at)) == pytest.approx(found.free_tokens[0] - spare, rel=1e-10)


def test_expansion_of_the_exponent() -> None:
    """Its error falls as the next power of E[s]."""
    errors = []
    for prompt in (40, 20, 10):
        lengths = L.Independent(L.Constant(prompt), L.Constant(1000))
        total = prompt + 1000
        at = {"E[s]": prompt, "E[S^2]": total**2, "E[S^3]": total**3}
        errors.append(abs(float(sym.exponent_expansion().at(at)) / surplus(lengths).exponent - 1))
    assert errors[0] < 1e-2
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.2)


def test_closed_forms_of_the_exponent() -> None:
    derived = sym.exponent(lengths="constant").lambdify("k_s", "k_o")
    assert derived(100.0, 500.0).real == pytest.approx(surplus(CONSTANT).exponent, rel=1e-9)
    # Geometric lengths tend to exponential ones as they grow.
    exponential = sym.exponent(lengths="exponential").lambdify("mu_s", "mu_o")
    long = L.Independent(L.Geometric(20_000.0), L.Geometric(12_000.0))
    assert exponential(20_000.0, 12_000.0) == pytest.approx(surplus(long).exponent, rel=1e-3)


@pytest.mark.parametrize("headroom", [0.0, 1000.0, 4000.0])
def test_capacity_of_the_gate_with_the_derived_waste(headroom: float) -> None:
    law = np.array([[0.012, 2e-5, 2e-5, 8e-8, 1e-9]])
    demand = moments(UNIFORM, 1 << 20).mean[None]
    limits = np.array([[100_000.0, 4096.0, float(1 << 20)]])
    none, h = np.zeros(1, dtype=bool), np.array([headroom])
    gates = gate.Gates(limits=limits, headroom=h, chunked=none, prefix_caching=none)
    found = gate.gate_capacity(gates, law, demand, (UNIFORM,), (1.0,))
    y = found.per_iteration
    at = eviction.evictions(
        (UNIFORM,),
        (1.0,),
        headroom=h,
        per_iteration=y,
        running=y * demand[:, Demand.ITERATIONS],
        room=limits[:, 2] - y * demand[:, Demand.DECODE],
    )
    work, volume = sym.eviction_waste()
    (c0, cp, cd, ck, ca), d, s = law[0], float(at.generated_tokens[0]), 805.0
    waste = {"s": s, str(GENERATED): d, "c_p": cp, "c_d": cd, "c_k": ck, "c_a": ca}
    values = {
        "c_0": c0,
        "E[W]": float(work_s(law, demand)[0]),
        "E[g]": float(demand[0, Demand.VOLUME]),
        "M": limits[0, 0],
        str(EVICTIONS): float(at.per_request[0]),
        str(FREE): float(at.free_tokens[0]),
        str(LOST_WORK): float(work.at(waste)) + ca * (demand[0, Demand.CONTEXT] - s * s / 2),  # E[s^2], not E[s]^2
        str(LOST_VOLUME): float(volume.at(waste)),
    }
    assert float(sym.gate_capacity().at(values)) == pytest.approx(found.capacity_per_s[0], rel=1e-4)
