"""Bootstrap intervals against a plain loop, and their coverage."""

import warnings

import numpy as np
from scipy.stats import binomtest

from mechxai.core.statistics import N_DRAWS, bootstrap_weights, mean_interval, ratio_interval, share_interval


def test_weights_are_resamples():
    weights = bootstrap_weights(7, seed=3)
    assert weights.shape == (N_DRAWS, 7)
    np.testing.assert_allclose(weights.sum(1), 1.0)
    counts = weights * 7
    np.testing.assert_allclose(counts, counts.round(), atol=1e-12)
    np.testing.assert_allclose(counts.mean(0), 1.0, atol=0.15)
    np.testing.assert_allclose(counts.var(0), 1 - 1 / 7, atol=0.2)  # multinomial


def test_mean_interval_equals_a_plain_loop():
    values = np.random.default_rng(1).normal(size=(9, 2, 3))
    means = np.empty((N_DRAWS, 2, 3))
    for draw, weights in enumerate(bootstrap_weights(9, seed=5)):
        picked = np.repeat(np.arange(9), (weights * 9).round().astype(int))
        assert len(picked) == 9
        means[draw] = values[picked].mean(0)
    found = mean_interval(values, seed=5)
    np.testing.assert_allclose(found.low, np.percentile(means, 2.5, axis=0))
    np.testing.assert_allclose(found.high, np.percentile(means, 97.5, axis=0))


def test_mean_interval_ignores_nan():
    values = np.random.default_rng(1).normal(size=(9, 3))
    values[[2, 5], 1] = np.nan
    values[:, 2] = np.nan
    means = np.empty((N_DRAWS, 3))
    for draw, weights in enumerate(bootstrap_weights(9, seed=5)):
        picked = np.repeat(np.arange(9), (weights * 9).round().astype(int))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            means[draw] = np.nanmean(values[picked], 0)
    found = mean_interval(values, seed=5)
    np.testing.assert_allclose(found.low[:2], np.nanpercentile(means[:, :2], 2.5, axis=0))
    np.testing.assert_allclose(found.high[:2], np.nanpercentile(means[:, :2], 97.5, axis=0))
    assert np.isnan(found.low[2])


def test_ratio_interval_equals_a_plain_loop_and_resamples_together():
    rng = np.random.default_rng(2)
    below = rng.uniform(1, 3, size=8)
    above = below[:, None] * np.array([0.5, 2.0]) + rng.normal(size=(8, 2)) * 0.01
    ratios = np.empty((N_DRAWS, 2))
    for draw, weights in enumerate(bootstrap_weights(8, seed=1)):
        picked = np.repeat(np.arange(8), (weights * 8).round().astype(int))
        ratios[draw] = above[picked].mean(0) / below[picked].mean()
    found = ratio_interval(above, below, seed=1)
    np.testing.assert_allclose(found.low, np.percentile(ratios, 2.5, axis=0))
    np.testing.assert_allclose(found.high, np.percentile(ratios, 97.5, axis=0))
    assert (found.high - found.low < 0.05).all(), "prompts are resampled together, so their common size cancels"


def test_determinism():
    values = np.random.default_rng(0).normal(size=(6, 4))
    for function in (mean_interval, lambda rows, seed=0: ratio_interval(rows, np.ones(6), seed)):
        first, second, other = function(values), function(values), function(values, seed=1)
        np.testing.assert_array_equal(first.low, second.low)
        np.testing.assert_array_equal(first.high, second.high)
        assert (first.low != other.low).any()


def test_no_spread_gives_a_point():
    found = mean_interval(np.full((5, 2), 3.0))
    np.testing.assert_allclose(found.low, 3.0)
    np.testing.assert_allclose(found.high, 3.0)
    alone = mean_interval(np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(alone.low, [1.0, 2.0])


def test_ratio_with_an_empty_denominator_is_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ratio_interval(np.zeros((4, 2)), np.zeros(4))
    assert np.isnan(found.low).all()


def test_coverage_on_a_normal_sample():
    # 400 experiments of 40 prompts with mean 1: about 95 % of the intervals hold it (percentile bootstrap: a bit fewer)
    sample = np.random.default_rng(0).normal(1.0, 2.0, size=(40, 400))
    found = mean_interval(sample)
    covered = ((found.low < 1.0) & (found.high > 1.0)).mean()
    assert 0.9 < covered < 0.98
    np.testing.assert_allclose((found.high - found.low).mean(), 2 * 1.96 * 2.0 / np.sqrt(40), rtol=0.06)


def test_share_interval_is_wilson_s():
    for n in (1, 3, 64):
        for hits in range(n + 1):
            column = np.array([1.0] * hits + [0.0] * (n - hits))
            found = share_interval(np.stack([column, np.full(n, np.nan)], axis=1))
            expected = binomtest(hits, n).proportion_ci(method="wilson")
            np.testing.assert_allclose([found.low[0], found.high[0]], [expected.low, expected.high], atol=1e-14)
            assert np.isnan([found.low[1], found.high[1]]).all()
