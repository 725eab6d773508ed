"""Watching: real overloaded servers, stable simulated ones, what ends a call, forecasts by hand, plans."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import stability as st
from stability.errors import InputError
from stability.io.metrics.writing import record_of, recording
from stability.monitor.capacity import KnownCapacity, capacity_of, dispersion_of, stated
from stability.monitor.clumps import FEWEST_COUNTS, Clumps
from stability.monitor.forecast import overflow, queue_drift
from stability.monitor.judge import UNKNOWN_DISPERSION, Judge
from stability.monitor.readings import Reading, demand_cv2
from stability.monitor.watch import exit_code
from validation.watch import (
    OVERLOADED,
    direct_series,
    doubling,
    known_capacity,
    real_record,
    replace_rows,
    through_file,
)

LENGTHS = st.lengths.Independent(prompt=st.lengths.Uniform(10, 1000), output=st.lengths.Uniform(10, 1000))
REPLICA = st.Replica(
    iteration=st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8),
    kv_capacity_tokens=1_000_000,
    engine=st.Engine(max_num_seqs=64, max_num_batched_tokens=2048),
)
CAPACITY_PER_S = 5.28
"""Of `REPLICA`, measured on a saturated run of 20 000 requests; its theory gives the same within 1 %."""


def now(time_s: float, waiting: float, arrivals: float = 10.0, **others: float) -> Reading:
    values = {
        "running": 8.0,
        "preemptions": math.nan,
        "kv_occupancy": math.nan,
        "completions": 1.0,
        "generated_tokens": math.nan,
    } | others
    return Reading(
        time_s=time_s,
        elapsed_s=1.0,
        waiting=waiting,
        arrivals=arrivals,
        ttft_mean_s=math.nan,
        restarted=False,
        **values,
    )


def run(load: float, *, seconds: float = 900.0, seed: int = 1, every_s: float = 5.0) -> st.MetricsSeries:
    rate = load * CAPACITY_PER_S
    result = st.simulate(
        st.Fleet.of(REPLICA),
        st.Workload.poisson(rate, LENGTHS),
        requests=int(rate * seconds),
        rng=seed,
        resolution_s=every_s,
    )
    record = record_of(result, kv_capacity_tokens=1_000_000)
    return direct_series(replace_rows(record, record.time_s <= result.window_s[1]))


@pytest.mark.parametrize("which", [0, 1])
def test_real_overload_is_called_before_the_queue_doubles_with_a_plan(shared_data: Path, which: int) -> None:
    record = real_record(OVERLOADED[which])
    series = through_file(record)
    report = st.watch(series, capacity=known_capacity(OVERLOADED[which]))
    found = doubling(series, float(record.arrival_s.max()))
    assert report.overloads[0].called_s - report.begun_s < found.doubled_s
    assert exit_code(report) == 1


@pytest.mark.parametrize(("which", "waiting"), [(0, 50), (1, 60)])
def test_real_overload_is_called_from_metrics_alone(shared_data: Path, which: int, waiting: int) -> None:
    """Later than the first doubling, which takes a second or three, yet far below the peaks of 234 and 104."""
    report = st.watch(through_file(real_record(OVERLOADED[which])))
    assert (report.overloads[0].test, report.overloads[0].waiting) == ("queue", waiting)
    assert report.overloads[0].ended_s is not None, "both servers drain in the end"
    assert (exit_code(report), exit_code(report, fail_on="end")) == (1, 3)


@pytest.mark.parametrize("load", [0.5, 0.9])
def test_stable_servers_are_never_called(load: float) -> None:
    """Each chance is at most 1 %; four runs without one. The claim `watch` has 200 runs of each of four servers."""
    assert not [seed for seed in range(4) if st.watch(run(load, seed=seed)).overloads]


def test_overload_in_simulation_is_called_and_measured() -> None:
    report = st.watch(run(1.5))
    assert report.verdict is st.Verdict.UNSTABLE
    assert report.overloads[0].called_s < 200
    assert report.last.load == pytest.approx(1.5, rel=0.15)
    assert report.last.growth_per_s == pytest.approx(0.5 * CAPACITY_PER_S, rel=0.3)
    assert report.last.growth_low_per_s < 0.5 * CAPACITY_PER_S < report.last.growth_high_per_s


def test_low_load_is_called_stable_with_a_capacity() -> None:
    series = run(0.5, seconds=300)
    assert st.watch(series).verdict is st.Verdict.UNDETERMINED
    report = st.watch(series, capacity=CAPACITY_PER_S)
    assert report.verdict is st.Verdict.STABLE
    assert exit_code(report) == 0
    assert report.last.load == pytest.approx(0.5, rel=0.25)
    assert report.last.headroom_per_s == pytest.approx(CAPACITY_PER_S - report.last.arrivals_per_s)


def test_metrics_alone_call_a_low_load_stable_in_the_end() -> None:
    assert st.watch(run(0.5, seconds=3000)).verdict is st.Verdict.STABLE


def test_direct_series_is_what_the_reader_reads(tmp_path: Path) -> None:
    """The validation skips the text; here it is the same through it."""
    result = st.simulate(st.Fleet.of(REPLICA), st.Workload.poisson(8.0, LENGTHS), requests=400, rng=3, resolution_s=5.0)
    record = record_of(result, kv_capacity_tokens=1_000_000)
    file = tmp_path / "recording.prom"
    file.write_text(recording(record), encoding="utf-8")
    read, direct = st.read_metrics(file), direct_series(record)
    for name in ("time_s", "running", "waiting", "kv_occupancy", "finished", "arrivals", "generated_tokens"):
        assert np.array_equal(getattr(read, name), getattr(direct, name), equal_nan=True), name
    for name, histogram in direct.histograms.items():
        assert np.array_equal(read.histograms[name].counts, histogram.counts)
        assert np.allclose(read.histograms[name].sums, histogram.sums)
    assert st.watch(read).to_dict()["overloads"] == st.watch(direct).to_dict()["overloads"]


def test_a_call_ends_with_the_queue_and_the_next_has_a_smaller_share() -> None:
    judge = Judge(alpha=0.01)
    first = judge._queue.alpha
    assert first == pytest.approx(0.01 / 2 / 2)
    for second in range(10):
        judge.update(now(second, 10.0 * second), window_rate_per_s=10.0)
    assert judge.overloaded
    judge.update(now(10, 0, arrivals=1), window_rate_per_s=1.0)
    assert not judge.overloaded
    assert judge.verdict is st.Verdict.UNDETERMINED
    assert judge._queue.alpha == pytest.approx(first / 3)
    for second in range(11, 30):
        judge.update(now(second, 10.0 * (second - 10)), window_rate_per_s=10.0)
    assert judge.overloaded


def test_unknown_arrivals_are_no_ground_for_a_call() -> None:
    """Load 0.905 without a counter of ended requests: of growth alone the test knows nothing."""
    calls = 0
    for seed in range(20):
        rng, judge, queue = np.random.default_rng(seed), Judge(), 0
        for scrape in range(240):
            for _ in range(40):
                queue = queue + 1 if rng.random() < 0.475 else max(queue - 1, 0)
            judge.update(now(5 * scrape, queue, arrivals=math.nan), window_rate_per_s=math.nan)
        calls += judge.overloaded or judge.test != ""
    assert calls == 0


def test_evictions_are_told_to_the_queue_test() -> None:
    """Sixty more wait after three seconds, one arrives a second: overload, unless 80 a second were evicted and most admitted again."""
    calls = []
    for evicted in (0.0, 80.0):
        judge = Judge(dispersion=1.0)
        for second in range(60):
            scrape = dataclasses.replace(now(second, 20.0 * min(second, 3), arrivals=1), preemptions=evicted)
            judge.update(scrape, window_rate_per_s=1.0)
        calls.append(judge.overloaded)
    assert calls == [True, False]


def test_shares_of_all_beginnings_sum_to_alpha() -> None:
    judge = Judge(alpha=0.01, known=stated(5.0))
    total = 0.0
    for _ in range(2000):
        total += judge._queue.alpha + judge._over.alpha + judge._drift._alpha
        judge._begin()
    assert total == pytest.approx(0.01, rel=1e-3)
    assert total < 0.01


def test_a_call_by_arrivals_ends_when_they_fall() -> None:
    judge = Judge(known=stated(5.0))
    for second in range(10):
        judge.update(now(second, 0, arrivals=20), window_rate_per_s=20.0)
    assert (judge.overloaded, judge.test) == (True, "arrivals")
    judge.update(now(10, 0, arrivals=20), window_rate_per_s=20.0)
    assert judge.overloaded
    judge.update(now(11, 0, arrivals=1), window_rate_per_s=4.0)
    assert not judge.overloaded


def test_lengths_tell_the_dispersion_once_known() -> None:
    judge = Judge()
    assert judge.dispersion == UNKNOWN_DISPERSION
    judge.update(dataclasses.replace(now(0, 0), demand_cv2=2.0), window_rate_per_s=math.nan)
    assert judge.dispersion == 1.5
    judge.update(dataclasses.replace(now(1, 0), demand_cv2=2.2), window_rate_per_s=math.nan)
    assert judge.dispersion == 1.5, "within a quarter"
    judge.update(dataclasses.replace(now(2, 0), demand_cv2=9.0), window_rate_per_s=math.nan)
    assert judge.dispersion == 5.0
    fixed = Judge(dispersion=3.0)
    fixed.update(dataclasses.replace(now(0, 0), demand_cv2=9.0), window_rate_per_s=math.nan)
    assert fixed.dispersion == 3.0


def test_dispersion_of_arrivals_by_hand_and_by_chance() -> None:
    """Counts 0, 8, 0, 8, ...: each difference 8, half its square 32, mean 4: 8. A step of the rate adds one difference only."""
    clumps = Clumps()
    for scrape in range(FEWEST_COUNTS):
        clumps.update(8.0 * (scrape % 2))
    assert math.isnan(clumps.dispersion)
    clumps.update(8.0 * (FEWEST_COUNTS % 2))
    assert clumps.dispersion == pytest.approx(8.0)
    stepped = Clumps()
    for count in [*[10.0] * 100, *[20.0] * 100]:
        stepped.update(count)
    assert stepped.dispersion == pytest.approx(50 / (99 * 10 + 15 + 99 * 20))
    rng = np.random.default_rng(0)
    for batch in (1, 16):
        drawn = Clumps()
        for count in batch * rng.poisson(5, 2000):
            drawn.update(float(count))
        assert drawn.dispersion == pytest.approx(batch, rel=6 * math.sqrt(3 / 2000))


def test_batches_of_arrivals_raise_the_dispersion_and_are_not_called() -> None:
    """Batches of 16 at load 0.9, admitted one by one: nothing but the counts tells of the batches, once there are enough of them."""
    calls: list[int] = []
    for seed in range(20):
        rng, judge, queue = np.random.default_rng(seed), Judge(), 0
        for scrape in range(240):
            arrived = 0
            for joins in rng.random(36) < 0.9 / 16.9:
                arrived += 16 * int(joins)
                queue = queue + 16 if joins else max(queue - 1, 0)
            before = judge.overloaded
            judge.update(now(5 * scrape, queue, arrivals=arrived), window_rate_per_s=math.nan)
            calls += [scrape] if judge.overloaded and not before else []
        assert judge.dispersion > 0.6 * (16 + 3) / 2
        assert 8 < judge.arrival_dispersion < 24
    assert len(calls) <= 1
    assert all(scrape <= FEWEST_COUNTS for scrape in calls)
    stated_one = Judge(dispersion=1.0)
    stated_one.update(now(0, 0), window_rate_per_s=math.nan)
    assert math.isnan(stated_one.arrival_dispersion)


def test_batches_are_told_to_the_arrival_test_of_a_stated_capacity() -> None:
    judge = Judge(known=stated(5.0))
    for scrape in range(60):
        judge.update(now(scrape, 0, arrivals=8.0 * (scrape % 2)), window_rate_per_s=4.0)
    assert judge._over.dispersion == pytest.approx(8.0, rel=0.1)
    assert judge.test == ""


def test_spread_of_the_demand_by_hand() -> None:
    """Prompts all in (0, 2], middle 1; outputs half in (0, 2], half in (2, 6], middles 1 and 4: g = 1.5 and 12, cv2 = 0.605."""

    def histogram(counts: list[float], name: str) -> st.MetricsHistogram:
        return st.MetricsHistogram(
            name=name, bounds=np.array([2.0, 6.0, math.inf]), counts=np.array([counts]), sums=np.array([0.0])
        )

    found = demand_cv2(histogram([100, 0, 0], "prompt_lengths"), histogram([50, 50, 0], "output_lengths"), 0)
    assert found == pytest.approx((12 - 6.75) ** 2 / 6.75**2)
    assert math.isnan(demand_cv2(histogram([99, 0, 0], "prompt_lengths"), histogram([99, 0, 0], "output_lengths"), 0))


def test_dispersion_of_a_workload() -> None:
    constant = st.lengths.Independent(prompt=st.lengths.Constant(10), output=st.lengths.Constant(10))
    assert dispersion_of(st.Workload.poisson(1.0, constant)) == 1.0
    heavy = st.lengths.Independent(prompt=st.lengths.Constant(1000), output=st.lengths.Discrete([1, 101], [0.9, 0.1]))
    # g = 1000.5 or 106100.5: mean 11510.5, variance 0.09*(105100)**2
    expected = (1 + 0.09 * 105_100.0**2 / 11_510.5**2) / 2
    assert dispersion_of(st.Workload.poisson(1.0, heavy)) == pytest.approx(expected, rel=0.05)


def test_drift_and_forecast_by_hand() -> None:
    """From 10 to 40 in 3 s; 10 arrive a second and none leaves: 30 events, 30 +- 1.96*sqrt(2*30) over 3 s."""
    window = [now(0, 10), now(1, 20), now(2, 30), now(3, 40)]
    drift = queue_drift(window, dispersion=2.0)
    half = 1.96 * math.sqrt(60) / 3
    assert (drift.per_s, drift.low_per_s, drift.high_per_s) == pytest.approx((10, 10 - half, 10 + half))
    found = overflow("queue limit", 60.0, drift)
    assert found is not None
    assert (found.in_s, found.soonest_s, found.latest_s) == pytest.approx((6, 60 / (10 + half), 60 / (10 - half)))
    assert overflow("queue limit", -1.0, drift).in_s == 0.0
    falling = queue_drift([now(0, 40), now(3, 10)], dispersion=1.0)
    assert math.isinf(overflow("queue limit", 60.0, falling).in_s)


def test_ttft_forecast_is_the_wait_of_a_newcomer() -> None:
    """Ten arrive and two are admitted a second: a newcomer waits waiting/2 s, 10 s at 20; from 8t on."""
    pages = [
        "".join(f"vllm:{name} {value}\n" for name, value in zip(names, values, strict=True))
        for names in [("num_requests_running", "num_requests_waiting", "request_success_total")]
        for values in [(2, 8 * t + 1, 2 * t) for t in range(3)]
    ]
    series = _series(pages)
    found = {item.what: item for item in st.watch(series, ttft_s=20.0).overflows}
    assert found["TTFT target"].in_s == pytest.approx((20 * 2 - 17) / 8)


def _series(pages: list[str]) -> st.MetricsSeries:
    from stability.io.metrics.assemble import assemble
    from stability.io.metrics.exposition import add_exposition
    from stability.io.metrics.samples import Samples

    samples = Samples("pages")
    add_exposition(samples, "".join(pages), interval_s=1.0)
    return assemble(samples)


def test_kv_forecast() -> None:
    pages = [
        f"vllm:num_requests_running 4\nvllm:num_requests_waiting 0\nvllm:request_success_total 0\nvllm:kv_cache_usage_perc {0.1 * t}\n"
        for t in range(6)
    ]
    found = {item.what: item for item in st.watch(_series(pages)).overflows}
    assert found["KV cache"].in_s == pytest.approx(5.0)


def test_a_restart_begins_anew() -> None:
    pages = [
        f"vllm:num_requests_running 4\nvllm:num_requests_waiting {w}\nvllm:request_success_total {d}\n"
        for w, d in [(0, 100), (15, 101), (30, 102), (45, 103), (60, 104), (75, 105), (0, 0), (0, 1)]
    ]
    report = st.watch(_series(pages))
    assert len(report.overloads) == 1
    assert report.overloads[0].ended_s == 6.0
    assert report.verdict is st.Verdict.UNDETERMINED


def test_capacity_of_a_plan_and_of_part_of_it() -> None:
    plan = st.example_plan()
    whole, one = capacity_of(plan), capacity_of(plan, replicas=1)
    assert whole.capacity_per_s == st.analyze(plan.fleet, plan.workload).capacity_per_s
    assert one.capacity_per_s == pytest.approx(whole.capacity_per_s / 8)
    assert one.ttft_s == 2.0
    assert "1 of 8 replicas" in one.source
    with pytest.raises(InputError, match="replicas = 9"):
        capacity_of(plan, replicas=9)


def test_what_cannot_be_watched() -> None:
    page = "vllm:num_requests_running 4\nvllm:num_requests_waiting 0\n"
    with pytest.raises(InputError, match=r"no counter of ended requests.*vllm:request_success_total"):
        st.watch(_series([page, page]))
    series = run(0.5, seconds=60)
    for name, value in (("alpha", 0.5), ("beta", 0.0), ("window_s", 0.0), ("queue_limit", -1.0), ("dispersion", 0.1)):
        with pytest.raises(InputError, match="must be"):
            st.watch(series, **{name: value})
    backwards = replace(series, time_s=series.time_s[::-1].copy())
    with pytest.raises(InputError, match="must come later"):
        st.watch(backwards)


def test_report_shows_itself() -> None:
    report = st.watch(
        run(1.5, seconds=300), capacity=KnownCapacity(**_fields(CAPACITY_PER_S)), queue_limit=1000, ttft_s=5
    )
    assert repr(report).startswith("WatchReport(UNSTABLE, ")
    with pytest.raises(TypeError, match="truth value"):
        bool(report)
    json.dumps(report.to_dict(), allow_nan=False)
    frame = report.to_frame()
    assert len(frame) == report.scrapes
    assert {"time_s", "growth_per_s", "overflow_in_s", "verdict"} <= set(frame.columns)
    assert "overload called" in report.summary()
    assert "TTFT target" in report.summary()
    assert report.plot().get_xlabel() == "time, s"
    assert len(report.table(5).splitlines()) <= 10


def _fields(rate: float) -> dict[str, object]:
    return {f.name: getattr(stated(rate), f.name) for f in dataclasses.fields(KnownCapacity)}
