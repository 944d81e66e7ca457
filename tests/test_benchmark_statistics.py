"""Statistics over seeds, against closed forms and SciPy."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from benchmarks.acceptance import Acceptance
from benchmarks.statistics import RESAMPLES, bootstrap, inform_returns, interquartile_mean, summarise


def test_mean_std_and_interquartile_mean_in_closed_form():
    """Of 0, 1, ..., 11 the middle half is 3 to 8; the sample variance of 0..N-1 is N(N+1)/12. An outlier moves the mean only."""
    values = np.arange(12.0)
    summary = summarise(values.tolist())
    assert summary.mean == summary.interquartile_mean == 5.5
    assert summary.std == pytest.approx(math.sqrt(13))
    wild = values.copy()
    wild[-1] = 1e6
    assert summarise(wild.tolist()).interquartile_mean == 5.5
    assert summarise(wild.tolist()).mean > 1e4


def test_interval_of_the_mean_is_the_normal_one_for_many_seeds():
    values = np.random.default_rng(0).normal(3.0, 2.0, 2_000)
    half = 1.959964 * values.std() / math.sqrt(len(values))
    low, high = summarise(values.tolist()).mean_interval
    # A quantile estimated from R resamples has standard error √(q(1-q)/R) / density: here 0.027 of the mean's standard error.
    tolerance = 4 * 0.027 * half / 1.96
    assert low == pytest.approx(values.mean() - half, abs=tolerance)
    assert high == pytest.approx(values.mean() + half, abs=tolerance)


@pytest.mark.parametrize("statistic", [np.mean, interquartile_mean])
def test_intervals_agree_with_scipys(statistic):
    values = np.random.default_rng(1).gumbel(size=10)
    wanted = scipy_bootstrap((values,), statistic, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(2))
    interval = wanted.confidence_interval
    # Two independent estimates of a quantile, each as above; 4 standard errors of their difference.
    tolerance = 4 * math.sqrt(2) * 0.027 * wanted.standard_error
    assert bootstrap(values, statistic) == pytest.approx((interval.low, interval.high), abs=tolerance)


def test_intervals_shift_and_scale_with_the_values():
    values = np.random.default_rng(3).exponential(size=9)
    low, high = summarise(values.tolist()).interquartile_interval
    assert summarise((10 - 2 * values).tolist()).interquartile_interval == pytest.approx((10 - 2 * high, 10 - 2 * low), rel=0.05)


def test_one_seed_has_no_spread():
    summary = summarise([4.0])
    assert summary.mean == summary.interquartile_mean == 4.0
    assert math.isnan(summary.std)
    assert all(math.isnan(end) for end in (*summary.mean_interval, *summary.interquartile_interval))


def test_printed_as_information(capsys):
    acceptance = Acceptance("example")
    inform_returns(acceptance, "return", [1.0, 2.0, 3.0, 4.0, 5.0], "elsewhere 2.6")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "return | 3 ± 1.6 (std of 5) | elsewhere 2.6 | info"
    assert lines[2].startswith("return, interquartile mean | 3 | 95 % interval ")
    inform_returns(acceptance, "twice", [1.0, 1.0])
    assert capsys.readouterr().out == "twice | 1 ± 0 (std of 2) | - | info\n"
