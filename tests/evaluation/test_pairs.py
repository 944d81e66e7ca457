"""Intervals of paired differences cover what they say, at few and at many pairs."""

import math

import numpy as np
import pytest
import scipy.stats

from bayesdyn.errors import DataError
from bayesdyn.evaluation.pairs import paired_interval


def test_few_pairs_get_the_interval_of_scipy():
    values = np.random.default_rng(0).normal(1.0, 2.0, 7)
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval()
    found = paired_interval(values.tolist())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.pairs) == (pytest.approx(values.mean()), 7)


@pytest.mark.parametrize(("pairs", "coverage"), [(5, 0.95), (20, 0.92)])
def test_intervals_cover_as_often_as_is_known_of_them(pairs, coverage):
    """Normal differences of mean 0: Student's t covers 95 %, the bootstrap of 20 pairs 92 %; binomial error of 400 repetitions."""
    draws = np.random.default_rng(1).normal(size=(400, pairs))
    share = np.mean([paired_interval(row.tolist()).tied for row in draws])
    # The second figure is known to a percent.
    assert share == pytest.approx(coverage, abs=4 * math.sqrt(coverage * (1 - coverage) / 400) + 0.01 * (pairs == 20))


def test_one_pair_says_nothing_and_none_is_refused():
    assert paired_interval([3.0]) == (3.0, -math.inf, math.inf, 1)
    for values in ([], [1.0, math.nan]):
        with pytest.raises(DataError, match="finite differences"):
            paired_interval(values)
