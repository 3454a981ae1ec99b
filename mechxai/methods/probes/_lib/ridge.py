"""Ridge probes in closed form, with one factorisation for all label vectors of a row set."""

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.methods.probes._lib.logistic import LogisticProblems


def ridge(
    problems: LogisticProblems, lower: Float[Tensor, "set feature feature"]
) -> Float[Tensor, "set penalty feature target column"]:
    """The minimum of half the mean squared error plus ``penalty / 2 |W|^2`` of every problem.

    Two classes are regressed as -1 and 1, more classes as 0 and 1 per column. The solution is computed in float64,
    because no later step corrects rounding.

    Args:
        problems: the regressions; row weights are the same for all targets.
        lower: lower triangle of the covariance of the rows.
    """
    dense = problems.likelihood.regressed(problems.dense) * problems.weights[..., None]
    moments = torch.einsum("bne,bntk->betk", problems.rows.double(), dense.double())
    shifted = lower.double()[:, None].repeat(1, problems.penalties.shape[1], 1, 1)
    strengths = problems.penalty()[..., 0, 0].double()  # the same for all targets
    shifted.diagonal(dim1=-2, dim2=-1).add_(strengths.clamp_min(1e-9))
    factor = torch.linalg.cholesky(shifted)
    flat = moments.flatten(2)[:, None].expand(-1, problems.penalties.shape[1], -1, -1)
    W = torch.cholesky_solve(flat, factor)
    return W.view(*W.shape[:3], *moments.shape[2:]).to(problems.rows.dtype)
