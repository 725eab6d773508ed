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
# # Mixed fleets: region, routing, sizing
#
# Two kinds of GPU, two kinds of request. Which mixes fit, who should serve what, and what would be the cheapest fleet?

# %%
import stability as st

replica_small = st.replica("L40S", "Llama-3.1-8B", price_per_hour=1.2)
replica_big = st.replica("H100-SXM", "Llama-3.1-8B", price_per_hour=3.5)
fleet = st.Fleet([st.Pool("L40S", replica_small, 6), st.Pool("H100", replica_big, 2)])

chat = st.RequestClass("chat", 30.0, st.catalog.lengths("azure-conv-2023"), value=1.0)
code = st.RequestClass("code", 10.0, st.catalog.lengths("azure-code-2023"), value=2.0)
workload = st.Workload([chat, code])

# %% [markdown]
# ## The region
#
# Every point inside is a pair of rates that a static split can serve. The dashed line is today's mix, scaled.

# %%
region = st.capacity_region(fleet, workload)
_ = region.plot()

# %%
region

# %% [markdown]
# ## The split
#
# Round robin would give every replica the same requests, whatever it can do. The split with the least greatest load sends each class where it is cheap:

# %%
split = st.optimal_split(fleet, workload)
_ = split.plot()

# %%
split

# %% [markdown]
# ## The cheapest fleet
#
# Free to choose how many of each, with at most 100 ms between tokens:

# %%
kinds = [st.Candidate("L40S", replica_small), st.Candidate("H100", replica_big)]
targets = st.Targets(itl_s=0.1, headroom=0.1)
sized = st.cheapest_fleet(kinds, workload, targets=targets)
sized

# %% [markdown]
# What headroom costs, as a front:

# %%
front = st.cost_front(kinds, workload, against="headroom", values=[0.0, 0.15, 0.3, 0.45], targets=targets)
_ = front.plot()

# %% [markdown]
# ## In overload
#
# Three times the traffic does not fit. With a value for each class, admission control keeps the dear requests:

# %%
plan = st.admission_control(fleet, workload.scaled(factor=3.0))
_ = plan.plot()

# %%
assert region.factor > 1
assert split.load < 1
assert abs(split.load * region.factor - 1) < 0.02  # the least greatest load is what the region has left
assert sized.feasible
assert sized.verdict is st.Verdict.STABLE
costs = [fleet.cost_per_hour for fleet in front.fleets]
assert costs == sorted(costs), "more headroom never costs less"
assert sum(item.admitted_per_s for item in plan.classes) < 3 * workload.rate_per_s
