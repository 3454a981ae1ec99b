"""Hypothesis tests of a circuit, on scores that were measured before: statistics and p-values."""

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

Scores = Float[np.ndarray, " prompt"]


def sign_test(circuit: Scores, model: Scores, *, tie: float = 0.0) -> tuple[float, float]:
    """The share of prompts on which a circuit scores above the model, ties half, and its two-sided p against one half.

    A small p says that circuit and model are not equivalent. SciPy's exact binomial test; prompts whose difference is
    at most ``tie`` are left out.
    """
    above, below = int((circuit - model > tie).sum()), int((model - circuit > tie).sum())
    share = (above + 0.5 * (len(model) - above - below)) / len(model)
    return share, float(binomtest(above, above + below).pvalue) if above + below else 1.0


def independence_test(first: Scores, second: Scores, *, draws: int, seed: int) -> tuple[float, float]:
    """The dependence of two scores (HSIC, Gaussian kernels of median width), and its p-value by permutation.

    A small p says that they are not independent: the complement of the circuit still carries the behaviour.

    Source: Gretton et al. 2007; Shi et al. 2024 (arXiv 2410.13032), section 3.
    """
    kernels = [_centred(_kernel(values)) for values in (first, second)]
    hsic = float((kernels[0] * kernels[1]).sum()) / len(first) ** 2
    generator = np.random.default_rng(seed)
    permuted = []
    for _ in range(draws):
        order = generator.permutation(len(first))
        permuted.append(float((kernels[0] * kernels[1][np.ix_(order, order)]).sum()) / len(first) ** 2)
    return hsic, exceedance(hsic, np.array(permuted))


def exceedance(value: float, draws: Float[np.ndarray, " draw"]) -> float:
    """The share of draws at least as large as a value, which counts as a draw itself: a p-value that is never 0."""
    return float((1 + (draws >= value - 1e-12).sum()) / (1 + len(draws)))


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """P-values of many tests, corrected so that they bound the probability of any false positive (Holm 1979)."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    raised = np.maximum.accumulate(np.minimum(1.0, p_values[order] * factors))
    corrected = np.empty_like(raised)
    corrected[order] = raised
    return corrected


def _kernel(values: Scores) -> Float[np.ndarray, "prompt prompt"]:
    distance = np.abs(values[:, None] - values[None])
    width = np.median(distance[distance > 0]) if (distance > 0).any() else 1.0
    return np.exp(-((distance / width) ** 2) / 2)


def _centred(kernel: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
