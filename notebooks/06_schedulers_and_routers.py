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
# # Schedulers and routers compared
#
# Published schedulers promise much. On the same requests, with confidence intervals, what do they do?

# %%
import stability as st

law = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
engine = st.Engine(max_num_seqs=64, max_num_batched_tokens=2048)
replica = st.Replica(iteration=law, kv_capacity_tokens=40_000, engine=engine)
lengths = st.lengths.Independent(prompt=st.lengths.Uniform(10, 800), output=st.lengths.Uniform(10, 400))
one = st.Fleet.of(replica)
capacity = st.analyze(one, st.Workload.poisson(1.0, lengths)).capacity_per_s
workload = st.Workload.poisson(0.85 * capacity, lengths)

# %% [markdown]
# ## Schedulers
#
# At 85 % of the capacity of the engine's own policy, three seeds of 400 requests each:

# %%
policies = ("engine", "reserve", "prefill-first", "shortest-first")
compared = st.compare_schedulers(one, workload, policies, requests=400, replications=3, rng=1)
_ = compared.plot()

# %%
compared

# %% [markdown]
# At this load few requests wait, so their order hardly matters and the intervals overlap. Iterations of whole prompts alone stop the decodes: tokens come
# more slowly and latencies are longer. Throughput below capacity is the arrival rate, whoever schedules.
#
# ## Routers
#
# Four replicas of two speeds, and the rate a static split could serve with a tenth to spare:

# %%
slow = st.Replica(iteration=law.scaled(2.0), kv_capacity_tokens=40_000, engine=engine)
fleet = st.Fleet([st.Pool("fast", replica, 2), st.Pool("slow", slow, 2)])
mixed = st.Workload.poisson(0.9 * st.capacity_region(fleet, workload).rate_per_s, lengths)
routers = st.compare_routers(fleet, mixed, requests=10_000, rng=1)
_ = routers.plot()

# %%
routers

# %% [markdown]
# Blind routers send half of the requests to the slow half, whose queue grows without end. Looking at the queues, or a split in proportion to capacity,
# keeps up.

# %%
split = st.optimal_split(fleet, mixed)
balanced = st.simulate(fleet, mixed, requests=10_000, router=split.router, rng=1)
balanced

# %%
outcomes = {outcome.router: outcome for outcome in routers.outcomes}
means = {name: {key: values.mean() for key, values in compared[name].samples.items()} for name in policies}
assert means["prefill-first"]["itl_mean_s"] > 1.1 * means["engine"]["itl_mean_s"]
assert means["prefill-first"]["latency_mean_s"] > 1.1 * means["engine"]["latency_mean_s"]
assert outcomes["round_robin"].ttft_mean_s > 3 * outcomes["join_shortest_kv"].ttft_mean_s
assert balanced.ttft_mean_s < outcomes["round_robin"].ttft_mean_s
assert means["shortest-first"]["latency_mean_s"] <= 1.02 * means["reserve"]["latency_mean_s"]
assert outcomes["round_robin"].overloaded
assert not outcomes["join_shortest_kv"].overloaded
