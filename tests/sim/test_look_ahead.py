"""The look-ahead against a walk through every future iteration."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stability.sim.reference.planners.base import State
from stability.sim.reference.planners.look_ahead import Forecast

requests = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=8)


@given(requests, requests, st.integers(1, 200), st.sampled_from((1, 2, 5, 16)), st.integers(0, 1))
def test_fits_exactly_when_every_future_iteration_does(
    running: list[tuple[int, int]], waiting: list[tuple[int, int]], capacity: int, block_size: int, extra: int
) -> None:
    state = State(
        now_s=0.0,
        waiting=(),
        running=(),
        block_size=block_size,
        capacity_blocks=capacity,
        max_num_seqs=99,
        max_num_batched_tokens=99,
        watermark_blocks=0,
        extra_tokens=extra,
    )

    def usage(present: list[tuple[int, int]], ahead: int) -> int:
        return sum(state.blocks(held + ahead) for held, end in present if end >= ahead)

    forecast = Forecast(state, [held for held, _ in running], [end for _, end in running])
    present = list(running)
    # What is not looked at: whether the running requests themselves fit, which the planner sees to before.
    if any(usage(present, ahead) > capacity for ahead in range(1, 13)):
        return
    for held, end in waiting:
        tried = [*present, (held, end)]
        expected = all(usage(tried, ahead) <= capacity for ahead in range(1, 13))
        assert forecast.fits(held, end) == expected
        if expected:
            forecast.add(held, end)
            present = tried
