"""Engine settings as the flags of vLLM, TensorRT-LLM and SGLang, and as a plan's `engine`; where one has no equivalent, that.

Names and least versions: vLLM 0.24 (release notes: `--watermark`, pull request 44594) and 0.19
(`--scheduler-reserve-full-isl`, pull request 37307; on by default); TensorRT-LLM's LLM API, `SchedulerConfig` and
"Useful Runtime Options"; SGLang's "Server Arguments" and "Hyperparameter Tuning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..model.engine import Engine
from .settings import Setting

WATERMARK_SINCE, FULL_PROMPT_SINCE = "0.24", "0.19"
"""Versions of vLLM with `--watermark` and `--scheduler-reserve-full-isl`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFlags:
    """Settings in the words of one engine.

    Attributes
    ----------
    engine : str
        Name of the engine.
    flags : str
        What to paste.
    notes : tuple of str
        Versions, and what has no equivalent.
    """

    engine: str
    flags: str
    notes: tuple[str, ...]

    def text(self) -> str:
        """Flags and notes for people."""
        return "\n".join([f"{self.engine}:  {self.flags}", *(f"  - {note}" for note in self.notes)])


def engine_flags(chosen: Setting, admissions: Sequence[Setting]) -> tuple[EngineFlags, ...]:
    """The recommended setting for each engine, in its nearest admission policy.

    Parameters
    ----------
    chosen : Setting
        What is recommended.
    admissions : sequence of Setting
        The best of each admission policy, for engines that lack the recommended one.
    """
    best = {setting.engine.admission: setting.engine for setting in admissions}
    best[chosen.engine.admission] = chosen.engine
    return (_vllm(chosen.engine, best), _tensorrt_llm(chosen.engine, best), _sglang(chosen.engine))


def plan_engine(engine: Engine) -> str:
    """The `engine` of a plan's pool, on one line."""
    values: dict[str, object] = {
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "admission": engine.admission,
        "watermark": f"{engine.watermark:g}",
    }
    usual = Engine()
    if engine.block_size != usual.block_size:
        values["block_size"] = engine.block_size
    if engine.prefix_caching != usual.prefix_caching:
        values["prefix_caching"] = str(engine.prefix_caching).lower()
    return "engine: {" + ", ".join(f"{name}: {value}" for name, value in values.items()) + "}"


def _vllm(engine: Engine, best: dict[str, Engine]) -> EngineFlags:
    notes = []
    if engine.admission == "reserve":
        notes.append("no equivalent of reserve; these are the best settings of its own gate, prompt_gate")
        engine = best.get("prompt_gate", engine)
    flags = [f"--max-num-seqs {engine.max_num_seqs}", f"--max-num-batched-tokens {engine.max_num_batched_tokens}"]
    if engine.watermark > 0 or engine.admission == "prompt_gate":
        flags.append(f"--watermark {engine.watermark:g}")
        notes.append(f"--watermark needs vLLM {WATERMARK_SINCE}; before it nothing keeps KV free at admission")
    whole = engine.admission != "chunk_gate"
    flags.append("--scheduler-reserve-full-isl" if whole else "--no-scheduler-reserve-full-isl")
    which = "the default" if whole else "before it the only behaviour"
    notes.append(f"{flags[-1]} needs vLLM {FULL_PROMPT_SINCE}: {which}")
    return EngineFlags(engine="vLLM", flags=" ".join(flags), notes=tuple(notes))


def _tensorrt_llm(engine: Engine, best: dict[str, Engine]) -> EngineFlags:
    notes = []
    policy = "MAX_UTILIZATION" if engine.admission == "chunk_gate" else "GUARANTEED_NO_EVICT"
    if engine.admission == "prompt_gate":
        notes.append("no equivalent of prompt_gate; these are the best settings of its default, reserve")
        notes.append(
            "MAX_UTILIZATION admits chunk by chunk (chunk_gate) and pauses requests; STATIC_BATCH is a legacy mode"
        )
        engine = best.get("reserve", engine)
    notes.append("GUARANTEED_NO_EVICT sets aside each request's max_tokens, as max_output_tokens of a plan says")
    if engine.watermark > 0:
        notes.append("no equivalent of the watermark")
    flags = (
        f"max_batch_size: {engine.max_num_seqs}, max_num_tokens: {engine.max_num_batched_tokens}, "
        f"scheduler_config: {{capacity_scheduler_policy: {policy}}}"
    )
    return EngineFlags(engine="TensorRT-LLM", flags=flags, notes=tuple(notes))


def _sglang(engine: Engine) -> EngineFlags:
    notes = [
        "--chunked-prefill-size bounds prompt tokens alone; decodes share the iteration only with --enable-mixed-chunk",
        "no watermark and no admission policy of these: it sets aside a share of max_new_tokens that it adapts, and "
        "retracts requests on overflow; --schedule-conservativeness above 1 sets aside more, the nearest to headroom",
        "--mem-fraction-static sizes the KV cache (kv_capacity_tokens); raising it is more memory, not a setting of admission",
    ]
    flags = f"--max-running-requests {engine.max_num_seqs} --chunked-prefill-size {engine.max_num_batched_tokens}"
    return EngineFlags(engine="SGLang", flags=flags, notes=tuple(notes))
