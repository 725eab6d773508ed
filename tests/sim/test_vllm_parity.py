"""Every decision of the recorded runs of vLLM's scheduler, step by step and request by request."""

from __future__ import annotations

import numpy as np
import pytest

from stability.model.fleet import Fleet
from stability.model.workload import Workload
from stability.sim.domain import limits_of
from stability.sim.engine import simulate
from stability.sim.reference import run_reference

from .recordings import STEP_COLUMNS, load, names

CASES = names()
pytestmark = pytest.mark.skipif(not CASES, reason="../shared/data/vllm_scheduler is absent")


@pytest.mark.parametrize("name", CASES)
def test_reference_decides_as_vllm(name: str) -> None:
    recording = load(name)
    run = run_reference([(limits_of(recording.replica), recording.replica.iteration)], recording.requests)
    steps = [step for _, step in run.steps]
    np.testing.assert_array_equal([s.start_s for s in steps], recording.steps["step"])
    for column in STEP_COLUMNS:
        np.testing.assert_array_equal([getattr(s, column) for s in steps], recording.steps[column], err_msg=column)
    # A token leaves at the end of its step, one second after the step's number.
    np.testing.assert_array_equal([r.first_token_s - 1 for r in run.requests], recording.outcomes["first_token_step"])
    np.testing.assert_array_equal([r.finish_s - 1 for r in run.requests], recording.outcomes["finish_step"])
    np.testing.assert_array_equal([r.preemptions for r in run.requests], recording.outcomes["preemptions"])


@pytest.mark.parametrize("record_steps", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_kernel_decides_as_vllm(name: str, record_steps: bool) -> None:
    recording = load(name)
    given = recording.requests
    workload = Workload.from_requests(given.arrival_s, given.prompt_tokens, given.output_tokens)
    result = simulate(Fleet.of(recording.replica), workload, record_steps=record_steps)
    assert result.requests is not None
    np.testing.assert_array_equal(result.requests.first_token_s - 1, recording.outcomes["first_token_step"])
    np.testing.assert_array_equal(result.requests.finish_s - 1, recording.outcomes["finish_step"])
    np.testing.assert_array_equal(result.requests.preemptions, recording.outcomes["preemptions"])
    if record_steps:
        np.testing.assert_array_equal(result.steps["start_s"], recording.steps["step"])
        for column in STEP_COLUMNS:
            np.testing.assert_array_equal(result.steps[column], recording.steps[column], err_msg=column)
