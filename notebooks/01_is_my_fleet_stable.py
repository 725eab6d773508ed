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
# # Is my fleet stable?
#
# Four L40S serve Llama-3.1-8B to a chat service. Thirty requests a second are expected. Will the queue stay short, and if not, what helps?

# %%
import stability as st

replica = st.replica("L40S", "Llama-3.1-8B")
fleet = st.Fleet.of(replica, count=4, name="chat")
lengths = st.catalog.lengths("azure-conv-2023")  # a production trace: mean prompt 1155, mean output 211 tokens
workload = st.Workload.poisson(30.0, lengths)
fleet

# %%
report = st.analyze(fleet, workload)
report

# %% [markdown]
# **Unstable.** More arrives than *any* scheduler could serve (`bound, any policy`), so the queue grows for as long as this lasts. The load of each
# resource says why: one bar beyond 1 is enough.

# %%
_ = report.plot()

# %% [markdown]
# KV memory binds: the cache is full before the GPU is out of time. What would change the answer? `check` tries single changes to the pool that binds.

# %%
check = st.check(fleet, workload, st.Targets(itl_s=0.05, headroom=0.1))
_ = check.plot()

# %% [markdown]
# A fifth replica makes it stable. It does not meet the target of 50 ms between tokens: a full batch is a slow one. The time between tokens over the rate,
# for five replicas and for seven:

# %%
import numpy as np
from matplotlib import pyplot as plt

rates = np.linspace(2, 36, 35)
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for count, line in ((5, "--"), (7, "-")):
    several = st.Fleet.of(replica, count)
    stable = rates[rates < st.analyze(several, workload).stable_below_per_s]
    itl_ms = [1e3 * st.latency(several, workload.scaled(rate_per_s=rate)).itl_s for rate in stable]
    axes.plot(stable, itl_ms, line, label=f"{count} replicas")
axes.axhline(50, color="black", linewidth=0.8)
axes.axvline(30, color="black", linewidth=0.8, linestyle=":")
axes.set(xlabel="requests/s", ylabel="time between tokens, ms", ylim=(0, 120))
_ = axes.legend(frameon=False)

# %% [markdown]
# Seven do: stable, within 50 ms, and with headroom to spare.

# %%
seven = st.check(st.Fleet.of(replica, 7, name="chat"), workload, st.Targets(itl_s=0.05, headroom=0.1))
seven

# %%
assert report.verdict is st.Verdict.UNSTABLE
assert report.bottleneck == "kv_memory"
assert report.rate_per_s > report.upper_bound_per_s
assert check.levers[0].change == "one more replica"
assert check.levers[0].verdict is st.Verdict.STABLE
assert seven.exit_code == 0
