"""Sensitivities against finite differences, elasticities against their balance, and the gradient behind the interval."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp

from stability.errors import InputError
from stability.theory import conditions
from stability.theory import symbolic as sym
from stability.theory.conditions import GATE_ROWS, RESOURCE_NAMES
from stability.theory.moments import N_DEMANDS

POINT = {
    "c_0": 0.012,
    "c_p": 1e-4,
    "c_d": 2e-5,
    "c_k": 8e-8,
    "c_a": 1e-9,
    "M": 100_000.0,
    "N": 256.0,
    "B": 512.0,
    "E[s]": 805.0,
    "E[o]": 400.0,
    "E[s o]": 350_000.0,
    "E[o^2]": 250_000.0,
    "E[s^2]": 900_000.0,
    "E[m]": 2.1,
    "E[m^2]": 5.3,
}


@pytest.mark.parametrize("resource", RESOURCE_NAMES)
def test_derivatives_are_difference_quotients(resource: str) -> None:
    """In rationals a central difference is off by O(step**2) only; no rounding hides a wrong term."""
    rng = random.Random(RESOURCE_NAMES.index(resource))
    at = {
        name: sp.Rational(Fraction(value * rng.uniform(0.5, 2)).limit_denominator(10**12))
        for name, value in POINT.items()
    }
    capacity = sym.capacity(resource=resource)
    for symbol in capacity.symbols:
        name = str(symbol)
        step = at[name] / 10**6
        low, high = (capacity.at(at | {name: at[name] + sign * step}) for sign in (-1, 1))
        quotient = float((high - low) / (2 * step))
        assert float(sym.sensitivity(name, resource=resource).at(at)) == pytest.approx(quotient, rel=1e-9)
        relative = quotient * float(at[name] / capacity.at(at))
        assert float(sym.elasticity(name, resource=resource).at(at)) == pytest.approx(relative, rel=1e-9)


def test_elasticities_in_the_times_sum_to_minus_one() -> None:
    assert sym.time_balance().result == -1


def test_more_of_a_resource_helps_and_longer_requests_do_not() -> None:
    for name, sign in {
        "M": 1,
        "c_0": -1,
        "c_p": -1,
        "c_d": -1,
        "c_k": -1,
        "c_a": -1,
        "E[s o]": -1,
        "E[o^2]": -1,
    }.items():
        assert sign * float(sym.sensitivity(name, resource="kv_memory").at(POINT)) > 0


def test_gradient_of_the_confidence_interval() -> None:
    """`solve` takes 1/capacity as linear in the demands, with slopes (cp, cd, ck, ca) and c0/C on the binding row."""
    rng = np.random.default_rng(0)
    law, demand, limits = rng.uniform(0.1, 1, 5), rng.uniform(1, 99, N_DEMANDS), rng.uniform(10, 99, 3)
    shares = conditions.occupancy(demand, GATE_ROWS, limits)
    binding = int(shares.argmax())
    inverse = 1 / conditions.affine_capacity(law, demand, shares)
    slope = sp.diff(1 / sym.capacity().result, sp.Symbol("E[a_r]", positive=True))
    found = float(
        slope.subs({sp.Symbol("c_0", positive=True): law[0], sp.Symbol("C_r", positive=True): limits[binding]})
    )
    assert found == pytest.approx(law[0] / limits[binding], rel=1e-14)
    gradient = np.zeros(N_DEMANDS)
    gradient[:4] = law[1:]
    gradient[GATE_ROWS[binding]] += found
    assert float(gradient @ demand) == pytest.approx(float(inverse), rel=1e-12)


def test_what_the_capacity_does_not_depend_on() -> None:
    with pytest.raises(InputError, match="must be one of"):
        sym.sensitivity("N", resource="kv_memory")
