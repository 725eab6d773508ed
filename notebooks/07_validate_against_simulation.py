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
# # Validate against simulation
#
# Theory and simulator share no code but the nouns. Below capacity and at capacity, do they agree?

# %%
import numpy as np
from matplotlib import pyplot as plt

import stability as st

law = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
engine = st.Engine(max_num_seqs=128, max_num_batched_tokens=2048, watermark=0.03)
fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=131_000, engine=engine), count=2)
lengths = st.lengths.Independent(prompt=st.lengths.Uniform(10, 1600), output=st.lengths.Uniform(10, 1600))
workload = st.Workload.poisson(1.0, lengths)

# %% [markdown]
# ## Capacity, twice
#
# Saturate each replica and measure; then look for the boundary by raising the rate until the queue grows.

# %%
report = st.analyze(fleet, workload)
measured = st.measured_capacity(fleet, workload, requests=6_000, replications=3, rng=1)
found = st.capacity_by_bisection(fleet, workload, requests_per_run=2_000, most_requests=32_000, tolerance=0.05, rng=1)
print(f"theory {report.capacity_per_s:.3f}/s, saturated {measured.capacity_per_s:.3f}/s")
print(f"bisection: stable at {found.stable_per_s:.3f}/s, unstable at {found.unstable_per_s:.3f}/s")
_ = found.plot()

# %% [markdown]
# ## Below capacity
#
# Time between tokens and KV in use, predicted (lines) and simulated (marks):

# %%
loads = np.array([0.3, 0.5, 0.7, 0.85])
fine = np.linspace(0.1, 0.92, 30)
rates = report.capacity_per_s * loads
simulated = [st.simulate(fleet, workload.scaled(rate_per_s=rate), requests=12_000, rng=1) for rate in rates]
predicted = [st.latency(fleet, workload.scaled(rate_per_s=rate)) for rate in rates]
curve = [st.latency(fleet, workload.scaled(rate_per_s=report.capacity_per_s * load)) for load in fine]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(fine, [1e3 * item.itl_s for item in curve], color="#0072B2", label="theory")
left.plot(loads, [1e3 * run.itl_mean_s for run in simulated], "o", color="#D55E00", label="simulation")
left.set(xlabel="load", ylabel="time between tokens, ms", ylim=(0, None))
left.legend(frameon=False)
right.plot(fine, [100 * item.pools[0].kv_occupancy for item in curve], color="#0072B2")
right.plot(loads, [100 * run.kv_occupancy for run in simulated], "o", color="#D55E00")
_ = right.set(xlabel="load", ylabel="KV in use, %", ylim=(0, None))

# %% [markdown]
# ## A run over time
#
# At 95 % of capacity the queue breathes; at 110 % it grows.

# %%
busy = st.simulate(
    fleet, workload.scaled(rate_per_s=0.95 * report.capacity_per_s), requests=8_000, rng=1, resolution_s=10.0
)
_ = busy.plot()

# %%
over = st.simulate(
    fleet, workload.scaled(rate_per_s=1.1 * report.capacity_per_s), requests=8_000, rng=1, resolution_s=10.0
)
_ = over.plot()

# %% [markdown]
# `python -m validation` does this for thousands of cells, published tables and real runs, and lists every cell that is outside its tolerance.

# %%
assert abs(report.capacity_per_s / measured.capacity_per_s - 1) < 0.05
assert found.stable_per_s < 1.03 * report.capacity_per_s
assert found.unstable_per_s > 0.97 * report.capacity_per_s
errors = [a.itl_s / b.itl_mean_s - 1 for a, b in zip(predicted, simulated, strict=True)]
assert max(map(abs, errors)) < 0.05
assert over.waiting_mean > 10 * busy.waiting_mean
