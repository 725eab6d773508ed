"""Predictors: honest, seeded, the same in blocks, and calibrated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import stability as st
from stability import lengths as L
from stability.errors import InputError
from stability.policies import Bins, ClassMean, Interval, Noisy, Oracle, Predictor, PromptMean, Survival

OUTPUT = np.random.default_rng(0).integers(1, 1000, 50_000)
PROMPT = np.random.default_rng(1).integers(1, 4000, 50_000)

ALL = (
    Oracle(),
    Interval(0.5, 1.5),
    Interval(0.5, 1.5, "lower"),
    Bins(100),
    Bins(100, "lower"),
    Noisy(0.5),
    Noisy(0.5, "lognormal"),
    ClassMean((100.0,)),
    PromptMean((100.0, 300.0), (2000,)),
    Survival(OUTPUT),
)


@pytest.mark.parametrize("predictor", ALL, ids=repr)
def test_predictions_are_lengths_and_do_not_depend_on_blocks(predictor: Predictor) -> None:
    whole = predictor.predict(PROMPT, OUTPUT, np.random.default_rng(7))
    assert whole.shape == OUTPUT.shape
    assert whole.dtype == np.int64
    assert whole.min() >= 1
    rng = np.random.default_rng(7)
    pieces = [predictor.predict(PROMPT[a:b], OUTPUT[a:b], rng) for a, b in ((0, 1), (1, 20_000), (20_000, 50_000))]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert hash(predictor) == hash(predictor)


@pytest.mark.parametrize(
    "predictor", [ClassMean((70.0,)), PromptMean((100.0, 300.0), (2000,)), Survival([3, 5, 70])], ids=repr
)
def test_learned_predictors_never_look_at_the_truth(predictor: Predictor) -> None:
    rng = np.random.default_rng(7)
    assert np.array_equal(predictor.predict(PROMPT, OUTPUT, rng), predictor.predict(PROMPT, OUTPUT[::-1], rng))


@given(low=some.floats(0, 1), high=some.floats(1, 3), width=some.integers(1, 200))
def test_intervals_and_bins_hold_the_truth(low: float, high: float, width: int) -> None:
    rng, prompt, output = np.random.default_rng(0), PROMPT[:500], OUTPUT[:500]
    for ends in ((Interval(low, high, "lower"), Interval(low, high)), (Bins(width, "lower"), Bins(width))):
        below, above = (end.predict(prompt, output, rng) for end in ends)
        assert (below <= output).all()
        assert (output <= above).all()
    assert (
        Bins(width).predict(prompt, output, rng) - Bins(width, "lower").predict(prompt, output, rng) == width - 1
    ).all()


def test_noise_is_calibrated() -> None:
    """50 000 draws: the mean of a factor uniform on 0.5 .. 1.5 has standard error 0.0013; 0.008 is six of them."""
    long = np.full(50_000, 100_000)
    factor = Noisy(0.5).predict(PROMPT, long, np.random.default_rng(3)) / long
    assert factor.mean() == pytest.approx(1.0, abs=0.008)
    assert factor.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.02)
    assert factor.min() >= 0.5
    assert factor.max() <= 1.5
    logs = np.log(Noisy(0.8, "lognormal").predict(PROMPT, long, np.random.default_rng(3)) / long)
    assert logs.mean() == pytest.approx(0.0, abs=6 * 0.8 / np.sqrt(50_000))
    assert logs.std() == pytest.approx(0.8, rel=0.02)
    assert np.array_equal(Noisy(0.0).predict(PROMPT, OUTPUT, np.random.default_rng(0)), OUTPUT)


def test_prompt_means_are_those_of_the_bins() -> None:
    """Calibration in the large: over all requests of a bin, predictions average to the outputs."""
    workload = st.Workload(
        [
            st.RequestClass("short", 3.0, L.Independent(L.Uniform(1, 100), L.Geometric(50))),
            st.RequestClass("long", 1.0, L.Independent(L.Uniform(1000, 2000), L.Geometric(400))),
        ]
    )
    learned = PromptMean.learned(workload, bins=4)
    assert len(learned.means) == 4
    prompt, output = workload.lengths.sample(50_000, np.random.default_rng(9))
    told = learned.predict(prompt, output, np.random.default_rng(0))
    place = np.searchsorted(learned.edges, prompt, side="right")
    for k in range(4):
        rows = place == k
        # 100 000/4 taught, 12 500 test: six standard errors of the difference, and rounding to whole tokens.
        error = output[rows].std() * np.sqrt(1 / rows.sum() + 1 / 25_000)
        assert abs(told[rows].mean() - output[rows].mean()) < 6 * error + 0.5
    one = PromptMean.learned(st.Workload.poisson(1.0, L.Independent(L.Constant(5), L.Constant(7))))
    assert one == PromptMean((7.0,))


@given(generated=some.integers(0, 12), horizon=some.integers(1, 6))
def test_survival_is_the_conditional_law(generated: int, horizon: int) -> None:
    seen = np.array([1, 2, 2, 5, 9, 9, 9, 11])
    law = Survival(seen)
    beyond = seen[seen > generated]
    within = beyond[beyond <= generated + horizon]
    want = (beyond - generated).mean() if len(beyond) else 1.0
    assert law.remaining_tokens([generated])[0] == pytest.approx(want)
    share = len(within) / len(beyond) if len(beyond) else 1.0
    assert law.finish_probability([generated], horizon)[0] == pytest.approx(share)
    inside = (within - generated).mean() if len(within) else (horizon if len(beyond) else 1.0)
    assert law.remaining_within_tokens([generated], horizon)[0] == pytest.approx(inside)


def test_survival_predicts_its_mean_and_is_calibrated_as_tokens_come() -> None:
    """Half the requests teach, the other half are predicted at every hundred tokens."""
    output = np.random.default_rng(5).geometric(1 / 300, 40_000)
    law = Survival(output[:20_000])
    assert law.predict(PROMPT[:3], OUTPUT[:3], np.random.default_rng(0)).tolist() == [round(output[:20_000].mean())] * 3
    for generated in range(0, 1000, 100):
        left = output[20_000:][output[20_000:] > generated] - generated
        error = 6 * left.std() * np.sqrt(2 / len(left))
        assert law.remaining_tokens([generated])[0] == pytest.approx(left.mean(), abs=error)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Interval(1.1, 1.5),
        lambda: Interval(0.5, 0.9),
        lambda: Interval(0.5, 1.5, "middle"),
        lambda: Bins(0),
        lambda: Noisy(1.5),
        lambda: Noisy(-0.1, "lognormal"),
        lambda: ClassMean(()),
        lambda: ClassMean((0.5,)),
        lambda: PromptMean((1.0, 2.0)),
        lambda: PromptMean((1.0, 2.0, 3.0), (5, 5)),
        lambda: Survival([]),
    ],
)
def test_refusals(build: object) -> None:
    with pytest.raises(InputError):
        build()  # type: ignore[operator]


CLASSES = st.Workload(
    [
        st.RequestClass("long", 1.0, L.Independent(L.Constant(20), L.Discrete([30, 50], [0.5, 0.5]))),
        st.RequestClass("short", 1.0, L.Independent(L.Constant(20), L.Discrete([1, 7], [0.5, 0.5]))),
    ]
)


def test_class_means_are_those_of_the_classes() -> None:
    """Prompts are all alike: only the class tells them apart."""
    learned = ClassMean.learned(CLASSES)
    assert learned == ClassMean((40.0, 4.0))
    kinds, same, rng = np.array([0, 1, 1, 0]), np.full(4, 20), np.random.default_rng(0)
    assert learned.predict_requests(same, np.array([30, 1, 7, 50]), kinds, rng).tolist() == [40, 4, 4, 40]
    with pytest.raises(InputError, match="predict_requests"):
        learned.predict(same, same, rng)
    with pytest.raises(InputError, match="for each of 3 request classes"):
        learned.predict_requests(same, same, np.array([0, 1, 2, 0]), rng)


def test_the_simulator_tells_predictors_the_class_and_asks_old_ones_as_before() -> None:
    """One slot, ten of each class at once: by class means the short class goes first, all of it; a predictor with `predict` alone runs."""

    class Old(Predictor):
        def predict(self, prompt_tokens, output_tokens, rng):  # type: ignore[no-untyped-def]
            return output_tokens

    engine = st.Engine(max_num_seqs=1, scheduler=st.policies.Priority("shortest", predictor=ClassMean.learned(CLASSES)))
    replica = st.Replica(iteration=st.IterationTime(base_s=1.0), kv_capacity_tokens=1000, engine=engine)
    records = st.simulate(st.Fleet.of(replica), CLASSES, requests=20, saturated=True, rng=2).requests
    assert records is not None
    kinds = records.request_class[np.argsort(records.finish_s)]
    assert kinds.tolist() == sorted(kinds.tolist(), reverse=True)
    assert 0 < kinds.sum() < 20
    old = st.Engine(max_num_seqs=1, scheduler=st.policies.Priority("shortest", predictor=Old()))
    replica = st.Replica(iteration=st.IterationTime(base_s=1.0), kv_capacity_tokens=1000, engine=old)
    records = st.simulate(st.Fleet.of(replica), CLASSES, requests=20, saturated=True, rng=2).requests
    assert records is not None
    outputs = records.output_tokens[np.argsort(records.finish_s)]
    assert outputs.tolist() == sorted(outputs.tolist())
