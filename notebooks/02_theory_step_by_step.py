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
# # The theory, step by step
#
# One balance of time leads to every capacity in this package. Each step below is derived by sympy from the definitions, and then evaluated with numbers
# that can be checked by hand.

# %%
import stability as st
from stability.theory import symbolic

# %% [markdown]
# ## What a request costs
#
# An iteration takes $\tau = c_0 + c_p P + c_d D + c_k K + c_a A$: a fixed part, and parts for prompt tokens, decoding requests, KV tokens read and
# prefill attention. Summed over the iterations of a request, the parts that it causes itself are its **work** $W$.

# %%
symbolic.work()

# %% [markdown]
# ## Flow balance
#
# A replica that never idles and completes what arrives serves $\lambda\tau$ requests an iteration, each with work $W$. That is one equation in $\tau$:

# %%
symbolic.iteration_time()

# %% [markdown]
# ## Capacity
#
# A request holds $n$ slot-iterations and $g$ token-iterations of KV memory:

# %%
symbolic.volume()

# %% [markdown]
# Mean use cannot exceed what there is. Put the iteration time in and solve for the rate:

# %%
symbolic.load()

# %%
symbolic.capacity()

# %% [markdown]
# By hand: 10 ms an iteration and nothing else costs, prompts of 100 tokens in one chunk, 50 output tokens, 100 slots. A request stays 50 iterations, so
# the slots turn over $100/(50 \cdot 0.01) = 200$ times a second.

# %%
engine = st.Engine(max_num_seqs=100, admission="reserve", block_size=1)
replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine)
lengths = st.lengths.Independent(prompt=st.lengths.Constant(100), output=st.lengths.Constant(50))
report = st.analyze(st.Fleet.of(replica), st.Workload.poisson(150.0, lengths))
report

# %% [markdown]
# ## Why reservation is safe
#
# Where requests reserve their memory before they start, the capacity is not only a balance but a theorem. The Lyapunov function is the work that is left
# plus what is left of each request's share of the blocking resource; while the head of the queue is blocked, an iteration lowers it by more than it lasts.

# %%
symbolic.blocked_step()

# %%
symbolic.proved_capacity()

# %% [markdown]
# ## Eviction is ruin
#
# Engines that admit by prompt alone evict when memory runs out. The memory of a request and everything older is a random walk, and eviction is its ruin.
# Lundberg's equation gives the exponent $\theta$; headroom $h$ lowers the chance by $e^{-\theta h}$.

# %%
symbolic.laplace_exponent()

# %%
symbolic.first_eviction()

# %%
symbolic.evictions_per_request()

# %% [markdown]
# Every derivation is also a function of numbers, and says what it stands on.

# %%
tau = symbolic.iteration_time().lambdify("lambda", "c_0", "E[W]")
tau(10.0, 0.01, 0.05)  # 0.01/(1 - 0.5)

# %%
symbolic.capacity().assumptions, symbolic.capacity().standing

# %%
assert tau(10.0, 0.01, 0.05) == 0.02
assert abs(report.capacity_per_s - 200.0) < 1e-9
assert report.bottleneck == "batch_slots"
assert report.proved_capacity_per_s is not None
assert report.proved_capacity_per_s <= report.capacity_per_s <= report.upper_bound_per_s * (1 + 1e-12)
