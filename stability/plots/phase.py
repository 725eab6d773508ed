"""Phase portraits of the stage equations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import BLACK, BLUE, RED, axes_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..theory.fluid.ode import StageModel


@styled
def plot_phase(model: StageModel, ax: Axes | None = None, *, horizon_s: float | None = None) -> Axes:
    """Requests running against KV: paths from several states, the direction of the flow on them, and the equilibrium.

    Parameters
    ----------
    model : StageModel
        What flows.
    ax : Axes, optional
        Where to draw; a new figure without it.
    horizon_s : float > 0, optional
        How long paths are followed, s; five mean residences if omitted.
    """
    ax = axes_of(ax, 6.0, 4.5)
    rest = model.equilibrium()
    room = model.replica.usable_kv_tokens - model.replica.watermark_tokens
    span_s = 5 * model.output_tokens * rest.iteration_s if horizon_s is None else horizon_s
    k = model.stages
    most = min(model.replica.engine.max_num_seqs, room / model.prompt_tokens)
    for share in (0.02, 0.3, 0.6, 0.95):
        for depth in (0.0, 1.0):  # young requests, or old ones
            x = share * most * (1.0 if depth == 0.0 else 0.3)
            kv = min(x * (model.prompt_tokens + depth * 2 * model.output_tokens), room - x)
            start = np.concatenate((np.full(k, x / k), np.full(k, kv / k), [rest.waiting if rest.admits_all else 1e6]))
            path = model.solve(span_s, start=start, points=200)
            n, held = path.running.sum(axis=1), path.kv_tokens.sum(axis=1)
            ax.plot(n, held, linewidth=1, linestyle="-", color=BLUE, alpha=0.8)
            for i in (8, 30):
                ax.annotate(
                    "", (n[i + 1], held[i + 1]), (n[i], held[i]), arrowprops={"arrowstyle": "->", "color": BLUE}
                )
    ax.plot(rest.running.sum(), rest.kv_tokens.sum(), "o", color=RED, label="equilibrium")
    ax.axhline(room, color=BLACK, linewidth=0.8, linestyle="--", label="KV that may be held")
    ax.set_xlabel("requests running")
    ax.set_ylabel("KV held, tokens")
    ax.legend()
    return ax
