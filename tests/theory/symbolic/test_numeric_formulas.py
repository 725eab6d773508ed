"""Every numeric formula that the theory computes with equals its derivation: exactly in rationals, floats to 1e-12."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp

from stability import lengths as L
from stability.theory import conditions, footprint
from stability.theory import symbolic as sym
from stability.theory.conditions import GATE_ROWS, RESOURCE_NAMES
from stability.theory.moments import N_DEMANDS, Demand, demands, moments
from stability.theory.operating import operating_point
from stability.theory.symbolic.flow_balance import HELD_CONTEXT, HELD_PREFILL, HELD_READS

CASES = range(4)
RTOL = 1e-12


def rational(rng: random.Random, scale: float = 1.0) -> sp.Rational:
    """A random positive rational that a float holds exactly, so that both sides see the same number."""
    return sp.Rational(Fraction(rng.uniform(0.1, 1.0) * scale).limit_denominator(1 << 20)).limit_denominator(997)


def lengths_of(rng: random.Random) -> dict[str, int]:
    s, o, budget = rng.randint(1, 5000), rng.randint(1, 4000), rng.choice([1, 7, 64, 512, 2048])
    return {"s": s, "o": o, "B": budget, "m": -(-s // budget)}


def law_of(rng: random.Random) -> dict[str, sp.Rational]:
    return {
        "c_0": rational(rng),
        "c_p": rational(rng),
        "c_d": rational(rng),
        "c_k": rational(rng),
        "c_a": rational(rng),
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("convention", ["engine", "least", "slots", "wait"])
def test_volumes_exactly(case: int, convention: str) -> None:
    at = lengths_of(random.Random(case))
    s, o, budget = at["s"], at["o"], at["B"]
    residency = convention if convention in ("slots", "wait") else "engine"
    numeric = footprint.volume(s, o, budget, residency=residency, least=convention == "least")
    assert sym.volume(convention=convention).at(at) == int(numeric)


@pytest.mark.parametrize("case", CASES)
def test_footprints_exactly(case: int) -> None:
    rng = random.Random(100 + case)
    at = lengths_of(rng)
    s, o, budget = at["s"], at["o"], at["B"]
    assert sym.reads().at(at) == int(footprint.reads(s, o))
    assert sym.iterations().at(at) == int(footprint.iterations(s, o, budget))
    assert sp.Rational(1, 2) * s * s == sym.prefill_context().at(at)
    prefill, context, reads = sym.held_products()
    by_token, by_context = footprint.prefill_held(s, budget)
    table = demands(np.array([s]), np.array([o]), budget, 1)
    assert prefill.at(at) == Fraction(float(by_token))
    assert context.at(at) == pytest.approx(float(by_context), rel=RTOL)
    assert reads.at(at) == pytest.approx(table[Demand.READ_HELD, 0], rel=RTOL)
    paper = sym.volume(convention="continuous").at(at | {"c": 512})
    assert float(paper) == pytest.approx(float(footprint.continuous_volume(s, o, 512)), rel=RTOL)


@pytest.mark.parametrize("block", [1, 3, 16, 128])
@pytest.mark.parametrize("case", range(4))
def test_block_rounding_exactly(case: int, block: int) -> None:
    rng = random.Random(200 + case)
    s, o, budget = rng.randint(1, 5000), rng.randint(1, 3000), block * rng.randint(1, 50)
    assert sym.grown().at({"x": s, "b": block}) == int(footprint.growth_volume(s, block))
    assert int(footprint.growth_volume(s, block)) == sum(-(-j // block) * block for j in range(1, s + 1))
    at = {"s": s, "o": o, "B": budget, "m": -(-s // budget), "b": block}
    assert sym.volume(convention="blocks").at(at) == int(footprint.volume(s, o, budget, block))


@pytest.mark.parametrize("case", CASES)
def test_work_exactly(case: int) -> None:
    """E[W] of one request, with numpy on Fractions: the same operations, no rounding."""
    rng = random.Random(300 + case)
    at, law = lengths_of(rng), law_of(rng)
    table = demands(np.array([at["s"]]), np.array([at["o"]]), at["B"], 1)[:, 0]
    demand = np.array([Fraction(value) for value in table], dtype=object)
    coefficients = np.array([Fraction(int(v.p), int(v.q)) for v in law.values()], dtype=object)
    numeric = conditions.work_s(coefficients, demand).item()
    assert sym.work().at(at | law) == sp.Rational(numeric.numerator, numeric.denominator)


@pytest.mark.parametrize("case", CASES)
def test_capacity_load_and_slack_exactly(case: int) -> None:
    rng = random.Random(400 + case)
    law = law_of(rng)
    demand = np.array([Fraction(rng.randint(1, 9999), rng.randint(1, 99)) for _ in range(N_DEMANDS)], dtype=object)
    limits = np.array([Fraction(rng.randint(1, 10**6), rng.randint(1, 9)) for _ in range(3)], dtype=object)
    coefficients = np.array([Fraction(int(v.p), int(v.q)) for v in law.values()], dtype=object)
    rate = Fraction(rng.randint(1, 999), 1000)
    shares = conditions.occupancy(demand, GATE_ROWS, limits)
    work = conditions.work_s(coefficients, demand).item()
    rows = [
        {"c_0": law["c_0"], "E[W]": sp.Rational(work), "E[a_r]": sp.Rational(demand[row]), "C_r": sp.Rational(limit)}
        for row, limit in zip(GATE_ROWS, limits, strict=True)
    ]
    capacity = conditions.affine_capacity(coefficients, demand, shares).item()
    assert capacity == pytest.approx(float(min(sym.capacity().at(row) for row in rows)), rel=1e-15)  # 1.0/x is a float
    loads = conditions.affine_loads(np.array(rate, dtype=object), coefficients, demand, shares)
    for row, value in zip(rows, loads, strict=True):
        assert sym.load().at(row | {"lambda": sp.Rational(rate)}) == sp.Rational(value)
        assert sym.bound().at(row | {"lambda": sp.Rational(rate)}) == sp.Rational(value)
    slack = conditions.packing_slack(demand).item()
    first, second = demand[Demand.LIMIT], demand[Demand.LIMIT_SQUARE]
    assert sym.packing_slack().at({"E[R]": sp.Rational(first), "E[R^2]": sp.Rational(second)}) == sp.Rational(slack)


@pytest.mark.parametrize("case", CASES)
def test_proved_capacity(case: int) -> None:
    rng = random.Random(500 + case)
    law = [rng.uniform(0.001, 0.1), *(rng.uniform(0, 1e-3) for _ in range(4))]
    demand = np.array([rng.uniform(1, 1e4) for _ in range(N_DEMANDS)])
    limits = np.array([rng.uniform(1e4, 1e6), rng.uniform(1, 999), rng.uniform(1, 9999)])
    largest = rng.uniform(0.01, 0.9) * limits[0]
    found = conditions.proved_capacity(np.array([law]), demand, limits, largest)
    values = {
        "c_0": law[0],
        "E[W]": float(conditions.work_s(np.array(law), demand)),
        "E[R n]": demand[Demand.RESERVED],
        "E[n]": demand[Demand.ITERATIONS],
        "E[s + o - 1]": demand[Demand.TOKENS],
        "delta": largest / limits[0],
        "M": limits[0],
        "N": limits[1],
        "B": limits[2],
    }
    assert float(sym.proved_capacity().at(values)) == pytest.approx(found, rel=RTOL)
    assert abs(float(sym.drift_margin().at(values | {"lambda": found}))) < 1e-12


LAWS = {
    "constant": L.Constant(700),
    "uniform": L.Uniform(10, 1600),
    "geometric": L.Geometric(300.0),
    "discrete": L.Discrete([100, 500], [0.3, 0.7]),
    "gamma": L.Gamma(600, 0.7),
    "lognormal": L.LogNormal(500, 0.6),
    "weibull": L.Weibull(700, 1.4),
}
PARAMETERS = {
    "constant": {"k": 700},
    "uniform": {"low": 10, "high": 1600},
    "geometric": {"mu": 300},
    "discrete": {"x1": 100, "x2": 500, "p1": sp.Rational(3, 10)},
    "gamma": {"mu": 600, "cv": sp.Rational(7, 10)},
    "lognormal": {"mu": 500, "cv": sp.Rational(6, 10)},
    "weibull": {"mu": 700, "shape": sp.Rational(14, 10)},
}
ROUNDED = ("gamma", "lognormal", "weibull")


def parameters(family: str, of: str) -> dict[str, sp.Expr]:
    return {f"{name}_{of}": sp.sympify(value) for name, value in PARAMETERS[family].items()}


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("family", LAWS)
def test_moments_of_the_families(family: str, order: int) -> None:
    """Rounding a continuous law to integers changes its second moment by 1/12 (Sheppard): 3e-7 of it here, and tails cut at 1e-13."""
    found = float(sym.length_moment(family, order).at(parameters(family, "o")))
    tolerance = 2e-6 if family in ROUNDED else 1e-9 if family == "geometric" else RTOL
    assert found == pytest.approx(LAWS[family].moment(order), rel=tolerance)


@pytest.mark.parametrize("family", ["constant", "uniform", "geometric", "discrete", "gamma"])
def test_transforms_of_the_families(family: str) -> None:
    law = LAWS[family]
    for beta in (1e-4, 1e-3, 0.02):
        found = float(sym.length_transform(family).at(parameters(family, "o") | {"beta": beta}))
        summed = float(law.probabilities @ np.exp(-beta * law.values))
        assert found == pytest.approx(summed, rel=1e-4 if family in ROUNDED else 1e-10)


@pytest.mark.parametrize(("prompt", "output"), list(zip(LAWS, reversed(LAWS), strict=True)))
def test_mean_volume_and_work_of_the_families(prompt: str, output: str) -> None:
    """Against the package's means, all prompts in one chunk."""
    demand = moments(L.Independent(LAWS[prompt], LAWS[output]), 1 << 22).mean
    law = {"c_p": 1e-4, "c_d": 2e-5, "c_k": 8e-8, "c_a": 1e-9}
    at = parameters(prompt, "s") | parameters(output, "o")
    tolerance = 3e-6 if {prompt, output} & set(ROUNDED) else 1e-9
    volume = sym.in_families(sym.mean_volume(chunked=False), prompt=prompt, output=output)
    assert float(volume.at(at)) == pytest.approx(demand[Demand.VOLUME], rel=tolerance)
    work = sym.in_families(sym.mean_work(), prompt=prompt, output=output)
    numeric = conditions.work_s(np.array([0.0, *law.values()]), demand)
    assert float(work.at(at | law)) == pytest.approx(float(numeric), rel=tolerance)


def general_moments(lengths: L.Lengths, budget: int) -> dict[str, float]:
    """The moments that derivations use, by summing over the law."""

    def chunks(s: np.ndarray) -> np.ndarray:
        return np.ceil(s / budget)

    functions = {
        "E[s]": lambda s, o: s,
        "E[o]": lambda s, o: o,
        "E[s o]": lambda s, o: s * o,
        "E[o^2]": lambda s, o: o * o,
        "E[s^2]": lambda s, o: s * s,
        "E[m]": lambda s, o: chunks(s),
        "E[m^2]": lambda s, o: chunks(s) ** 2,
    }
    return {
        name: float(lengths.expect(lambda s, o, f=f: f(s.astype(float), o.astype(float)) + 0.0 * o))
        for name, f in functions.items()
    }


@pytest.mark.parametrize("budget", [64, 512, 2048])
@pytest.mark.parametrize("resource", RESOURCE_NAMES)
def test_capacity_of_each_resource_from_moments(resource: str, budget: int) -> None:
    rng = np.random.default_rng(budget)
    lengths = L.Empirical(rng.integers(1, 3000, 500), rng.integers(1, 900, 500))
    demand = moments(lengths, budget).mean
    law = {"c_0": 0.012, "c_p": 1e-4, "c_d": 2e-5, "c_k": 8e-8, "c_a": 1e-9}
    limits = {"M": 120_000.0, "N": 60.0, "B": float(budget)}
    row = RESOURCE_NAMES.index(resource)
    shares = demand[GATE_ROWS[row]] / np.array(list(limits.values()))[row]
    numeric = conditions.affine_capacity(np.array(list(law.values())), demand, np.array([shares]))
    derived = sym.capacity(resource=resource).lambdify(*law, *limits, *general_moments(lengths, budget))
    value = derived(*law.values(), *limits.values(), *general_moments(lengths, budget).values())
    assert value == pytest.approx(float(numeric), rel=RTOL)


def test_operating_point() -> None:
    """Iteration time, inter-token latency, running count and KV at the busy share that the package finds."""
    rng = np.random.default_rng(0)
    demand = moments(L.Independent(L.Uniform(10, 1600), L.Geometric(300, limit=3000)), 512).mean
    law = np.array([0.012, 1e-4, 2e-5, 8e-8, 1e-9])
    work = float(conditions.work_s(law, demand))
    for rate in rng.uniform(0.05, 0.95, 5) / work:
        point = operating_point(law, demand, np.array(rate))
        at = {"lambda": float(rate), "u": float(point.busy), "c_0": law[0], "c_d": law[2], "c_k": law[3], "E[W]": work}
        at["E[r]/E[o - 1]"] = demand[Demand.READ] / demand[Demand.DECODE]
        tau = float(sym.iteration_time(idling=True).at(at))
        assert tau == pytest.approx(float(point.iteration_s), rel=1e-10)
        assert float(sym.inter_token_latency().at(at)) == pytest.approx(float(point.itl_s), rel=1e-10)
        held = {
            str(HELD_PREFILL): Demand.PREFILL_HELD,
            str(HELD_CONTEXT): Demand.CONTEXT_HELD,
            str(HELD_READS): Demand.READ_HELD,
        }
        at |= {name: demand[entry] for name, entry in held.items()}
        at |= {"tau": tau, "c_p": law[1], "c_a": law[4], "E[g]": demand[Demand.VOLUME], "E[r]": demand[Demand.READ]}
        assert float(sym.kv_in_use().at(at)) == pytest.approx(float(point.kv_tokens), rel=1e-10)
        assert float(point.running) == pytest.approx(rate * tau * demand[Demand.ITERATIONS], rel=1e-10)
        assert float(point.busy) == pytest.approx(-np.expm1(-float(point.running)), abs=1e-9)
