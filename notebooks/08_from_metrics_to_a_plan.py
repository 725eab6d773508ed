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
# # From vLLM metrics to a calibrated plan
#
# A server tells a lot on `/metrics`. Here one is simulated, so that the truth is known; its metrics are written in vLLM's format, and everything below reads
# only those. The steps are the same for a recording of your own (`stability watch` says how to make one).

# %%
import tempfile
from pathlib import Path

import numpy as np

import stability as st
from stability.io.metrics.writing import record_of, recording

truth = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
engine = st.Engine(max_num_seqs=128, max_num_batched_tokens=2048, watermark=0.02)
real = st.Fleet.of(st.Replica(iteration=truth, kv_capacity_tokens=131_072, engine=engine))
lengths = st.lengths.Independent(
    prompt=st.lengths.LogNormal(700, cv=1.0, limit=8000), output=st.lengths.LogNormal(300, cv=0.8, limit=4000)
)
capacity = st.analyze(real, st.Workload.poisson(1.0, lengths)).capacity_per_s

# %% [markdown]
# Half an hour at loads from a third to nine tenths, and then too much:

# %%
loads = np.array([0.35, 0.6, 0.8, 0.9, 1.3])
day = st.RateSchedule(400.0 * np.arange(5), capacity * loads, end_s=2000.0, repeat=False)
run = st.simulate(
    real, st.Workload.scheduled(day, lengths), horizon_s=2000.0, rng=1, resolution_s=5.0, record_steps=True
)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "recording.prom")
    path.write_text(recording(record_of(run, kv_capacity_tokens=131_072, model_name="Llama-3.1-8B")))
    series = st.read_metrics(path)
series

# %% [markdown]
# ## The step-time law
#
# Between two scrapes, counters give the mean step: prompt tokens, decodes, KV in use, time. Prefill attention cannot be told from a mean and is left out.
# Non-negative robust least squares do the rest. Its intervals do not hold the error of the means themselves, and are too short; a warning says so.
# On the command line: `stability fit metrics recording.prom`.

# %%
fit = st.fit_metrics(series, form="affine", limit_tokens=8000)
print(fit.summary())

# %%
law = fit.law
law.law

# %%
_ = law.plot()

# %% [markdown]
# ## The lengths
#
# Histograms censor lengths into buckets; maximum likelihood takes that into account.

# %%
_ = fit.lengths.prompt.plot()

# %% [markdown]
# ## The capacity, with what is uncertain
#
# The law's uncertainty goes all the way to the verdict.

# %%
fitted = st.lengths.Independent(prompt=fit.lengths.prompt.law, output=fit.lengths.output.law)
found = st.fitted_capacity(real, st.Workload.poisson(0.9 * capacity, fitted), fit=law)
found

# %%
print(f"capacity from metrics {found.capacity_per_s:.2f}/s, true {capacity:.2f}/s")

# %% [markdown]
# ## Watch
#
# With the plan known, overload is called soon after it begins, by a test that may look after every scrape.

# %%
report = st.watch(series, capacity=found.capacity_per_s)
_ = report.plot()

# %%
report

# %% [markdown]
# What goes into a plan file:

# %%
print(fit.plan_snippet())

# %%
assert abs(found.capacity_per_s / capacity - 1) < 0.1
assert report.overloads, "overload is called"
assert 1600 < report.overloads[0].called_s < 1800, "after it begins, and not before"
