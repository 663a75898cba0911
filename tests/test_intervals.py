import numpy as np
import pytest
from scipy import stats

from prockd.evaluation.intervals import paired_interval


def test_a_paired_interval_is_that_of_scipy():
    differences = [0.31, 0.28, 0.35, 0.22, 0.30]
    mean, low, high = paired_interval(differences)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(differences))
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_equal_differences_have_an_interval_of_no_width():
    assert paired_interval(np.full(4, 0.25)) == pytest.approx((0.25, 0.25, 0.25))


def test_an_interval_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    intervals = [paired_interval(rng.normal(1, 2, 5)) for _ in range(1000)]
    assert 0.93 < np.mean([low < 1 < high for _, low, high in intervals]) < 0.97


@pytest.mark.parametrize("differences", [[], [0.3]])
def test_one_difference_makes_no_interval(differences):
    with pytest.raises(ValueError, match="at least 2"):
        paired_interval(differences)
