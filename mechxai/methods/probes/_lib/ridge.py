"""Ridge probes in closed form: one factorisation for all label vectors of a row set."""

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.methods.probes._lib.logistic import LogisticProblems


def ridge(
    problems: LogisticProblems, lower: Float[Tensor, "set feature feature"]
) -> Float[Tensor, "set penalty feature target column"]:
    """The minimum of half the mean squared error plus ``penalty / 2 |W|^2`` of every problem.

    Two classes are regressed as -1 and 1, more as 0 and 1 per column. In float64, since nothing mends a rounded
    solution.

    Args:
        problems: what to fit; weights are the same for all targets.
        lower: covariance of the rows, lower triangle.
    """
    dense = problems.likelihood.regressed(problems.dense) * problems.weights[..., None]
    moments = torch.einsum("bne,bntk->betk", problems.rows.double(), dense.double())
    shifted = lower.double()[:, None].repeat(1, problems.penalties.shape[1], 1, 1)
    strengths = problems.penalty()[..., 0, 0].double()  # the same for all targets
    shifted.diagonal(dim1=-2, dim2=-1).add_(strengths.clamp_min(1e-9))
    factor = torch.linalg.cholesky(shifted)
    flat = moments.flatten(2)[:, None].expand(-1, problems.penalties.shape[1], -1, -1)
    found = torch.cholesky_solve(flat, factor)
    return found.view(*found.shape[:3], *moments.shape[2:]).to(problems.rows.dtype)
