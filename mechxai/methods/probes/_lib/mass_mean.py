"""Difference-of-means probes: the direction from one class's mean to another's, in activation units."""

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.methods.probes._lib.likelihood import Likelihood
from mechxai.methods.probes._lib.logistic import LogisticProblems

_ABSENT = -1e4  # output of a class without training rows
_TEMPERATURES = torch.logspace(-3, 2, 41)


def mass_mean(
    problems: LogisticProblems, scale: Float[Tensor, "set d"]
) -> Float[Tensor, "set one feature target column"]:
    """Nearest class mean as a linear probe, with outputs scaled by the temperature that best fits the training labels.

    For two classes, the output is ``x . (m1 - m0)``, zero half way between the means.

    Args:
        problems: the regressions; penalties are not used.
        scale: the standard deviations that the rows were divided by; means are compared in activation units.

    Source: Marks and Tegmark 2023 (arXiv 2310.06824), section 5; the temperature is added here, for calibrated outputs.
    """
    likelihood = problems.likelihood
    dense, weights = problems.dense, problems.weights[..., None]
    if likelihood.n_classes == 2:
        dense = torch.cat([1 - dense, dense], -1)
    counted = dense * weights
    sums = torch.einsum("bne,bntk->betk", problems.rows, counted)
    means = sums / counted.sum(1)[:, None].clamp_min(1e-12)  # [set, feature, target, class]
    units = torch.cat([scale.square(), scale.new_zeros(len(scale), 1)], 1)[:, :, None, None]
    W = means * units
    W[:, -1] = -(means.square() * units).sum(1) / 2
    if likelihood.n_classes == 2:
        W = W[..., 1:] - W[..., :1]
        return _tempered(W[:, None].contiguous(), problems, likelihood)
    absent = (counted.sum(1) == 0)[:, None]  # [set, 1, target, class]: classes without training rows
    W = torch.where(absent, W.mean(-1, keepdim=True), W)
    W = _tempered(W[:, None].contiguous(), problems, likelihood)
    W[:, :, -1] = torch.where(absent, _ABSENT, W[:, :, -1])
    return W


def _tempered(W: Tensor, problems: LogisticProblems, likelihood: Likelihood) -> Tensor:
    outputs = problems.outputs(W)  # [set, row, 1, target, column]
    weights, dense = problems.weights[:, :, None], problems.dense[:, :, None]
    spread = (weights[..., None] * outputs.square()).sum(1, keepdim=True).mean((2, 3, 4), keepdim=True)
    spread = spread.sqrt().clamp_min(1e-12)
    candidates = _TEMPERATURES.to(W)
    losses = torch.stack(
        [(weights * likelihood.loss(outputs / spread * factor, dense)).sum(1) for factor in candidates]
    )
    return W * candidates[losses.argmin(0)][:, :, None, :, None] / spread
