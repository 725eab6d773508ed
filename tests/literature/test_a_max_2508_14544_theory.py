"""arXiv 2508.14544 (Chen, Ye, Zhou), the theory: stated bounds of A_max's ratio."""

import pytest

from stability.theory.competitive import a_max_ratio


def test_a_max_is_one_at_exact_predictions_and_polynomial_below() -> None:
    assert a_max_ratio(1.0) == (1.0, 1.0)
    low, high = a_max_ratio(0.01)
    assert low == pytest.approx(0.01**-1.5 / 2, rel=0.11)
    assert high == pytest.approx(0.01**-2 / 2, rel=0.011)
