"""Comparison of schedulers: same requests, hand-checked metrics, honest about what could not run."""

import json

import numpy as np
import pytest

import stability as st
from stability import lengths as L
from stability import policies as P
from stability.compare.candidates import NAMES, named_policies
from stability.compare.result import METRICS
from stability.compare.schedulers import compare_schedulers
from stability.errors import InputError, UnknownNameError
from stability.theory.nested_thresholds import check_nested
from stability.theory.nested_wait import nested_engine_model
from stability.theory.wait import engine_model
from stability.theory.wait_thresholds import check_thresholds

LAW = st.IterationTime(base_s=0.01, per_prefill_token_s=5e-5, per_decode_token_s=1e-5, per_kv_token_s=1e-7)
FLEET = st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=20_000, engine=st.Engine(max_num_seqs=64)))
WORKLOAD = st.Workload.poisson(25.0, L.Independent(L.Constant(100), L.Constant(8)))


def test_the_same_scheduler_twice_differs_by_nothing() -> None:
    found = compare_schedulers(FLEET, WORKLOAD, {"a": P.Fcfs(), "b": P.Sarathi()}, requests=300, replications=2, rng=4)
    for metric in METRICS:
        assert np.array_equal(found["a"].samples[metric], found["b"].samples[metric])
        pair = found.differences[metric].differences[0]
        assert (pair.difference, pair.interval.low, pair.interval.high) == (0, 0, 0)
    again = compare_schedulers(FLEET, WORKLOAD, {"a": P.Fcfs()}, requests=300, replications=2, rng=4)
    assert np.array_equal(again["a"].samples["latency_mean_s"], found["a"].samples["latency_mean_s"])
    assert len(set(found["a"].samples["latency_mean_s"])) == 2  # replications are different draws
    assert again.differences == {}


def test_wait_is_as_slow_as_its_theory_says_and_the_floor_holds() -> None:
    """With n = 1 a request needs seven more arrivals: 7/25 s, a batch and the wait of an M/D/1 queue, exactly.

    About 2 400 measured requests: the mean of seven gaps summed over a run has standard error 7/25 sqrt(1/2400) = 0.0057 s, and
    the tolerance is six of them.
    """
    found = compare_schedulers(
        FLEET, WORKLOAD, {"gate": P.Fcfs(), "wait": P.Wait((1,))}, requests=1500, replications=2, rng=2
    )
    model = engine_model(FLEET.pools[0].replica, WORKLOAD)
    batch = model.iteration_s([1])
    exact = 7 / 25 + batch + 25 * batch**2 / (2 * (1 - 25 * batch))
    measured = float(found["wait"].samples["latency_mean_s"].mean())
    assert measured == pytest.approx(exact, abs=6 * 0.0057)
    assert measured <= float(check_thresholds(model, [1]).latency_bound_s[0]) + 6 * 0.0057
    assert found.latency_floor_s is not None
    assert found.latency_floor_s == pytest.approx(8 * 0.01 + 100 * 5e-5 + 7e-5 + 1e-7 * 728)
    assert all(found[name].samples["latency_mean_s"].min() > found.latency_floor_s for name in found.names)
    assert found["wait"].capacity_per_s == pytest.approx(1 / batch)


def test_the_baseline_is_the_first_and_unfit_schedulers_are_named() -> None:
    rivals = {"gate": P.Fcfs(), "wait": P.Wait((1,)), "long": P.NestedWait((5,), (1,))}
    small = st.Fleet.of(
        st.Replica(
            iteration=LAW, kv_capacity_tokens=20_000, engine=st.Engine(max_num_seqs=64, max_num_batched_tokens=64)
        )
    )
    found = compare_schedulers(small, WORKLOAD, rivals, requests=100, replications=2, rng=1)
    assert found.names == ("gate",)
    assert set(found.skipped) == {"wait", "long"}  # a prompt of 100 tokens does not fit 64 whole
    assert "wait did not run" in found.summary()
    with pytest.raises(InputError, match="none of the schedulers"):
        compare_schedulers(small, WORKLOAD, {"wait": P.Wait((1,))}, requests=100, replications=2)


def test_names_build_parameters_or_say_why_not() -> None:
    policies, refused = named_policies(FLEET, WORKLOAD, tuple(NAMES))
    assert not refused
    assert policies["engine"] == P.Fcfs()
    assert isinstance(policies["wait"], P.Wait)
    assert isinstance(policies["class-budgets"], P.ClassBudgets)
    mixed = st.Workload.poisson(5.0, L.Independent(L.Constant(100), L.Uniform(1, 20)))
    policies, refused = named_policies(FLEET, mixed, ("wait", "nested-wait", "priority"))
    assert set(policies) == {"nested-wait", "priority"}
    assert "several lengths" in refused["wait"]
    with pytest.raises(UnknownNameError, match="Did you mean wait"):
        named_policies(FLEET, WORKLOAD, ("wiat",))


def test_two_replicas_halve_the_rate_that_thresholds_are_for() -> None:
    two = st.Fleet.of(FLEET.pools[0].replica, count=2)
    one = named_policies(FLEET, WORKLOAD.scaled(factor=0.5), ("wait",))[0]
    assert named_policies(two, WORKLOAD, ("wait",))[0] == one


def test_an_overloaded_scheduler_is_marked() -> None:
    """Twenty prompts a round, then 59 steps of twenty decodes: about 27 requests a second of 40."""
    long = st.Workload.poisson(40.0, L.Independent(L.Constant(100), L.Constant(60)))
    rivals = {"gate": P.Fcfs(), "decode": P.DecodeFirst()}
    found = compare_schedulers(FLEET, long, rivals, requests=600, replications=2, rng=3)
    assert found["gate"].overloaded == 0
    assert found["decode"].overloaded == 2
    assert "2 of 2" in found.summary()


def test_what_it_returns() -> None:
    found = compare_schedulers(FLEET, WORKLOAD, {"a": P.Fcfs(), "b": P.Orca()}, requests=100, replications=2, rng=4)
    table = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert table["schema"] == "stability/scheduler-comparison/1"
    assert [outcome["name"] for outcome in table["outcomes"]] == ["a", "b"]
    frame = found.to_frame()
    assert list(frame.columns) == ["scheduler", "replication", *METRICS]
    assert len(frame) == 4
    assert found.difference_rows("ttft_mean_s")[0][:2] == ("b", "a")
    with pytest.raises(TypeError, match="no truth value"):
        bool(found)
    with pytest.raises(InputError, match="metric"):
        found.difference_rows("speed")
    panels = found.plot().get_figure().axes
    assert len(panels) == len(METRICS)
    axes = found.plot(panels[0], metric="itl_mean_s")
    assert axes.get_xlabel() == "ITL, mean, ms"


def test_nested_wait_takes_as_long_as_its_queues_hold() -> None:
    """Little's law over stages and boundary queues is approximate: within 6 %, and nothing is evicted."""
    lengths = L.Independent(L.Constant(50), L.Discrete([21, 51], [0.7, 0.3]))
    law = st.IterationTime(base_s=0.013, per_prefill_token_s=5e-6, per_decode_token_s=2e-6, per_kv_token_s=5e-8)
    engine = st.Engine(max_num_seqs=1024, max_num_batched_tokens=4096, block_size=1)
    fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=60_000, engine=engine))
    workload = st.Workload.poisson(60.0, lengths)
    design = check_nested(nested_engine_model(fleet.pools[0].replica, workload), (20, 50), (2, 1))
    assert design.holds
    found = compare_schedulers(fleet, workload, {"nested": design.policy}, requests=1500, replications=2, rng=1)
    assert found["nested"].unfinished == 0
    assert found["nested"].samples["evictions_per_request"].max() == 0
    assert found["nested"].samples["latency_mean_s"].mean() == pytest.approx(design.latency_s, rel=0.06)


def test_sessions_that_have_not_lived_out_are_noted_and_have_no_floor() -> None:
    """Sessions of 4 turns, a minute apart: 400 turns at 8/s are over after a minute or so."""
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-5)
    engine = st.Engine(prefix_caching=True)
    fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=60_000, engine=engine))
    chat = st.Sessions(L.Constant(4), L.Constant(50), L.Constant(5), think_s=60)
    workload = st.Workload.sessions(2.0, chat)
    found = compare_schedulers(fleet, workload, {"a": st.policies.Fcfs()}, requests=400, replications=2, rng=1)
    assert found["a"].overloaded == 0
    assert "8/s: a run starts without sessions, which last 180 s" in found["a"].start_note
    assert found["a"].start_note in found.summary()
    assert found.latency_floor_s is None
    assert found.hindsight_s is None
    quick = st.Workload.sessions(2.0, st.Sessions(L.Constant(4), L.Constant(50), L.Constant(5), think_s=0.1))
    assert st.simulate(fleet, quick, requests=400, rng=1).reason == ""
