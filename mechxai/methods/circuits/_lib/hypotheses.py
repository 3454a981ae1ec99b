"""What a circuit should be, as hypotheses with p-values: statistics on scores that were measured already."""

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

Scores = Float[np.ndarray, " prompt"]


def sign_test(circuit: Scores, model: Scores, *, tie: float = 0.0) -> tuple[float, float]:
    """The share of prompts on which a circuit scores above the model, ties half; p of a share of one half, two-sided.

    A small p says that they are not equivalent. SciPy's exact binomial test; prompts whose difference is not larger
    than ``tie`` are left out.
    """
    above, below = int((circuit - model > tie).sum()), int((model - circuit > tie).sum())
    share = (above + 0.5 * (len(model) - above - below)) / len(model)
    return share, float(binomtest(above, above + below).pvalue) if above + below else 1.0


def independence_test(one: Scores, other: Scores, *, draws: int, seed: int) -> tuple[float, float]:
    """How much two scores depend on each other (HSIC, Gaussian kernels of median width), and p by permutation.

    A small p says that they are not independent: what was left out still carries the behaviour.

    Source: Gretton et al. 2007; Shi et al. 2024 (arXiv 2410.13032), section 3.
    """
    centred = [_centred(_kernel(values)) for values in (one, other)]
    known = float((centred[0] * centred[1]).sum()) / len(one) ** 2
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        order = generator.permutation(len(one))
        drawn.append(float((centred[0] * centred[1][np.ix_(order, order)]).sum()) / len(one) ** 2)
    return known, exceeding(known, np.array(drawn))


def exceeding(known: float, drawn: Float[np.ndarray, " draw"]) -> float:
    """The share of draws at least as large, the known value counted among them: a p-value that is never 0."""
    return float((1 + (drawn >= known - 1e-12).sum()) / (1 + len(drawn)))


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """P-values of many tests, raised so that one false alarm among them is as rare as each says (Holm 1979)."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    raised = np.maximum.accumulate(np.minimum(1.0, p_values[order] * factors))
    found = np.empty_like(raised)
    found[order] = raised
    return found


def _kernel(values: Scores) -> Float[np.ndarray, "prompt prompt"]:
    apart = np.abs(values[:, None] - values[None])
    width = np.median(apart[apart > 0]) if (apart > 0).any() else 1.0
    return np.exp(-((apart / width) ** 2) / 2)


def _centred(kernel: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
