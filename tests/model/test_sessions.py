"""Sessions: laws of their prompts by hand and against sums over all outcomes, and what is drawn of them."""

from __future__ import annotations

import itertools
from itertools import islice

import numpy as np
import pytest

from stability import RateSchedule, RequestClass, Sessions, Workload
from stability import lengths as L
from stability.errors import InputError, NotModelledError
from stability.model.requests import draw
from stability.model.sessions import turn_laws
from stability.model.turns import NO_SESSION, draw_sessions

CHAT = Sessions(L.Constant(3), L.Constant(10), L.Constant(5), think_s=30, system_prompt_tokens=100)


def test_prompts_repeat_the_conversation() -> None:
    assert CHAT.lengths.prompt.values.tolist() == [110, 125, 140]
    assert CHAT.lengths.prompt_mean_tokens == pytest.approx(125)
    assert CHAT.lengths.max_total_tokens == 145


def test_law_of_prompts_is_the_sum_over_all_outcomes() -> None:
    """Turns 1 or 3, user tokens 2 or 7, outputs 1 or 4, two system prompts, and a limit that ends some sessions."""
    law = Sessions(
        L.Discrete([1, 3], [1, 3]),
        L.Discrete([2, 7], [1, 2]),
        L.Discrete([1, 4], [2, 1]),
        think_s=1,
        system_prompt_tokens=[0, 3],
        popularity=[3, 1],
        limit_tokens=22,
    )
    mass: dict[int, float] = {}
    users, outputs = {2: 1 / 3, 7: 2 / 3}, {1: 2 / 3, 4: 1 / 3}
    for (system, share), (turns, chance) in itertools.product(((0, 0.75), (3, 0.25)), ((1, 0.25), (3, 0.75))):
        for said in itertools.product(itertools.product(users, outputs), repeat=turns):
            p = share * chance * float(np.prod([users[u] * outputs[o] for u, o in said]))
            prompt = system
            for u, o in said:
                prompt += u
                if prompt + 4 > 22:
                    break
                mass[prompt] = mass.get(prompt, 0.0) + p
                prompt += o
    total = sum(mass.values())
    assert law.turns_mean == pytest.approx(total)
    table = dict(zip(law.lengths.prompt.values.tolist(), law.lengths.prompt.probabilities.tolist(), strict=True))
    assert table == pytest.approx({tokens: p / total for tokens, p in mass.items()})


def test_geometric_turns_go_on_with_the_same_chance() -> None:
    law = Sessions(L.Geometric(4.0, limit=400), L.Constant(1), L.Constant(1), think_s=0)
    masses = [float(table.sum()) for table in turn_laws(law, 0)[:20]]
    assert masses == pytest.approx([0.75**k for k in range(20)])


def test_rates_count_turns() -> None:
    workload = Workload.sessions(0.5, CHAT)
    assert workload.rate_per_s == 1.5
    assert workload.scaled(rate_per_s=3).classes[0].sessions is CHAT
    schedule = RateSchedule([0, 10], [1.0, 2.0], end_s=20)
    assert Workload.sessions(schedule, CHAT).rate_per_s == pytest.approx(4.5)


def test_draws_follow_the_law() -> None:
    law = Sessions(
        L.Geometric(5.0),
        L.Uniform(5, 40),
        L.Uniform(1, 30),
        think_s=20,
        think_cv=0.5,
        system_prompt_tokens=[64, 0],
        popularity=[2, 1],
        limit_tokens=600,
    )
    blocks = list(islice(draw_sessions(Workload.sessions(2.0, law), rng=3), 40))
    prompt = np.concatenate([block.prompt_tokens for block in blocks])
    think = np.concatenate([block.think_s for block in blocks])
    sessions = sum(len(block.start_s) for block in blocks)
    # 40 960 sessions: six standard errors or more
    assert len(prompt) / sessions == pytest.approx(law.turns_mean, rel=0.03)
    assert prompt.mean() == pytest.approx(law.lengths.prompt_mean_tokens, rel=0.03)
    assert (think.mean(), think.std()) == (pytest.approx(20, rel=0.01), pytest.approx(10, rel=0.02))
    assert prompt.max() + 30 <= 600
    assert blocks[-1].start_s[-1] == pytest.approx(sessions / 2, rel=0.03)


def test_mixed_workloads_keep_every_request_with_its_class() -> None:
    plain = RequestClass("b", 3.0, L.Independent(L.Constant(7), L.Constant(2)), cached_prefix_tokens=4)
    workload = Workload([RequestClass.of_sessions("a", 1.0, CHAT), plain])
    block = next(draw_sessions(workload, rng=1))
    turns = np.diff(block.first)
    single = block.request_class == 1
    assert set(turns[single]) == {1}
    assert set(turns[~single]) == {3}
    assert set(block.prompt_tokens[block.first[:-1]][single]) == {7}
    assert set(block.cached_prefix_tokens[block.first[:-1]][single]) == {4}
    assert set(block.system_prompt[single]) == {NO_SESSION}
    first = block.first[:-1][~single]
    assert np.array_equal(block.prompt_tokens[first + 2], np.full(len(first), 140))


def test_one_seed_one_draw_and_the_end_of_a_schedule() -> None:
    workload = Workload.sessions(RateSchedule([0], [1.0], end_s=50, repeat=False), CHAT)
    (once,), (again,) = (list(draw_sessions(workload, rng=5)) for _ in range(2))
    assert np.array_equal(once.start_s, again.start_s)
    assert np.array_equal(once.think_s, again.think_s)
    assert once.start_s[-1] < 50


def test_later_turns_cannot_be_drawn_beforehand() -> None:
    with pytest.raises(NotModelledError, match="sessions"):
        draw(Workload.sessions(1.0, CHAT), requests=3)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"turns": L.Geometric(4.0)}, "limit_tokens is missing"),
        ({"output": L.Geometric(4.0)}, "must be bounded"),
        ({"limit_tokens": 114}, "limit_tokens = 114"),
        ({"think_s": -1.0}, "think_s = -1"),
        ({"system_prompt_tokens": [1, 2], "popularity": [1.0]}, "2 system prompts but 1 shares"),
        ({"turns": 3}, "turns = 3"),
        ({"turns": L.Constant(100_000)}, "prompts reach"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], match: str) -> None:
    values = {"turns": L.Constant(3), "new_tokens": L.Constant(10), "output": L.Constant(5), "think_s": 30.0}
    values |= {"system_prompt_tokens": 100, **changes}
    laws = [values.pop(name) for name in ("turns", "new_tokens", "output")]
    with pytest.raises(InputError, match=match):
        Sessions(*laws, **values)  # type: ignore[arg-type]


def test_a_class_of_sessions_has_their_lengths() -> None:
    with pytest.raises(InputError, match="of_sessions"):
        RequestClass("a", 1.0, L.Independent(L.Constant(1), L.Constant(1)), sessions=CHAT)


def test_popularity_by_zipf() -> None:
    law = Sessions(L.Constant(1), L.Constant(1), L.Constant(1), think_s=1, system_prompt_tokens=[8] * 3, popularity=1.0)
    assert law.popularity == pytest.approx((6 / 11, 3 / 11, 2 / 11))
    assert law.system_groups == ((8, pytest.approx(1.0)),)


def test_system_prompts_in_arrays_and_numbers_of_numpy() -> None:
    def prompts(tokens: object, popularity: object) -> Sessions:
        one = L.Constant(1)
        return Sessions(one, one, one, think_s=1, system_prompt_tokens=tokens, popularity=popularity)  # type: ignore[arg-type]

    for exponent in (1, 1.0, np.int64(1), np.float64(1)):
        law = prompts(np.array([100, 200]), exponent)
        assert law.system_prompt_tokens == (100, 200)
        assert law.popularity == pytest.approx((2 / 3, 1 / 3))
    assert prompts([100, 200], np.array([1, 3])).popularity == (0.25, 0.75)
    assert prompts(np.int64(100), [1, 1]).system_prompt_tokens == (100, 100)
