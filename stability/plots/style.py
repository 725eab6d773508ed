"""One style for every picture: Okabe-Ito colours, line styles that survive grey printing, little ink.

Functions that draw are decorated with `styled`: the style holds while they draw and changes no setting of the user's.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
BLACK, GREY, LIGHT = "#222222", "#8C8C8C", "#D9D9D9"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)
"""Colours of Okabe and Ito, told apart by readers with colour vision deficiency; their yellow is too pale for lines."""

LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
"""A line style per colour, so that lines differ in grey, too."""

HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")
"""A hatch per colour, for areas that touch."""

RESOURCE_COLOURS = {"kv_memory": BLUE, "batch_slots": ORANGE, "token_budget": GREEN, "compute": GREY}
"""A colour per resource, the same in every picture."""

RESOURCE_NAMES = {
    "kv_memory": "KV memory",
    "batch_slots": "batch slots",
    "token_budget": "token budget",
    "compute": "compute",
}
"""Resources as pictures call them."""

VERDICT_COLOURS = {"STABLE": GREEN, "UNDETERMINED": ORANGE, "UNSTABLE": RED}
VERDICT_MARKERS = {"STABLE": "o", "UNDETERMINED": "s", "UNSTABLE": "X"}
"""A colour and a marker per verdict."""

P = ParamSpec("P")
T = TypeVar("T")


def settings() -> Any:
    """The matplotlib settings of the style."""
    from cycler import cycler

    return {
        "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=LINES),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.linewidth": 0.8,
        "axes.labelcolor": BLACK,
        "axes.labelsize": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LIGHT,
        "grid.linewidth": 0.6,
        "text.color": BLACK,
        "xtick.color": BLACK,
        "ytick.color": BLACK,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "lines.linewidth": 1.8,
        "lines.markersize": 6,
        "patch.linewidth": 0.6,
        "hatch.linewidth": 0.5,
        "legend.frameon": True,
        "legend.framealpha": 0.85,
        "legend.edgecolor": "none",
        "legend.fontsize": 8.5,
        "font.size": 10,
        "figure.dpi": 110,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "figure.constrained_layout.use": True,
    }


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """`draw`, with the style in force while it runs and nowhere else.

    Parameters
    ----------
    draw : callable
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        from matplotlib import rcParams

        # Not `rc_context`: it would also take back what a notebook's backend sets when the first figure loads it.
        ours = settings()
        theirs = {name: rcParams[name] for name in ours}
        rcParams.update(ours)
        try:
            return draw(*args, **kwargs)
        finally:
            rcParams.update(theirs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches. A notebook shows it by itself; elsewhere pyplot never hears of it.

    Parameters
    ----------
    width, height : float
        Inches.
    """
    if _in_notebook():
        import matplotlib.pyplot as plt

        return plt.figure(figsize=(width, height))
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def axes_of(ax: Axes | None, width: float = 6.4, height: float = 3.8) -> Axes:
    """`ax`, or the axes of a new figure of `width` by `height` inches.

    Parameters
    ----------
    ax : Axes or None
    width, height : float
        Inches.
    """
    if ax is not None:
        return ax
    found: Axes = new_figure(width, height).subplots()
    return found


def bars_only(ax: Axes, axis: str = "x") -> None:
    """Grid lines across bars only: along `axis`, "x" for horizontal bars.

    Parameters
    ----------
    ax : Axes
    axis : str
        "x" or "y".
    """
    ax.grid(visible=False, axis="y" if axis == "x" else "x")
    ax.tick_params(axis="y" if axis == "x" else "x", length=0)


def legend_above(ax: Axes, columns: int = 4) -> None:
    """The legend over the top left corner, clear of what is drawn.

    Parameters
    ----------
    ax : Axes
    columns : int
        Entries beside each other.
    """
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=2.2)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")
