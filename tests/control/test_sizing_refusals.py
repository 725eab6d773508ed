"""Sizing that cannot be done: sentences that name what binds, and changes that do restore feasibility."""

import re

import pytest

import stability as st
from stability import lengths as L
from stability.errors import NotModelledError

from .test_sizing import CHAT, LONG, certain, kind, two_classes


def reason(candidates: list[st.Candidate], workload: st.Workload, **given: object) -> str:
    found = st.cheapest_fleet(candidates, workload, **given)
    assert not found.feasible
    assert found.verdict is None
    assert found.exit_code == 1
    assert found.reason in found.summary()
    found.to_dict()
    with pytest.raises(st.InputError, match="there is no fleet"):
        found.fleet()
    with pytest.raises(st.InputError, match="there is no fleet"):
        found.plot()
    return found.reason


def test_quotas_that_bind_and_how_many_replicas_are_missing() -> None:
    """9 certain requests/s each; 40 need five, three can be had: 27 of 40."""
    workload = st.Workload.poisson(40.0, CHAT)
    one = kind(8, price_per_hour=1.0)
    text = reason([st.Candidate("a", one, at_most=3)], workload)
    share = 3 * certain(one, CHAT) / 40
    assert text.startswith(f"at_most binds: all that can be had (a 3) serve {100 * share:.1f} % of the rates")
    missing = int(re.search(r"(\d+) more a", text)[1])
    assert missing == 2
    assert st.cheapest_fleet([st.Candidate("a", one, at_most=3 + missing)], workload).feasible
    assert not st.cheapest_fleet([st.Candidate("a", one, at_most=3 + missing - 1)], workload).feasible
    share = float(re.search(r"or ([\d.]+) %", text)[1]) / 100
    assert st.cheapest_fleet([st.Candidate("a", one, at_most=3)], workload.scaled(factor=share)).feasible
    assert not st.cheapest_fleet([st.Candidate("a", one, at_most=3)], workload.scaled(factor=share + 2e-3)).feasible


def test_spares_that_the_quota_does_not_leave() -> None:
    workload = st.Workload.poisson(40.0, CHAT)
    one = kind(8, price_per_hour=1.0)
    text = reason([st.Candidate("a", one, at_most=5)], workload, spares=2)
    assert "with 2 of them lost" in text
    assert "2 more a" in text
    assert st.cheapest_fleet([st.Candidate("a", one, at_most=7)], workload, spares=2).feasible
    assert not st.cheapest_fleet([st.Candidate("a", one, at_most=6)], workload, spares=2).feasible


def test_a_class_without_a_replica() -> None:
    small, big = kind(8, memory=200, price_per_hour=1.0), kind(8, memory=10_000, price_per_hour=1.0)
    workload = two_classes(5.0, 1.0)
    text = reason([st.Candidate("small", small)], workload)
    assert text.startswith("kv_memory binds: class 'long' has requests of up to 440 KV tokens")
    needed = int(re.search(r"with (\d+) KV tokens", text)[1])
    roomy = st.Candidate("roomy", kind(8, memory=needed, price_per_hour=1))
    assert st.cheapest_fleet([st.Candidate("small", small), roomy], workload).feasible
    text = reason([st.Candidate("small", small), st.Candidate("big", big, at_most=0)], workload)
    assert "leave no replica for 'long'" in text
    assert "1 more big" in text
    endless = st.Workload.poisson(1.0, L.Independent(L.Constant(100), L.Geometric(5000)))
    assert "no candidate holds class" in reason([st.Candidate("small", small)], endless)


def test_a_target_below_what_a_light_load_has() -> None:
    """An iteration takes 10 ms, so that no fleet has an inter-token latency of 9 ms."""
    one = st.Candidate("a", kind(8, price_per_hour=1.0))
    workload = st.Workload.poisson(40.0, CHAT)
    text = reason([one], workload, targets=st.Targets(itl_s=0.009))
    assert text.startswith("the target for the inter-token latency binds: 9 ms")
    least = float(re.search(r"a target of ([\d.]+) ms", text)[1]) * 1e-3
    assert least == pytest.approx(0.0101, abs=2e-4)
    assert st.cheapest_fleet([one], workload, targets=st.Targets(itl_s=least)).feasible
    text = reason([one], workload, targets=st.Targets(ttft_p99_s=0.011))
    assert text.startswith("the target for the TTFT, 99 % binds")


def test_a_target_that_one_class_cannot_meet_alone_leaves_the_others_to_other_replicas() -> None:
    """Long contexts are too slow for the target on the cheap replica, short ones are not."""
    law = lambda c: st.IterationTime(base_s=0.01, per_prefill_token_s=1e-5, per_kv_token_s=c)  # noqa: E731
    engine = st.Engine(max_num_seqs=64, max_num_batched_tokens=4096, admission="reserve", block_size=1)
    cheap, good = (
        st.Candidate(n, st.Replica(iteration=law(c), kv_capacity_tokens=400_000, engine=engine, price_per_hour=p))
        for n, c, p in (("cheap", 3e-6, 1.0), ("good", 1e-7, 20.0))
    )
    contexts = L.Independent(L.Constant(3000), L.Constant(100))
    workload = st.Workload([st.RequestClass("chat", 2.0, CHAT), st.RequestClass("context", 4.0, contexts)])
    found = st.cheapest_fleet([cheap, good], workload, targets=st.Targets(itl_s=0.0175))
    assert found.verdict is st.Verdict.STABLE
    assert found.rates_per_s[0, 0, 1] == 0
    assert found.rates_per_s[0, 1, 1] == pytest.approx(4.0)
    assert any("cheap gets nothing of class 'context'" in note for note in found.assumptions)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"candidates": []}, "candidates is empty"),
        ({"candidates": ["a"]}, r"candidates\[0\] = 'a', must be a Candidate"),
        ({"candidates": [st.Candidate("a", kind())]}, "pool 'a' has no price_per_hour"),
        ({"candidates": [st.Candidate("a", kind(price_per_hour=1.0))] * 2}, "repeat"),
        ({"spares": -1}, "spares = -1"),
        ({"switching_cost": 1.0}, "must come with a rate schedule"),
        ({"workload": []}, "holds no scenario"),
        (
            {"workload": [st.Workload.poisson(1.0, CHAT), st.Workload.poisson(1.0, LONG)]},
            "must differ in its rate only",
        ),
        ({"workload": [st.Workload.scheduled(st.RateSchedule([0], [1.0], end_s=1.0), CHAT)]}, "must be a stationary"),
        ({"workload": st.Workload.from_requests([1.0, 1.0], [10, 10], [5, 5])}, "at one instant"),
    ],
)
def test_bad_input(given: dict[str, object], match: str) -> None:
    whole = {
        "candidates": [st.Candidate("a", kind(price_per_hour=1.0))],
        "workload": st.Workload.poisson(9.0, CHAT),
        **given,
    }
    with pytest.raises(st.InputError, match=match):
        st.cheapest_fleet(whole.pop("candidates"), whole.pop("workload"), **whole)


def test_candidates_check_themselves() -> None:
    with pytest.raises(st.InputError, match="at_most"):
        st.Candidate("a", kind(), at_least=3, at_most=2)
    with pytest.raises(st.InputError, match="name is empty"):
        st.Candidate("", kind())
    with pytest.raises(NotModelledError, match="disaggregation"):
        st.Candidate.of(st.Pool("a", kind(), role="prefill"))
    assert (
        st.cheapest_fleet(st.Fleet.of(kind(price_per_hour=1.0), 99), st.Workload.poisson(9.5, CHAT)).fleet().replicas
        == 2
    )
    with pytest.raises(st.InputError, match="against = 'cost'"):
        st.cost_front(st.Fleet.of(kind(price_per_hour=1.0)), st.Workload.poisson(9.5, CHAT), against="cost", values=[1])


def test_workloads_that_find_prefixes_are_refused_by_name() -> None:
    chat = st.Sessions(L.Constant(3), L.Constant(100), L.Constant(20), think_s=5)
    workload = st.Workload.sessions(1.0, chat)
    one = st.Candidate("a", kind(8, price_per_hour=1.0))
    for given in (workload, [workload, workload.scaled(factor=2)]):
        with pytest.raises(NotModelledError, match="must find none for the cheapest fleet"):
            st.cheapest_fleet([one], given)
