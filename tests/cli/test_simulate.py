"""`stability simulate` and `stability validate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import stability as st
from stability.compare.validate import judged

from .plans import HEADER, SMALL, with_trace


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(SMALL)
    return path


def test_one_seed_gives_one_run(cli, plan: Path) -> None:
    runs = [cli("simulate", plan, "--requests", 500, "--seed", seed, "--json") for seed in (1, 1, 2)]
    assert [run.code for run in runs] == [0, 0, 0]
    first, again, other = (run.json for run in runs)
    assert first == again
    assert first["ttft_mean_s"] != other["ttft_mean_s"]
    assert (first["plan"], first["completed"], first["seed"]) == (str(plan), 500, 1)


def test_a_queue_that_grows_is_a_no(cli, plan: Path) -> None:
    found = cli("simulate", plan, "--rate", 20, "--requests", 2000)
    assert found.code == 1
    assert "more arrive" in found.out


def test_other_modes(cli, plan: Path) -> None:
    """80 iterations of 10 ms and 10 ms of prompt in 8 slots: 9.091/s (`plans.SMALL`)."""
    saturated = cli("simulate", plan, "--saturated", "--requests", 2000, "--json").json
    assert saturated["throughput_per_s"] == pytest.approx(9.091, rel=0.02)
    closed = cli("simulate", plan, "--concurrency", 4, "--requests", 500, "--json").json
    assert (closed["mode"], closed["running_mean"]) == ("closed loop", pytest.approx(4, rel=0.05))
    assert "unknown router" in cli("simulate", plan, "--router", "nearest").error()


def test_a_trace_is_replayed_as_it_is(cli, plan: Path) -> None:
    (plan.parent / "t.csv").write_text(HEADER + "".join(f"{i / 4},100,80\n" for i in range(101)))
    plan.write_text(with_trace("t.csv"))
    assert cli("simulate", plan, "--json").json["arrived"] == 101


def test_a_picture_over_time(cli, plan: Path) -> None:
    picture = plan.parent / "run.svg"
    found = cli("simulate", plan, "--requests", 300, "--plot", picture)
    assert found.out.endswith(f"picture in {picture}\n")
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize("rate", [5, 20])
def test_theory_is_confirmed(cli, plan: Path, rate: float) -> None:
    found = cli("validate", plan, "--rate", rate, "--requests", 4000)
    assert found.code == 0, found.out
    answer = cli("validate", plan, "--rate", rate, "--requests", 4000, "--json").json
    assert (answer["schema"], answer["agrees"]) == ("stability/validation/1", True)
    rows = {row["quantity"]: row for row in answer["predictions"]}
    assert rows["capacity, 1/s"]["predicted"] == pytest.approx(9.091, rel=1e-3)
    assert ("inter-token latency, s" in rows) == (rate < 9)


def test_a_wrong_theory_is_refuted(cli, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = st.analyze
    monkeypatch.setattr(
        "stability.compare.validate.analyze",
        lambda fleet, workload: replace(true(fleet, workload), capacity_per_s=12.0, verdict=st.Verdict.UNSTABLE),
    )
    found = cli("validate", plan, "--requests", 2000)
    assert found.code == 1
    assert found.out.count("DISAGREES") == 2
    assert "+3" in found.out  # 12/9.091 = +32 %


def test_the_tolerance_and_the_interval_together() -> None:
    for predicted, half_width, agrees in [
        (1.1, 0.0, True),
        (1.11, 0.0, False),
        (1.11, 0.02, True),
        (float("inf"), 0.0, False),
    ]:
        found = judged("x", predicted=predicted, measured=1.0, tolerance=0.1 + 1e-12, half_width=half_width)
        assert found.agrees is agrees


def test_several_pools_under_the_analysis_split() -> None:
    law = st.IterationTime(base_s=0.01)
    sizes = [(8, 50_000), (16, 200_000)]
    fleet = st.Fleet(
        [
            st.Pool(
                f"p{slots}", st.Replica(iteration=law, kv_capacity_tokens=kv, engine=st.Engine(max_num_seqs=slots)), 1
            )
            for slots, kv in sizes
        ]
    )
    lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Uniform(40, 120))
    found = st.validate(fleet, st.Workload.poisson(12.0, lengths), requests=4000)
    assert found.agrees, found.summary()
    assert [row.quantity for row in found.predictions] == [
        "capacity, 1/s",
        "verdict",
        "inter-token latency, s",
        "KV occupancy",
    ]
    with pytest.raises(TypeError, match="no truth value"):
        bool(found)
