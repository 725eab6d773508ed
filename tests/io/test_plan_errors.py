import pytest

from stability.errors import PlanError, PlanSyntaxError
from stability.io.plan import plan_from_text, read_plan

GOOD = """\
schema: stability/plan/1
workload:
  rate_per_s: 4
  lengths: {prompt: 100, output: 10}
fleet:
  - pool: a
    iteration: {affine: {base_s: 10 ms}}
    kv_capacity_tokens: 100k
    engine: {max_num_seqs: 256}
  - pool: b
    gpu: H100-SXM
    model: Llama-3.1-8B
targets: {itl_ms: 50}
"""


def complaint(text, error, **options):
    with pytest.raises(error) as caught:
        plan_from_text(text, name="plan.yaml", **options)
    assert type(caught.value) is error
    return str(caught.value)


def test_the_good_plan_is_good():
    assert len(plan_from_text(GOOD).fleet.pools) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  - pool: b\n",
            "  - pool: b\n    replicas: 0\n",
            "plan.yaml:11: fleet[1].replicas = 0, must be >= 1. Remove the pool or give it a replica.",
        ),
        (
            "  - pool: b\n",
            "  - pool: b\n    replica: 3\n",
            "plan.yaml:11: fleet[1].replica: unknown key, must be one of the schema's. Did you mean 'replicas'?",
        ),
        (
            "rate_per_s: 4",
            "rate_per_s: -4",
            "plan.yaml:3: workload.rate_per_s = -4, must be > 0. Give the mean arrival rate over all classes, 1/s.",
        ),
        (
            "rate_per_s: 4",
            "rate_per_s: .nan",
            "plan.yaml:3: workload.rate_per_s = nan, must be a rate, as in 40, '40/s' or '600 req/min'. Give a finite value.",
        ),
        (
            "rate_per_s: 4",
            "rate_per_s: true",
            "plan.yaml:3: workload.rate_per_s = True, must be a rate, as in 40, '40/s' or '600 req/min'. "
            "Write a number and its unit.",
        ),
        (
            "itl_ms: 50",
            "itl_ms: 50 mz",
            "plan.yaml:13: targets.itl_ms = '50 mz', must be a time, as in '50 ms', '2 s' or '10 min'. Correct the unit 'mz'.",
        ),
        (
            "prompt: 100",
            "prompt: {lognormal: {mean: 0, cv: 1}}",
            "plan.yaml:4: workload.lengths.prompt.lognormal.mean = 0, must be > 0. Give the mean length, tokens.",
        ),
        (
            "prompt: 100",
            "prompt: {uniform: [1, 2], constant: 3}",
            "plan.yaml:4: workload.lengths.prompt: the keys constant and uniform, must have exactly one of constant, uniform, "
            "discrete, geometric, lognormal, gamma, weibull, pareto, quantiles. Keep or add one.",
        ),
        (
            "max_num_seqs: 256",
            "admission: prompt-gate",
            "plan.yaml:9: fleet[0].engine.admission = 'prompt-gate', must be 'reserve', 'prompt_gate' or 'chunk_gate'. "
            "Did you mean 'prompt_gate'?",
        ),
        (
            "pool: a",
            "pool: 3",
            "plan.yaml:6: fleet[0].pool = 3, must be a text (put it in quotes). Give a name of its own.",
        ),
        (
            "  - pool: a\n    iteration",
            "  - iteration",
            "plan.yaml:6: fleet[0]: the key 'pool' is missing, must be given. Add it: a name of its own.",
        ),
        (
            "schema: stability/plan/1",
            "schema: stability/plan/2",
            "plan.yaml:1: schema = 'stability/plan/2', must be 'stability/plan/1'. Did you mean 'stability/plan/1'?",
        ),
        (
            "targets: {itl_ms: 50}",
            "targets: 50",
            "plan.yaml:13: targets = 50, must be a mapping of keys to values. Give limits besides stability.",
        ),
    ],
)
def test_plans_that_do_not_fit_the_schema(old, new, message):
    assert old in GOOD
    assert complaint(GOOD.replace(old, new), PlanSyntaxError) == message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "gpu: H100-SXM",
            "gpu: H100-SXN",
            "plan.yaml:11: fleet[1].gpu: unknown GPU 'H100-SXN'. Did you mean H100-SXM",
        ),
        ("model: Llama-3.1-8B", "model: Llama-3.1-9B", "plan.yaml:12: fleet[1].model: unknown model 'Llama-3.1-9B'."),
        (
            "{prompt: 100, output: 10}",
            "azure-cnv-2023",
            "plan.yaml:4: workload.lengths: unknown workload 'azure-cnv-2023'. Did you mean azure-conv-2023",
        ),
        (
            "max_num_seqs: 256",
            "max_num_seqs: 256, max_num_batched_tokens: 128",
            "plan.yaml:9: fleet[0].engine.max_num_batched_tokens = 128, must be >= max_num_seqs = 256. Raise",
        ),
        (
            "kv_capacity_tokens: 100k",
            "kv_capacity_tokens: 15",
            "plan.yaml:8: fleet[0].kv_capacity_tokens = 15, must be an integer >= 16. The KV cache must hold",
        ),
        (
            "    gpu: H100-SXM\n",
            "",
            "plan.yaml:10: fleet[1]: only model of what makes a replica is given, must be gpu and",
        ),
        (
            "kv_capacity_tokens: 100k",
            "kv_capacity_tokens: 100k\n    dtype: fp8",
            "plan.yaml:9: fleet[0].dtype = 'fp8', must come with gpu and model",
        ),
        ("pool: b", "pool: a", "plan.yaml:5: fleet: pool names ['a'] repeat, must be distinct. Rename one."),
        ("pool: a", "pool: a\n    weight: 1", "plan.yaml:5: fleet: pools ['b'] have no weight"),
        ("  rate_per_s: 4\n", "", "plan.yaml:2: workload: there is no rate_per_s, must be one unless"),
        (
            "rate_per_s: 4",
            "rate_per_s: 4\n  arrivals: replay",
            "plan.yaml:4: workload.arrivals = 'replay', must come with lengths of a trace. Use poisson",
        ),
        (
            "output: 10",
            "trace: x.csv",
            "plan.yaml:4: workload.lengths: the keys prompt, trace, must be a catalog name",
        ),
        (
            "output: 10}",
            "output: 10}\n  max_output_tokens: 5",
            "plan.yaml:5: workload.max_output_tokens = 5, must be >= 10",
        ),
        (
            "lengths: {prompt: 100, output: 10}",
            "lengths: {trace: none.csv}",
            "plan.yaml:4: workload.lengths: none.csv does",
        ),
        (
            "prompt: 100",
            "prompt: {quantiles: {probabilities: [0, 0], tokens: [1, 2]}}",
            "plan.yaml:4: workload.lengths: probabilities [0.0, 0.0] must increase strictly.",
        ),
        (
            "  rate_per_s: 4\n",
            "  schedule: {windows: [{start: 0, rate_per_s: 1}]}\n",
            "plan.yaml:3: workload.schedule: end is",
        ),
        (
            "  - pool: b\n",
            "  - pool: b\n    replicas: 3\n    barrier: {workers: 2}\n",
            "plan.yaml:11: fleet[1].replicas = 3",
        ),
        ("  - pool: b\n", "  - pool: b\n    pipeline_parallel: 2\n", "plan.yaml:11: fleet[1].pipeline_parallel = 2"),
        (
            "targets:",
            "links: [{source: a, target: c, bandwidth: 1 GB/s}]\ntargets:",
            "plan.yaml:5: fleet: links[0] names",
        ),
        (
            "output: 10",
            "output: {lognormal: {mean: 3}}",
            "plan.yaml:4: workload.lengths: a lognormal with the keys mean,",
        ),
    ],
)
def test_plans_that_make_no_sense(old, new, message):
    assert old in GOOD
    text = complaint(GOOD.replace(old, new), PlanError)
    assert text.startswith(message)
    assert "\n" not in text


def test_a_model_that_does_not_fit_its_gpu():
    text = complaint(GOOD.replace("Llama-3.1-8B", "Llama-3.1-70B"), PlanError)
    assert text.startswith("plan.yaml:10: fleet[1]")
    assert "Llama-3.1-70B" in text


def test_all_problems_come_in_one_report_in_the_order_of_the_file():
    bad = """\
schema: stability/plan/1
workload:
  lengths: azure-cnv-2023
  rate_per_s: 0
fleet:
  - pool: a
    gpu: H100-SXN
    model: Llama-3.1-9B
  - pool: b
    replicas: 0
    frobnicate: 1
    engine: {watermark: 2, max_num_seqs: 1.5}
targets: {headroom: 120%}
"""
    lines = complaint(bad, PlanSyntaxError).splitlines()
    starts = [
        "plan.yaml:4: workload.rate_per_s = 0, must be > 0.",
        "plan.yaml:7: fleet[0].gpu: unknown GPU 'H100-SXN'.",
        "plan.yaml:8: fleet[0].model: unknown model 'Llama-3.1-9B'.",
        "plan.yaml:10: fleet[1].replicas = 0, must be >= 1.",
        "plan.yaml:11: fleet[1].frobnicate: unknown key, must be one of the schema's. Known keys: pool, gpu, model,",
        "plan.yaml:12: fleet[1].engine.max_num_seqs = 1.5, must be a whole number",
        "plan.yaml:12: fleet[1].engine.watermark = 2, must be < 1.",
        "plan.yaml:13: targets.headroom = '120%', must be < 1.",
    ]
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)
        assert line.endswith((".", "?"))


def test_sections_that_fit_are_judged_beside_those_that_do_not():
    bad = GOOD.replace("  rate_per_s: 4\n", "").replace("pool: b", "pool: b\n    replicas: 0")
    lines = complaint(bad.replace("H100-SXM", "H100-SXN"), PlanSyntaxError).splitlines()
    assert [line.split(",")[0].split("=")[0] for line in lines] == [
        "plan.yaml:2: workload: there is no rate_per_s",
        "plan.yaml:10: fleet[1].replicas ",
    ]


def test_toml_problems_carry_key_paths():
    text = 'schema = "stability/plan/1"\nworkload = {rate_per_s = 0, lengths = {prompt = 1, output = 1}}\nfleet = []\n'
    assert complaint(text, PlanSyntaxError, format="toml").splitlines() == [
        "plan.yaml: workload.rate_per_s = 0, must be > 0. Give the mean arrival rate over all classes, 1/s.",
        "plan.yaml: fleet = [], must be a list of at least 1. Give pools of replicas.",
    ]
    assert "not valid TOML" in complaint("a = = 1", PlanSyntaxError, format="toml")
    assert "not valid TOML" in complaint("a = 1\na = 2", PlanSyntaxError, format="toml")


@pytest.mark.parametrize("key", ["rate_per_s", "lengths"])
def test_repeated_keys_are_errors(key):
    bad = GOOD.replace("workload:\n", f"workload:\n  {key}: 1\n")
    first = "line 3"
    text = complaint(bad, PlanSyntaxError)
    assert f"the key {key!r} stands in {first} already, must stand once. Remove one." in text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "plan.yaml is empty, must hold a plan."),
        ("# nothing\n", "plan.yaml is empty, must hold a plan."),
        ("- 1\n", "plan.yaml holds a list, must hold a mapping"),
        ("just words", "plan.yaml holds a str, must hold a mapping"),
        ("a: [1, 2", "plan.yaml:1: not valid YAML"),
        ("a: 1\n  b: 2\n", "plan.yaml:2: not valid YAML"),
        ("a: \x07", "plan.yaml: not valid YAML"),
        ("a: !!python/object:os.system x", "plan.yaml:1: tag"),
        ("a: &x [*x]", "plan.yaml:1: a value that contains itself"),
        ("[1]: 2", "plan.yaml:1: a key that is a list"),
        ("a: 1\n---\nb: 2\n", "plan.yaml:2: not valid YAML"),
        ("[" * 5000, "plan.yaml: nested too deeply"),
        (
            "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
            "plan.yaml: not valid YAML (over 1000000 values)",
        ),
    ],
)
def test_texts_that_are_no_plan(text, part):
    assert complaint(text, PlanSyntaxError).startswith(part)


def test_files_that_cannot_be_read(tmp_path):
    def refused(path):
        with pytest.raises(PlanSyntaxError) as caught:
            read_plan(path)
        assert "\n" not in str(caught.value)
        return str(caught.value).removeprefix(str(path))

    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("# \xe9t\xe9\n".encode("latin-1"))
    wide = tmp_path / "wide.yaml"
    wide.write_text(GOOD, encoding="utf-16")
    assert refused(tmp_path / "none.yaml") == " does not exist, must be a plan file. Check the path."
    assert refused(folder) == " is a folder, must be a plan file. Name the file in it."
    assert refused(latin) == ":1: byte 0xe9 is not UTF-8, the file must be. Save it as UTF-8."
    assert "is not UTF-8" in refused(wide)
    assert refused(tmp_path / "plan.txt").startswith(" ends in '.txt', must end in .yaml")


def test_a_byte_order_mark_is_no_problem(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert len(read_plan(file).fleet.pools) == 2


def test_a_bad_trace_is_placed_in_the_plan_and_in_the_trace(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,-5,1\n")
    bad = GOOD.replace("{prompt: 100, output: 10}", "{trace: t.csv}")
    text = complaint(bad, PlanError, folder=tmp_path)
    assert text.startswith("plan.yaml:4: workload.lengths: ")
    assert "t.csv:2: prompt_tokens = -5, must be between 0 and" in text


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("time,rate\n0,1\n", ":1: columns ['time', 'rate'], must have start_s and rate_per_s."),
        ("start_s,rate_per_s\n0,fast\n", ":2: rate_per_s = 'fast', must be a number"),
        ("start_s,rate_per_s\n0,1\n5\n", ":3: 1 fields, must be 2"),
        ("start_s,rate_per_s\n0,1\n0,2\n", "must start at 0 and increase strictly"),
        ("start_s,rate_per_s\n0,-1\n9,2\n", "rates_per_s[0] = -1.0, must be"),
    ],
)
def test_bad_schedule_files(tmp_path, content, part):
    (tmp_path / "r.csv").write_text(content)
    bad = GOOD.replace("  rate_per_s: 4\n", "  schedule: {file: r.csv}\n")
    assert part in complaint(bad, PlanError, folder=tmp_path)


@pytest.mark.parametrize(
    ("count", "good"), [("", True), (", count: 2", True), (", count: 1", True), (", count: 8", False)]
)
def test_as_many_system_prompts_as_lengths(count, good):
    sessions = "sessions: {turns: 2, new_tokens: 9, output: 3, think_s: 5, system_prompts: {tokens: [3000, 1000]%s}}"
    text = GOOD.replace("lengths: {prompt: 100, output: 10}", sessions % count)
    if good:
        assert plan_from_text(text).workload.classes[0].sessions.system_prompt_tokens == (3000, 1000)
    else:
        assert "count = 8 system prompts but 2 lengths in tokens, must be as many" in complaint(text, PlanError)
