"""Disaggregation against a tandem simulated token by token, hand numbers, and one pool."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import stability as st
from stability import lengths as L
from stability.errors import NotModelledError

from .tandem import saturated_rate, simulate

LAW = st.IterationTime(
    base_s=0.01,
    per_prefill_token_s=5e-5,
    per_decode_token_s=2e-5,
    per_kv_token_s=8e-8,
    per_prefill_context_s=1e-9,
)
LENGTHS = L.Independent(L.Uniform(50, 800), L.Uniform(1, 200))


def replica(memory: int, slots: int = 256, admission: str = "reserve", law=LAW, **given) -> st.Replica:
    engine = st.Engine(max_num_seqs=slots, max_num_batched_tokens=2048, admission=admission, block_size=1)
    return st.Replica(iteration=law, kv_capacity_tokens=memory, engine=engine, kv_bytes_per_token=1e5, **given)


def tandem(prefill, decode, counts, bandwidth: float | None = None, latency_s: float = 0.0) -> st.Fleet:
    pools = [st.Pool("p", prefill, counts[0], role="prefill"), st.Pool("d", decode, counts[1], role="decode")]
    return st.Fleet(pools, [] if bandwidth is None else [st.Link("p", "d", bandwidth, latency_s)])


@pytest.mark.parametrize(
    ("counts", "memory", "slots", "bandwidth", "bottleneck"),
    [
        ((1, 6), 40_000, 256, 1e12, "prefill: compute"),
        ((3, 2), 20_000, 256, 1e12, "decode: kv_memory"),
        ((3, 2), 400_000, 32, 1e12, "decode: batch_slots"),
        ((3, 4), 60_000, 256, 1.2e9, "decode: kv_memory"),  # reservations wait for a full link
        ((2, 4), 20_000, 256, 2.0e9, "decode: kv_memory"),
    ],
)
def test_capacity_is_the_saturated_rate_of_a_simulated_tandem(counts, memory, slots, bandwidth, bottleneck) -> None:
    """Within 3 %: 1500 completions of a fixed seed, the formula at the lengths that were drawn."""
    prefill, decode = replica(2_000_000), replica(memory, slots)
    prompt, output = LENGTHS.sample(3000, np.random.default_rng(1))
    fleet = tandem(prefill, decode, counts, bandwidth, 0.002)
    found = st.disaggregation(fleet, st.Workload.poisson(10.0, L.Empirical(prompt[900:2400], output[900:2400])))
    assert found.bottleneck == bottleneck
    done = simulate(
        np.zeros(len(prompt)),
        prompt,
        output,
        prefill=prefill,
        decode=decode,
        counts=counts,
        seconds_per_token=1e5 / bandwidth,
        latency_s=0.002,
    )
    assert saturated_rate(done) == pytest.approx(found.capacity_per_s, rel=0.03)


def test_below_capacity_requests_leave_as_they_come_and_above_they_do_not() -> None:
    prefill, decode, counts = replica(2_000_000), replica(20_000), (3, 2)
    rng = np.random.default_rng(2)
    prompt, output = LENGTHS.sample(3000, rng)
    capacity = st.disaggregation(tandem(prefill, decode, counts), st.Workload.poisson(1.0, LENGTHS)).capacity_per_s
    for factor, stays in ((0.9, True), (1.15, False)):
        arrival = np.cumsum(rng.exponential(1 / (factor * capacity), len(prompt)))
        done = simulate(arrival, prompt, output, prefill=prefill, decode=decode, counts=counts)
        delay = done - arrival
        early, late = delay[300:900].mean(), delay[2400:].mean()
        assert (late < 1.5 * early) == stays


def test_a_link_alone_by_hand() -> None:
    """100 tokens of 1e5 bytes each over 1e8 bytes/s: 10 prompts a second; those with one output token do not move."""
    lengths = L.Independent(L.Constant(100), L.Discrete([1, 81]))
    fleet = tandem(replica(10**8), replica(10**8), (9, 9), 1e8)
    found = st.disaggregation(fleet, st.Workload.poisson(10.0, lengths))
    assert found.loads["link"] == pytest.approx(0.5)
    assert found.transfer_s == pytest.approx(100 * 1e5 / 1e8 / (1 - 0.5))
    assert found.bottleneck in ("link", "decode: kv_memory", "decode: batch_slots")
    assert found.capacity_per_s == pytest.approx(20.0, rel=1e-2)


def test_stages_share_out_the_work_of_a_request() -> None:
    """Prefill and decode loads at one replica each add up to one replica's compute and slots."""
    fleet = tandem(replica(10**9, slots=64), replica(10**9, slots=64), (1, 1))
    found = st.disaggregation(fleet, st.Workload.poisson(1.0, LENGTHS))
    s, o = LENGTHS.prompt_mean_tokens, LENGTHS.output_mean_tokens
    square = LENGTHS.expect(lambda s, o: s.astype(float) ** 2)
    reads = LENGTHS.expect(lambda s, o: (o - 1) * s + o * (o - 1) / 2)
    prefill = 5e-5 * s + 1e-9 * square / 2
    decode = 2e-5 * (o - 1) + 8e-8 * reads
    assert found.loads["prefill"] == pytest.approx(prefill + 0.01 * s / 2048)
    assert found.loads["decode"] == pytest.approx(decode + 0.01 * (o - 1) / 64)
    assert found.itl_s == pytest.approx((0.01 + 2e-5 + 8e-8 * reads / (o - 1)) / (1 - decode))


def test_colocated_is_what_one_pool_reaches() -> None:
    decode = replica(60_000)
    workload = st.Workload.poisson(1.0, LENGTHS)
    found = st.disaggregation(tandem(replica(60_000), decode, (2, 2)), workload)
    assert found.colocated_replicas == 4
    assert found.colocated_capacity_per_s == pytest.approx(st.analyze(st.Fleet.of(decode, 4), workload).capacity_per_s)


@given(
    some.floats(1e-3, 0.05),
    some.floats(0, 2e-4),
    some.floats(0, 1e-4),
    some.floats(0, 2e-7),
    some.integers(5_000, 400_000),
    some.sampled_from(["reserve", "prompt_gate"]),
)
def test_under_one_affine_law_colocated_never_has_the_smaller_capacity(c0, cp, cd, ck, memory, admission) -> None:
    law = st.IterationTime(base_s=c0, per_prefill_token_s=cp, per_decode_token_s=cd, per_kv_token_s=ck)
    one = replica(memory, admission=admission, law=law)
    found = st.disaggregation(tandem(one, one, (3, 4)), st.Workload.poisson(1.0, LENGTHS))
    assert found.colocated_capacity_per_s >= found.split_capacities_per_s.max() * (1 - 1e-9)
    assert found.colocated_wins


def test_disaggregated_wins_where_decodes_suffer_from_prompts() -> None:
    """Decodes read KV three times as slowly beside prompts: separate pools serve more."""
    mixed = st.IterationTime(base_s=0.01, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=9e-7)
    decode = st.IterationTime(base_s=0.01, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=3e-7)
    one = replica(400_000, law=st.iteration.TwoPhase(decode=decode, mixed=mixed))
    found = st.disaggregation(tandem(one, one, (3, 5)), st.Workload.poisson(1.0, LENGTHS))
    assert not found.colocated_wins


def test_disaggregated_wins_at_a_strict_latency() -> None:
    """At 14 ms where an idle iteration takes 10, decodes beside prompts leave little room."""
    one = replica(400_000)
    fleet, workload = tandem(one, one, (3, 5)), st.Workload.poisson(1.0, LENGTHS)
    assert st.disaggregation(fleet, workload).colocated_wins
    strict = st.disaggregation(fleet, workload, itl_s=0.0115)
    assert not strict.colocated_wins
    assert strict.colocated_within_itl_per_s < strict.best_within_itl_per_s
    # At that rate each has the target as its latency.
    at = st.disaggregation(fleet, workload.scaled(rate_per_s=strict.colocated_within_itl_per_s))
    assert at.colocated_itl_s == pytest.approx(0.0115)
    assert st.disaggregation(fleet, workload, itl_s=0.009).best_within_itl_per_s == 0


def test_the_best_division_is_the_best_of_all_fleets() -> None:
    prefill, decode = replica(10**7, gpus=2), replica(30_000)
    workload = st.Workload.poisson(1.0, LENGTHS)
    found = st.disaggregation(tandem(prefill, decode, (4, 12)), workload)
    assert found.gpus == 20
    every = {
        (n, 20 - 2 * n): st.disaggregation(tandem(prefill, decode, (n, 20 - 2 * n)), workload).capacity_per_s
        for n in range(1, 10)
    }
    assert found.best == max(every, key=lambda pair: every[pair])
    assert found.best_within_itl_per_s == pytest.approx(max(every.values()))
    assert dict(zip(map(tuple, found.splits.tolist()), found.split_capacities_per_s, strict=True)) == pytest.approx(
        every
    )
    assert found.best[0] / found.best[1] == pytest.approx(found.ratio, abs=0.25)


def test_what_the_result_carries() -> None:
    one = replica(400_000)
    found = st.disaggregation(tandem(one, one, (3, 5), 1e10), st.Workload.poisson(5.0, LENGTHS), itl_s=0.02)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["schema"] == "stability/disaggregation/1"
    assert len(found.to_frame()) == len(found.splits) == 7
    assert found.plot().get_xlabel() == "prefill replicas, of 8 GPUs"
    assert "prefill : decode" in found.summary()
    with pytest.raises(TypeError):
        bool(found)


def test_refusals() -> None:
    one, workload = replica(400_000), st.Workload.poisson(5.0, LENGTHS)
    with pytest.raises(st.InputError, match="must be one prefill and one decode pool"):
        st.disaggregation(st.Fleet.of(one), workload)
    with pytest.raises(NotModelledError, match=r"disaggregation\(\)"):
        st.analyze(tandem(one, one, (1, 1)), workload)
    bare = st.Replica(iteration=LAW, kv_capacity_tokens=10_000)
    with pytest.raises(st.InputError, match="kv_bytes_per_token"):
        st.disaggregation(tandem(bare, bare, (1, 1), 1e9), workload)
    back = st.Fleet(tandem(one, one, (1, 1)).pools, [st.Link("d", "p", 1e9)])
    with pytest.raises(st.InputError, match="at most one from 'p' to 'd'"):
        st.disaggregation(back, workload)
