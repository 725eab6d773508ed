"""The balance of a prefix cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..theory.prefix_report import PoolPrefixes


def memory_balance(pools: Sequence[PoolPrefixes], ax: Axes | None = None) -> Axes:
    """KV that running requests and kept prefixes need, over the KV capacity, against how long unused prefixes stay."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    for pool in pools:
        shown = np.isfinite(pool.needed_tokens) & (pool.residence_s > 0)
        line = ax.plot(
            pool.residence_s[shown], pool.needed_tokens[shown] / pool.kv_capacity_tokens, label=pool.name, linewidth=1.5
        )[0]
        for point in pool.equilibria:
            if 0 < point.residence_s < np.inf:
                face = line.get_color() if point.stable else "white"
                ax.plot(point.residence_s, 1.0, "o", color=line.get_color(), markerfacecolor=face)
    ax.axhline(1.0, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_ylim(0, 2)
    ax.set_xlabel("unused prefixes stay (s)")
    ax.set_ylabel("KV needed / KV capacity")
    ax.legend()
    return ax
