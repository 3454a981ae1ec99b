"""Confidence intervals over prompts, for all cells of an array at once."""

import functools
import warnings
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

N_DRAWS = 1000
_Z = NormalDist().inv_cdf(0.975)  # of a 95 % interval


@dataclass(frozen=True)
class Interval:
    """A 95 % percentile bootstrap interval; ``low`` and ``high`` have the shape of the estimate."""

    low: np.ndarray
    high: np.ndarray


@functools.lru_cache(maxsize=4)  # drawing takes longer than most uses
def bootstrap_weights(n_prompts: int, seed: int = 0, n_draws: int = N_DRAWS) -> np.ndarray:
    """Bootstrap weights: the share of each prompt in each resample, ``[draw, prompt]``; rows sum to 1."""
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=n_draws) / n_prompts
    weights.flags.writeable = False
    return weights


def known_mean(per_example: np.ndarray) -> np.ndarray:
    """The mean over the leading axis (prompts), ignoring NaN; NaN where every prompt is NaN."""
    present = ~np.isnan(per_example)
    total = np.where(present, per_example, 0.0).sum(0)
    return np.where(present.any(0), total / np.maximum(present.sum(0), 1), np.nan)


def mean_interval(per_example: np.ndarray, seed: int = 0) -> Interval:
    """Bootstrap interval of the mean over the leading axis (prompts), ignoring NaN; a single prompt has width 0."""
    if len(per_example) == 1:
        return Interval(np.asarray(per_example[0]), np.asarray(per_example[0]))
    weights = bootstrap_weights(len(per_example), seed)
    present = ~np.isnan(per_example)
    if present.all():
        return _percentiles(np.tensordot(weights, per_example, axes=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = np.tensordot(weights, np.where(present, per_example, 0.0), axes=1)
        return _percentiles(sums / np.tensordot(weights, present.astype(float), axes=1))


def share_interval(per_example: np.ndarray) -> Interval:
    """Wilson 95 % interval of a proportion, from 0s and 1s over the leading axis (prompts), ignoring NaN.

    Unlike a bootstrap interval it has a width where all prompts agree.
    """
    counts = (~np.isnan(per_example)).sum(0)
    hits = np.nansum(per_example, 0).round()
    n = np.where(counts, counts, np.nan)
    share, spread = hits / n, _Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    low, high = np.where(hits == 0, 0.0, middle - half), np.where(hits == counts, 1.0, middle + half)
    unknown = counts == 0
    return Interval(np.where(unknown, np.nan, low), np.where(unknown, np.nan, high))


def ratio_interval(numerator: np.ndarray, denominator: np.ndarray, seed: int = 0) -> Interval:
    """Bootstrap interval of ``mean(numerator) / mean(denominator)``, with numerator and denominator resampled together.

    Given sums and counts per prompt, it is the interval of the mean over tokens, with whole prompts resampled.

    Args:
        numerator: ``[prompt, ...]``.
        denominator: ``[prompt]``.
        seed: of the resampling.
    """
    if len(numerator) == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = numerator[0] / denominator[0]
        finite = np.where(np.isinf(ratio), np.nan, ratio)
        return Interval(finite, finite)
    weights = bootstrap_weights(len(numerator), seed)
    above = np.tensordot(weights, numerator, axes=1)
    below = (weights @ denominator).reshape(-1, *(1,) * (numerator.ndim - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return _percentiles(above / below)


def _percentiles(draws: np.ndarray) -> Interval:
    with warnings.catch_warnings():  # where every draw is NaN, so is the interval
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        all_finite = np.isfinite(draws).all()  # np.percentile is much faster than np.nanpercentile
        low, high = (np.percentile if all_finite else np.nanpercentile)(draws, [2.5, 97.5], axis=0)
    return Interval(np.asarray(low), np.asarray(high))
