"""Closed-loop throughput of one vLLM replica by NVIDIA's AISimulate, with a step time of its `fixed` kind.

Job: prompt_tokens, output_tokens, requests, concurrency, max_num_seqs, max_num_batched_tokens, kv_blocks, block_size, prefill_s, decode_s.
A step takes decode_s if it decodes, plus prefill_s if it carries prompts, whatever their number.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

job = json.load(sys.stdin)
config = {
    "traffic": {
        "source": {
            "type": "synthetic",
            "input_tokens": job["prompt_tokens"],
            "output_tokens": job["output_tokens"],
        },
        "load": {"type": "concurrency", "concurrency": job["concurrency"]},
        "stop": {"requests": job["requests"]},
    },
    "engine": {
        "mode": "aggregated",
        # The model and the GPU matter to nothing: step time and KV blocks are given.
        "model": "Qwen/Qwen3-32B-FP8",
        "hardware": "h200_sxm",
        "backend": "vllm",
        "workers": {
            "aggregated": {
                "scheduler": {
                    "max_batched_tokens": job["max_num_batched_tokens"],
                    "max_sequences": job["max_num_seqs"],
                },
                "kv_cache": {
                    "block_size": job["block_size"],
                    "prefix_caching": False,
                    "capacity": {"type": "fixed", "blocks": job["kv_blocks"]},
                },
                "timing": {
                    "type": "fixed",
                    "prefill_ms": 1e3 * job["prefill_s"],
                    "decode_ms": 1e3 * job["decode_s"],
                },
            }
        },
    },
}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "prediction.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "aisimulate", "predict", "--config", str(path), "--output-dir", f"{folder}/out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:] or done.stdout[-2000:])
    report = json.loads((Path(folder) / "out" / "prediction.json").read_text(encoding="utf-8"))
answer = {
    "throughput_per_s": report["request_throughput_rps"],
    "itl_mean_s": report["mean_itl_ms"] / 1e3,
    "ttft_mean_s": report["mean_ttft_ms"] / 1e3,
    "completed": report["completed_requests"],
}
json.dump(answer, sys.stdout)
