"""arXiv 2606.22327 (Kong, Qi, Ye, Zhou), the theory: stated ratios of SVF, against Sorted-F's (2508.06133)."""

import pytest

from stability.theory.competitive import SORTED_F_RATIO, svf_ratio, volume_lower_bound


def test_ratios() -> None:
    """3 as alpha -> 0, 5 at alpha = 1/2: the headline against Sorted-F's 48."""
    assert svf_ratio(0.0) == 3
    assert svf_ratio(0.5) == 5
    assert SORTED_F_RATIO == 48


def test_volume_bound_by_hand() -> None:
    """Volumes s o + o (o+1)/2 = 1 + 1, 4 + 10, ascending: (2 + (2 + 14))/M, M = 3."""
    assert volume_lower_bound([1, 1], [4, 1], 3) == pytest.approx(18 / 3)
