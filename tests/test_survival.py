"""Scores with censored responses, by hand and against what is known without censoring."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sklearn_probmix.survival import concordance_index, survival_brier_score

NONE = np.zeros(4, dtype=bool)


def lives(n, seed=0):
    """Lifetimes of two groups, the distributions that they have, and when each is censored."""
    rng = np.random.default_rng(seed)
    scale = np.where(np.arange(n) % 2, 1.0, 3.0)
    return rng.exponential(scale), stats.expon(scale=scale), rng.exponential(3.0, n)


def test_concordance_of_all_pairs_is_kendalls():
    y, median = [4.0, 2.0, 1.0, 3.0], [2.0, 4.0, 1.0, 3.0]
    tau = stats.kendalltau(y, median).statistic
    found = concordance_index(y, stats.norm(median, 1), censored=NONE)
    assert_allclose(found, (1 + tau) / 2)


def test_a_censored_row_is_compared_with_earlier_ones_only():
    # Of the pairs (1, 2), (1, 3) and (2, 3) the last is not known, and the second is in disorder.
    censored = np.array([False, True, False])
    assert concordance_index([1, 2, 3], stats.norm([2, 3, 1], 1), censored=censored) == 0.5
    # At the same time the censored one lives longer; equal medians are half right.
    assert concordance_index([1, 1], stats.norm([2, 2], 1), censored=[True, False]) == 0.5


def test_brier_score_by_hand():
    # G falls to 2/3 at 2, where three are left. At t = 2.5: 1 is weighed by 1, 3 and 4 by 3/2.
    censored = np.array([False, True, False, False])
    dist = stats.norm([2.5, 0.0, 2.5, 2.5], 1)
    found = survival_brier_score([1, 2, 3, 4], dist, 2.5, censored=censored)
    assert_allclose(found, (0.25 + 2 * 0.25 * 3 / 2) / 4)


def test_brier_score_estimates_the_one_without_censoring():
    y, dist, end = lives(40_000)
    is_later = y > 1.5
    each = (dist.sf(1.5) - is_later) ** 2
    found = survival_brier_score(np.minimum(y, end), dist, 1.5, censored=end < y)
    # Weights are below 1 / G(1.5) = 1.65.
    assert_allclose(found, each.mean(), atol=4 * 1.65 * each.std() / np.sqrt(len(y)))
    naive = each[(end >= y) | (end > 1.5)].mean()
    assert abs(naive - each.mean()) > 2 * abs(found - each.mean())


def test_the_truth_is_ranked_best():
    y, dist, end = lives(500)
    rows = np.minimum(y, end), end < y
    wrong = stats.expon(scale=np.full(len(y), 2.0))
    assert concordance_index(rows[0], dist, censored=rows[1]) > 0.6
    assert concordance_index(rows[0], wrong, censored=rows[1]) == 0.5
    true, other = (
        survival_brier_score(rows[0], each, 1.0, censored=rows[1]) for each in (dist, wrong)
    )
    assert true < other


def test_errors_name_what_was_found():
    y, dist = [1.0, 2.0], stats.norm([1, 2], 1)
    for score in (
        concordance_index,
        lambda *args, **given: survival_brier_score(*args, 1, **given),
    ):
        with pytest.raises(ValueError, match=r"censored has dtype int64 .* expected booleans"):
            score(y, dist, censored=[0, 1])
    with pytest.raises(ValueError, match="no two rows can be compared"):
        concordance_index(y, dist, censored=[True, True])
    with pytest.raises(ValueError, match=r"time=2; expected less than the largest response, 2"):
        survival_brier_score(y, dist, 2, censored=[False, False])
