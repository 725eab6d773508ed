import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stability.io.plan import example_plan, json_schema, plan_from_text, read_plan
from stability.model import iteration, lengths
from stability.model.arrivals import Poisson, RateSchedule, Renewal, Replay
from stability.model.engine import Engine
from stability.model.fleet import Barrier, Link
from stability.model.targets import Targets

POOL = """
fleet:
  - pool: a
    iteration: {affine: {base_s: 10 ms, per_prefill_token_s: 100 us}}
    kv_capacity_tokens: 128Ki
"""


def plan_of(workload, fleet=POOL, folder="."):
    return plan_from_text(f"schema: stability/plan/1\nworkload: {workload}\n{fleet}", folder=folder)


def test_example_plan_is_the_documented_chat_service():
    plan = example_plan()
    (pool,) = plan.fleet.pools
    assert (pool.name, pool.replicas, pool.replica.gpu, pool.replica.model) == ("chat", 8, "H100-SXM", "Llama-3.1-8B")
    assert pool.replica.engine == Engine(max_num_seqs=256, max_num_batched_tokens=8192, watermark=0.02)
    assert plan.targets == Targets(itl_s=0.05, ttft_p99_s=2.0, headroom=0.1)
    assert plan.workload.lengths.output_mean_tokens == pytest.approx(211.1, rel=0.01)
    assert plan.workload.rate_per_s > 0


def test_shipped_schema_is_the_generated_one():
    import stability.io.plan.schema as module

    shipped = Path(module.__file__).with_name("plan-1.json")
    assert json.loads(shipped.read_text()) == json_schema()


def test_schema_knows_units_bounds_and_shorthands():
    pool = json_schema()["$defs"]["PoolSection"]["properties"]["replicas"]
    assert pool["anyOf"][0] == {"maximum": 10**9, "minimum": 1, "type": "integer"}
    assert pool["anyOf"][1]["type"] == "string"
    marginal = json_schema()["$defs"]["MarginalSection"]
    assert marginal["anyOf"][1]["oneOf"][0] == {"required": ["constant"]}


def test_toml_and_yaml_say_the_same():
    yaml = plan_of("{rate_per_s: 5, lengths: {prompt: 100, output: {uniform: [1, 50]}}}")
    toml = plan_from_text(
        """
        schema = "stability/plan/1"
        workload = {rate_per_s = 5, lengths = {prompt = 100, output = {uniform = [1, 50]}}}
        [[fleet]]
        pool = "a"
        kv_capacity_tokens = "128Ki"
        [fleet.iteration.affine]
        base_s = "10 ms"
        per_prefill_token_s = 1e-4
        """,
        format="toml",
    )
    assert toml.fleet == yaml.fleet
    assert toml.workload == yaml.workload
    assert toml.workload.lengths == lengths.Independent(lengths.Constant(100), lengths.Uniform(1, 50))
    assert toml.targets == Targets()


@pytest.mark.parametrize(
    ("written", "law"),
    [
        ("{constant: 7}", lengths.Constant(7)),
        ("12k", lengths.Constant(12_000)),
        ("{uniform: [10, 1e3]}", lengths.Uniform(10, 1000)),
        ("{discrete: {values: [1, 5], weights: [1, 3]}}", lengths.Discrete([1, 5], [1, 3])),
        ("{discrete: {values: [1, 5]}}", lengths.Discrete([1, 5])),
        ("{geometric: {mean: 200, max: 4k}}", lengths.Geometric(200, limit=4000)),
        ("{lognormal: {mean: 300, cv: 1.0, max: 8192}}", lengths.LogNormal(300, 1.0, limit=8192)),
        ("{lognormal: {median: 300, sigma: 1.0}}", lengths.LogNormal.from_sigma(300, 1.0)),
        ("{gamma: {mean: 300, cv: 0.5}}", lengths.Gamma(300, 0.5)),
        ("{weibull: {mean: 300, shape: 0.7, max: 9999}}", lengths.Weibull(300, 0.7, limit=9999)),
        ("{pareto: {low: 10, tail_index: 1.5, max: 9999}}", lengths.Pareto(10, 1.5, limit=9999)),
        ("{quantiles: {probabilities: [0, 1], tokens: [1, 99]}}", lengths.Quantiles([0, 1], [1, 99])),
    ],
)
def test_length_laws(written, law):
    plan = plan_of(f"{{rate_per_s: 1, lengths: {{prompt: {written}, output: 5}}}}")
    assert plan.workload.lengths == lengths.Independent(law, lengths.Constant(5))


def test_joint_lengths():
    copula = plan_of("{rate_per_s: 1, lengths: {prompt: {uniform: [1, 9]}, output: {uniform: [1, 9]}, spearman: -0.3}}")
    assert copula.workload.lengths == lengths.GaussianCopula(lengths.Uniform(1, 9), lengths.Uniform(1, 9), -0.3)
    mixed = plan_of(
        "{rate_per_s: 1, lengths: {mixture: [{weight: 1, lengths: {prompt: 1, output: 2}},"
        " {weight: 3, lengths: {prompt: 5, output: 6}}]}}"
    )
    assert mixed.workload.lengths.prompt_mean_tokens == pytest.approx(0.25 * 1 + 0.75 * 5)


@pytest.mark.parametrize(
    ("written", "law"),
    [
        (
            "{hinge: {base_s: 10 ms, per_token_s: 50 us, threshold_tokens: 64}}",
            iteration.Hinge(base_s=0.01, per_token_s=5e-5, threshold_tokens=64),
        ),
        (
            "{staircase: {base_s: 10 ms, per_step_s: 20 ms, step_tokens: 100}}",
            iteration.Staircase(base_s=0.01, per_step_s=0.02, step_tokens=100),
        ),
        (
            "{two_phase: {decode: {base_s: 1 ms}, mixed: {base_s: 2 ms}}}",
            iteration.TwoPhase(
                decode=iteration.IterationTime(base_s=0.001), mixed=iteration.IterationTime(base_s=0.002)
            ),
        ),
        (
            "{roofline: {weights_s: 5 ms, per_token_compute_s: 20 us, per_kv_token_s: 40 ns}}",
            iteration.Roofline(weights_s=0.005, per_token_compute_s=2e-5, per_kv_token_s=4e-8),
        ),
    ],
)
def test_step_time_laws(written, law):
    fleet = f"fleet: [{{pool: a, kv_capacity_tokens: 1k, iteration: {written}}}]"
    assert plan_of("{rate_per_s: 1, lengths: {prompt: 1, output: 1}}", fleet).fleet.pools[0].replica.iteration == law


def test_table_law():
    law = "{table: {prefill_tokens: [0, 512], decode_tokens: [0], kv_tokens: [0], times_s: [[[1 ms]], [[5 ms]]]}}"
    fleet = f"fleet: [{{pool: a, kv_capacity_tokens: 1k, iteration: {law}}}]"
    table = plan_of("{rate_per_s: 1, lengths: {prompt: 1, output: 1}}", fleet).fleet.pools[0].replica.iteration
    assert float(table.time_s(256, 0, 0)) == pytest.approx(0.003)


def test_every_field_of_a_pool_arrives():
    plan = plan_of(
        "{rate_per_s: 1, lengths: {prompt: 1, output: 1}}",
        """
fleet:
  - {pool: p, gpu: lab card, iteration: {affine: {base_s: 1 ms}}, kv_capacity_tokens: 100k, kv_bytes_per_token: 128 KiB,
     tensor_parallel: 2, pipeline_parallel: 2, replicas: 4, role: prefill, weight: 1, price_per_hour: 9.5,
     barrier: {workers: 2, sync_ms: 0.5},
     engine: {max_num_seqs: 8, max_num_batched_tokens: 64, admission: reserve, watermark: 1%, block_size: 32,
              prefix_caching: true}}
  - {pool: d, iteration: {affine: {base_s: 1 ms}}, kv_capacity_tokens: 100k, role: decode, weight: 0}
links: [{source: p, target: d, bandwidth: 25 GB/s, latency: 10 us}]
""",
    )
    pool = plan.fleet.pools[0]
    assert (pool.name, pool.replicas, pool.role, pool.weight) == ("p", 4, "prefill", 1.0)
    assert pool.coupling == Barrier(2, 0.0005)
    replica = pool.replica
    assert (replica.kv_capacity_tokens, replica.kv_bytes_per_token, replica.gpus) == (100_000, 131_072.0, 4)
    assert (replica.gpu, replica.price_per_hour) == ("lab card", 9.5)
    assert replica.engine == Engine(
        max_num_seqs=8,
        max_num_batched_tokens=64,
        admission="reserve",
        watermark=0.01,
        block_size=32,
        prefix_caching=True,
    )
    assert plan.fleet.links == (Link("p", "d", 25e9, 1e-5),)


def test_catalog_settings_reach_the_replica():
    def capacity(extra):
        fleet = f"fleet: [{{pool: a, gpu: H100-SXM, model: Llama-3.1-8B{extra}}}]"
        return plan_of("{rate_per_s: 1, lengths: {prompt: 1, output: 1}}", fleet).fleet.pools[0].replica

    base = capacity("").kv_capacity_tokens
    assert capacity(", kv_capacity_tokens: 9k").kv_capacity_tokens == 9000
    assert capacity(", gpu_memory_utilization: 80%").kv_capacity_tokens < base
    assert capacity(", activation_reserve: 20 GB").kv_capacity_tokens < base
    assert capacity(", kv_dtype: fp8").kv_capacity_tokens > 1.9 * base
    assert capacity(", dtype: fp8").kv_capacity_tokens > base
    assert capacity(", tensor_parallel: 2").gpus == 2
    assert capacity(", iteration: {affine: {base_s: 1}}").iteration == iteration.IterationTime(base_s=1)
    assert capacity(", kv_bytes_per_token: 7 B").kv_bytes_per_token == 7


def test_classes_and_their_rates():
    classes = """
  {classes: [{name: chat, rate_per_s: 3, lengths: {prompt: 10, output: 5}, value: 2, max_output_tokens: 50,
              cached_prefix_tokens: 4},
             {name: code, rate_per_s: 60/min, lengths: {prompt: 20, output: 1}}]"""
    workload = plan_of(classes + "}").workload
    assert workload.rates_per_s.tolist() == [3.0, 1.0]
    chat = workload.classes[0]
    assert (chat.value, chat.max_output_tokens, chat.cached_prefix_tokens) == (2.0, 50, 4)
    assert plan_of(classes + ", rate_per_s: 8}").workload.rates_per_s.tolist() == [6.0, 2.0]
    scheduled = plan_of(classes + ", schedule: {windows: [{start: 0, rate_per_s: 2}, {start: 1 min, rate_per_s: 6}]}}")
    assert scheduled.workload.rates_per_s.tolist() == [3.0, 1.0]
    assert scheduled.workload.classes[0].rate_per_s == RateSchedule([0, 60], [1.5, 4.5], end_s=120)


def test_arrivals():
    law = "lengths: {prompt: 1, output: 1}"
    assert plan_of(f"{{rate_per_s: 1, {law}}}").workload.arrivals == Poisson()
    assert plan_of(f"{{rate_per_s: 1, {law}, arrivals: poisson}}").workload.arrivals == Poisson()
    assert plan_of(f"{{rate_per_s: 1, {law}, arrivals: {{renewal: {{cv: 2}}}}}}").workload.arrivals == Renewal(2.0)


def test_schedules(tmp_path):
    law = "lengths: {prompt: 1, output: 1}"
    (tmp_path / "rates.csv").write_text("start_s,rate_per_s\n0,1\n600,3\n")
    expected = RateSchedule([0, 600], [1, 3], end_s=1200)
    assert (
        plan_of(f"{{{law}, schedule: {{file: rates.csv}}}}", folder=tmp_path).workload.classes[0].rate_per_s == expected
    )
    inline = "{windows: [{start: 0, rate_per_s: 1}, {start: 10 min, rate_per_s: 3}], end: 30 min, repeat: false}"
    assert plan_of(f"{{{law}, schedule: {inline}}}").workload.classes[0].rate_per_s == RateSchedule(
        [0, 600], [1, 3], end_s=1800, repeat=False
    )
    scaled = plan_of(f"{{{law}, rate_per_s: 20, schedule: {{file: rates.csv}}}}", folder=tmp_path).workload
    assert scaled.rate_per_s == pytest.approx(20)
    assert scaled.classes[0].rate_per_s.peak_per_s == pytest.approx(30)


def test_traces_are_replayed_scaled_or_resampled(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,10,1\n1,20,2\n4,30,3\n")
    replay = plan_of("{lengths: {trace: t.csv}}", folder=tmp_path).workload
    assert isinstance(replay.arrivals, Replay)
    assert replay.rate_per_s == 0.5
    np.testing.assert_array_equal(replay.lengths.prompt_tokens, [10, 20, 30])
    faster = plan_of("{rate_per_s: 2, lengths: {trace: t.csv}}", folder=tmp_path).workload
    np.testing.assert_allclose(faster.arrivals.arrival_s, [0, 0.25, 1.0])
    limited = plan_of("{lengths: {trace: t.csv}, max_output_tokens: 9}", folder=tmp_path).workload
    assert limited.classes[0].max_output_tokens == 9
    drawn = plan_of("{lengths: {trace: t.csv}, arrivals: poisson}", folder=tmp_path).workload
    assert drawn.arrivals == Poisson()
    assert drawn.rate_per_s == 0.5
    scheduled = plan_of(
        "{lengths: {trace: t.csv}, schedule: {windows: [{start: 0, rate_per_s: 2}], end: 60}}", folder=tmp_path
    ).workload
    assert scheduled.rate_per_s == 2
    classes = plan_of("{classes: [{name: a, lengths: {trace: t.csv}}]}", folder=tmp_path).workload
    assert classes.rate_per_s == 0.5


def test_paths_start_at_the_folder_of_the_plan(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,10,1\n1,20,2\n")
    file = tmp_path / "plan.yml"
    file.write_text(f"schema: stability/plan/1\nworkload: {{lengths: {{trace: t.csv}}}}\n{POOL}")
    plan = read_plan(file)
    assert plan.workload.rate_per_s == 1.0
    assert plan.path == str(file)


def test_importing_the_package_leaves_pydantic_and_yaml_alone():
    code = "import sys, stability; print([m for m in ('pydantic', 'yaml', 'zstandard') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
