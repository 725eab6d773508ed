"""Verdicts, splits, schedules, intervals and refusals."""

import json

import numpy as np
import pytest

import stability as st
from stability import lengths as L
from stability.errors import NotModelledError, UnservableError

UNIFORM = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 400))
LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)


def replica(admission: str = "reserve", memory: int = 131_000, **settings: int) -> st.Replica:
    return st.Replica(iteration=LAW, kv_capacity_tokens=memory, engine=st.Engine(admission=admission, **settings))


def at(load: float, fleet: st.Fleet, lengths: L.Lengths = UNIFORM) -> st.StabilityReport:
    """The report at a share of the capacity."""
    unit = st.Workload.poisson(1.0, lengths)
    return st.analyze(fleet, unit.scaled(rate_per_s=load * st.analyze(fleet, unit).capacity_per_s))


def test_reservation_is_stable_below_and_unstable_above_its_capacity() -> None:
    fleet = st.Fleet.of(replica())
    assert at(0.95, fleet).verdict is st.Verdict.STABLE
    assert at(1.01, fleet).verdict is st.Verdict.UNSTABLE
    near = at(0.9999, fleet)
    assert near.verdict is st.Verdict.UNDETERMINED
    assert "between" in near.reason


def test_a_prompt_gate_in_its_regime_is_judged_by_its_own_capacity() -> None:
    gate = st.Fleet.of(replica("prompt_gate"))
    report = at(0.95, gate)
    assert report.verdict is st.Verdict.STABLE
    assert report.stable_below_per_s == pytest.approx(0.97 * report.capacity_per_s)
    assert report.capacity_per_s < report.upper_bound_per_s
    assert report.evictions_per_request > 0.1
    assert at(1.04, gate).verdict is st.Verdict.UNSTABLE
    assert at(1.0, gate).verdict is st.Verdict.UNDETERMINED


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        (L.Independent(L.Constant(10), L.Discrete([100, 500])), "completions synchronise"),
        (L.Independent(L.Uniform(50, 300), L.LogNormal(1500, cv=1.2, limit=16_000)), "older requests leave"),
    ],
)
def test_outside_its_regime_a_gate_is_undetermined_between_reservation_and_bound(
    lengths: L.Lengths, reason: str
) -> None:
    gate, reserve = (st.Fleet.of(replica(kind, 60_000, max_num_seqs=1024)) for kind in ("prompt_gate", "reserve"))
    certain = st.analyze(reserve, st.Workload.poisson(1.0, lengths)).capacity_per_s
    report = at(0.97, gate, lengths)
    assert report.verdict is st.Verdict.UNDETERMINED
    assert reason in report.reason
    assert report.stable_below_per_s == pytest.approx(certain, rel=0.011)
    assert report.unstable_above_per_s == pytest.approx(report.upper_bound_per_s)


def test_a_chunk_gate_whose_memory_binds_is_certain_below_its_collapse_only() -> None:
    fleet = st.Fleet.of(replica("chunk_gate", 60_000, max_num_batched_tokens=1024))
    report = st.analyze(fleet, st.Workload.poisson(1.0, UNIFORM))
    assert 0 < report.stable_below_per_s < 0.8 * report.capacity_per_s
    between = st.analyze(fleet, st.Workload.poisson((report.stable_below_per_s + report.capacity_per_s) / 2, UNIFORM))
    assert between.verdict is st.Verdict.UNDETERMINED
    assert "evict each other half-way" in between.reason


def test_a_gate_that_holds_few_requests_is_certain_of_nothing() -> None:
    fleet = st.Fleet.of(replica("chunk_gate", 8_000, max_num_batched_tokens=512))
    report = st.analyze(fleet, st.Workload.poisson(0.01, UNIFORM))
    assert report.verdict is st.Verdict.UNDETERMINED
    with pytest.raises(st.InputError, match="no certain capacity"):
        st.replicas_needed(report)


def uniform(low: int, high: int, least: int = 10, most: int = 1600) -> L.Lengths:
    return L.Independent(L.Uniform(low, high), L.Uniform(least, most))


@pytest.mark.parametrize(
    ("lengths", "memory", "settings"),
    [
        (uniform(10, 1600), 20_000, {"admission": "reserve", "watermark": 0.5}),
        (uniform(10, 1600), 20_000, {"scheduler": st.policies.Fcfs("prompt_gate", 0.5)}),
        (uniform(10, 1600), 4_000, {"admission": "reserve"}),
        (L.Independent(L.Constant(100), L.Constant(200)), 590, {"admission": "reserve"}),
        (uniform(12_000, 12_001, 50, 150), 20_000, {"watermark": 0.5}),
        (uniform(1000, 8000, 50, 150), 20_000, {"watermark": 0.8}),
        (uniform(290, 291, 100, 500), 3_000, {"admission": "chunk_gate", "max_num_batched_tokens": 300}),
        (uniform(10, 200, 10, 200), 10**6, {"max_num_seqs": 4, "max_num_batched_tokens": 8}),
        (uniform(10, 1600), 20_000, {"prefix_caching": True, "block_size": 16}),
    ],
)
def test_odd_corners_are_never_judged_wrongly(lengths: L.Lengths, memory: int, settings: dict[str, object]) -> None:
    """What simulation serves when saturated lies between the rates called STABLE and UNSTABLE."""
    engine = st.Engine(**{"block_size": 1, **settings})
    fleet = st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=memory, engine=engine))
    workload = st.Workload.poisson(0.01, lengths)
    report = st.analyze(fleet, workload)
    served = st.simulate(fleet, workload, requests=4000, saturated=True, rng=1).throughput_per_s
    assert report.stable_below_per_s <= 1.02 * served
    assert report.unstable_above_per_s >= 0.98 * served


def test_swapped_or_wrong_arguments_are_one_sentence() -> None:
    workload = st.Workload.poisson(1.0, UNIFORM)
    with pytest.raises(st.InputError, match="swapped"):
        st.analyze(workload, st.Fleet.of(replica()))  # type: ignore[arg-type]
    with pytest.raises(st.InputError, match=r"must be a Fleet. Use Fleet.of\(replica\)"):
        st.analyze(replica(), workload)  # type: ignore[arg-type]


def test_verdicts_and_reports_have_no_truth_value() -> None:
    report = at(0.5, st.Fleet.of(replica()))
    for thing in (report, report.verdict, st.check(st.Fleet.of(replica()), st.Workload.poisson(1.0, UNIFORM))):
        with pytest.raises(TypeError, match="no truth value"):
            bool(thing)


def test_equal_replicas_add_up() -> None:
    one, eight = (st.analyze(st.Fleet.of(replica(), n), st.Workload.poisson(1.0, UNIFORM)) for n in (1, 8))
    assert eight.capacity_per_s == pytest.approx(8 * one.capacity_per_s)
    parts = st.Fleet([st.Pool("a", replica(), 3), st.Pool("b", replica(), 5)])
    assert st.analyze(parts, st.Workload.poisson(1.0, UNIFORM)).capacity_per_s == pytest.approx(eight.capacity_per_s)


def test_arrivals_follow_capacity_or_the_stated_weights() -> None:
    small, large = replica(memory=40_000), replica(memory=160_000)
    workload = st.Workload.poisson(10.0, UNIFORM)
    fair = st.analyze(st.Fleet([st.Pool("small", small), st.Pool("large", large)]), workload)
    assert fair.pools[0].load == pytest.approx(fair.pools[1].load)
    even = st.analyze(st.Fleet([st.Pool("small", small, weight=1), st.Pool("large", large, weight=1)]), workload)
    assert even.pools[0].rate_per_s == even.pools[1].rate_per_s == 5.0
    assert even.binding_pool == "small"
    assert even.capacity_per_s == pytest.approx(2 * even.pools[0].capacity_per_s)
    assert even.capacity_per_s < fair.capacity_per_s
    idle = st.analyze(st.Fleet([st.Pool("small", small, weight=0), st.Pool("large", large, weight=1)]), workload)
    assert idle.capacity_per_s == pytest.approx(idle.pools[1].capacity_per_s)


def test_a_schedule_is_judged_at_its_mean_and_its_peak() -> None:
    fleet = st.Fleet.of(replica())
    capacity = st.analyze(fleet, st.Workload.poisson(1.0, UNIFORM)).capacity_per_s

    def judged(low: float, high: float) -> st.StabilityReport:
        schedule = st.RateSchedule([0, 1800], [low * capacity, high * capacity], end_s=3600)
        return st.analyze(fleet, st.Workload.scheduled(schedule, UNIFORM))

    assert judged(0.3, 0.8).verdict is st.Verdict.STABLE
    assert judged(1.1, 1.3).verdict is st.Verdict.UNSTABLE
    crossing = judged(0.3, 1.2)
    assert crossing.verdict is st.Verdict.UNDETERMINED
    assert "transient overload" in crossing.reason
    assert crossing.peak is not None
    assert crossing.peak.load == pytest.approx(1.2)
    assert crossing.load == pytest.approx(0.75)


def test_the_peak_window_is_the_costliest_not_the_busiest() -> None:
    fleet = st.Fleet.of(replica())
    short, long = L.Independent(L.Constant(20), L.Constant(20)), L.Independent(L.Constant(1500), L.Constant(900))
    workload = st.Workload(
        [
            st.RequestClass("short", st.RateSchedule([0, 600], [9.0, 1.0], end_s=1200), short),
            st.RequestClass("long", st.RateSchedule([0, 600], [0.5, 6.0], end_s=1200), long),
        ]
    )
    peak = st.analyze(fleet, workload).peak
    assert peak is not None
    assert peak.rate_per_s == 7.0


def test_interval_of_a_trace_agrees_with_the_bootstrap() -> None:
    rng = np.random.default_rng(3)
    prompts, outputs = rng.integers(10, 1600, 400), rng.geometric(1 / 150, 400)
    fleet = st.Fleet.of(replica())

    def capacity(rows: np.ndarray) -> st.StabilityReport:
        return st.analyze(fleet, st.Workload.poisson(1.0, L.Empirical(prompts[rows], outputs[rows])))

    low, high = capacity(np.arange(400)).capacity_interval
    drawn = [capacity(rng.integers(400, size=400)).capacity_per_s for _ in range(400)]
    assert low < high
    # The 2.5 and 97.5 percentiles of 400 resamples have a standard error of about 7 % of the width.
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975]), atol=0.25 * (high - low))
    exact = at(0.5, fleet).capacity_interval
    assert exact[0] == exact[1]


def test_requests_longer_than_the_cache_are_refused_by_name() -> None:
    workload = st.Workload([st.RequestClass("novels", 1.0, L.Independent(L.Constant(140_000), L.Constant(10)))])
    with pytest.raises(
        UnservableError, match=r"class 'novels' .* up to 140010 KV tokens, must fit in the 130992 of pool 'pool'"
    ):
        st.analyze(st.Fleet.of(replica()), workload)
    heavy = st.Workload.poisson(1.0, L.Independent(L.Constant(10), L.Geometric(60_000)))
    with pytest.raises(UnservableError, match=r"11\.3 % of the requests do not fit"):
        st.analyze(st.Fleet.of(replica()), heavy)
    light = st.Workload.poisson(1.0, L.Independent(L.Constant(10), L.Geometric(15_000)))
    notes = st.analyze(st.Fleet.of(replica()), light).assumptions
    assert any("1.6e-04 of its requests exceed 130992 KV tokens, ignored" in note for note in notes)


def test_what_has_no_theory_yet_says_so() -> None:
    workload = st.Workload.poisson(1.0, UNIFORM)
    for pool in (st.Pool("p", replica(), role="prefill"), st.Pool("p", replica(), 4, role="decode")):
        with pytest.raises(NotModelledError, match="no analysis yet"):
            st.analyze(st.Fleet([pool]), workload)


def test_replicas_needed_by_hand() -> None:
    fleet = st.Fleet.of(replica())
    report = at(0.5, fleet)
    each = report.stable_below_per_s
    busy = st.analyze(fleet, st.Workload.poisson(3.3 * each, UNIFORM))
    assert st.replicas_needed(busy, headroom=0.1) == {"pool": 4}  # 3.3/0.9 = 3.67
    assert st.replicas_needed(busy, headroom=0.5) == {"pool": 7}  # 6.6


def test_report_prints_serialises_and_draws() -> None:
    pytest.importorskip("matplotlib")
    pandas = pytest.importorskip("pandas")
    report = st.analyze(
        st.Fleet([st.Pool("a", replica()), st.Pool("b", replica("prompt_gate"))]), st.Workload.poisson(9.0, UNIFORM)
    )
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["schema"] == "stability/report/1"
    assert report.summary().count("\n") > 12
    assert "<table>" in report._repr_html_()
    assert isinstance(report.to_frame(), pandas.DataFrame)
    assert len(report.to_frame()) == 2
    assert "\n" not in repr(report)
    axes = report.plot()
    assert axes.get_xlabel() == "load (1 = capacity)"


def test_levers_name_what_binds() -> None:
    fleet = st.Fleet.of(replica())
    workload = st.Workload.poisson(5.0, UNIFORM)
    found = {lever.change: lever for lever in st.levers(fleet, workload, st.analyze(fleet, workload))}
    assert found["one more replica"].gain == pytest.approx(1.0)
    assert found["KV cache +25 % (163750 tokens)"].gain > 0.02
    assert abs(found["max_num_seqs 512"].gain) < 1e-12


def test_check_reports_targets_and_exit_codes() -> None:
    fleet = st.Fleet.of(replica())
    capacity = st.analyze(fleet, st.Workload.poisson(1.0, UNIFORM)).capacity_per_s

    def code(load: float, **targets: float) -> int:
        return st.check(fleet, st.Workload.poisson(load * capacity, UNIFORM), st.Targets(**targets)).exit_code

    assert code(0.5) == 0
    assert code(0.5, itl_s=0.1, headroom=0.2) == 0
    assert code(0.5, itl_s=0.005) == 1
    assert code(0.85, headroom=0.2) == 1
    assert code(1.2) == 1
    assert code(0.9999) == 3
    result = st.check(fleet, st.Workload.poisson(0.5 * capacity, UNIFORM), st.Targets(itl_s=0.02, ttft_p99_s=1.0))
    assert [target.name for target in result.targets] == ["itl_s", "ttft_p99_s"]
    assert result.summary().count("met:") == 2


def test_rate_within_a_target_meets_it_exactly() -> None:
    fleet = st.Fleet.of(replica())
    unit = st.Workload.poisson(1.0, UNIFORM)
    rate = st.rate_within(fleet, unit, itl_s=0.02)
    assert st.analyze(fleet, unit.scaled(rate_per_s=rate)).itl_s == pytest.approx(0.02, rel=1e-3)
    assert st.rate_within(fleet, unit, itl_s=0.001) == 0.0
    assert st.rate_within(fleet, unit, itl_s=10.0) == pytest.approx(st.analyze(fleet, unit).capacity_per_s, rel=1e-3)
    rate = st.rate_within(fleet, unit, ttft_mean_s=0.05)
    assert st.latency(fleet, unit.scaled(rate_per_s=rate)).ttft_mean_s == pytest.approx(0.05, rel=2e-3)
