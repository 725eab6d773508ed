"""Pictures share one style, leave the user's settings alone, and name their axes with units."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import stability as st
from stability.plots import style

LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
ENGINE = st.Engine(max_num_seqs=128, max_num_batched_tokens=2048)
REPLICA = st.Replica(iteration=LAW, kv_capacity_tokens=131_000, engine=ENGINE, price_per_hour=2.0)
LENGTHS = st.lengths.Independent(prompt=st.lengths.Uniform(10, 1600), output=st.lengths.Uniform(10, 1600))
LONG = st.lengths.Independent(prompt=st.lengths.Uniform(2000, 9000), output=st.lengths.Uniform(10, 300))
FLEET = st.Fleet([st.Pool("a", REPLICA, 6), st.Pool("b", REPLICA, 3)])
ONE = st.Workload.poisson(10.0, LENGTHS)
TWO = st.Workload([st.RequestClass("chat", 12.0, LENGTHS), st.RequestClass("documents", 2.0, LONG, value=3.0)])
SHORT = st.Workload.from_requests([0.0, 0.5, 1.0], [100, 50, 20], [300, 100, 200])


def bisected() -> st.BisectedCapacity:
    trials = [
        st.RateTrial(rate_per_s=r, verdict=v, requests=9, reason="")
        for r, v in ((1.0, st.Verdict.STABLE), (2.0, st.Verdict.UNDETERMINED), (3.0, st.Verdict.UNSTABLE))
    ]
    return st.BisectedCapacity(stable_per_s=1.0, unstable_per_s=3.0, trials=tuple(trials), reason="", seed=0)


RESULTS: dict[str, Callable[[], object]] = {
    "report": lambda: st.analyze(FLEET, TWO),
    "check": lambda: st.check(FLEET, ONE),
    "region": lambda: st.capacity_region(FLEET, TWO),
    "region of one class": lambda: st.capacity_region(FLEET, ONE),
    "split": lambda: st.optimal_split(FLEET, TWO),
    "admission": lambda: st.admission_control(FLEET, TWO.scaled(rate_per_s=90.0)),
    "sized": lambda: st.cheapest_fleet(FLEET, ONE),
    "front": lambda: st.cost_front(FLEET, ONE, against="headroom", values=[0.0, 0.3]),
    "tuning": lambda: st.tune(FLEET, ONE, vary=["watermark"], latencies=False),
    "fluid": lambda: st.fluid_path(FLEET, ONE, horizon_s=50.0, points=50),
    "simulation": lambda: st.simulate(FLEET, SHORT, resolution_s=1.0),
    "routers": lambda: st.compare_routers(FLEET, SHORT, routers=["round_robin", "random"]),
    "bisection": bisected,
    "hindsight": lambda: st.hindsight_bound([0, 0], [4, 4], [4, 4], kv_capacity_tokens=8),
    "experts": lambda: st.expert_balance([2, 1, 1], gpus=2, slots_per_gpu=2),
}


@pytest.mark.parametrize("name", RESULTS)
def test_pictures_draw_and_change_no_setting(name: str) -> None:
    result = RESULTS[name]()
    before = dict(mpl.rcParams)
    axes = result.plot()  # type: ignore[attr-defined]
    assert dict(mpl.rcParams) == before, "plot() changed settings of the user"
    assert isinstance(axes, Axes)
    figure = axes.get_figure()
    panels = figure.axes
    assert any(panel.get_xlabel() for panel in panels), "no panel names its horizontal axis"
    assert all(panel.get_xlabel() or panel.get_ylabel() for panel in panels)
    figure.savefig("/dev/null", format="svg")


@pytest.mark.parametrize("name", ["report", "region", "split", "front", "fluid", "simulation", "routers", "bisection"])
def test_pictures_draw_on_given_axes(name: str) -> None:
    axes = Figure().subplots()
    assert RESULTS[name]().plot(axes) is axes  # type: ignore[attr-defined]
    assert axes.has_data()


def test_colours_stand_in_one_place(root: Path) -> None:
    found = []
    for path in sorted((root / "stability" / "plots").glob("*.py")):
        if path.name != "style.py":
            found += [
                f"{path.name}: {text}" for text in re.findall(r"#[0-9A-Fa-f]{6}|tab:\w+", path.read_text("utf-8"))
            ]
    assert not found, f"{found} are colours of their own. Take them from stability/plots/style.py."


def test_line_colours_differ_for_protanopes_and_in_line_style() -> None:
    """Vienot, Brettel and Mollon (1999): distances in linear RGB after the loss of the long-wave cones stay apart."""
    project = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, -0.0], [0.00401, -0.00401, 1.0]])
    linear = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in style.COLOURS[:4]]) ** 2.2
    seen = linear @ project.T
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 0.1
    assert len(set(style.LINES)) == len(style.COLOURS) == len(style.HATCHES)
