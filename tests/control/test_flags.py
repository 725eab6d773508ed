"""Settings in the words of each engine, and where an engine has none."""

from __future__ import annotations

import pytest

import stability as st
from stability.control.flags import engine_flags, plan_engine
from stability.control.settings import Setting


def setting(**values: object) -> Setting:
    return Setting(
        engine=st.Engine(**values),  # type: ignore[arg-type]
        capacity_per_s=1.0,
        stable_below_per_s=0.9,
        doubt="",
        bottleneck="kv_memory",
        evictions_per_request=0.0,
    )


GATE = setting(max_num_seqs=384, max_num_batched_tokens=8192, watermark=0.027)
RESERVE = setting(max_num_seqs=512, max_num_batched_tokens=4096, admission="reserve")
CHUNK = setting(max_num_seqs=128, max_num_batched_tokens=2048, admission="chunk_gate")


def test_a_prompt_gate() -> None:
    vllm, tensorrt, sglang = engine_flags(GATE, [GATE, RESERVE])
    assert vllm.flags == (
        "--max-num-seqs 384 --max-num-batched-tokens 8192 --watermark 0.027 --scheduler-reserve-full-isl"
    )
    assert any("0.24" in note for note in vllm.notes)
    assert "max_batch_size: 512, max_num_tokens: 4096" in tensorrt.flags
    assert "GUARANTEED_NO_EVICT" in tensorrt.flags
    assert tensorrt.notes[0].startswith("no equivalent of prompt_gate")
    assert sglang.flags == "--max-running-requests 384 --chunked-prefill-size 8192"
    assert any("schedule-conservativeness" in note for note in sglang.notes)
    assert any("mem-fraction-static" in note for note in sglang.notes)


def test_reservation_has_no_equivalent_in_vllm() -> None:
    vllm, tensorrt, _ = engine_flags(RESERVE, [GATE, RESERVE])
    assert "--watermark 0.027" in vllm.flags
    assert vllm.notes[0].startswith("no equivalent of reserve")
    assert not any("no equivalent of prompt_gate" in note for note in tensorrt.notes)


def test_a_chunk_gate() -> None:
    vllm, tensorrt, _ = engine_flags(CHUNK, [CHUNK])
    assert vllm.flags.endswith("--no-scheduler-reserve-full-isl")
    assert "MAX_UTILIZATION" in tensorrt.flags


@pytest.mark.parametrize("chosen", [GATE, RESERVE, CHUNK], ids=lambda s: s.engine.admission)
def test_the_plan_line_is_a_plan(chosen: Setting, tmp_path) -> None:
    text = (
        "schema: stability/plan/1\nworkload: {rate_per_s: 5, lengths: {prompt: 100, output: 80}}\n"
        f"fleet:\n  - pool: a\n    gpu: H100-SXM\n    model: Llama-3.1-8B\n    {plan_engine(chosen.engine)}\n"
    )
    (tmp_path / "plan.yaml").write_text(text)
    assert st.read_plan(tmp_path / "plan.yaml").fleet.pools[0].replica.engine == chosen.engine


def test_unusual_settings_are_in_the_plan_line() -> None:
    line = plan_engine(st.Engine(block_size=1, prefix_caching=True))
    assert "block_size: 1" in line
    assert "prefix_caching: true" in line
