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
# # A day in the life
#
# Traffic has a peak, and machines fail. Is a fleet that is stable on average also fine at eight in the evening, and what does a lost replica do then?
# The fluid limit answers in a second: it is what the fleet does when every number in it grows.

# %%
import numpy as np

import stability as st

law = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
engine = st.Engine(max_num_seqs=128, max_num_batched_tokens=2048, watermark=0.03)
fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=131_000, engine=engine), count=8, name="chat")
lengths = st.lengths.Independent(prompt=st.lengths.Uniform(10, 1600), output=st.lengths.Uniform(10, 1600))

# %% [markdown]
# A day in hours: quiet nights, a peak in the evening that the fleet cannot quite serve.

# %%
hours = np.arange(24)
rates = 16 + 15 * np.exp(-(((hours - 20) / 2.5) ** 2)) - 6 * np.exp(-(((hours - 4) / 3.5) ** 2))
day = st.RateSchedule(3600.0 * hours, rates, end_s=86_400.0)
workload = st.Workload.scheduled(day, lengths)
report = st.analyze(fleet, workload)
report

# %% [markdown]
# On average the fleet is stable, at the peak it is not: *transient overload*, so the verdict is undetermined. Follow the day instead.

# %%
path = st.transient(fleet, workload)
_ = path.plot()

# %%
path

# %% [markdown]
# ## A replica fails before the peak
#
# One of eight is lost at six in the evening and back four hours later.

# %%
outage = st.Outage(pool="chat", replicas=1, at_s=18 * 3600.0, until_s=22 * 3600.0)
broken = st.transient(fleet, workload, outage=outage)
_ = broken.plot()

# %%
print(
    f"without the outage: {path.peak_backlog:7.0f} requests waiting at worst, longest wait {path.longest_wait_s / 60:5.1f} min"
)
print(
    f"with it:            {broken.peak_backlog:7.0f} requests waiting at worst, longest wait {broken.longest_wait_s / 60:5.1f} min"
)

# %% [markdown]
# ## A burst
#
# Two minutes of twice the rate at an ordinary hour.

# %%
steady = st.Workload.poisson(16.0, lengths)
burst = st.transient(fleet, steady, burst=st.Burst(factor=2.0, duration_s=120.0, at_s=60.0))
burst

# %%
assert report.verdict is st.Verdict.UNDETERMINED
assert path.peak_backlog > 1000
assert path.recovers
assert broken.peak_backlog > path.peak_backlog
assert burst.recovers
