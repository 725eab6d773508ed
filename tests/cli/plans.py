"""Plans that the command-line tests write to files."""

SMALL = """\
schema: stability/plan/1
workload:
  rate_per_s: 5
  lengths: {prompt: 100, output: 80}
fleet:
  - pool: a
    iteration: {affine: {base_s: 10 ms, per_prefill_token_s: 100 us}}
    kv_capacity_tokens: 100k
    engine: {max_num_seqs: 8, max_num_batched_tokens: 512, admission: reserve, block_size: 1}
"""
"""One replica: 1/(100*100us + 10ms*80/8) = 9.091 requests/s, bound by its slots."""

CATALOG = """\
schema: stability/plan/1
workload:
  rate_per_s: 5
  lengths: {prompt: 100, output: 80}
fleet:
  - pool: a
    gpu: H100-SXM
    model: Llama-3.1-8B
"""

HEADER = "arrival_s,prompt_tokens,output_tokens\n"


def with_trace(name: str) -> str:
    """The small plan under the traffic of a trace."""
    return SMALL.replace("  rate_per_s: 5\n", "").replace("{prompt: 100, output: 80}", f"{{trace: {name}}}")
