# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Eviction, and tuning an engine
#
# vLLM's default admits a request when its prompt fits. Answers then grow into memory that others hold, and the youngest request is evicted and computed
# again. How much does that cost, and which settings avoid it?

# %%
import numpy as np

import stability as st

law = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
engine = st.Engine(max_num_seqs=256, max_num_batched_tokens=2048, admission="prompt_gate")
replica = st.Replica(iteration=law, kv_capacity_tokens=131_000, engine=engine)
fleet = st.Fleet.of(replica)
lengths = st.lengths.Independent(prompt=st.lengths.Uniform(10, 1600), output=st.lengths.Uniform(10, 1600))
workload = st.Workload.poisson(2.0, lengths)

# %% [markdown]
# The same replica under three admission rules. `reserve` never evicts, and leaves room unused; the prompt gate fills the memory, and evicts so
# often here that it serves less.

# %%
reports = {}
for admission in ("reserve", "prompt_gate", "chunk_gate"):
    setting = st.Engine(max_num_seqs=256, max_num_batched_tokens=2048, admission=admission)
    gated = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=131_000, engine=setting))
    reports[admission] = st.analyze(gated, workload)
    found = reports[admission]
    print(
        f"{admission:12} {found.capacity_per_s:.3f} requests/s, {found.evictions_per_request:.3f} evictions per request"
    )

# %% [markdown]
# ## Capacity against headroom
#
# Keeping a few per cent of the cache free at admission costs a little memory and saves most evictions. Both branches, and the best setting:

# %%
tuned = st.tune(fleet, workload)
_ = tuned.pools[0].plot()

# %%
tuned

# %% [markdown]
# ## Does the simulator agree?
#
# Saturate the replica, before and after. Nothing in the theory is fitted to this.

# %%
rows = []
for name, watermark in (("now", 0.0), ("tuned", tuned.pools[0].then.engine.watermark)):
    setting = st.Engine(max_num_seqs=256, max_num_batched_tokens=2048, watermark=watermark)
    one = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=131_000, engine=setting))
    measured = st.measured_capacity(one, workload, requests=8_000, replications=3, rng=1)
    predicted = st.analyze(one, workload)
    rows.append((predicted.capacity_per_s, measured.capacity_per_s))
    print(f"{name:6} watermark {watermark:.3f}: predicted {rows[-1][0]:.3f}/s, simulated {rows[-1][1]:.3f}/s")

# %% [markdown]
# ## What to paste
#
# `stability tune plan.yaml` prints the flags of vLLM, TensorRT-LLM and SGLang for these settings.

# %%
tuned.pools[0].change

# %%
predicted, simulated = np.array(rows).T
assert np.all(np.abs(predicted / simulated - 1) < 0.05)
assert simulated[1] > 1.1 * simulated[0], "headroom is worth more than a tenth here"
assert reports["reserve"].evictions_per_request == 0
assert reports["prompt_gate"].capacity_per_s < reports["reserve"].capacity_per_s
assert tuned.capacity_per_s > tuned.capacity_now_per_s
