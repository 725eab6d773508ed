"""What `analyze` says of published schedulers, by hand; and the sentence where it says nothing."""

import re

import pytest

import stability as st
from stability import lengths as L
from stability import policies as P
from stability.errors import InputError, NotModelledError
from stability.model.engine import Scheduler

LAW = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=1e-4, per_kv_token_s=0.0)
ONE = L.Independent(L.Constant(100), L.Constant(21))
OTHER = L.Independent(L.Constant(50), L.Constant(11))


def fleet(policy: Scheduler, memory: int = 100_000, law: st.IterationTime | None = None, **engine: int) -> st.Fleet:
    settings = {"max_num_seqs": 256, "max_num_batched_tokens": 2048, "block_size": 1, **engine}
    return st.Fleet.of(
        st.Replica(iteration=law or LAW, kv_capacity_tokens=memory, engine=st.Engine(scheduler=policy, **settings))
    )


def two(rate: float) -> st.Workload:
    return st.Workload([st.RequestClass("a", rate / 2, ONE), st.RequestClass("b", rate / 2, OTHER)])


def test_wait_is_proved_and_for_one_class_exact() -> None:
    """n = 3: a batch takes 10 ms + 3 * 12 ms = 46 ms, so 3/0.046 a second."""
    report = st.analyze(fleet(P.Wait((3,))), st.Workload.poisson(60.0, ONE))
    assert report.capacity_per_s == pytest.approx(3 / 0.046)
    assert report.verdict is st.Verdict.STABLE
    assert report.proved_capacity_per_s == pytest.approx(3 / 0.046)
    assert report.bottleneck == "scheduler"
    assert report.load == pytest.approx(60 * 0.046 / 3)
    assert report.itl_s == pytest.approx(3 / 60)  # a batch every three arrivals
    assert report.running_mean == pytest.approx(3 * 20 + 60 * 0.046)
    assert st.analyze(fleet(P.Wait((3,))), st.Workload.poisson(66.0, ONE)).verdict is st.Verdict.UNSTABLE


def test_wait_of_two_classes_is_a_bracket() -> None:
    """n = (2, 2): 10 + 2 * 12 + 2 * 6 = 46 ms; each class gets half, so 4/0.046 in all."""
    report = st.analyze(fleet(P.Wait((2, 2))), two(80.0))
    assert report.stable_below_per_s == pytest.approx(4 / 0.046)
    assert report.verdict is st.Verdict.STABLE
    assert report.unstable_above_per_s == report.upper_bound_per_s
    assert st.analyze(fleet(P.Wait((2, 2))), two(90.0)).verdict is st.Verdict.UNDETERMINED
    uneven = st.analyze(fleet(P.Wait((4, 1))), two(40.0))
    assert uneven.capacity_per_s == pytest.approx(2 / (0.01 + 4 * 0.012 + 0.006))


def test_class_budgets_count_memory_by_their_residency() -> None:
    """w = 21*100 + 231 = 2331 in slots, 2310 in engines: the last token's KV is not stored."""
    workload = st.Workload.poisson(50.0, ONE)
    assert st.analyze(fleet(P.ClassBudgets((3,)), memory=6993), workload).capacity_per_s == pytest.approx(3 / 0.046)
    assert st.analyze(fleet(P.ClassBudgets((3,), residency="engine"), memory=6930), workload).capacity_per_s > 65
    with pytest.raises(NotModelledError, match="6993 KV tokens"):
        st.analyze(fleet(P.ClassBudgets((3,)), memory=6992), workload)


def test_random_budgets_that_cannot_overflow() -> None:
    workload = st.Workload.poisson(50.0, ONE)
    report = st.analyze(fleet(P.RandomBudget(0, 4)), workload)
    assert report.capacity_per_s == pytest.approx(2 / (0.01 + 2 * 0.012))
    with pytest.raises(NotModelledError, match="can overflow"):
        st.analyze(fleet(P.RandomBudget(0, 4), memory=9000), workload)


def test_nested_wait_is_stable_below_theorem_2_and_unstable_above_its_pace() -> None:
    """E[W] = 10 + 0.6*1 + 0.4*2 ms; n = (4, 2): a full batch of 10 + 4*11 + 2*1 ms, and no more than 4 requests a batch."""
    lengths = L.Independent(L.Constant(100), L.Discrete([11, 21], [0.6, 0.4]))
    nested, below, above = P.NestedWait((10, 20), (4, 2)), 4 / 0.056, 4 / (0.01 + 4 * 0.0114)
    report = st.analyze(fleet(nested), st.Workload.poisson(0.99 * below, lengths))
    assert report.verdict is st.Verdict.STABLE
    assert "Theorem 2" in report.reason
    assert "probability 0.999" in report.reason
    assert report.capacity_per_s == pytest.approx(below)
    assert report.unstable_above_per_s == pytest.approx(above)
    assert report.proved_capacity_per_s is None  # over an hour, not for ever
    between = st.analyze(fleet(nested), st.Workload.poisson((below + above) / 2, lengths))
    assert between.verdict is st.Verdict.UNDETERMINED
    assert st.analyze(fleet(nested), st.Workload.poisson(1.01 * above, lengths)).verdict is st.Verdict.UNSTABLE
    with pytest.raises(NotModelledError, match="boundary queue grow"):
        st.analyze(fleet(P.NestedWait((10, 20), (5, 2))), st.Workload.poisson(10.0, lengths))


def test_nested_wait_of_one_segment_is_proved() -> None:
    """It has no queue within, so that n_1 W(100, 20) = 2 * 21 * 110 tokens always suffice."""
    lengths = L.Independent(L.Constant(100), L.Discrete([11, 21], [0.6, 0.4]))
    report = st.analyze(fleet(P.NestedWait((20,), (2,)), memory=4620), st.Workload.poisson(10.0, lengths))
    assert report.verdict is st.Verdict.STABLE
    assert report.proved_capacity_per_s == pytest.approx(2 / (0.01 + 2 * 0.012))
    short = st.analyze(fleet(P.NestedWait((20,), (2,)), memory=4619), st.Workload.poisson(10.0, lengths))
    assert short.verdict is st.Verdict.UNDETERMINED
    assert "needs 4620 KV tokens" in short.reason


@pytest.mark.parametrize(
    ("prompt", "thresholds", "settings", "words"),
    [
        (L.Uniform(90, 110), (4, 2), {}, "prompts of one length"),
        (L.Constant(100), (4, 2), {"memory": 5000}, "needs [0-9]+ KV tokens .* has 5000"),
        (L.Constant(100), (4, 4), {}, "fall from segment to segment"),
        (L.Constant(100), (4, 2), {"max_num_seqs": 64}, "slots for its stages and queues"),
        (L.Constant(100), (4, 2), {"max_num_batched_tokens": 450}, "the budget is 450"),
    ],
)
def test_nested_wait_outside_the_theorem_is_undetermined_with_the_reason(
    prompt: object, thresholds: tuple[int, ...], settings: dict[str, int], words: str
) -> None:
    lengths = L.Independent(prompt, L.Discrete([11, 21], [0.6, 0.4]))  # type: ignore[arg-type]
    report = st.analyze(fleet(P.NestedWait((10, 20), thresholds), **settings), st.Workload.poisson(10.0, lengths))
    assert report.verdict is st.Verdict.UNDETERMINED
    assert re.search(words, report.reason)


def test_work_conserving_disciplines_reach_the_token_bound() -> None:
    engine = {"max_num_seqs": 64, "max_num_batched_tokens": 64}
    bound = 64 / (0.01 + 64e-4) / 120
    for policy in (P.Sarathi(gate=False), P.Orca(gate=False)):
        report = st.analyze(fleet(policy, **engine), st.Workload.poisson(0.95 * bound, ONE))
        assert report.verdict is st.Verdict.STABLE
        assert report.capacity_per_s == pytest.approx(bound)
        over = st.analyze(fleet(policy, **engine), st.Workload.poisson(1.05 * bound, ONE))
        assert over.verdict is st.Verdict.UNSTABLE
    with pytest.raises(NotModelledError, match="breaks Theorem 2"):
        st.analyze(fleet(P.Orca(gate=False)), st.Workload.poisson(1.0, ONE))


def test_a_gated_sarathi_is_the_prompt_gate() -> None:
    workload = st.Workload.poisson(30.0, ONE)
    same = st.analyze(fleet(P.Fcfs("prompt_gate")), workload)
    report = st.analyze(fleet(P.Sarathi()), workload)
    assert report.to_dict() == same.to_dict()
    assert st.latency(fleet(P.Sarathi()), workload).ttft_mean_s > 0


def test_whole_prompts_only() -> None:
    engine = {"max_num_seqs": 256, "max_num_batched_tokens": 256}
    report = st.analyze(fleet(P.DecodeFirst(gate=False), **engine), st.Workload.poisson(1.0, ONE))
    assert report.capacity_per_s == pytest.approx(2 / (0.03 + 20 * 0.0102))
    bracket = st.analyze(fleet(P.PrefillFirst(gate=False), **engine), st.Workload.poisson(1.0, ONE))
    assert bracket.stable_below_per_s < bracket.unstable_above_per_s


@pytest.mark.parametrize("policy", [P.ShortestFirst(), P.AMax(30), P.AMin(1), P.SortedF(), P.Orca(), P.Priority()])
def test_the_others_say_what_is_known_and_what_to_do(policy: Scheduler) -> None:
    with pytest.raises(NotModelledError, match="measured_capacity"):
        st.analyze(fleet(policy), st.Workload.poisson(10.0, ONE))


def test_refusals() -> None:
    with pytest.raises(NotModelledError, match="several lengths"):
        st.analyze(fleet(P.Wait((3,))), st.Workload.poisson(10.0, L.Independent(L.Constant(100), L.Uniform(1, 9))))
    with pytest.raises(InputError, match="as many"):
        st.analyze(fleet(P.Wait((3, 3))), st.Workload.poisson(10.0, ONE))
    with pytest.raises(NotModelledError, match="no latency theory"):
        st.latency(fleet(P.Wait((3,))), st.Workload.poisson(10.0, ONE))
