r"""What one more of anything in a fleet is worth, at the boundary of its capacity region.

With the prices :math:`u_{ir}` of `balance`, scaled to :math:`\sum_i n_i \sum_r u_{ir} = 1`, and x the rates at the boundary, the greatest rate
:math:`\alpha^*\sum\lambda` rises by :math:`\alpha^*\sum\lambda \sum_r u_{ir}` for one more replica of type i, and, for one more unit of :math:`C_{ir}` on each
of its replicas, by

.. math:: \alpha^*\textstyle\sum\lambda\; u_{ir} \sum_k x_{ik}\, c_{0i} a_{irk}/C_{ir}^2 .

The price of memory is not the dual itself: memory stands in the coefficients (envelope theorem). At a degenerate optimum these are derivatives to
one side. They hold the linearisation of policy rows still; for a two-phase law or a table under `"bound"` they leave out that
more memory also moves reads to cheaper iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..theory.conditions import COMPUTE_GAIN, RESOURCE_NAMES
from .balance import Balance
from .rows import FleetRows

GB = 1e9
"""Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPrices:
    """What adding something to one pool is worth: rise of the fleet's greatest rate at this mix, 1/s.

    Attributes
    ----------
    name : str
    gpu : str
    replicas : int
    load : float
        Greatest load of its rows at the boundary.
    bottleneck : str
        Resource of that row.
    per_replica, per_gpu : float
        Of one more replica, and of one more GPU in such replicas.
    per_kv_gb : float or None
        Of one more GB of KV cache in one of its replicas; None where bytes per token are not known.
    per_kv_token, per_slot, per_budget_token : float
        Of one more token of KV cache, slot, or token of the budget, in one of its replicas.
    """

    name: str
    gpu: str
    replicas: int
    load: float
    bottleneck: str
    per_replica: float
    per_gpu: float
    per_kv_gb: float | None
    per_kv_token: float
    per_slot: float
    per_budget_token: float


def pool_prices(system: FleetRows, found: Balance) -> tuple[PoolPrices, ...]:
    """Prices at the boundary in the direction of the rates of `system`, pool by pool."""
    total = float(system.rates_per_s.sum())
    rates = found.lower * found.shares * system.rates_per_s  # (n, K) at the boundary
    worth = found.lower * total * found.prices  # (n, R): gain of one more second of a replica in a second
    # One more unit of each capacity in one replica of the type, the envelope theorem on T = W + c0 a/C.
    slope = np.einsum("irck,ik->irc", system.occupancy, rates) / (system.limits * system.replicas[:, None])[:, None, :]
    per_unit = np.einsum("ir,irc->ic", worth, slope)
    per_unit[:, 0] *= system.per_token
    loads = np.einsum("irk,ik->ir", system.seconds, rates) / system.replicas[:, None]
    pools = []
    for p, name in enumerate(system.pools):
        i = int(system.type_of[p])
        replica = system.types[i]
        top = int(loads[i].argmax())
        per_replica = float(worth[i].sum())
        bytes_ = replica.kv_bytes_per_token
        pools.append(
            PoolPrices(
                name=name,
                gpu=replica.gpu,
                replicas=int(system.pool_replicas[p]),
                load=float(loads[i, top]),
                bottleneck=bottleneck(system, i, top, rates[i]),
                per_replica=per_replica,
                per_gpu=per_replica / replica.gpus,
                per_kv_gb=None if bytes_ is None else float(per_unit[i, 0]) * GB / bytes_,
                per_kv_token=float(per_unit[i, 0]),
                per_slot=float(per_unit[i, 1]),
                per_budget_token=float(per_unit[i, 2]),
            )
        )
    return tuple(pools)


def bottleneck(system: FleetRows, type_: int, row: int, rates: FloatArray) -> str:
    """What binds in a row: the resource with the greatest part, or compute where all of them are little of it."""
    parts = system.occupancy[type_, row] @ rates
    whole = float(system.seconds[type_, row] @ rates)
    if whole <= 0:
        return "-"
    if whole < (1 + COMPUTE_GAIN) * (whole - float(parts.sum())):
        return "compute"
    return RESOURCE_NAMES[int(parts.argmax())]
