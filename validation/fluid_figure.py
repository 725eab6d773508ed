"""`python -m validation.fluid_figure docs/images/fluid.png`: the law of large numbers in pictures, and its figures as a table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from .fluid import SCALES, SEED, distances, exponent
from .fluid_scenarios import SCENARIOS, SPAN_S

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def main(arguments: list[str]) -> int:
    """Draw the figure into the file named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 6.5), layout="constrained")
    axes = figure.subplot_mosaic([["a", "b", "n"], ["c", "d", "n"]], width_ratios=(1, 1, 1.1))
    law = axes.pop("n")
    print("| scenario | " + " | ".join(f"R = {scale}" for scale, _ in SCALES["full"]) + " | exponent |")
    print("|---" * (len(SCALES["full"]) + 2) + "|")
    for colour, (name, scenario), ax in zip(COLOURS, SCENARIOS.items(), axes.values(), strict=True):
        path = scenario.path()
        for scale, shade in ((1, 0.3), (16, 0.6), (256, 1.0)):
            (waiting, _), _ = scenario.simulated(scale, SEED)
            ax.plot(np.arange(len(waiting)), waiting, color=colour, alpha=shade, linewidth=0.9, label=f"R = {scale}")
        ax.plot(path.time_s, path.waiting.sum(axis=1), color="black", linewidth=1.1, linestyle="--", label="limit")
        ax.set_title(name, fontsize=10)
        ax.set_xlim(0, SPAN_S)
        ax.set_ylim(bottom=0)
        found = distances(scenario, SCALES["full"])
        scales, values = [row[0] for row in found], [row[1] for row in found]
        slope = exponent(scales, values)
        law.loglog(scales, values, "o-", color=colour, label=f"{name}: {slope:.2f}")
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in values) + f" | {slope:.2f} |")
    axes["a"].legend(fontsize=7)
    for name in "ac":
        axes[name].set_ylabel("waiting / R")
    for name in "cd":
        axes[name].set_xlabel("time, s")
    scales = [scale for scale, _ in SCALES["full"]]
    law.loglog(scales, [100 / scale**0.5 for scale in scales], ":", color="black", label="$R^{-1/2}$")
    law.set_xlabel("R")
    law.set_ylabel("sup distance of waiting and running, requests / R")
    law.legend(fontsize=8, title="exponents")
    target = Path(arguments[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
