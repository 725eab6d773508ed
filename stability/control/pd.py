r"""Prefill/decode disaggregation: stability condition of each stage, the best ratio, and when colocated serving wins.

A request is prefilled in one pool, its KV moves over a link, and it is decoded in another pool. Its demands split
(theory, section "Many servers"): prefill takes s tokens, ceil(s/B) iterations and :math:`c_p s + c_a s^2/2` of work; decode, for
o > 1 only, o - 1 iterations and tokens, r reads and :math:`c_d(o-1) + c_k r`; the first token leaves with the prefill. With
n replicas in a stage, each of them iterates as in one pool,

.. math:: \mathrm{load}_r = \frac{\lambda}{n}\Bigl(E[W] + c_0 \frac{E[a_r]}{C_r}\Bigr) < 1, \qquad
          \mathrm{load}_{\mathrm{link}} = \lambda\, E[s;\, o>1]\, \frac{\beta}{\mathrm{bandwidth}} < 1,

with beta the KV bytes per token. Both sides hold a prompt's KV while it moves, :math:`T(s) = \mathrm{latency} +
s \beta / (\mathrm{bandwidth}\,(1 - \mathrm{load}_{\mathrm{link}}))` (transfers share the link: processor sharing,
insensitive to their sizes), so the memory row is taken at :math:`M - (\lambda/n) E[s\,T(s)]`.

**Necessary** with the volume rows of evicting gates; with those of reservation (packing slack taken off, as in one pool) the
capacity of a decode pool that reserves, an **approximation** like `analyze`'s. Eviction waste is in neither stage.

*When colocated wins.* Under one affine law the stages together need :math:`W + c_0(\max_r a^p_r/C_r + \max_r a^d_r/C_r)`
seconds of a replica per request, a mixed replica :math:`W + c_0 \max_r (a^p_r + a^d_r)/C_r`, never more: shared iterations share
c0. So colocated serving has the larger capacity per GPU unless laws or GPUs differ between stages (decodes beside prefill
read KV more slowly; compute for one stage, bandwidth for the other). Disaggregation buys inter-token latency: decodes wait
for no prompt, :math:`\mathrm{ITL} = (c_0 + c_d + c_k E[\text{own KV}])/(1 - (\lambda/n) E[W_d])` with W_d in place of W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray, read_only
from ..errors import InputError, NotModelledError, check_number
from ..model.checks import check_no_prefixes, check_pair
from ..model.fleet import Fleet, Link, Pool
from ..model.replica import Replica
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from .disaggregated import Disaggregation
from .stages import Stage, decode_stage, evicts, mixed_stage, prefill_stage, transfers

MOST_SPLITS = 512
"""Ways to divide the GPUs that are all looked at; of more, those around the best ratio of single replicas."""


def disaggregation(
    fleet: Fleet, workload: Workload, *, itl_s: float | None = None, colocated: Replica | None = None
) -> Disaggregation:
    """Load and capacity of a fleet with a prefill and a decode pool, its best ratio, and the same GPUs colocated.

    Parameters
    ----------
    fleet : Fleet
        One pool with role "prefill", one with role "decode", and a link between them, if its bandwidth limits.
    workload : Workload
        What arrives; a schedule is taken at its time average.
    itl_s : float > 0, optional
        Target for the mean inter-token latency, s, at which capacities are compared, too.
    colocated : Replica, optional
        What would serve both stages on the same GPUs; the decode pool's replica if omitted.

    Returns
    -------
    Disaggregation
        Loads by stage, capacity, every division of the GPUs, and the colocated capacity.

    Raises
    ------
    InputError
        If there is not exactly one pool of each role, or the link needs `kv_bytes_per_token` and the prefill replica has none.
    NotModelledError
        For schedulers other than first come, first served.

    Notes
    -----
    See the module `stability.control.pd` for conditions and proofs. The transfer delays the second token only, which the
    inter-token latency here leaves out.

    Examples
    --------
    Prefill does 512 tokens in 0.01 + 512 * 1e-4 = 61.2 ms, 83.66 prompts of 100 tokens a second; decode keeps 8 requests in
    iterations of 10 ms, 10.13 outputs of 80 tokens (79 decodes) a second:

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> replica = st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine)
    >>> fleet = st.Fleet([st.Pool("p", replica, 1, role="prefill"), st.Pool("d", replica, 3, role="decode")])
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> found = st.disaggregation(fleet, st.Workload.poisson(20.0, lengths))
    >>> round(found.capacity_per_s, 2), found.bottleneck, round(found.loads["prefill"], 3)
    (30.38, 'decode: batch_slots', 0.239)
    """
    if itl_s is not None:
        check_number("itl_s", itl_s, above=0)
    check_pair(fleet, workload)
    check_no_prefixes(workload, "prefill and decode pools")
    prefill, decode, link = _parts(fleet)
    steady = workload.averaged()
    classes = [item for item in steady.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    rate = float(rates.sum())
    mix = rates / rate
    both = _Both.of(prefill.replica, decode.replica, link, classes, mix)
    counts = prefill.replicas, decode.replicas
    loads = both.loads(rate, counts)
    capacity = both.capacity(counts)
    at_capacity = both.loads(capacity * (1 - 1e-9), counts)
    stage = max(at_capacity, key=lambda name: at_capacity[name])
    resource = {"prefill": both.prefill.bottleneck, "decode": both.decode.bottleneck}.get(stage)

    splits = _splits(both, fleet.gpus, (prefill.replica.gpus, decode.replica.gpus))
    capacities_ = np.array([both.capacity(pair) for pair in splits])
    within = np.array(
        [min(c, n * both.decode.rate_within(itl_s)) for c, (_, n) in zip(capacities_, splits, strict=True)]
    )
    replica = decode.replica if colocated is None else colocated
    mixed, count = mixed_stage(replica, classes, mix), fleet.gpus // replica.gpus
    return Disaggregation(
        rate_per_s=rate,
        load=max(loads.values()),
        loads=loads,
        capacity_per_s=capacity,
        bottleneck=stage if resource is None else f"{stage}: {resource}",
        itl_s=both.decode.itl_s(rate / decode.replicas),
        transfer_s=both.transfer_s(rate),
        prefill_each_per_s=both.prefill.alone,
        decode_each_per_s=both.decode.alone,
        gpus=fleet.gpus,
        itl_target_s=itl_s,
        splits=read_only(np.array(splits, dtype=np.int64).reshape(-1, 2)),
        split_capacities_per_s=read_only(capacities_),
        split_within_itl_per_s=read_only(within),
        colocated_replicas=count,
        colocated_capacity_per_s=count * mixed.alone,
        colocated_within_itl_per_s=count * min(mixed.alone, mixed.rate_within(itl_s)),
        colocated_itl_s=mixed.itl_s(rate / count) if count else math.inf,
        assumptions=_assumptions(link, decode.replica),
    )


def _parts(fleet: Fleet) -> tuple[Pool, Pool, Link | None]:
    by_role = {role: [pool for pool in fleet.pools if pool.role == role] for role in ("prefill", "decode", "mixed")}
    if len(by_role["prefill"]) != 1 or len(by_role["decode"]) != 1 or by_role["mixed"]:
        roles = {pool.name: pool.role for pool in fleet.pools}
        raise InputError(
            f"the pools have the roles {roles}, must be one prefill and one decode pool. Merge or split the fleet."
        )
    (prefill,), (decode,) = by_role["prefill"], by_role["decode"]
    for pool in (prefill, decode):
        policy = scheduler_of(pool.replica.engine)
        if not isinstance(policy, Fcfs) or pool.coupling != "independent":
            raise NotModelledError(
                f"pool {pool.name!r}: barriers, and schedulers other than Fcfs, have no analysis of roles yet."
            )
    links = [link for link in fleet.links if (link.source, link.target) == (prefill.name, decode.name)]
    if len(links) < len(fleet.links) or len(links) > 1:
        raise InputError(
            f"links = {list(fleet.links)}, must be at most one from {prefill.name!r} to {decode.name!r}. Correct the links."
        )
    if links and prefill.replica.kv_bytes_per_token is None:
        raise InputError(
            f"the replica of pool {prefill.name!r} has no kv_bytes_per_token, must have it to load the link. Give it."
        )
    return prefill, decode, links[0] if links else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Both:
    """The two stages and the link between them."""

    prefill: Stage
    decode: Stage
    seconds_per_token: float
    latency_s: float
    moved_tokens: float
    """E[s; o > 1]."""
    moved_square: float
    """E[s^2; o > 1]."""
    kept_tokens: float
    """Tokens that the decode side sets aside during a transfer, E[.; o > 1]."""
    kept_product: float
    """The same times s."""
    moved_share: float
    """P(o > 1)."""

    @classmethod
    def of(
        cls, prefill: Replica, decode: Replica, link: Link | None, classes: Sequence[RequestClass], mix: FloatArray
    ) -> _Both:
        moved = sum((w * transfers(c) for w, c in zip(mix.tolist(), classes, strict=True)), np.zeros(5))
        share, s1, s2, kept, product = moved.tolist()
        reserves = not evicts(decode)
        each = 0.0 if link is None else float(prefill.kv_bytes_per_token or 0.0) / link.bandwidth_bytes_per_s
        return cls(
            prefill=prefill_stage(prefill, classes, mix),
            decode=decode_stage(decode, classes, mix),
            seconds_per_token=each,
            latency_s=0.0 if link is None else link.latency_s,
            moved_tokens=s1,
            moved_square=s2,
            kept_tokens=kept if reserves else s1,
            kept_product=product if reserves else s2,
            moved_share=share,
        )

    def link_load(self, rate: float) -> float:
        """Load of the link at a rate of the whole fleet."""
        return rate * self.moved_tokens * self.seconds_per_token

    def transfer_s(self, rate: float) -> float:
        """Mean time of a transfer, s."""
        spare = 1 - self.link_load(rate)
        if spare <= 0:
            return math.inf
        mean = self.moved_tokens / self.moved_share if self.moved_share > 0 else 0.0
        return self.latency_s + mean * self.seconds_per_token / spare

    def loads(self, rate: float, counts: tuple[int, int]) -> dict[str, float]:
        """Load of each stage at a rate of the whole fleet."""
        link = self.link_load(rate)
        if link >= 1:
            return {"prefill": math.inf, "decode": math.inf, "link": link}
        stretched = self.seconds_per_token / (1 - link)
        source = rate * (self.latency_s * self.moved_tokens + stretched * self.moved_square)
        target = rate * (self.latency_s * self.kept_tokens + stretched * self.kept_product)
        return {
            "prefill": self.prefill.load(rate / counts[0], source / counts[0]),
            "decode": self.decode.load(rate / counts[1], target / counts[1]),
            "link": link,
        }

    def capacity(self, counts: tuple[int, int]) -> float:
        """Rate of the whole fleet at which the first stage reaches load 1, 1/s."""
        high = min(counts[0] * self.prefill.alone, counts[1] * self.decode.alone)
        if self.moved_tokens * self.seconds_per_token > 0:
            high = min(high, 1 / (self.moved_tokens * self.seconds_per_token))
        low = 0.0
        for _ in range(200):  # loads rise with the rate
            middle = (low + high) / 2
            low, high = (middle, high) if max(self.loads(middle, counts).values()) <= 1 else (low, middle)
            if high - low <= 1e-12 * high:
                break
        return low


def _splits(both: _Both, gpus: int, each: tuple[int, int]) -> list[tuple[int, int]]:
    """Ways to divide `gpus`: replicas for prefill, and as many for decode as are left."""
    most = (gpus - each[1]) // each[0]
    found = range(1, most + 1)
    if len(found) > MOST_SPLITS:
        # Both stages full: n_p c_p = n_d c_d with n_p g_p + n_d g_d = gpus.
        best = gpus / (each[0] + each[1] * both.prefill.alone / both.decode.alone)
        start = min(max(1, round(best) - MOST_SPLITS // 2), most - MOST_SPLITS + 1)
        found = range(start, start + MOST_SPLITS)
    return [(n, (gpus - n * each[0]) // each[1]) for n in found]


def _assumptions(link: Link | None, decode: Replica) -> tuple[str, ...]:
    notes = [
        "arrivals are split evenly over the replicas of a stage",
        "eviction waste is in neither stage nor in the colocated figures",
        "the transfer, which delays the second token, is not in the inter-token latency",
    ]
    if link is None:
        notes.append("there is no link: KV moves at once")
    if not evicts(decode):
        notes.append("the decode pool reserves prompt and longest output from the start of the transfer")
    return tuple(notes)
