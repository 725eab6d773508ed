"""arXiv 2502.07115 (Jaillet and others), the theory: the constants of MC-SF's proof."""

import pytest

from stability.theory.competitive import MC_SF_RATIO, mc_sf_bounds


def test_ratio_of_the_constants() -> None:
    """1536/(1/6) = 9216, the larger of the two terms' ratios (24/(1/6) = 144)."""
    bounds = mc_sf_bounds([5] * 2000, [10] * 2000, 60)
    assert bounds.applies
    assert 144 < bounds.most / bounds.least < MC_SF_RATIO
    assert bounds.most / bounds.least == pytest.approx(MC_SF_RATIO, rel=0.01)
