"""Step-time laws as formulas, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float) -> str:
    r"""A number in LaTeX, as 1.2 \cdot 10^{-5} where that is shorter.

    Parameters
    ----------
    value : float
    """
    text = f"{value:.4g}"
    mantissa, e, exponent = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e else text


def linear(terms: Sequence[tuple[float, str]]) -> str:
    """The sum of coefficients times symbols in LaTeX, zero terms left out.

    Parameters
    ----------
    terms : sequence of (float, str)
        Coefficient and symbol; no symbol for the constant.
    """
    shown = [rf"{number(c)}\,{symbol}" if symbol else number(c) for c, symbol in terms if c]
    return " + ".join(shown) or "0"


def formula(*summands: str) -> str:
    """The sum as the iteration time, between dollar signs.

    Parameters
    ----------
    *summands : str
        LaTeX; "0" and empty ones are left out.
    """
    found = [text for text in summands if text not in ("", "0")]
    return rf"$\displaystyle \tau = {' + '.join(found) or '0'}\ \mathrm{{s}}$"
