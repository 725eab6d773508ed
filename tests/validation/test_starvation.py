"""Starvation under shortest first: the long class's tail grows with the run, the short one's and the throughput do not suffer."""

from validation.starvation import DEADLINES_S, RIVALS, run


def test_shortest_first_starves_the_long_class_near_capacity() -> None:
    """Load 1.05 on two fixed seeds, 1 500 and 6 000 requests: four times the run, four times the tail of the long ones (at least 2.5)."""
    for seed in (1, 2):
        rate, short, long = zip(*(run(RIVALS["shortest"], 1.05, n, seed) for n in (1_500, 6_000)), strict=True)
        fair = [run(RIVALS["first come"], 1.05, n, seed) for n in (1_500, 6_000)]
        assert long[1] > 2.5 * long[0] > 2.5 * 2
        assert long[1] > 3 * fair[1][2]  # the same overload, shared, costs everyone a third of it
        assert short[1] < 1.0 < fair[1][1]
        assert rate[1] > 0.99 * fair[1][0]


def test_deadlines_age_requests_so_that_none_starves() -> None:
    """Arrival plus deadline: a long request is passed by short ones of the next 4 s only, so the tails differ by little more."""
    for seed in (1, 2):
        _, short, long = run(RIVALS["deadline"], 1.05, 6_000, seed)
        assert long - short < DEADLINES_S[1] - DEADLINES_S[0] + 1.0
        assert long < 0.5 * run(RIVALS["shortest"], 1.05, 6_000, seed)[2]
