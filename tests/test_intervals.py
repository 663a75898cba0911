import numpy as np
import pytest
from scipy import stats

from prockd.evaluation.intervals import block_interval, paired_interval


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


def test_copies_of_a_frame_do_not_narrow_the_interval_of_blocks():
    rng = np.random.default_rng(0)
    once = rng.normal(0.1, 1, (1, 12))
    copied, blocks = np.repeat(once, 50, axis=1), np.repeat(np.arange(12), 50)
    assert block_interval(copied, blocks) == pytest.approx(block_interval(once, np.arange(12)))
    mean, low, high = block_interval(copied, blocks)
    assert mean == pytest.approx(once.mean())
    assert high - low == pytest.approx(2 * 1.96 * once.std() / np.sqrt(12), rel=0.1)


def test_seeds_that_differ_widen_the_interval_of_blocks():
    steady, blocks = np.full((10, 30), 0.2), np.arange(30)
    assert block_interval(steady, blocks) == pytest.approx((0.2, 0.2, 0.2))
    _, low, high = block_interval(steady + np.linspace(-0.5, 0.5, 10)[:, None], blocks)
    assert low < 0.2 - 0.1 < 0.2 + 0.1 < high


def test_rare_classes_count_as_much_as_common_ones():
    classes = np.array([0] * 18 + [1, 1])
    mean, low, high = block_interval(np.array([[1.0] * 18 + [0.0] * 2]), np.arange(20), classes)
    assert mean == 0.5
    assert low == 0.5 < high == 1, "where a draw does not meet the rare class, the other one is left"


def test_one_block_makes_no_interval():
    with pytest.raises(ValueError, match="at least 2 blocks of frames, not 1"):
        block_interval(np.ones((3, 4)), np.zeros(4, int))
